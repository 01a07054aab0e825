"""Which states are saved, when, and which saved ones are believed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Generic, TypeVar

import anyio.to_thread

from eventstore import Event, EventReader
from projections._projection import Projection
from projections._snapshots import Saved, Snapshots
from projections._view import Table

__all__ = ["Saver"]

E = TypeVar("E", bound=Event)

# Before the projection's name, and a handler's has one too: so nobody's name is another one's.
_VIEW: Final = "view of "
_HALF: Final = "half of "


class Saver(Generic[E]):
    """Saves tables, and finds what was saved of them.

    Args:
        store: the log, which has to recognize what was saved.
        snapshots: where; None saves nothing and finds nothing.
    """

    def __init__(self, store: EventReader[E], snapshots: Snapshots | None) -> None:
        self._store = store
        self._snapshots = snapshots
        self._positions: dict[str, int] = {}  # of what is saved

    async def restore(
        self, projection: Projection[Any, E]
    ) -> tuple[Table[Any, E] | None, Saved | None]:
        """What was saved of this log: by this revision, and else by another one."""
        saved, old = await self._find(_VIEW + projection.name, projection)
        if saved is None:
            return None, old
        self._positions[projection.name] = saved.bookmark.position
        return Table(projection, saved.states, saved.bookmark), None

    async def restore_half(self, projection: Projection[Any, E]) -> Table[Any, E] | None:
        """What was saved of a rebuild that was broken off."""
        saved, _ = await self._find(_HALF + projection.name, projection)
        return None if saved is None else Table(projection, saved.states, saved.bookmark)

    async def save(self, tables: Iterable[Table[Any, E]], *, anew: bool = False) -> None:
        """Save those that got further since they were saved, or all of them.

        Cancellation: what is not saved is tried again the next time.
        """
        for table in list(tables):
            position = table.position  # it may go on meanwhile
            if anew or position != self._positions.get(table.name, 0):
                # Also if `anew`, when the saved states of this very position are other ones.
                self._positions.pop(table.name, None)
                if await self._save(_VIEW + table.name, table):
                    self._positions[table.name] = position

    async def save_half(self, tables: Iterable[Table[Any, E]]) -> None:
        """Save what is half built."""
        for table in list(tables):
            if table.failure is None:
                await self._save(_HALF + table.name, table)

    async def remove_half(self, tables: Iterable[Table[Any, E]]) -> None:
        """Forget what was half built."""
        if self._snapshots is not None:
            for table in list(tables):
                await anyio.to_thread.run_sync(self._snapshots.remove, _HALF + table.name)

    async def _find(
        self, name: str, projection: Projection[Any, E]
    ) -> tuple[Saved | None, Saved | None]:
        old: Saved | None = None
        if self._snapshots is not None:
            saves = self._snapshots.load(name, projection.state_type)
            while (saved := await anyio.to_thread.run_sync(_next, saves)) is not None:
                if not await self._store.recognizes(saved.bookmark):
                    continue
                if saved.revision == projection.revision:
                    return saved, None
                old = old or saved
        return None, old

    async def _save(self, name: str, table: Table[Any, E]) -> bool:
        """Save a table; say whether it is on the disk now."""
        if self._snapshots is None or table.bookmark is None:
            return False
        saved = Saved(table.revision, table.bookmark, table.view())
        state_type = table.projection.state_type
        return await anyio.to_thread.run_sync(self._snapshots.save, name, state_type, saved)


def _next(saves: Iterator[Saved]) -> Saved | None:
    return next(saves, None)
