"""Logs to break: the engine's own calls without an event loop, and memory images to copy.

Thousands of broken logs a second need no task and no disk, so these tests drive the `Committer`
and the cursors directly. What they leave is checked by the independent reader of `tests/format`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import eventstore as es
from eventstore._codec import Codec
from eventstore._log._commit import Committer
from eventstore._log._files import Files
from eventstore._log._index_keeper import INDEX_BYTES
from eventstore._log._lock_record import LockRecord, decode_record, encode_record
from eventstore._log._log_files import LogFiles
from eventstore._log._names import LogNames
from eventstore._log._reading import ForwardCursor
from eventstore._log._reading_backwards import BackwardCursor
from eventstore._log._request import Request
from eventstore._log._snapshot import SnapshotTaker

__all__ = [
    "ACTIVE",
    "LOCK",
    "NAMES",
    "append",
    "append_raw",
    "appended",
    "backward_pages",
    "content",
    "foreign",
    "forward_pages",
    "image_of",
    "iterations",
    "opened",
    "overwrite",
    "quarantined",
    "read",
    "read_backwards",
    "record",
    "request",
    "segments",
    "set_record",
]

NAMES: Final = LogNames("history.jsonl")
ACTIVE: Final = NAMES.active
LOCK: Final = NAMES.lock
_PAGES_MAX: Final = 1_000
_NOW: Final = b"2026-11-21T00:00:03.255970Z"
_CODEC: Final = Codec(es.LOOP_EVENTS)


def request(
    stream: str,
    *events: es.LoopEvent | es.HistoryEvent[es.LoopEvent],
    expected_version: es.ExpectedVersion = es.ANY,
    key: str | None = None,
    meta: Mapping[str, str] | None = None,
    synced: bool = True,
) -> Request:
    """One append, encoded and ready for the writer."""
    bodies, contents, size = _CODEC.encode(stream, events, key=key, meta=meta, now=_NOW)
    return Request(
        stream=stream,
        bodies=bodies,
        contents=contents,
        expected=expected_version,
        key=key,
        synced=synced,
        size=size,
    )


@contextmanager
def opened(
    files: Files, *, segment_bytes_max: int | None = None, index_bytes: int = INDEX_BYTES
) -> Generator[Committer]:
    """The writing half of a store, recovered and ready; closed at the end as a crash would."""
    committer = Committer(
        files,
        NAMES,
        lock_timeout_seconds=1.0,
        segment_bytes_max=segment_bytes_max,
        index_bytes=index_bytes,
    )
    committer.open()
    try:
        yield committer
    finally:
        committer.close()


def append(committer: Committer, *requests: Request) -> list[es.Appended]:
    """Record appends as one commit; the first error of any of them is raised."""
    committer.commit(requests)
    results: list[es.Appended] = []
    for one in requests:
        if one.failure is not None:
            raise one.failure()
        assert one.appended is not None
        results.append(one.appended)
    return results


def appended(files: Files, *requests: Request) -> list[es.Appended]:
    """Open the log, record appends as one commit, and close it."""
    with opened(files) as committer:
        return append(committer, *requests)


def iterations(*numbers: int) -> list[es.LoopEvent]:
    """Events that can be told apart."""
    return [es.IterationStarted(iteration=number) for number in numbers]


def foreign(number: int) -> bytes:
    """A record as the original writes it, without its LF."""
    record = {
        "ts": f"2026-11-21T00:00:{number % 60:02}.123456789Z",
        "type": {"kind": "iteration_started", "iteration": number},
    }
    return json.dumps(record, separators=(",", ":")).encode()


def forward_pages(
    files: Files, *, tail_record: bool = True
) -> Iterator[list[es.Recorded[es.LoopEvent]]]:
    """The pages of a reader from the head."""
    taker = SnapshotTaker(files, NAMES, lock_timeout_seconds=1.0)
    try:
        cursor = ForwardCursor(LogFiles(files, NAMES, _CODEC), tail_record=tail_record)
        yield from cursor.pages(taker.take())
    finally:
        taker.close()


def backward_pages(files: Files) -> Iterator[list[es.Recorded[es.LoopEvent]]]:
    """The pages of a reader from the end, newest event first."""
    taker = SnapshotTaker(files, NAMES, lock_timeout_seconds=1.0)
    try:
        cursor = BackwardCursor(LogFiles(files, NAMES, _CODEC), taker.take())
        for _ in range(_PAGES_MAX):
            page = cursor.next_page()
            if page is None:
                return
            yield page
        raise AssertionError("the cursor makes no headway")
    finally:
        taker.close()


def read(files: Files, *, tail_record: bool = True) -> list[es.Recorded[es.LoopEvent]]:
    """What a one-shot reader shows, oldest first."""
    return [recorded for page in forward_pages(files, tail_record=tail_record) for recorded in page]


def read_backwards(files: Files) -> list[es.Recorded[es.LoopEvent]]:
    """What a reader from the end shows, put in order."""
    return [recorded for page in backward_pages(files) for recorded in page][::-1]


# --- bytes behind the engine's back ---


def content(files: Files, name: str = ACTIVE) -> bytes:
    """All bytes of a file."""
    handle = files.open(name, "read")
    try:
        return files.pread(handle, files.fstat(handle).size, 0)
    finally:
        files.close(handle)


def append_raw(files: Files, data: bytes) -> None:
    """Write bytes behind the log as another writer does: under the lock, without looking."""
    lock = files.open(LOCK, "update", create=True)
    try:
        assert files.try_lock(lock, exclusive=True)
        handle = files.open(ACTIVE, "append", create=True)
        files.write(handle, data)
        files.close(handle)
    finally:
        files.close(lock)


def overwrite(files: Files, data: bytes, name: str = ACTIVE) -> None:
    """Give a file other bytes; it stays the same file."""
    handle = files.open(name, "update", create=True)
    try:
        files.truncate(handle, 0)
        files.pwrite(handle, data, 0)
    finally:
        files.close(handle)


def segments(files: Files) -> list[str]:
    """The names of the log's segments, in order."""
    sealed = NAMES.sealed_positions(files.listdir(""))
    names = [NAMES.sealed(first_position) for first_position in sealed]
    return [*names, ACTIVE] if files.stat(ACTIVE) is not None else names


def quarantined(files: Files) -> dict[str, bytes]:
    """What recovery set aside."""
    if files.stat(NAMES.quarantine) is None:
        return {}
    return {
        name: content(files, f"{NAMES.quarantine}/{name}")
        for name in files.listdir(NAMES.quarantine)
    }


def record(files: Files) -> LockRecord | None:
    """The lock record as it stands."""
    return decode_record(content(files, LOCK)) if files.stat(LOCK) is not None else None


def set_record(files: Files, value: LockRecord) -> None:
    """Put another lock record in the place of the present one."""
    overwrite(files, encode_record(value), LOCK)


def image_of(files: es.MemoryFiles) -> es.MemoryFiles:
    """A copy of memory files as they stand, inodes included, without handles and locks."""
    twin = es.MemoryFiles()
    twin._directories = set(files._directories)
    twin._numbers = iter(range(10**6, sys.maxsize))  # no handle has the number of an inode
    copies: dict[int, Any] = {}
    for name, file in files._names.items():
        copy = copies.get(file.inode)
        if copy is None:
            copy = copies[file.inode] = type(file)(file.inode)
            copy.content = bytearray(file.content)
        twin._names[name] = copy
    return twin
