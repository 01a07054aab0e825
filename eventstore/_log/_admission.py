"""Which appends a commit takes: keys are looked up, versions compared.

Both against everything the log holds, and against the appends before it in the same commit. An
append whose key was used before is over here: its result is that of the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from eventstore._errors import (
    CorruptLogError,
    EventRefusedError,
    EventStoreError,
    VersionConflictError,
)
from eventstore._events import (
    ANY,
    MAIN_STREAM,
    STREAM_EXISTS,
    Appended,
    Commit,
    Expectation,
    ExpectedVersion,
)
from eventstore._log._feed import CHUNK_BYTES
from eventstore._log._files import Files
from eventstore._log._lines import LF, is_intact
from eventstore._log._names import LogNames
from eventstore._log._request import Request
from eventstore._log._tail import Tail

__all__ = ["Admission"]

_FIRST_READ_BYTES: Final = 4_096  # most keyed appends are one small event


class Admission:
    """Decides, under the lock, at a log's end that is known."""

    def __init__(self, files: Files, names: LogNames, tail: Tail) -> None:
        self._files = files
        self._names = names
        self._tail = tail

    def admit(self, requests: Sequence[Request]) -> list[Request]:
        """Look up keys and compare versions, of several appends in order against each other.

        Returns:
            The requests to record, each with its result. Those left out have a result or a
            failure.

        Raises:
            CorruptLogError: an earlier append with the key of one of these is damaged.
            IndexDamagedError: the index cannot tell; what was noted in the requests is void.
        """
        index = self._tail.index
        accepted: list[Request] = []
        keyed: dict[tuple[str, str], Request] = {}
        versions: dict[str, int] = {}
        position = self._tail.place.position
        for request in requests:
            stream = request.stream
            if request.key is not None:
                if self._is_repeated(request, keyed):
                    continue
                keyed[stream, request.key] = request
            version = versions.get(stream)
            if version is None:
                version = index.version(stream)
            expected = request.expected
            if (
                expected != version  # mostly it is, and is compared without a call
                and expected is not ANY
                and not _is_expected(expected, version)
            ):
                request.failure = _conflict(stream, expected, version)
                if request.key is not None:
                    del keyed[stream, request.key]
                continue
            count = len(request.bodies)
            position += count
            versions[stream] = version = version + count
            request.appended = Appended(version, position)
            accepted.append(request)
        return accepted

    def _is_repeated(self, request: Request, keyed: Mapping[tuple[str, str], Request]) -> bool:
        """Whether this key was used before, in the log or in this commit; then that is the end."""
        assert request.key is not None
        twin = keyed.get((request.stream, request.key))
        if twin is not None:
            _repeat(request, twin.contents, twin.appended)
            return True
        for log_offset in self._tail.index.keyed(request.stream, request.key):
            earlier = self._read_earlier(log_offset, request.stream, request.key)
            if earlier is not None:
                _repeat(request, *earlier)
                return True
        return False

    def _read_earlier(
        self, log_offset: int, stream: str, key: str
    ) -> tuple[list[tuple[bytes, bytes]], Appended] | None:
        """Read what an earlier append recorded, if it is the one with this key.

        Raises:
            CorruptLogError: its lines are no longer what they were.
        """
        tail, files = self._tail, self._files
        segment, offset = tail.locate(log_offset)
        is_active = segment == tail.segment
        name = self._names.active if is_active else self._names.sealed(segment)
        handle = tail.handle if is_active else files.open(name, "read")
        try:
            return _read_append(files, handle, offset, stream=stream, key=key)
        except ValueError as error:
            raise CorruptLogError(
                path=files.path(name),
                offset=offset,
                position=segment,
                reason=f"the append that used this key before is damaged: {error}",
            ) from error
        finally:
            if not is_active:
                files.close(handle)


def _is_expected(expected: ExpectedVersion, version: int) -> bool:
    if isinstance(expected, Expectation):
        return version > 0 or expected is not STREAM_EXISTS
    return expected == version


def _conflict(stream: str, expected: ExpectedVersion, actual: int) -> Callable[[], EventStoreError]:
    text = expected.value if isinstance(expected, Expectation) else str(expected)
    return lambda: VersionConflictError(stream=stream, expected=text, actual=actual)


def _repeat(
    request: Request, contents: Sequence[tuple[bytes, bytes]], first: Appended | None
) -> None:
    if contents == request.contents:
        request.appended = first
        return
    reason = (
        f"key {request.key!r} was used in stream {request.stream!r} with other events; "
        "take a new key for new events"
    )
    request.failure = lambda: EventRefusedError(reason)


class _Content(msgspec.Struct, gc=False):
    type: msgspec.Raw
    version: int
    position: int
    commit: Commit
    stream: str = MAIN_STREAM
    key: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")


_decode_content: Final = msgspec.json.Decoder(_Content).decode


def _read_append(
    files: Files, handle: int, offset: int, *, stream: str, key: str
) -> tuple[list[tuple[bytes, bytes]], Appended] | None:
    """Read an append by the line of ours at which it may begin.

    Returns:
        The `type` value and the `data` member of each of its lines, and where it ended; None if
        another append stands there.

    Raises:
        ValueError: a line is damaged, or missing.
    """
    contents: list[tuple[bytes, bytes]] = []
    appended = Appended(0, 0)
    for line in _lines_from(files, handle, offset):
        if not is_intact(line):
            msg = f"line {len(contents) + 1} of it fails its checksum"
            raise ValueError(msg)
        found = _decode_content(line)
        if (found.stream, found.key) != (stream, key):
            break
        data_member = b',"data":' + found.data if found.data else b""
        contents.append((bytes(found.type), data_member))
        appended = Appended(found.version, found.position)
        if found.position == found.commit.last:
            break
    else:
        msg = "its end is missing"
        raise ValueError(msg)
    return (contents, appended) if contents else None


def _lines_from(files: Files, handle: int, offset: int) -> Iterator[bytes]:
    rest = b""
    size = _FIRST_READ_BYTES
    while chunk := files.pread(handle, size, offset):
        offset += len(chunk)
        size = CHUNK_BYTES
        *lines, rest = (rest + chunk).split(LF)
        yield from lines
