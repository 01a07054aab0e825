"""A projection's states, key by key: what readers see, and how the next page changes it. Pure.

A view never changes. The table under it is copied at the first change after somebody took a view,
and changed in place otherwise: taking one costs nothing, and a table nobody looks at costs nothing
to keep either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from eventstore import Bookmark, Event, Recorded
from projections._projection import Loaded, Projection, S, split_by
from projections._projector_errors import ProjectionFailedError

__all__ = ["Changes", "Table", "View", "fold_page"]

E = TypeVar("E", bound=Event)


class View(Mapping[str, Loaded[S]]):
    """State by key as of one position of the log: an immutable mapping, in order of appearance.

    Attributes:
        position: how far into the log it goes.
        revision: of the projection that made it. Lower than the one that was asked for while that
            is still being built for the first time.
    """

    __slots__ = ("_states", "position", "revision")

    def __init__(self, states: Mapping[str, Loaded[S]], *, position: int, revision: int) -> None:
        self._states = states
        self.position = position
        self.revision = revision

    def __getitem__(self, key: str) -> Loaded[S]:
        return self._states[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)

    def __repr__(self) -> str:
        return f"<view of {len(self)} keys at position {self.position}>"


class Changes(Generic[S]):
    """What one page makes of a table: new states, or the reason why there are none."""

    __slots__ = ("failure", "states")

    def __init__(
        self,
        states: Mapping[str, Loaded[S]],
        failure: ProjectionFailedError | None = None,
    ) -> None:
        self.states = states
        self.failure = failure


class Table(Generic[S, E]):
    """The states of one projection, up to a bookmark.

    Args:
        projection: whose.
        states: by key; not changed here.
        bookmark: how far they go; None for the log's beginning.
    """

    def __init__(
        self,
        projection: Projection[S, E],
        states: Mapping[str, Loaded[S]] | None = None,
        bookmark: Bookmark | None = None,
    ) -> None:
        self.projection = projection
        self.bookmark = bookmark
        self.failure: ProjectionFailedError | None = None
        self._states: dict[str, Loaded[S]] = dict(states or {})
        self._view: View[S] | None = None
        self._is_shared = False

    @property
    def name(self) -> str:
        """The projection's."""
        return self.projection.name

    @property
    def revision(self) -> int:
        """The projection's."""
        return self.projection.revision

    @property
    def position(self) -> int:
        """How far into the log it goes."""
        return 0 if self.bookmark is None else self.bookmark.position

    def view(self) -> View[S]:
        """What readers see; the same object until something changes."""
        if self._view is None:
            self._view = View(
                self._states, position=self.position, revision=self.projection.revision
            )
            self._is_shared = True
        return self._view

    def get(self, key: str) -> Loaded[S] | None:
        """The state of a key."""
        return self._states.get(key)

    def advance(self, changes: Changes[S], bookmark: Bookmark) -> None:
        """Take the changes that a page makes; it ends at a bookmark."""
        if changes.failure is not None:
            self.failure = changes.failure
            return
        if changes.states:
            if self._is_shared:
                self._states = {**self._states, **changes.states}
                self._is_shared = False
            else:
                self._states.update(changes.states)
        if bookmark.position > self.position:
            self.bookmark = bookmark
            self._view = None


def fold_page(tables: Sequence[Table[Any, E]], events: Sequence[Recorded[E]]) -> list[Changes[Any]]:
    """Fold one page by several projections, for a worker thread: changes no table.

    What a table has already is skipped. A projection that raises fails alone.
    """
    split: dict[Any, dict[str, list[Recorded[E]]]] = {}  # mostly all have the same key function
    found: list[Changes[Any]] = []
    for table in tables:
        news = _behind(events, table.position)
        key_of = table.projection.key
        try:
            if len(news) < len(events):
                parts = split_by(key_of, news)
            elif key_of in split:
                parts = split[key_of]
            else:
                parts = split[key_of] = split_by(key_of, news)
            found.append(Changes(_folded(table, parts)))
        except Exception as error:  # noqa: BLE001 - whatever a user's function raises stops it alone
            found.append(Changes({}, _failure(table, news, error)))
    return found


def _behind(events: Sequence[Recorded[E]], position: int) -> Sequence[Recorded[E]]:
    if not events or events[0].position > position:
        return events
    return [recorded for recorded in events if recorded.position > position]


def _folded(table: Table[S, E], parts: Mapping[str, Sequence[Recorded[E]]]) -> dict[str, Loaded[S]]:
    fold, initial = table.projection.fold, table.projection.initial
    states: dict[str, Loaded[S]] = {}
    for key, part in parts.items():
        before = table.get(key)
        state = fold(initial if before is None else before.state, part)
        states[key] = Loaded(state, part[-1].version, part[-1].position)
    return states


def _failure(
    table: Table[Any, E], events: Sequence[Recorded[E]], error: Exception
) -> ProjectionFailedError:
    """Find the event that it fails at, one by one; the whole page if only the page form fails."""
    projection = table.projection
    states: dict[str, Any] = {}
    position = events[-1].position
    for recorded in events:
        try:
            key = projection.key(recorded)
            if key is not None:
                before = table.get(key)
                old = projection.initial if before is None else before.state
                states[key] = projection.evolve(states.get(key, old), recorded)
        except Exception as again:  # noqa: BLE001 - as above
            position, error = recorded.position, again
            break
    return ProjectionFailedError(name=projection.name, position=position, cause=error)
