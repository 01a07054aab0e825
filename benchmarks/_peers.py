"""What people keep such a history with today, each in its best configuration, behind one interface.

Every peer stores the same 200-byte record, encoded and decoded by msgspec unless the peer insists
on a codec of its own. Peers are imported when they are opened: none of them is a dependency.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.metadata
import logging
import os
import sqlite3
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import aiofiles
import msgspec

import eventstore as es

__all__ = ["EVENT", "PEERS", "Peer", "Session", "installed", "open_ours"]

# In the line that ralph would write of it this event takes 200 bytes.
EVENT: Final = es.EventPublished(topic="build.done", payload="x" * 95)

_SYNCHRONOUS_FULL: Final = (
    2  # of `PRAGMA synchronous`: the write-ahead log is synced by each commit
)


class Session(Protocol):
    """A store that is open."""

    async def append(self, stream: str, count: int) -> None:
        """Record so many events in one go; a stream is appended to by one task at a time."""
        ...

    async def count(self) -> int:
        """Read every event back, decode it, and count those of the kind that was recorded."""
        ...


class Peer(msgspec.Struct, frozen=True):
    """One way of keeping events.

    Attributes:
        name: what it is.
        distribution: what has to be installed for it; None if nothing.
        durability: of what was appended: `written` is lost in a power cut.
        open: takes a directory that is its own.
        note: what else tells it from ours.
    """

    name: str
    distribution: str | None
    durability: es.Durability
    open: Callable[[Path], AbstractAsyncContextManager[Session]]
    note: str


def installed(peer: Peer) -> bool:
    """Whether the peer can be measured here."""
    if peer.distribution is None:
        return True
    try:
        importlib.metadata.version(peer.distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


class _Record(msgspec.Struct, gc=False):
    ts: datetime
    type: es.EventPublished


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Record).decode


def _record() -> bytes:
    return _encode(_Record(datetime.now(UTC), EVENT))


def _count(records: Iterator[bytes]) -> int:
    return sum(_decode(record).type.topic == EVENT.topic for record in records)


class _Versions:
    """The versions that the callers know."""

    def __init__(self) -> None:
        self._by_stream: dict[str, int] = {}

    def __getitem__(self, stream: str) -> int:
        return self._by_stream.get(stream, 0)

    def __setitem__(self, stream: str, version: int) -> None:
        self._by_stream[stream] = version


# --- ours ---


class _Ours:
    def __init__(self, store: es.EventStore[es.LoopEvent]) -> None:
        self._store = store
        self._versions = _Versions()

    async def append(self, stream: str, count: int) -> None:
        done = await self._store.append(
            stream, [EVENT] * count, expected_version=self._versions[stream]
        )
        self._versions[stream] = done.version

    async def count(self) -> int:
        return await self._store.scan(_count_pages)


def _count_pages(pages: Iterator[es.Page[es.LoopEvent]]) -> int:
    return sum(
        isinstance(recorded.event, es.EventPublished) and recorded.event.topic == EVENT.topic
        for page in pages
        for recorded in page
    )


@contextlib.asynccontextmanager
async def open_ours(
    directory: Path, *, durability: es.Durability = "synced"
) -> AsyncGenerator[Session]:
    """Open our own store."""
    async with es.open_store(directory / "history.jsonl", durability=durability) as store:
        yield _Ours(store)


# --- eventsourcing ---


class _Eventsourcing:
    """Its recorder, the layer below its mapper and its aggregates. It blocks the event loop."""

    def __init__(self, recorder: Any, stored_event: Any) -> None:
        self._recorder = recorder
        self._stored_event = stored_event
        self._versions = _Versions()

    async def append(self, stream: str, count: int) -> None:
        version = self._versions[stream]
        identity = uuid.uuid5(uuid.NAMESPACE_OID, stream)
        self._recorder.insert_events(
            [
                self._stored_event(identity, version + number, "published", _record())
                for number in range(1, count + 1)
            ]
        )
        self._versions[stream] = version + count

    async def count(self) -> int:
        seen = after = 0
        while page := self._recorder.select_notifications(after + 1, 10_000):
            seen += _count(one.state for one in page)
            after = page[-1].id
        return seen


@contextlib.asynccontextmanager
async def _open_eventsourcing(directory: Path) -> AsyncGenerator[Session]:
    sqlite: Any = importlib.import_module("eventsourcing.sqlite")
    persistence: Any = importlib.import_module("eventsourcing.persistence")
    datastore = sqlite.SQLiteDatastore(str(directory / "events.sqlite"))
    try:
        with datastore.transaction(commit=False) as cursor:
            cursor.execute("PRAGMA synchronous")
            _assert_full(cursor.fetchone()[0])
        recorder = sqlite.SQLiteApplicationRecorder(datastore)
        recorder.create_table()
        yield _Eventsourcing(recorder, persistence.StoredEvent)
    finally:
        datastore.close()


# --- eventsource-py ---


class _EventsourcePy:
    def __init__(self, store: Any, kind: Any, package: Any) -> None:
        self._store = store
        self._kind = kind
        self._package = package
        self._versions = _Versions()

    async def append(self, stream: str, count: int) -> None:
        version = self._versions[stream]
        identity = uuid.uuid5(uuid.NAMESPACE_OID, stream)
        await self._store.append(
            self._package.StreamId(category="Run", aggregate_id=identity),
            [
                self._kind(aggregate_id=identity, topic=EVENT.topic, payload=EVENT.payload)
                for _ in range(count)
            ],
            self._package.ExpectedVersion.exact(version),
        )
        self._versions[stream] = version + count

    async def count(self) -> int:
        seen = 0
        async for envelope in self._store.read_all():
            seen += envelope.event.topic == EVENT.topic
        return seen


@contextlib.asynccontextmanager
async def _open_eventsource_py(directory: Path) -> AsyncGenerator[Session]:
    package: Any = importlib.import_module("eventsource")
    adapter: Any = importlib.import_module("eventsource.adapters.sqlite.store")
    registry = package.EventRegistry()
    annotations = {"aggregate_type": str, "topic": str, "payload": str}
    members = {"__module__": __name__, "__annotations__": annotations, "aggregate_type": "Run"}
    kind = type("Published", (package.DomainEvent,), members)
    registry.register(kind)
    store = adapter.SQLiteEventStore(str(directory / "events.sqlite"), registry)
    try:
        await store.current_position()  # connects
        yield _EventsourcePy(store, kind, package)
    finally:
        await store.close()


# --- aiosqlite, group commit by hand ---

_INSERT: Final = "INSERT INTO events (stream, version, record) VALUES (?, ?, ?)"


class _Aiosqlite:
    """What a careful engineer would write: one writer, one commit for all that waits.

    A version that is taken fails the whole commit; to name the culprit would cost more.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._versions = _Versions()
        self._waiting: list[tuple[list[tuple[str, int, bytes]], asyncio.Future[None]]] = []
        self._wake = asyncio.Event()

    async def append(self, stream: str, count: int) -> None:
        version = self._versions[stream]
        rows = [(stream, version + number, _record()) for number in range(1, count + 1)]
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, done))
        self._wake.set()
        await done
        self._versions[stream] = version + count

    async def write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            await self._connection.executemany(
                _INSERT, [row for rows, _ in waiting for row in rows]
            )
            await self._connection.commit()
            for _, done in waiting:
                done.set_result(None)

    async def count(self) -> int:
        async with self._connection.execute("SELECT record FROM events ORDER BY position") as rows:
            seen = 0
            while page := await rows.fetchmany(10_000):
                seen += _count(record for (record,) in page)
            return seen


