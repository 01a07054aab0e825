"""A backend of somebody else: lists in memory, and faults that can be planted in it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import msgspec

import eventstore as es

__all__ = ["ToyLog", "ToyStore"]

T = TypeVar("T")


class ToyLog:
    """What outlives a store: the events.

    Args:
        fault: a mistake that somebody has made, in the words of the tests.
    """

    def __init__(self, fault: str | None = None) -> None:
        self.fault = fault
        self.events: list[es.Recorded[es.LoopEvent]] = []

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[ToyStore]:
        """Open the log."""
        yield ToyStore(self)
        if self.fault == "loses the newest event on closing":
            del self.events[-1:]


class ToyStore(es.EventStore[es.LoopEvent]):
    """A store over lists."""

    def __init__(self, log: ToyLog) -> None:
        self._log = log
        self._lock = anyio.Lock()
        self._appended = anyio.Event()

    @property
    def position(self) -> int:
        return len(self._log.events)

    async def version(self, stream: str) -> int:
        await anyio.lowlevel.checkpoint()
        return self._version(stream)

    async def append(
        self,
        stream: str,
        events: Sequence[es.LoopEvent | es.HistoryEvent[es.LoopEvent]],
        *,
        expected_version: es.ExpectedVersion,
        key: str | None = None,
        meta: Mapping[str, str] | None = None,
        durability: es.Durability | None = None,
    ) -> es.Appended:
        del durability
        fault = self._log.fault
        items = [e if isinstance(e, es.HistoryEvent) else es.HistoryEvent(e) for e in events]
        if fault != "refuses nothing":
            _check(stream, items)
        if fault == "checks before it waits":
            self._check_version(stream, expected_version)
        await anyio.lowlevel.checkpoint()
        async with self._lock:
            first = self._keyed(stream, key, items)
            if first is not None:
                return first
            if fault != "checks before it waits":
                self._check_version(stream, expected_version)
            for item in items:
                self._log.events.append(self._recorded(stream, item, key, meta))
                if fault == "records one by one":
                    await anyio.lowlevel.checkpoint()
            self._appended.set()
            self._appended = anyio.Event()
            return es.Appended(self._version(stream), self.position)

    async def read(
        self,
        stream: str,
        *,
        after_version: int = 0,
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[es.Recorded[es.LoopEvent]]:
        for recorded in self._slice(stream, after_version, limit, backwards=backwards):
            await anyio.lowlevel.checkpoint()
            yield recorded

    async def read_all(
        self, *, after_position: int = 0, backwards: bool = False, limit: int | None = None
    ) -> AsyncIterator[es.Recorded[es.LoopEvent]]:
        for recorded in self._slice(None, after_position, limit, backwards=backwards):
            await anyio.lowlevel.checkpoint()
            yield recorded

    async def subscribe(
        self, *, after_position: int = 0
    ) -> AsyncIterator[es.Recorded[es.LoopEvent]]:
        seen = after_position
        fault = self._log.fault
        while True:
            appended = self._appended
            news = self._log.events[seen:]
            for recorded in news:
                await anyio.lowlevel.checkpoint()
                yield recorded
                if fault == "sends what comes twice":
                    yield recorded
            seen = self.position if fault == "misses what came while it read" else seen + len(news)
            if not news:
                await appended.wait()

    async def subscribe_pages(
        self, *, after: es.Bookmark | None = None, data: bool = True
    ) -> AsyncGenerator[es.SubscribedPage[es.LoopEvent], None]:
        del data
        seen = 0
        if after is not None:
            if not await self.recognizes(after):
                raise es.BookmarkLostError(path="toy", position=after.position)
            seen = after.position
        while True:
            appended = self._appended
            news = self._log.events[seen:]
            seen += len(news)
            yield es.SubscribedPage(news, self._bookmark(seen), caught_up=not news)
            if not news:
                await appended.wait()

    async def recognizes(self, bookmark: es.Bookmark) -> bool:
        await anyio.lowlevel.checkpoint()
        return bookmark == self._bookmark(bookmark.position)

    def _bookmark(self, position: int) -> es.Bookmark:
        known = [recorded.timestamp_text for recorded in self._log.events[:position]]
        return es.Bookmark(len(known), json.dumps(known))

    async def scan(
        self,
        work: Callable[[Iterator[es.Page[es.LoopEvent]]], T],
        *,
        stream: str | None = None,
        after: int = 0,
        backwards: bool = False,
        data: bool = True,
        numbers: bool = True,
    ) -> T:
        del numbers
        await anyio.lowlevel.checkpoint()
        if self._log.fault == "scans forwards only":
            backwards = False
        events = self._slice(stream, after, None, backwards=backwards)
        if not data:
            events = [msgspec.structs.replace(recorded, data=None) for recorded in events]
        return work(iter([events[n : n + 3] for n in range(0, len(events), 3)]))

    def _version(self, stream: str) -> int:
        return sum(recorded.stream == stream for recorded in self._log.events)

    def _check_version(self, stream: str, expected: es.ExpectedVersion) -> None:
        version = self._version(stream)
        if self._log.fault == "accepts any expected version" or expected is es.ANY:
            return
        if (version > 0) if expected is es.STREAM_EXISTS else (version == expected):
            return
        actual = version + (self._log.fault == "counts conflicts one too high")
        raise es.VersionConflictError(stream=stream, expected=str(expected), actual=actual)

    def _keyed(
        self, stream: str, key: str | None, items: Sequence[es.HistoryEvent[es.LoopEvent]]
    ) -> es.Appended | None:
        fault = self._log.fault
        if key is None or fault == "forgets keys":
            return None
        found = [
            recorded
            for recorded in self._log.events
            if recorded.key == key
            and (recorded.stream == stream or fault == "shares keys between streams")
        ]
        if not found:
            return None
        is_same = [(r.event, r.data) for r in found] == [(item.event, item.data) for item in items]
        if not is_same and fault != "forgets to compare a key's events":
            reason = f"the key {key!r} was used with other events"
            raise es.EventRefusedError(reason)
        return es.Appended(found[-1].version, found[-1].position)

    def _recorded(
        self,
        stream: str,
        item: es.HistoryEvent[es.LoopEvent],
        key: str | None,
        meta: Mapping[str, str] | None,
    ) -> es.Recorded[es.LoopEvent]:
        fault = self._log.fault
        now = datetime.now(UTC)
        return es.Recorded(
            event=item.event,
            timestamp=item.timestamp
            or (now.replace(tzinfo=None) if fault == "gives naive timestamps" else now),
            version=self._version(stream) + 1,
            position=self.position + 1,
            stream=stream,
            data=None if fault == "forgets data" else item.data,
            meta=meta or {},
            key=key,
        )

    def _slice(
        self, stream: str | None, after: int, limit: int | None, *, backwards: bool
    ) -> list[es.Recorded[es.LoopEvent]]:
        if self._log.fault == "reads one too many":
            after = max(0, after - 1)
        events = self._log.events
        if stream is None:
            wanted = [recorded for recorded in events if recorded.position > after]
        else:
            wanted = [r for r in events if r.stream == stream and r.version > after]
        return (wanted[::-1] if backwards else wanted)[:limit]


def _check(stream: str, items: Sequence[es.HistoryEvent[Any]]) -> None:
    reason = None
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,199}", stream) or ".." in stream:
        reason = "no stream name"
    elif not items:
        reason = "no events"
    for item in items:
        try:
            what = [msgspec.structs.asdict(item.event), item.data]
            json.dumps(what, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            reason = str(error)
    if reason is not None:
        raise es.EventRefusedError(reason)
