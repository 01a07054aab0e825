"""Projections kept up to date: one subscription, many views, saved from time to time."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar

import anyio
import msgspec

from eventstore import Event, EventReader, SubscribedPage
from projections._bell import Bell
from projections._builds import ModelRebuild, TablesBuild, advance
from projections._handlers import Handler, HandlerRunner
from projections._model_runner import ModelRunner
from projections._projection import Projection, S
from projections._projector_errors import ProjectionFailedError, ProjectorClosedError
from projections._read_model import ReadModel
from projections._rebuild import Build, Rebuild
from projections._saver import Saver
from projections._snapshots import Snapshots
from projections._view import Table, View

__all__ = ["Follows", "Projector", "Status", "open_projector"]

E = TypeVar("E", bound=Event)
T = TypeVar("T")

_SAVE_EVERY_EVENTS: Final = 100_000

Follows: TypeAlias = Projection[Any, Any] | ReadModel[Any] | Handler[Any]
"""What a projector keeps up to date."""
_Follower: TypeAlias = Table[Any, Any] | ModelRunner[Any] | HandlerRunner[Any]


class Status(msgspec.Struct, frozen=True):
    """How one follower of the log stands.

    Attributes:
        name: of the projection, read model or handler.
        revision: of what readers see now; another one while today's is still being built.
        checkpoint: how far into the log that goes.
        lag: how many lines of the log, as far as known here, it has not seen.
        failure: why it has stopped; None while it goes on.
    """

    name: str
    revision: int
    checkpoint: int
    lag: int
    failure: ProjectionFailedError | None


@asynccontextmanager
async def open_projector(
    store: EventReader[E],
    *projections: Projection[Any, E],
    read_models: Sequence[ReadModel[E]] = (),
    handlers: Sequence[Handler[E]] = (),
    snapshots: str | os.PathLike[str] | None = None,
    save_every_events: int = _SAVE_EVERY_EVENTS,
) -> AsyncGenerator[Projector[E]]:
    """Keep projections, read models and handlers up to date while the block runs.

    All projections share one subscription. A read model and a handler have one each, so that a
    slow one holds up nobody.

    Args:
        store: the log.
        projections: what to fold; their names must differ.
        read_models: databases to follow into, see `sqlite_read_model`.
        handlers: side effects; they need `snapshots`, to know what they have done.
        snapshots: a directory for saved states, made if absent. With it, opening reads only what
            the log got since. One process at a time should use it, and must if it has handlers.
        save_every_events: how many events are folded between two times that states are saved.

    Yields:
        The projector. It begins with what was saved, and catches up while the block runs:
        `await projector.wait_for(store.position)` waits for that.

    Raises:
        ValueError: two names are alike, `snapshots` is no path, or there is none to save what
            handlers have done.
        EventStoreError: the log cannot be read (any more). The block is cancelled then.

    Cancellation: what is folded is saved, also then. A step of a rebuild that another task is at
        comes to its end first; the next one raises ProjectorClosedError.
    """
    projector = Projector(
        store,
        projections,
        read_models,
        handlers,
        snapshots=None if snapshots is None else Snapshots(snapshots),
        save_every_events=save_every_events,
    )
    failure: BaseException | None = None
    ended: list[Exception] = []
    try:
        await projector._begin()  # noqa: SLF001 - the wiring of this module
        async with anyio.create_task_group() as tasks:
            for work in projector._works():  # noqa: SLF001
                tasks.start_soon(_run, work, ended, tasks.cancel_scope)
            try:
                yield projector
            except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - see below
                failure = error  # raised outside the task group, which would wrap it
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await projector._end()  # noqa: SLF001
    if failure is not None:
        for one in ended:
            failure.add_note(f"the projector had stopped: {one}")
        raise failure
    if ended:
        raise ended[0]


async def _run(
    work: Callable[[], Awaitable[None]], ended: list[Exception], scope: anyio.CancelScope
) -> None:
    try:
        await work()
    except Exception as error:  # noqa: BLE001 - raised by `open_projector`, without a group around it
        ended.append(error)
        scope.cancel()


class Projector(Generic[E]):
    """What `open_projector` yields."""

    def __init__(
        self,
        store: EventReader[E],
        projections: Sequence[Projection[Any, E]],
        read_models: Sequence[ReadModel[E]],
        handlers: Sequence[Handler[E]],
        *,
        snapshots: Snapshots | None,
        save_every_events: int,
    ) -> None:
        self._store = store
        self._snapshots = snapshots
        self._save_every_events = save_every_events
        self._bell = Bell()
        self._is_closed = False
        self._turn = anyio.Lock()  # held while a page is folded and shown
        self._rebuilding = anyio.Lock()
        self._tables = {one.name: Table(one) for one in projections}
        self._of_old: dict[str, View[Any]] = {}  # another revision's, until the first catch-up
        self._building: dict[str, Table[Any, E]] = {}
        self._position = 0
        self._saver = Saver(store, snapshots)
        self._unsaved_events = 0
        self._models = {one.name: ModelRunner(store, one, self._bell) for one in read_models}
        self._handlers = {one.name: self._runner(one) for one in handlers}
        names = [one.name for one in projections] + [one.name for one in read_models]
        _check_names(names + [one.name for one in handlers])

    # --- for readers ---

    @property
    def lag(self) -> int:
        """How many lines of the log, as far as known here, the slowest follower has not seen."""
        return max((status.lag for status in self.statuses), default=0)

    @property
    def statuses(self) -> Sequence[Status]:
        """How everything stands that was opened here, in that order."""
        return [self._status(one) for one in (*self._seen_by_readers, *self._handlers.values())]

    def status(self, of: Follows) -> Status:
        """How one projection, read model or handler stands."""
        return self._status(self._follower(of))

    def view(self, projection: Projection[S, E]) -> View[S]:
        """State by key, as of now. It never changes; ask again for a newer one.

        Taking it costs nothing. The first change after that copies the table of keys once.

        Raises:
            ValueError: the projection was not opened here.
        """
        table = self._table(projection)
        return self._of_old.get(projection.name) or table.view()

    async def wait_for(self, position: int, *of: Follows) -> None:
        """Wait until readers see a position: `await projector.wait_for(appended.position)`.

        Args:
            position: of the log. One that it never gets is waited for until the block ends.
            of: which; all projections and read models if none is named, but no handlers.

        Raises:
            ProjectionFailedError: one of them has stopped before.
            ProjectorClosedError: the block of `open_projector` has ended before.
            ValueError: one was not opened here.

        Cancellation: nothing has changed.
        """

        def have_reached() -> bool:
            for follower in [self._follower(one) for one in of] or self._seen_by_readers:
                status = self._status(follower)
                if status.checkpoint < position:
                    if status.failure is not None:
                        raise status.failure.again()
                    if self._is_closed:
                        raise ProjectorClosedError(
                            f"position {position} was not reached, {status.name!r:.80} is at "
                            f"position {status.checkpoint}"
                        )
                    return False
            return True

        await self._bell.wait_until(have_reached)

    def rebuild(self, *of: Projection[Any, E] | ReadModel[E], resume: bool = True) -> Rebuild[E]:
        """Build anew from the whole log, beside what readers see, in one pass.

        `async for progress in projector.rebuild(pj.REGISTRY)` is the work: it goes on while
        somebody iterates, and readers see the result, all of it at once, at the last turn. It also
        starts again what has failed. Handlers are not called.

        Args:
            of: which; all projections and read models if none is named. Where nothing of the
                kind was opened here, the rebuild is done at its first turn.
            resume: go on with a rebuild that was broken off, of this revision and this log.

        Returns:
            An iterator of `Progress`; see `Rebuild` for what it raises.

        Raises:
            TypeError: one is a handler.
            ValueError: one was not opened here.
        """
        found = [self._follower(one) for one in of] or self._seen_by_readers
        for one in found:
            if isinstance(one, HandlerRunner):
                message = f"{one.name!r} is a handler: what it has done cannot be built anew"
                raise TypeError(message)
        projections = [one.projection for one in found if isinstance(one, Table)]
        runners = [one for one in found if isinstance(one, ModelRunner)]
        data = bool(runners) or any(projection.data for projection in projections)
        begin = partial(self._begin_builds, projections, runners, resume=resume)
        return Rebuild(
            self._store, begin, data=data, lock=self._rebuilding, check=self._check_rebuild
        )

    # --- the work ---

    async def _begin(self) -> None:
        """Take what was saved."""
        for name, table in self._tables.items():
            restored, old = await self._saver.restore(table.projection)
            if restored is not None:
                self._tables[name] = restored
            elif old is not None:
                position = old.bookmark.position
                self._of_old[name] = View(old.states, position=position, revision=old.revision)
        for handler in self._handlers.values():
            await handler.begin()

    def _works(self) -> list[Callable[[], Awaitable[None]]]:
        """What runs until it is cancelled."""
        works: list[Callable[[], Awaitable[None]]] = [self._follow] if self._tables else []
        works += [one.run for one in self._models.values()]
        return works + [one.run for one in self._handlers.values()]

    async def _end(self) -> None:
        """Tell who still waits, save what is worth it, and close."""
        self._is_closed = True
        self._bell.ring()
        async with self._rebuilding:  # another task's step may be at work in a database
            await self._saver.save(self._tables.values())
            await self._saver.save_half(self._building.values())
            for handler in self._handlers.values():
                await handler.save()
            for model in self._models.values():
                await model.close()

    async def _follow(self) -> None:
        tables = self._tables.values()
        after = min(tables, key=lambda table: table.position).bookmark
        data = any(table.projection.data for table in tables)
        async with aclosing(self._store.subscribe_pages(after=after, data=data)) as pages:
            async for page in pages:
                async with self._turn:
                    await self._take(page)
                if self._unsaved_events >= self._save_every_events:
                    self._unsaved_events = 0
                    await self._saver.save(self._tables.values())

    async def _take(self, page: SubscribedPage[E]) -> None:
        await advance([one for one in self._tables.values() if one.failure is None], page)
        self._position = max(self._position, page.bookmark.position)
        self._unsaved_events += len(page.events)
        if page.caught_up:
            self._of_old.clear()
        self._bell.ring()

    # --- rebuilding ---

    def _check_rebuild(self) -> None:
        if self._is_closed:
            raise ProjectorClosedError("the rebuild is not done, readers see what they saw before")

    async def _begin_builds(
        self,
        projections: Sequence[Projection[Any, E]],
        runners: Sequence[ModelRunner[E]],
        *,
        resume: bool,
    ) -> Sequence[Build[E]]:
        # Always in the same order: each has a turn to be waited for.
        builds: list[Build[E]] = []
        if projections:
            tables = [await self._begin_table(one, resume=resume) for one in projections]
            self._building |= {table.projection.name: table for table in tables}
            builds.append(TablesBuild(tables, self))
        for runner in sorted(runners, key=lambda one: one.name):
            build = await runner.begin_build(anew=not resume)
            builds.append(ModelRebuild(build, runner))
        return builds

    async def _begin_table(self, projection: Projection[Any, E], *, resume: bool) -> Table[Any, E]:
        """What is half built, or the beginning: a new object, so that an older rebuild is over."""
        fresh: Table[Any, E] = Table(projection)
        if not resume:
            return fresh
        half = self._building.get(projection.name)
        if half is not None and half.failure is None:
            return Table(projection, half.view(), half.bookmark)
        return await self._saver.restore_half(projection) or fresh

    # --- for `TablesBuild` ---

    @property
    def turn(self) -> anyio.Lock:
        """Who holds it keeps all views where they are."""
        return self._turn

    @property
    def folded_position(self) -> int:
        """How far the views' subscription is, or is going to begin."""
        return max(self._position, *(table.position for table in self._tables.values()))

    def is_building(self, table: Table[Any, E]) -> bool:
        """Whether no later rebuild has begun with the same projection."""
        return self._building.get(table.projection.name) is table

    async def keep(self, tables: Sequence[Table[Any, E]]) -> None:
        """Save what is half built."""
        await self._saver.save_half(tables)

    async def show(self, tables: Sequence[Table[Any, E]]) -> None:
        """Put what was built in place of what readers see, and save that."""
        for table in tables:
            if table.failure is None:
                self._tables[table.projection.name] = table
                self._of_old.pop(table.projection.name, None)
            self._building.pop(table.projection.name)
        self._bell.ring()
        await self._saver.save([one for one in tables if one.failure is None], anew=True)
        await self._saver.remove_half(tables)

    # --- who is who ---

    def _runner(self, handler: Handler[E]) -> HandlerRunner[E]:
        if self._snapshots is None:
            message = f"handler {handler.name!r} needs snapshots=…: what it has done is kept there"
            raise ValueError(message)
        return HandlerRunner(self._store, handler, self._snapshots, self._bell, self._views_reached)

    def _views_reached(self, position: int) -> bool:
        return all(
            one.position >= position or one.failure is not None for one in self._tables.values()
        )

    @property
    def _seen_by_readers(self) -> Sequence[_Follower]:
        return [*self._tables.values(), *self._models.values()]

    def _status(self, one: _Follower) -> Status:
        old = self._of_old.get(one.name) if isinstance(one, Table) else None
        checkpoint = one.position if old is None else old.position
        return Status(
            name=one.name,
            revision=one.revision if old is None else old.revision,
            checkpoint=checkpoint,
            lag=max(0, self._store.position - checkpoint),
            failure=one.failure,
        )

    def _table(self, projection: Projection[S, E]) -> Table[S, E]:
        table = self._tables.get(projection.name)
        if table is None or table.projection is not projection:
            message = f"{projection!r} was not given to open_projector"
            raise ValueError(message)
        return table

    def _follower(self, of: Follows) -> _Follower:
        if isinstance(of, Projection):
            return self._table(of)
        found = self._handlers if isinstance(of, Handler) else self._models
        if of.name not in found:
            message = f"{of.name!r} was not given to open_projector"
            raise ValueError(message)
        return found[of.name]


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            message = f"two of what open_projector was given are called {name!r}"
            raise ValueError(message)
