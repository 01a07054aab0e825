"""States saved together with how far they go: a cache, and never more than that.

One file holds one projection's states and its bookmark, so both are there or neither is. It is
written beside its final name, synced, renamed, and the directory synced; the two newest are kept.
A file counts if its SHA-256 holds, name and types fit, and the log recognizes the bookmark; else
the older one is asked, and then the log. Nothing fails because a file is missing, old, foreign,
hostile or cannot be written.

The layout, all of it MessagePack behind lengths of four bytes: a header, then the states in parts
of 1,000 (so that no single call keeps other threads waiting for long), then 32 bytes of SHA-256
over everything before.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import logging
import os
import re
import secrets
import stat
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Final

import msgspec

from eventstore import Bookmark
from projections._projection import Loaded

__all__ = ["Saved", "Snapshots"]

_PART: Final = 1_000
_KEPT: Final = 2
_BYTES_MAX: Final = 2**30  # of a file; read as a whole
_LENGTH_BYTES: Final = 4
_DIGEST_BYTES: Final = 32
_FORMAT: Final = "loopledger snapshot 1"
_OPEN_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_logger: Final = logging.getLogger("projections")


class Saved(msgspec.Struct, frozen=True):
    """What one file holds.

    Attributes:
        revision: of the projection that made it.
        bookmark: how far the states go.
        states: by key.
    """

    revision: int
    bookmark: Bookmark
    states: Mapping[str, Loaded[Any]]


class _Header(msgspec.Struct, frozen=True):
    format: str
    name: str
    revision: int
    position: int
    proof: str
    keys: int


class _RefusedError(Exception):
    """The file or the state is not what it should be; the message says how."""


class Snapshots:
    """The saved states in one directory. All calls block.

    Args:
        directory: made (0700) when something is saved.

    Raises:
        ValueError: no directory can be called that.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory: str = os.path.abspath(_checked(directory))  # noqa: PTH100 - no symlink is resolved

    def load(self, name: str, state_type: Any) -> Iterator[Saved]:
        """What was saved under a name and can be read, the newest first."""
        for file in reversed(self._files(_stem(name))):
            path = self._path(file)
            try:
                yield _decode(name, _read(path), state_type)
            except OSError as error:
                _logger.warning("%s: not read: %s", path, error.strerror)
            except Exception as error:  # noqa: BLE001 - whatever is in it, the log has it too
                _logger.warning("%s: not used: %r", path, error)

    def save(self, name: str, state_type: Any, saved: Saved) -> bool:
        """Save states in place of what was saved before, or leave that as it is.

        Returns:
            Whether they are on the disk now. If not, a warning says why.
        """
        path = self._path(_stem(name))
        try:
            self._save(name, state_type, saved)
        except OSError as error:
            _logger.warning("%s: not saved: %s", path, error.strerror or error)
        except Exception as error:  # noqa: BLE001 - a state may be anything; it stays in the log
            _logger.warning("%s: not saved: %r", path, error)
        else:
            return True
        return False

    def remove(self, name: str) -> None:
        """Remove what was saved under a name."""
        with contextlib.suppress(OSError):
            for file in self._files(_stem(name)):
                os.unlink(self._path(file))  # noqa: PTH108

    def _save(self, name: str, state_type: Any, saved: Saved) -> None:
        stem = _stem(name)
        os.makedirs(self._directory, mode=0o700, exist_ok=True)  # noqa: PTH103
        self._remove_abandoned(stem)
        older = self._files(stem)
        number = 1 + max((_number(file) for file in older), default=0)
        temporary = self._path(f"{stem}.{secrets.token_hex(8)}.tmp")
        flags = _OPEN_FLAGS | os.O_WRONLY | os.O_CREAT | os.O_EXCL
        handle = os.open(temporary, flags, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # as long as it is held, nobody calls it abandoned
            try:
                _write(handle, _encode(name, state_type, saved))
                os.fsync(handle)
                os.rename(temporary, self._path(f"{stem}.{number:012}.snapshot"))  # noqa: PTH104
            except BaseException:  # raised again: nothing half written stays, whatever ends it
                with contextlib.suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108
                raise
        finally:
            os.close(handle)
        self._sync_directory()
        for file in older[: 1 - _KEPT]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(file))  # noqa: PTH108

    def _remove_abandoned(self, stem: str) -> None:
        """Remove what a process left behind that died while it was saving."""
        for file in os.listdir(self._directory):  # noqa: PTH208
            if not (file.startswith(f"{stem}.") and file.endswith(".tmp")):
                continue
            with contextlib.suppress(OSError), _opened(self._path(file)) as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(self._path(file))  # noqa: PTH108

    def _files(self, stem: str) -> list[str]:
        """The files of one projection, the oldest first."""
        try:
            found = os.listdir(self._directory)  # noqa: PTH208
        except OSError:
            return []
        pattern = re.compile(re.escape(stem) + r"\.[0-9]{12}\.snapshot", re.ASCII)
        return sorted(file for file in found if pattern.fullmatch(file))

    def _path(self, file: str) -> str:
        return os.path.join(self._directory, file)  # noqa: PTH118

    def _sync_directory(self) -> None:
        handle = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _checked(directory: str | os.PathLike[str]) -> str:
    """Refuse what every call of the system would refuse, before anything is begun."""
    path = os.fspath(directory)
    try:
        if b"\0" not in os.fsencode(path):
            return path
    except UnicodeEncodeError:
        pass
    message = f"snapshots={path!r:.200} is no path: it has a NUL or half of a character in it"
    raise ValueError(message)