@contextlib.asynccontextmanager
async def _open_aiosqlite(directory: Path) -> AsyncGenerator[Session]:
    aiosqlite: Any = importlib.import_module("aiosqlite")
    async with aiosqlite.connect(str(directory / "events.sqlite")) as connection:
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.execute("PRAGMA synchronous = FULL")
        await connection.execute(
            "CREATE TABLE events (position INTEGER PRIMARY KEY, stream TEXT NOT NULL,"
            " version INTEGER NOT NULL, record BLOB NOT NULL, UNIQUE (stream, version))"
        )
        await connection.commit()
        session = _Aiosqlite(connection)
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(session.write())
            yield session
            writer.cancel()


# --- LangGraph ---


class _LangGraph:
    """One event is a checkpoint, which is its unit; many in one go are one checkpoint's writes."""

    def __init__(self, saver: Any) -> None:
        self._saver = saver
        self._versions = _Versions()

    async def append(self, stream: str, count: int) -> None:
        version = self._versions[stream]
        place = {"thread_id": stream, "checkpoint_ns": ""}
        checkpoint: dict[str, Any] = {
            "v": 1,
            "id": f"{version:012}",
            "ts": "",
            "channel_values": {"event": _record().decode()} if count == 1 else {},
            "channel_versions": {},
            "versions_seen": {},
        }
        saved = await self._saver.aput({"configurable": place}, checkpoint, {}, {})
        if count > 1:
            writes = [("event", _record().decode()) for _ in range(count)]
            await self._saver.aput_writes(saved, writes, "task")
        self._versions[stream] = version + count

    async def count(self) -> int:
        seen = 0
        async for found in self._saver.alist(None):
            values = [value for _, _, value in found.pending_writes]
            values += found.checkpoint["channel_values"].values()
            seen += _count(value.encode() for value in values)
        return seen


