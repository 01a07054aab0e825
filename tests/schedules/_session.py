"""The life of one store in a schedule: opened, used by several tasks at once, and left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, cast

import anyio

import eventstore as es
from tests.schedules._faulty_files import FaultyFiles, ViolationError
from tests.schedules._inline_threads import Sizes, open_log
from tests.schedules._outcomes import Asked, Outcomes, is_as_expected
from tests.schedules._seeded_loop import SeededLoop

__all__ = ["Session", "Setting"]


class Setting:
    """What all that runs in one schedule shares: chance, a trace, files, answers."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.trace: list[str] = []
        self.files = FaultyFiles()
        self.outcomes = Outcomes()
        self.others: list[asyncio.Task[None]] = []  # callers and subscribers of all sessions

    def note(self, line: str) -> None:
        self.trace.append(line)

    def pick(self, chance: float) -> bool:
        return self.rng.random() < chance

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(work, name=name)

    def after(self, steps: int, call: Callable[[], object]) -> None:
        """Call something about a number of steps from now."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SeededLoop)
        loop.after(steps, call)


class Session:
    """The life of one store: its callers, its subscriber, and how it is left."""

    def __init__(self, setting: Setting, name: str) -> None:
        self.name = name
        self.is_cancelled = False  # natively: only that comes out of `run`
        self._setting = setting
        self._rng = setting.rng
        self._outcomes = setting.outcomes
        self._scope: anyio.CancelScope | None = None
        self._closing = False
        self._leave: asyncio.Event
        self._progress: asyncio.Event
        self._seen = 0
        self._awaited = 0  # the position of the last append that was acknowledged here
        self._subscription_ended = False

    def canceller(self, task: asyncio.Task[None]) -> Callable[[], object]:
        """One of the two ways to cancel this session."""

        def cancel_task() -> None:
            self.is_cancelled = True
            task.cancel()

        def cancel_scope() -> None:
            if self._scope is not None:
                self._scope.cancel()

        return self._rng.choice((cancel_task, cancel_scope))

    async def run(self, sizes: Sizes) -> None:
        """Open, use and leave the store."""
        task = asyncio.current_task()
        assert task is not None
        try:
            with anyio.CancelScope() as self._scope:
                async with open_log(self._setting.files, sizes) as store:
                    self._note("is open")
                    try:
                        await self._use(store)
                    finally:
                        self._closing = True
                        self._note("is left")
                        if self._setting.pick(0.2):
                            self._setting.after(self._rng.randrange(20), self.canceller(task))
        finally:
            self._closing = True
            self._scope = None
            self._note("is closed")

    async def _use(self, store: es.EventStore[Any]) -> None:
        rng, spawn = self._rng, self._setting.spawn
        self._leave, self._progress = asyncio.Event(), asyncio.Event()
        subscriber = spawn(self._subscribe(store), f"subscriber {self.name}")
        callers = [
            spawn(self._call(store, leaves=self._setting.pick(0.15)), f"caller {self.name}{n}")
            for n in range(rng.randint(1, 5))
        ]
        self._setting.others += [subscriber, *callers]
        leave = spawn(self._leave.wait(), f"leave {self.name}")
        everybody = asyncio.gather(*callers, return_exceptions=True)
        try:
            await asyncio.wait([leave, everybody], return_when=asyncio.FIRST_COMPLETED)
            if not leave.done():
                while self._seen < self._awaited and not self._subscription_ended:
                    self._progress.clear()
                    await self._progress.wait()
        finally:
            leave.cancel()
            subscriber.cancel()

    async def _subscribe(self, store: es.EventStore[Any]) -> None:
        try:
            async with aclosing(
                cast("AsyncGenerator[es.Recorded[Any]]", store.subscribe())
            ) as events:
                async for recorded in events:
                    if recorded.position != self._seen + 1:
                        raise ViolationError(f"shown {recorded.position} after {self._seen}")
                    self._seen = recorded.position
                    self._outcomes.show(recorded)
                    self._progress.set()
        except es.EventStoreError as error:
            self._judge_error(error)
        finally:
            self._subscription_ended = True
            self._progress.set()

    async def _call(self, store: es.EventStore[Any], *, leaves: bool) -> None:
        rng = self._rng
        turns = rng.randint(1, 4)
        leaves_at = rng.randrange(turns) if leaves else -1
        for turn in range(turns):
            if turn == leaves_at:
                # Closed with this append handed over, waiting, or not yet asked for.
                self._setting.after(rng.randrange(12), self._leave.set)
            stream = rng.choice("ab")
            what = rng.random()
            if what < 0.1:
                await self._cancel_some(self._look_at_version(store, stream), "version")
            elif what < 0.2:
                await self._cancel_some(self._read(store, stream), "read")
            else:
                await self._append_once_or_twice(store, stream)

    async def _append_once_or_twice(self, store: es.EventStore[Any], stream: str) -> None:
        rng = self._rng
        known = self._outcomes.last_versions.get(stream, 0)
        expected = rng.choice((es.ANY, es.ANY, es.ANY, known, es.NO_STREAM, es.STREAM_EXISTS))
        number = len(self._outcomes.asked) + 1
        key = f"k{number}" if self._setting.pick(0.4) else None
        asked = Asked(stream, rng.randint(1, 3), key, expected)
        self._outcomes.asked[number] = asked
        if key is None:
            await self._append(store, number)
        elif self._setting.pick(0.5):
            await self._append(store, number)
            await self._append(store, number)
        else:
            await asyncio.gather(self._append(store, number), self._append(store, number))

    async def _append(self, store: es.EventStore[Any], number: int) -> None:
        outcomes = self._outcomes
        asked = outcomes.asked[number]
        attempt = outcomes.begin(number)
        after_position = outcomes.last_position

        async def append() -> None:
            try:
                done = await store.append(
                    asked.stream,
                    asked.events(number),
                    expected_version=asked.expected,
                    key=asked.key,
                    meta={"attempt": str(attempt)},
                    durability=self._rng.choice(("synced", "synced", "written")),
                )
            except es.CommitUnknownError as error:
                self._judge_error(error)
                self._note(f"{attempt}: {error!r}")
            except es.EventStoreError as error:
                outcomes.refused.add(attempt)
                self._judge_error(error)
                self._judge_conflict(error, asked)
                self._note(f"attempt {attempt}: {error!r}")
            except BaseException:
                outcomes.end_unless_handed_over(attempt)
                raise
            else:
                outcomes.acknowledge(attempt, done, after_position=after_position)
                self._awaited = max(self._awaited, done.position)
                self._note(f"attempt {attempt}: {done}")

        self._note(f"attempt {attempt} at append {number}: {asked}")
        await self._cancel_some(append(), f"attempt {attempt}")
        outcomes.end_unless_handed_over(attempt)  # it was cancelled before it began

    async def _look_at_version(self, store: es.EventStore[Any], stream: str) -> None:
        known = self._outcomes.last_versions.get(stream, 0)
        try:
            version = await store.version(stream)
        except es.EventStoreError as error:
            self._judge_error(error)
        else:
            if version < known:
                raise ViolationError(f"version {version}, and {known} was acknowledged before")

    async def _read(self, store: es.EventStore[Any], stream: str) -> None:
        known = self._outcomes.last_versions.get(stream, 0)
        versions: list[int] = []
        try:
            async with aclosing(
                cast("AsyncGenerator[es.Recorded[Any]]", store.read(stream))
            ) as events:
                async for recorded in events:
                    versions.append(recorded.version)
                    self._outcomes.show(recorded)
        except es.EventStoreError as error:
            self._judge_error(error)
        else:
            if versions != list(range(1, len(versions) + 1)) or len(versions) < known:
                raise ViolationError(f"read versions {versions}; {known} was acknowledged before")

    async def _cancel_some(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Await it in a task of its own, and stop waiting at a random step, in one of two ways."""
        how = self._rng.choice(("wait", "wait", "native", "scope"))
        scope = anyio.CancelScope()
        begun = False

        async def scoped() -> None:
            nonlocal begun
            begun = True
            with scope:
                await work

        task = self._setting.spawn(scoped(), f"{name} of {self.name}")
        if how != "wait":
            cancel = task.cancel if how == "native" else scope.cancel
            self._setting.after(self._rng.randrange(30), cancel)
        await asyncio.wait([task])
        if not begun:
            work.close()
        if task.cancelled() or scope.cancelled_caught:
            self._note(f"{name} was cancelled ({how})")
        else:
            task.result()

    def _judge_error(self, error: Exception) -> None:
        if isinstance(error, es.VersionConflictError) or self._setting.files.has_failed:
            return
        if not (self._closing and isinstance(error, es.StoreClosedError)):
            raise ViolationError(f"no call failed, and there was {error!r}") from error

    def _judge_conflict(self, error: es.EventStoreError, asked: Asked) -> None:
        if isinstance(error, es.VersionConflictError) and is_as_expected(
            asked.expected, error.actual
        ):
            raise ViolationError(f"expected {asked.expected}: {error!r}") from error

    def _note(self, line: str) -> None:
        self._setting.note(f"[{self.name}] {line}")
