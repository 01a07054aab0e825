"""What was attempted, what was promised, and what a reader finds: the truth to compare with.

Each event carries a number of its own, so that a history is a tuple of numbers.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

import eventstore as es
from eventstore._codec import Codec
from eventstore._events import NO_COMMIT, ExpectedVersion
from eventstore._log._files import Files
from eventstore._log._log_files import LogFiles
from eventstore._log._names import LogNames
from eventstore._log._reading import ForwardCursor
from eventstore._log._reading_backwards import BackwardCursor
from eventstore._log._request import Request
from eventstore._log._snapshot import SnapshotTaker
from tests.crash._disk import Directory, Inode, SimulatedDisk

__all__ = [
    "ACTIVE",
    "LOCK_SECONDS",
    "NAMES",
    "Expected",
    "Item",
    "Reader",
    "cache_files",
    "complete_numbers",
    "explain",
    "foreign_record",
    "log_contents",
    "read_backwards",
    "request",
]

NAMES: Final = LogNames("history.jsonl")
ACTIVE: Final = NAMES.active
LOCK_SECONDS: Final = 0.01
"""Of virtual time: whoever holds a lock in a simulation will not let go of it by waiting."""

_CODEC: Final = Codec(es.LOOP_EVENTS)
_NOW: Final = b"2026-11-21T00:00:03.255970Z"
_ENVELOPE: Final = {"version", "position", "commit", "crc"}

_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Item(msgspec.Struct):
    """One commit, or one line of a foreign writer.

    Attributes:
        numbers: its events.
        ours: whether it is a commit.
        dead: its writer died or failed, so that it may be missing under what came later.
    """

    numbers: tuple[int, ...]
    ours: bool = True
    dead: bool = False


class Expected(NamedTuple):
    """What may be in the log at one moment.

    Attributes:
        promised: what must be: acknowledged, or shown to a reader, with all that is before it.
        items: everything that was attempted and not refused, in order.
        kept: what a mere kill must leave besides: acknowledged as `written`.
    """

    promised: tuple[int, ...]
    items: tuple[tuple[tuple[int, ...], bool, bool], ...]
    kept: tuple[int, ...] = ()


def explain(numbers: tuple[int, ...], expected: Expected) -> str | None:
    """Say what is wrong with a history, or None."""
    promised = expected.promised
    if numbers[: len(promised)] != promised:
        return f"promised {promised}, found {numbers}"
    at = 0
    missing: tuple[int, ...] | None = None
    for item, ours, dead in expected.items:
        if numbers[at : at + len(item)] == item:
            if ours and missing is not None:
                return f"commit {item} is there and commit {missing} before it is not: {numbers}"
            at += len(item)
        elif ours and not dead:
            missing = item
    if at != len(numbers):
        return f"{numbers[at:]} is no whole commit in the order of writing: {numbers}"
    return None


def request(
    numbers: tuple[int, ...],
    *,
    stream: str = "main",
    size: int = 0,
    expected: ExpectedVersion = es.ANY,
    key: str | None = None,
    synced: bool = True,
) -> Request:
    """One append of events with these numbers.

    Args:
        numbers: one event each.
        stream: where to.
        size: bytes of data beside each event.
        expected: the stream's version.
        key: idempotency key.
        synced: whether it is acknowledged only when it is durable.
    """
    data = "x" * size if size else None
    events = [es.HistoryEvent(es.IterationStarted(iteration=n), data=data) for n in numbers]
    bodies, contents, total = _CODEC.encode(stream, events, key=key, meta=None, now=_NOW)
    return Request(stream, bodies, contents, expected, key, synced, total)


def foreign_record(number: int) -> bytes:
    """A line as the original writes it, without its LF."""
    payload = msgspec.json.encode(es.IterationStarted(iteration=number))
    return b'{"ts":"2026-11-21T00:00:00.123456789Z","type":%b}' % payload


class Reader:
    """Reads a log through the engine, a snapshot at a time, going on where it stopped.

    Args:
        files: the log's files as the reader's process sees them.
        tail_record: show a complete foreign record that lacks its LF.
        foreign: whether there are foreign writers. Without one, what looks like a foreign record
            is a torn line that ran into stale bytes, which no reader can know.
    """

    def __init__(self, files: Files, *, tail_record: bool = False, foreign: bool = True) -> None:
        self.taker = SnapshotTaker(files, NAMES, lock_timeout_seconds=LOCK_SECONDS)
        self.numbers: tuple[int, ...] = ()
        self._versions: dict[str, int] = {}
        self._position = 0
        self._foreign = foreign
        self._cursor = ForwardCursor(LogFiles(files, NAMES, _CODEC), tail_record=tail_record)

    def read(self) -> tuple[int, ...]:
        """Everything shown so far.

        Raises:
            AssertionError: numbers are not what they must be, or damage is reported.
        """
        found: list[int] = []
        for page in self._cursor.pages(self.taker.take()):
            for recorded in page:
                assert recorded.position > self._position, f"{recorded} after {self._position}"
                before = self._versions.get(recorded.stream, 0)
                assert recorded.version > before, f"{recorded} after version {before}"
                if recorded.stream != "main":  # in main, noise uses versions up
                    assert recorded.version == before + 1, f"{recorded} after version {before}"
                self._position = recorded.position
                self._versions[recorded.stream] = recorded.version
                if self._foreign or recorded.commit != NO_COMMIT:
                    assert isinstance(recorded.event, es.IterationStarted), recorded
                    found.append(recorded.event.iteration)
        assert not self._cursor.damages, self._cursor.damages
        if found:
            self.numbers += tuple(found)
        return self.numbers

    def close(self) -> None:
        """Close the lock handle."""
        self.taker.close()


def read_backwards(files: Files, *, foreign: bool = True) -> tuple[int, ...]:
    """Everything in a log, read from its end; oldest first."""
    taker = SnapshotTaker(files, NAMES, lock_timeout_seconds=LOCK_SECONDS)
    try:
        log = LogFiles(files, NAMES, _CODEC)
        numbers = [
            recorded.event.iteration
            for page in BackwardCursor(log, taker.take()).pages()
            for recorded in page
            if isinstance(recorded.event, es.IterationStarted)
            and (foreign or recorded.commit != NO_COMMIT)
        ]
    finally:
        taker.close()
    return tuple(reversed(numbers))


def log_contents(disk: SimulatedDisk) -> dict[str, Inode]:
    """The segments that have a name, oldest first, the active one last."""
    root = disk.top.entries.get(".")
    if not isinstance(root, Directory):
        return {}
    names = [NAMES.sealed(position) for position in NAMES.sealed_positions(list(root.entries))]
    found = ((name, root.entries.get(name)) for name in (*names, ACTIVE))
    return {name: node for name, node in found if isinstance(node, Inode)}


def cache_files(disk: SimulatedDisk) -> dict[str, Inode]:
    """The files of the index, as processes see them."""
    node: Inode | Directory | None = disk.root
    for entry in NAMES.cache.split("/"):
        node = node.entries.get(entry) if isinstance(node, Directory) else None
    if not isinstance(node, Directory):
        return {}
    return {name: file for name, file in node.entries.items() if isinstance(file, Inode)}


def complete_numbers(disk: SimulatedDisk) -> set[int]:
    """The events whose bytes are all in the cache, found without the engine.

    A commit counts if its lines follow one another at their places, a foreign record also if it
    stands at the very end without its LF.
    """
    content = b"".join(inode.content for inode in log_contents(disk).values())
    *lines, rest = content.split(b"\n")
    complete: set[int] = set()
    commit: list[int] = []
    for ordinal, line in enumerate(lines, 1):
        try:
            members = _decode(line)
            number = _number(members)
        except (msgspec.MsgspecError, ValueError, KeyError):
            commit = []
            continue
        if "commit" not in members:
            commit = []
            if not _ENVELOPE & members.keys():
                complete.add(number)
            continue
        first, last = msgspec.json.decode(members["commit"], type=tuple[int, int])
        commit = [*commit, number] if first != ordinal else [number]
        if len(commit) == ordinal - first + 1 and ordinal == last:
            complete.update(commit)
            commit = []
    try:
        members = _decode(rest)
        if not _ENVELOPE & members.keys():
            complete.add(_number(members))
    except (msgspec.MsgspecError, ValueError, KeyError):
        pass
    return complete


def _number(members: dict[str, msgspec.Raw]) -> int:
    return msgspec.json.decode(members["type"], type=es.IterationStarted).iteration