@contextlib.asynccontextmanager
async def _open_langgraph(directory: Path) -> AsyncGenerator[Session]:
    module: Any = importlib.import_module("langgraph.checkpoint.sqlite.aio")
    path = str(directory / "checkpoints.sqlite")
    async with module.AsyncSqliteSaver.from_conn_string(path) as saver:
        await saver.setup()
        async with saver.conn.execute("PRAGMA synchronous") as rows:
            _assert_full((await rows.fetchone())[0])
        yield _LangGraph(saver)


# --- plain files ---


class _Aiofiles:
    """Open, write, close: what most agents do."""

    def __init__(self, path: Path, *, sync: bool) -> None:
        self._path = path
        self._sync = sync

    async def append(self, stream: str, count: int) -> None:
        del stream
        data = b"".join([_record() + b"\n" for _ in range(count)])
        async with aiofiles.open(self._path, "ab") as file:
            await file.write(data)
            if self._sync:
                await file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())

    async def count(self) -> int:
        async with aiofiles.open(self._path, "rb") as file:
            return _count(iter((await file.read()).splitlines()))


@contextlib.asynccontextmanager
async def _open_aiofiles(directory: Path, *, sync: bool) -> AsyncGenerator[Session]:
    yield _Aiofiles(directory / "history.jsonl", sync=sync)


class _Logging:
    """A logger whose messages are records. It blocks the event loop."""

    def __init__(self, path: Path, logger: logging.Logger) -> None:
        self._path = path
        self._logger = logger

    async def append(self, stream: str, count: int) -> None:
        del stream
        for _ in range(count):
            self._logger.info("%s", _record().decode())

    async def count(self) -> int:
        return _count(iter(self._path.read_bytes().splitlines()))


@contextlib.asynccontextmanager
async def _open_logging(directory: Path) -> AsyncGenerator[Session]:
    path = directory / "history.jsonl"
    logger = logging.Logger("history", logging.INFO)  # noqa: LOG001 - private, gone with its run
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    try:
        yield _Logging(path, logger)
    finally:
        handler.close()


def _assert_full(synchronous: object) -> None:
    assert synchronous == _SYNCHRONOUS_FULL, f"SQLite {sqlite3.sqlite_version}: {synchronous!r}"


PEERS: Final = (
    Peer("aiosqlite", "aiosqlite", "synced", _open_aiosqlite, "WAL, FULL, group commit by hand"),
    Peer(
        "eventsourcing",
        "eventsourcing",
        "synced",
        _open_eventsourcing,
        "WAL, FULL, blocks the loop",
    ),
    Peer("eventsource-py", "eventsource-py", "synced", _open_eventsource_py, "WAL, FULL"),
    Peer(
        "LangGraph",
        "langgraph-checkpoint-sqlite",
        "synced",
        _open_langgraph,
        "WAL, FULL, unchecked",
    ),
    Peer(
        "aiofiles, fsync", None, "synced", partial(_open_aiofiles, sync=True), "may tear, unchecked"
    ),
    Peer("aiofiles", None, "written", partial(_open_aiofiles, sync=False), "may tear, unchecked"),
    Peer("logging", None, "written", _open_logging, "FileHandler, may tear, blocks the loop"),
)
"""All but ours."""