def _stem(name: str) -> str:
    """A file name for any name of a projection: readable, and never two alike."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:40]
    return f"{readable}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _number(file: str) -> int:
    return int(file.split(".")[-2])


# --- to bytes ---


def _encode(name: str, state_type: Any, saved: Saved) -> Iterator[bytes]:
    """The file's content, piece by piece.

    Raises:
        _RefusedError: a state does not read back equal.
    """
    bookmark = saved.bookmark
    header = _Header(
        _FORMAT, name, saved.revision, bookmark.position, bookmark.proof, len(saved.states)
    )
    encode = msgspec.msgpack.Encoder().encode
    decode = _part_decoder(state_type).decode
    yield _framed(encode(header))
    rows = ((key, one.version, one.position, one.state) for key, one in saved.states.items())
    while part := list(itertools.islice(rows, _PART)):
        encoded = encode(part)
        if decode(encoded) != part:
            raise _RefusedError(
                f"a state of {name!r:.80} does not read back equal as {state_type!r:.200}: "
                "give Projection(state_type=…)"
            )
        yield _framed(encoded)


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def _write(handle: int, pieces: Iterator[bytes]) -> None:
    digest = hashlib.sha256()
    size = _DIGEST_BYTES
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        if size > _BYTES_MAX:
            raise _RefusedError(f"it has more than {_BYTES_MAX} bytes")
        _write_all(handle, piece)
    _write_all(handle, digest.digest())


def _write_all(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


# --- from bytes ---


def _part_decoder(state_type: Any) -> msgspec.msgpack.Decoder[list[tuple[str, int, int, Any]]]:
    return msgspec.msgpack.Decoder(list[tuple[str, int, int, state_type]])


@contextlib.contextmanager
def _opened(path: str) -> Generator[int]:
    handle = os.open(path, _OPEN_FLAGS | os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _read(path: str) -> bytes:
    with _opened(path) as handle:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _BYTES_MAX:
            raise _RefusedError(f"it is no file, or has more than {_BYTES_MAX} bytes")
        parts: list[bytes] = []
        left = status.st_size
        while left and (data := os.read(handle, left)):
            parts.append(data)
            left -= len(data)
    return b"".join(parts)


def _decode(name: str, data: bytes, state_type: Any) -> Saved:
    content = memoryview(data)[:-_DIGEST_BYTES]
    if hashlib.sha256(content).digest() != data[-_DIGEST_BYTES:]:
        raise _RefusedError("its checksum does not hold")
    frames = _frames(content)
    header = msgspec.msgpack.decode(next(frames, b""), type=_Header)
    if (header.format, header.name) != (_FORMAT, name):
        raise _RefusedError("it is of another format or projection")
    decode = _part_decoder(state_type).decode
    states = {
        key: Loaded(state, version, position)
        for frame in frames
        for key, version, position, state in decode(frame)
    }
    if len(states) != header.keys:
        raise _RefusedError(f"it holds {len(states)} keys and should hold {header.keys}")
    return Saved(header.revision, Bookmark(header.position, header.proof), states)


def _frames(view: memoryview) -> Iterator[memoryview]:
    at = 0
    while at < len(view):
        end = at + _LENGTH_BYTES + int.from_bytes(view[at : at + _LENGTH_BYTES], "big")
        if end > len(view):
            raise _RefusedError("a length in it leads beyond its end")
        yield view[at + _LENGTH_BYTES : end]
        at = end
