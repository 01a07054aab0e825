"""One seed: some callers, a subscriber, cancellations and a fault; then what must hold."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, cast

import anyio

import eventstore as es
from eventstore._log._memory_files import MemoryFiles
from tests.schedules._inline_threads import inline_threads
from tests.schedules._seeded_loop import SeededLoop, StuckError

__all__ = ["Schedule", "ViolationError", "check_seeds"]


class ViolationError(Exception):
    """A promise was broken."""


class FaultyFiles(MemoryFiles):
    """Memory files of which one call fails, and which count their open handles."""

    fault: tuple[str, int, int] | None = None
    hit = False

    def _maybe_fail(self, call: str) -> None:
        if self.fault is not None and self.fault[0] == call:
            name, left, code = self.fault
            self.fault = (name, left - 1, code) if left else None
            if not left:
                self.hit = True
                raise OSError(code, os.strerror(code))

    @property
    def open_handles(self) -> int:
        return len(self._handles)

    def write(self, handle: int, data: bytes | memoryview) -> int:
        self._maybe_fail("write")
        return super().write(handle, data)

    def fdatasync(self, handle: int) -> None:
        self._maybe_fail("fdatasync")
        super().fdatasync(handle)

    def try_lock(self, handle: int, *, exclusive: bool) -> bool:
        self._maybe_fail("try_lock")
        return super().try_lock(handle, exclusive=exclusive)

    def pause(self, seconds: float) -> None:
        # Work runs whole here, so a lock that is not free was never given back.
        msg = f"somebody kept the lock; asked to wait {seconds} s"
        raise ViolationError(msg)


class Schedule:
    """What one seed did, and whether every promise held."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.trace: list[str] = []
        self.files = FaultyFiles()
        self.sent: dict[int, tuple[str, int, str | None]] = {}  # append -> stream, events, key
        self.acknowledged: dict[int, es.Appended] = {}
        self.rejected: set[int] = set()
        self.seen: list[int] = []
        self.subscriber_failed = False
        self.progress: asyncio.Event
        self.subscriber: asyncio.Task[None]
        self.callers: list[asyncio.Task[None]]

    def check(self) -> None:
        """Run it.

        Raises:
            ViolationError: a promise was broken; `trace` tells how.
        """
        loop = SeededLoop(self.rng)
        loop.set_exception_handler(lambda _, context: self.trace.append(f"loop: {context}"))
        try:
            with inline_threads():
                loop.run_until_complete(self._run())
        except StuckError as error:
            self._fail(str(error))
        finally:
            loop.close()

    async def _run(self) -> None:
        try:
            await self._use()
        except es.CommitUnknownError as error:
            # The last sync of `written` events: it is raised where the store is left.
            if not self.files.hit:
                self._fail(f"leaving the store raised {error!r}")
            self._note(f"leaving: {error!r}")
        await self._look_again()

    async def _use(self) -> None:
        rng = self.rng
        self.progress = asyncio.Event()
        async with es.memory_store(files=self.files, segment_bytes_max=None) as store:
            if rng.random() < 0.4:
                call = rng.choice(("write", "fdatasync", "try_lock"))
                self.files.fault = (call, rng.randrange(4), rng.choice((errno.EIO, errno.ENOSPC)))
                self._note(f"fault {self.files.fault}")
            loop = asyncio.get_running_loop()
            self.subscriber = loop.create_task(self._subscribe(store))
            self.callers = [
                loop.create_task(self._call(store, caller)) for caller in range(rng.randint(2, 6))
            ]
            early_close = rng.random() < 0.2
            if not early_close:
                await asyncio.wait(self.callers)
                last = max((done.position for done in self.acknowledged.values()), default=0)
                while len(self.seen) < last and not self.subscriber_failed:
                    self.progress.clear()
                    await self.progress.wait()
            self.subscriber.cancel()
            self._note("closing")

    async def _look_again(self) -> None:
        self._note("closed")
        await asyncio.wait([self.subscriber, *self.callers])
        for _ in range(50):
            await asyncio.sleep(0)
        for task in self.callers:
            if not task.cancelled() and task.exception() is not None:
                self._fail(f"a caller ended with {task.exception()!r}")
        if self.files.open_handles:
            self._fail(f"{self.files.open_handles} handles are open after closing")
        self.files.fault = None
        async with es.memory_store(files=self.files, segment_bytes_max=None) as store:
            self._judge([recorded async for recorded in store.read_all()])

    async def _subscribe(self, store: es.EventStore[Any]) -> None:
        try:
            async with aclosing(
                cast("AsyncGenerator[es.Recorded[Any]]", store.subscribe())
            ) as events:
                async for recorded in events:
                    self.seen.append(recorded.position)
                    self.progress.set()
        except es.EventStoreError as error:
            if not self.files.hit and not isinstance(error, es.StoreClosedError):
                self._fail(f"the subscriber ended with {error!r}")
            self.subscriber_failed = True
            self.progress.set()

    async def _call(self, store: es.EventStore[Any], caller: int) -> None:
        rng = self.rng
        for turn in range(rng.randint(1, 4)):
            number = 100 * caller + 10 * turn
            stream, count = rng.choice("ab"), rng.randint(1, 3)
            key = f"k{number}" if rng.random() < 0.4 else None
            self.sent[number] = (stream, count, key)
            for _ in range(2 if key else 1):  # a retry with the key happens once
                await self._append(store, number)

    async def _append(self, store: es.EventStore[Any], number: int) -> None:
        rng = self.rng
        stream, count, key = self.sent[number]
        events = [es.IterationStarted(iteration=number + n) for n in range(count)]
        loop = asyncio.get_running_loop()

        async def append() -> es.Appended:
            return await store.append(
                stream,
                events,
                expected_version=es.ANY,
                key=key,
                durability=rng.choice(("synced", "synced", "written")),
            )

        how = rng.choice(("wait", "wait", "native", "scope"))
        scope = anyio.CancelScope()
        outcome = "unknown"
        first = self.acknowledged.get(number)

        async def scoped() -> es.Appended | None:
            with scope:
                return await append()
            return None

        task = loop.create_task(scoped())
        if how != "wait":
            self._after(rng.randrange(30), task.cancel if how == "native" else scope.cancel)
        await asyncio.wait([task])
        if task.cancelled():
            outcome = "cancelled"
        elif (error := task.exception()) is None:
            done = task.result()
            if done is not None:
                outcome = f"acknowledged {done}"
                if first is not None and first != done:
                    self._fail(f"append {number}: {first}, and its retry {done}")
                self.acknowledged[number] = done
        elif isinstance(error, es.CommitUnknownError):
            pass
        elif isinstance(error, es.EventStoreError):
            outcome = f"rejected {error!r}"
            if key is None:
                self.rejected.add(number)
        else:
            self._fail(f"append {number} ended with {error!r}")
        self._note(f"append {number} {how}: {outcome}")

    def _after(self, steps: int, call: Any) -> None:
        if steps:
            asyncio.get_running_loop().call_soon(self._after, steps - 1, call)
        else:
            call()

    def _judge(self, log: list[Any]) -> None:
        if [recorded.position for recorded in log] != list(range(1, len(log) + 1)):
            self._fail("the positions have gaps")
        ids = [recorded.event.iteration for recorded in log]
        if len(set(ids)) != len(ids):
            self._fail(f"events are there twice: {ids}")
        for number, (stream, count, _) in self.sent.items():
            there = [r for r in log if r.event.iteration // 10 * 10 == number]
            whole = [r.event.iteration - number for r in there] == list(range(count))
            if there and (not whole or {r.stream for r in there} != {stream}):
                self._fail(f"append {number} is there in part")
            done = self.acknowledged.get(number)
            if done is not None:
                at = (there[-1].version, there[-1].position) if there else None
                if at != (done.version, done.position):
                    self._fail(f"append {number}: acknowledged {done}, found at {at}")
            if number in self.rejected and there:
                self._fail(f"append {number} was rejected, and is there")
        if self.seen != list(range(1, len(self.seen) + 1)) or len(self.seen) > len(log):
            self._fail(f"the subscriber saw {self.seen} of {len(log)}")

    def _note(self, line: str) -> None:
        self.trace.append(line)

    def _fail(self, what: str) -> None:
        command = f"python -m tests.schedules.replay {self.seed}"
        msg = f"seed {self.seed}: {what}; see it again with: {command}"
        raise ViolationError(msg)


def check_seeds(seeds: Iterable[int]) -> int:
    """Check many seeds; return how many."""
    count = 0
    for seed in seeds:
        Schedule(seed).check()
        count += 1
    return count
