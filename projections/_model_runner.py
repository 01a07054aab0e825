"""Following the log into a read model: applying pages, starting over, building anew."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Generic, TypeVar

import anyio
import anyio.to_thread

from eventstore import Bookmark, Event, EventReader, EventStoreError, SubscribedPage
from projections._bell import Bell
from projections._projector_errors import ProjectionFailedError, RebuildLostError
from projections._read_model import Checkpoint, ReadModel, ReadModelSession
from projections._threads import finish_in_thread

__all__ = ["ModelBuild", "ModelRunner"]

E = TypeVar("E", bound=Event)


class ModelBuild(Generic[E]):
    """A read model on its way through the log: what readers see, or what is built beside it.

    Args:
        model: whose.
        session: the open database.
        checkpoint: what it says.
    """

    def __init__(
        self, model: ReadModel[E], session: ReadModelSession[E], checkpoint: Checkpoint
    ) -> None:
        self.model = model
        self.session = session
        self.checkpoint = checkpoint
        self.failure: ProjectionFailedError | None = None

    @property
    def bookmark(self) -> Bookmark | None:
        """How far it goes."""
        return self.checkpoint.bookmark

    @property
    def position(self) -> int:
        """How far into the log that is."""
        return 0 if self.bookmark is None else self.bookmark.position

    async def take(self, page: SubscribedPage[E]) -> None:
        """Apply what is new in a page; note why that fails."""
        if page.bookmark.position <= self.position or self.failure is not None:
            return
        self.failure = await anyio.to_thread.run_sync(self._apply, page)

    async def close(self) -> None:
        """Let go of the database."""
        await finish_in_thread(self.session.close)

    def _apply(self, page: SubscribedPage[E]) -> ProjectionFailedError | None:
        session, revision = self.session, self.model.revision
        position = self.position + 1
        try:
            session.begin()
            try:  # an explicit rollback, because the connection goes on
                stored = session.checkpoint()
                reached = 0 if stored.bookmark is None else stored.bookmark.position
                if stored.revision != revision or reached < self.position:
                    raise _TakenOverError(stored.revision, reached)  # noqa: TRY301 - as any failure
                for recorded in page.events:
                    position = recorded.position
                    if position > reached:  # another process may follow into the same database
                        session.apply(recorded)
                if page.bookmark.position > reached:
                    session.record(Checkpoint(revision, page.bookmark))
                session.commit()
            except BaseException:  # raised again: a page is in the database whole, or not at all
                session.rollback()
                raise
            self.checkpoint = session.checkpoint()
        except Exception as error:  # noqa: BLE001 - whatever a user's code or a database raises
            return _failed(self.model.name, position, error)
        return None


class ModelRunner(Generic[E]):
    """Keeps one read model up to date, and builds it anew where it is of another time.

    Args:
        store: the log.
        model: what to keep up to date.
        bell: rung when it has got further.
    """

    def __init__(self, store: EventReader[E], model: ReadModel[E], bell: Bell) -> None:
        self.name = model.name
        self.model = model
        self.turn = anyio.Lock()
        self.failure: ProjectionFailedError | None = None
        self.building: ModelBuild[E] | None = None
        self._builds_by_itself = False
        self._store = store
        self._bell = bell
        self._live: ModelBuild[E] | None = None

    @property
    def revision(self) -> int:
        """Of what readers see."""
        return self.model.revision if self._live is None else self._live.checkpoint.revision

    @property
    def position(self) -> int:
        """How far into the log readers see."""
        return 0 if self._live is None else self._live.position

    async def run(self) -> None:
        """Follow the log; where that fails, wait until a rebuild mends it."""
        while True:
            try:
                failure = await self._follow()
            except EventStoreError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a database raises stops it alone
                failure = _failed(self.name, self.position, error)
            self.failure = failure
            self._bell.ring()
            await self._bell.wait_until(lambda: self.failure is None)

    async def begin_build(self, *, anew: bool) -> ModelBuild[E]:
        """Open what is built beside, where it was left if that still is of this log.

        Raises:
            RebuildLostError: it is being built already, because what readers see is of another
                revision or another log.
        """
        if self._builds_by_itself:
            raise RebuildLostError(name=self.name)
        return await self._begin_build(anew=anew)

    async def end_build(self) -> None:
        """Let go of what is built beside; it stays where it is."""
        build, self.building = self.building, None
        if build is not None:
            await build.close()

    async def swap(self, build: ModelBuild[E]) -> None:
        """Show what was built; the caller has the turn, and the build is not behind."""
        if self._live is None:
            self._live = await self._open(self.model.open)
        live = self._live
        await finish_in_thread(self.model.swap, live.session, build.session)
        self._live = ModelBuild(self.model, live.session, build.checkpoint)
        self.failure = None
        self._bell.ring()

    async def close(self) -> None:
        """Let go of the databases."""
        await self.end_build()
        if self._live is not None:
            await self._live.close()

    async def _follow(self) -> ProjectionFailedError | None:
        """Follow the log, and return why that failed."""
        if self._live is None:
            self._live = await self._open(self.model.open)
        if not await self._is_current(self._live.checkpoint):
            failure = await self._build_anew()
            if failure is not None:
                return failure
        async with aclosing(self._store.subscribe_pages(after=self._live.bookmark)) as pages:
            async for page in pages:
                async with self.turn:
                    live = self._live
                    await live.take(page)
                if live.failure is not None:
                    return live.failure
                self._bell.ring()
        return None

    async def _build_anew(self) -> ProjectionFailedError | None:
        """Build beside what readers see, which stays until the new one has caught up."""
        self._builds_by_itself = True
        try:
            build = await self._begin_build(anew=False)
            async with aclosing(self._store.subscribe_pages(after=build.bookmark)) as pages:
                async for page in pages:
                    await build.take(page)
                    if build.failure is not None:
                        return build.failure
                    if page.caught_up:
                        break
            await self.swap(build)
            return None
        finally:
            self._builds_by_itself = False
            await self.end_build()

    async def _begin_build(self, *, anew: bool) -> ModelBuild[E]:
        await self.end_build()
        build = await self._open(partial(self.model.open_next, anew=anew))
        if not await self._is_current(build.checkpoint):
            await build.close()
            build = await self._open(partial(self.model.open_next, anew=True))
        self.building = build
        return build

    async def _open(self, connect: Callable[[], ReadModelSession[E]]) -> ModelBuild[E]:
        def opened() -> ModelBuild[E]:
            session = connect()
            return ModelBuild(self.model, session, session.checkpoint())

        return await finish_in_thread(opened)  # or a cancelled open would lose the session

    async def _is_current(self, checkpoint: Checkpoint) -> bool:
        if checkpoint.revision != self.model.revision:
            return False
        return checkpoint.bookmark is None or await self._store.recognizes(checkpoint.bookmark)


def _failed(name: str, position: int, cause: Exception) -> ProjectionFailedError:
    """Say why a read model has stopped."""
    return ProjectionFailedError(name=name, position=position, cause=cause, what="read model")


class _TakenOverError(Exception):
    def __init__(self, revision: int, position: int) -> None:
        super().__init__(
            f"another program has set the database to revision {revision}, position {position}"
        )
