"""An append on its way to the log, and how it may end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from eventstore._errors import (
    CommitUnknownError,
    EventStoreError,
    StoreUnavailableError,
    VersionConflictError,
)
from eventstore._events import STREAM_EXISTS, Appended, Expectation, ExpectedVersion
from eventstore._log._feed import CHUNK_BYTES
from eventstore._log._files import Files
from eventstore._log._lines import LF, is_intact

__all__ = ["Request", "conflict", "is_expected", "read_contents", "remaker"]

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
    data: msgspec.Raw = msgspec.Raw(b"")


_decode_content: Final = msgspec.json.Decoder(_Content).decode


def read_contents(
    files: Files, handle: int, offset: int, *, count: int
) -> list[tuple[bytes, bytes]]:
    """Read the `type` value and the `data` member of adjacent lines of ours.

    Raises:
        ValueError: a line is damaged, or missing.
    """
    contents: list[tuple[bytes, bytes]] = []
    rest = b""
    size = _FIRST_READ_BYTES
    while len(contents) < count and (chunk := files.pread(handle, size, offset)):
        offset += len(chunk)
        size = CHUNK_BYTES
        *lines, rest = (rest + chunk).split(LF)
        for line in lines[: count - len(contents)]:
            if not is_intact(line):
                msg = f"line {len(contents) + 1} of {count} fails its checksum"
                raise ValueError(msg)
            content = _decode_content(line)
            data_member = b',"data":' + content.data if content.data else b""
            contents.append((bytes(content.type), data_member))
    if len(contents) < count:
        msg = f"only {len(contents)} of {count} lines are there"
        raise ValueError(msg)
    return contents


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
