"""What can be rebuilt: tables of projections, folded in one pass, and read models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import anyio
import anyio.to_thread

from eventstore import Bookmark, Event, SubscribedPage
from projections._model_runner import ModelBuild, ModelRunner
from projections._projector_errors import ProjectionFailedError, RebuildLostError
from projections._view import Table, fold_page

__all__ = ["ModelRebuild", "TablesBuild", "TablesOwner", "advance"]

E = TypeVar("E", bound=Event)


class TablesOwner(Protocol[E]):
    """Who shows the tables to readers."""

    @property
    def turn(self) -> anyio.Lock:
        """Who holds it keeps what readers see where it is."""
        ...

    @property
    def folded_position(self) -> int:
        """How far that is."""
        ...

    def is_building(self, table: Table[Any, E]) -> bool:
        """Whether nobody has begun anew with the same projection."""
        ...

    async def keep(self, tables: Sequence[Table[Any, E]]) -> None:
        """Save what is half built."""
        ...

    async def show(self, tables: Sequence[Table[Any, E]]) -> None:
        """Put tables in place of what readers see."""
        ...


async def advance(tables: Sequence[Table[Any, E]], page: SubscribedPage[E]) -> None:
    """Fold a page by several projections in a worker thread, and let their tables have it."""
    if page.events:
        changes = await anyio.to_thread.run_sync(fold_page, tables, page.events)
    else:
        changes = fold_page(tables, ())
    for table, change in zip(tables, changes, strict=True):
        table.advance(change, page.bookmark)


class TablesBuild(Generic[E]):
    """Several projections' tables on their way through the log; one that fails, fails alone."""

    def __init__(self, tables: Sequence[Table[Any, E]], owner: TablesOwner[E]) -> None:
        self.bookmark = min(tables, key=lambda table: table.position).bookmark
        self.turn = owner.turn
        self._tables = tables
        self._owner = owner

    @property
    def goal(self) -> int:
        """How far the views' subscription is: a table behind it would miss events."""
        return self._owner.folded_position

    @property
    def failures(self) -> Sequence[ProjectionFailedError]:
        """Of the tables that have stopped."""
        return [table.failure for table in self._tables if table.failure is not None]

    def check(self) -> None:
        """See that no later rebuild has taken over.

        Raises:
            RebuildLostError: one has.
        """
        for table in self._tables:
            if not self._owner.is_building(table):
                raise RebuildLostError(name=table.name)

    async def take(self, page: SubscribedPage[E]) -> None:
        """Fold a page."""
        tables = [table for table in self._tables if table.failure is None]
        await advance(tables, page)
        self.bookmark = page.bookmark

    async def keep(self) -> None:
        """Save how far it is."""
        await self._owner.keep(self._tables)

    async def show(self) -> None:
        """Let readers see it from now on."""
        await self._owner.show(self._tables)


class ModelRebuild(Generic[E]):
    """A read model's database, built beside the one that readers see."""

    def __init__(self, build: ModelBuild[E], runner: ModelRunner[E]) -> None:
        self.bookmark: Bookmark | None = build.bookmark
        self.turn = runner.turn
        self._build = build
        self._runner = runner

    @property
    def goal(self) -> int:
        """How far readers see."""
        return self._runner.position

    @property
    def failures(self) -> Sequence[ProjectionFailedError]:
        """Why it has stopped."""
        failure = self._build.failure
        return [] if failure is None else [failure]

    def check(self) -> None:
        """See that no later rebuild has taken over.

        Raises:
            RebuildLostError: one has.
        """
        if self._runner.building is not self._build:
            raise RebuildLostError(name=self._runner.name)

    async def take(self, page: SubscribedPage[E]) -> None:
        """Apply a page."""
        await self._build.take(page)
        self.bookmark = page.bookmark

    async def keep(self) -> None:
        """Nothing to do: every page was committed together with its checkpoint."""

    async def show(self) -> None:
        """Let readers see it from now on."""
        if self._build.failure is None:
            await self._runner.swap(self._build)
        await self._runner.end_build()
