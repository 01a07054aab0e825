"""Building anew from the whole log, beside what readers see, and then in place of it at once.

A rebuild works only while somebody iterates over it: a step for each turn of the loop. Whoever
stops (by `break`, by cancellation, by the end of the process) can go on later: what is half built
is kept by the projector, and on the disk.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Final, Generic, Protocol, TypeVar

import anyio
import msgspec

from eventstore import Bookmark, Event, EventReader, SubscribedPage
from projections._projection import E_contra
from projections._projector_errors import ProjectionFailedError

__all__ = ["Build", "Progress", "Rebuild"]

E = TypeVar("E", bound=Event)

_STEP_EVENTS: Final = 50_000  # between two words on how far it is; opening a subscription for each
_KEEP_EVENTS: Final = 500_000  # between two times that half of it is saved


class Progress(msgspec.Struct, frozen=True):
    """How far a rebuild is.

    Attributes:
        position: up to where the log has been read.
        total: how far the log goes, as known now; it may grow.
        events: how many events this run has read.
        seconds: for how long this run has been at work, without what the caller does between.
        is_done: whether readers see the result. Nothing comes after that.
    """

    position: int
    total: int
    events: int
    seconds: float
    is_done: bool

    @property
    def events_per_second(self) -> float:
        """Of this run, so far."""
        return self.events / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta_seconds(self) -> float:
        """How long the rest takes at this speed."""
        left = self.total - self.position
        return left / self.events_per_second if self.events else 0.0


class Build(Protocol[E_contra]):
    """Something on its way through the log, to be shown when it has caught up."""

    @property
    def bookmark(self) -> Bookmark | None:
        """How far it is; None for the log's beginning."""
        ...

    @property
    def goal(self) -> int:
        """How far the one is that readers see."""
        ...

    @property
    def turn(self) -> anyio.Lock:
        """Who holds it keeps that one where it is."""
        ...

    @property
    def failures(self) -> Sequence[ProjectionFailedError]:
        """What has stopped in it."""
        ...

    def check(self) -> None:
        """Raise if somebody else has taken it over."""
        ...

    async def take(self, page: SubscribedPage[E_contra]) -> None:
        """Take a page; what it has already is skipped."""
        ...

    async def keep(self) -> None:
        """Save how far it is."""
        ...

    async def show(self) -> None:
        """Let readers see it from now on."""
        ...


class Rebuild(AsyncIterator[Progress], Generic[E]):
    """A rebuild under way: each turn of `async for` is a step, the last one makes it visible.

    Nothing is held between two turns, so `break` is always safe.
    """

    def __init__(
        self,
        store: EventReader[E],
        begin: Callable[[], Awaitable[Sequence[Build[E]]]],
        *,
        data: bool,
        lock: anyio.Lock,
        check: Callable[[], None],
    ) -> None:
        self._store = store
        self._begin = begin
        self._lock = lock  # one step of one rebuild at a time
        self._check = check  # raises if there is nobody any more to build for
        self._data = data
        self._builds: Sequence[Build[E]] | None = None
        self._goal = 0
        self._events = 0
        self._kept_events = 0
        self._seconds = 0.0
        self._is_done = False

    def __aiter__(self) -> Rebuild[E]:
        return self

    async def __anext__(self) -> Progress:
        """Take the next step.

        Raises:
            ProjectionFailedError: after the last step, if something could not be built; what
                readers see of that one has not changed.
            ProjectorClosedError: the projector has ended before the last step.
            RebuildLostError: another rebuild of the same has begun.
            Exception: what a read model's database raises where it cannot be opened or swapped.

        Cancellation: what is built so far stays, and can be gone on with.
        """
        async with self._lock:
            if not self._is_done:
                self._check()
            if self._builds is None:
                self._builds = await self._begin()
                self._goal = self._store.position
            return await self._advance(self._builds)

    async def _advance(self, builds: Sequence[Build[E]]) -> Progress:
        if self._is_done:
            for build in builds:
                for failure in build.failures:
                    raise failure.again()
            raise StopAsyncIteration
        begun = time.monotonic()
        caught_up = await self._step(builds, _STEP_EVENTS)
        if caught_up or all(_position(build) >= max(build.goal, self._goal) for build in builds):
            await self._finish(builds)
        elif self._events - self._kept_events >= _KEEP_EVENTS:
            self._kept_events = self._events
            for build in builds:
                await build.keep()
        self._seconds += time.monotonic() - begun
        position = min(map(_position, builds), default=self._goal)
        return Progress(
            position=position,
            total=max(position, self._store.position),
            events=self._events,
            seconds=self._seconds,
            is_done=self._is_done,
        )

    async def _step(self, builds: Sequence[Build[E]], events: int) -> bool:
        """Read some pages; say whether the log held no more."""
        if not builds:
            return True  # nobody is to be given any
        for build in builds:
            build.check()
        wanted = self._events + events
        pages = self._store.subscribe_pages(after=_lowest(builds), data=self._data)
        async with aclosing(pages):
            async for page in pages:
                for build in builds:
                    await build.take(page)
                self._events += len(page.events)
                if page.caught_up or self._events >= wanted:
                    return page.caught_up
        return True

    async def _finish(self, builds: Sequence[Build[E]]) -> None:
        """Keep readers' views where they are, catch up with them, and change places."""
        async with AsyncExitStack() as turns:
            for build in builds:
                await turns.enter_async_context(build.turn)
            while any(_position(build) < build.goal for build in builds):
                await self._step(builds, 1)
            for build in builds:
                await build.show()
        self._is_done = True


def _position(build: Build[E]) -> int:
    return 0 if build.bookmark is None else build.bookmark.position


def _lowest(builds: Sequence[Build[E]]) -> Bookmark | None:
    return min(builds, key=_position).bookmark
