"""An append on its way to the log, and how it may end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from eventstore._errors import (
    CommitUnknownError,
    EventStoreError,
    StoreUnavailableError,
    VersionConflictError,
)
from eventstore._events import (
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

__all__ = ["Request", "conflict", "is_expected", "read_append", "remaker"]

_FIRST_READ_BYTES: Final = 4_096  # most keyed appends are one small event


class Request(msgspec.Struct, gc=False, eq=False):
    """One append on its way: what the caller encoded, and how it ended.

    Attributes:
        bodies: a line each, up to where the numbers begin.
        contents: the `type` value and the `data` member of each, as bytes, to compare with an
            earlier append of the same key.
        size: bytes of all bodies.
        appended: its result once it is acknowledged.
        failure: makes the error it ended with, a new one for each who asks.
    """

    stream: str
    bodies: list[bytes]
    contents: Sequence[tuple[bytes, bytes]]
    expected: ExpectedVersion
    key: str | None
    synced: bool
    size: int
    appended: Appended | None = None
    failure: Callable[[], EventStoreError] | None = None


class _Content(msgspec.Struct, gc=False):
    type: msgspec.Raw
    version: int
    position: int
    commit: Commit
    stream: str = MAIN_STREAM
    key: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")


_decode_content: Final = msgspec.json.Decoder(_Content).decode


def read_append(
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


def is_expected(expected: ExpectedVersion, version: int) -> bool:
    if isinstance(expected, Expectation):
        return version > 0 or expected is not STREAM_EXISTS
    return expected == version


def conflict(stream: str, expected: ExpectedVersion, actual: int) -> Callable[[], EventStoreError]:
    text = expected.value if isinstance(expected, Expectation) else str(expected)
    return lambda: VersionConflictError(stream=stream, expected=text, actual=actual)


def remaker(error: BaseException, path: str) -> Callable[[], EventStoreError]:
    """A way to raise the same error once per waiting caller, each with a traceback of its own."""
    if isinstance(error, MemoryError):
        return lambda: StoreUnavailableError(path=path, reason="no memory; nothing was recorded")
    if not isinstance(error, EventStoreError):
        cause = f"{type(error).__name__}: {error}"
        return lambda: CommitUnknownError(path=path, cause=cause)
    kind, text, facts, origin = type(error), str(error), dict(vars(error)), error.__cause__

    def remake() -> EventStoreError:
        twin = kind.__new__(kind)
        Exception.__init__(twin, text)
        vars(twin).update(facts)
        twin.__cause__ = origin
        return twin

    return remake
