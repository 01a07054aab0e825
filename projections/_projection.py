"""A projection is a value: a name, an initial state, and how one event changes it. Pure.

Two ways to be faster than one `evolve` per event, both bound to give the same answer:

* the page form (`fold`) takes many events at once, with mutable locals;
* an answer that stands at one end of the log (`newest_first`, `oldest_first`) is read from that
  end and stops there. `latest` and `first` build such projections from one function.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from eventstore import Event, Recorded

__all__ = ["Loaded", "Projection", "first", "latest", "split_by"]

S = TypeVar("S")
T = TypeVar("T")
E = TypeVar("E", bound=Event)
E_contra = TypeVar("E_contra", bound=Event, contravariant=True)

_BY_STREAM: Final[Callable[[Recorded[Event]], str | None]] = operator.attrgetter("stream")


class Loaded(msgspec.Struct, Generic[S], frozen=True):
    """A state, and how much of the log it includes.

    Attributes:
        state: the folded state.
        version: version of the last event it includes, 0 if it includes none. After `load` it is
            the stream's version, so it is what to expect when appending.
        position: position of that event, 0 if there is none.
    """

    state: S
    version: int
    position: int


class Projection(Generic[S, E_contra]):
    """A named fold over events, pure and total: `evolve(state, recorded) -> state`.

    `evolve` is the definition. It never raises, changes nothing, and asks no clock; `Unknown` and
    the kinds of others can always turn up, and mostly mean "no change". Whatever else is given
    has to agree with it.

    Args:
        name: what this projection is called, unique among yours.
        initial: the state before the first event; immutable.
        evolve: the state after one more event.
        revision: raise it when `evolve` or the state changes, so that saved states are rebuilt.
        key: which state an event belongs to, or None for no state at all; by stream unless given.
            `load_all` keeps one state per key; `load` folds one stream, whatever the key.
        fold: the page form of `evolve`.
        data: False says that nothing here looks at a recorded event's `data`, so that it need not
            be decoded; it is None then.
        newest_first: the state after some events, given newest first; it stops reading them when
            the older ones no longer matter. `load` then reads from the end of the log.
        oldest_first: the same for events given oldest first.
        state_type: what `msgspec` is to read a saved state as, such as `int | None`; the class of
            `initial` unless given. A state that does not read back equal is never saved.
    """

    __slots__ = (
        "data",
        "evolve",
        "fold",
        "initial",
        "key",
        "name",
        "newest_first",
        "oldest_first",
        "revision",
        "state_type",
    )

    def __init__(
        self,
        *,
        name: str,
        initial: S,
        evolve: Callable[[S, Recorded[E_contra]], S],
        revision: int = 1,
        key: Callable[[Recorded[E_contra]], str | None] | None = None,
        fold: Callable[[S, Sequence[Recorded[E_contra]]], S] | None = None,
        data: bool = True,
        newest_first: Callable[[S, Iterable[Recorded[E_contra]]], S] | None = None,
        oldest_first: Callable[[S, Iterable[Recorded[E_contra]]], S] | None = None,
        state_type: Any = None,
    ) -> None:
        assert newest_first is None or oldest_first is None, "an answer stands at one end"
        self.name: Final = name
        self.initial: Final = initial
        self.evolve: Final = evolve
        self.revision: Final = revision
        self.key: Final[Callable[[Recorded[E_contra]], str | None]] = key or _BY_STREAM
        self.data: Final = data
        self.newest_first: Final = newest_first
        self.oldest_first: Final = oldest_first
        self.state_type: Final[Any] = type(initial) if state_type is None else state_type
        self.fold: Final = fold or oldest_first or self._fold_in_order

    def __repr__(self) -> str:
        return f"<projection {self.name!r}, revision {self.revision}>"

    @property
    def backwards(self) -> bool:
        """Whether `fold_pages` wants the newest event first."""
        return self.newest_first is not None

    def fold_pages(self, pages: Iterable[Sequence[Recorded[E_contra]]]) -> S:
        """Fold pages of events, from the initial state; stop where the answer is decided.

        Args:
            pages: oldest first, or newest page and event first if `backwards`.
        """
        from_one_end = self.newest_first or self.oldest_first
        if from_one_end is not None:
            return from_one_end(self.initial, itertools.chain.from_iterable(pages))
        return functools.reduce(self.fold, pages, self.initial)

    def _fold_in_order(self, state: S, events: Sequence[Recorded[E_contra]]) -> S:
        if self.newest_first is not None:
            return self.newest_first(state, reversed(events))
        return functools.reduce(self.evolve, events, state)


def split_by(
    key_of: Callable[[Recorded[E]], str | None], events: Iterable[Recorded[E]]
) -> dict[str, list[Recorded[E]]]:
    """Which events belong to which key, in their order; without those that belong to none.

    Neighbours are taken together: a page mostly holds many events of a stream side by side.
    """
    parts: dict[str, list[Recorded[E]]] = {}
    for key, part in itertools.groupby(events, key_of):
        known = None if key is None else parts.get(key)
        if known is not None:
            known += part
        elif key is not None:
            parts[key] = list(part)
    return parts


def latest(
    name: str,
    pick: Callable[[Recorded[Event]], T | None],
    *,
    revision: int = 1,
    data: bool = True,
    state_type: Any = None,
) -> Projection[T | None, Event]:
    """Make a projection whose state is what `pick` finds in the newest event it accepts.

    It is read from the end of the log, and no further than to that event.

    Args:
        name: as in `Projection`.
        pick: the state that an event decides, or None if it decides nothing.
        revision: as in `Projection`.
        data: as in `Projection`; False says that `pick` does not look at `data`.
        state_type: as in `Projection`; without it the state is never saved.
    """

    def evolve(state: T | None, recorded: Recorded[Event]) -> T | None:
        picked = pick(recorded)
        return state if picked is None else picked

    def newest_first(state: T | None, events: Iterable[Recorded[Event]]) -> T | None:
        return _pick_from(events, pick, otherwise=state)

    return Projection(
        name=name,
        initial=None,
        evolve=evolve,
        revision=revision,
        data=data,
        newest_first=newest_first,
        state_type=state_type,
    )


def first(
    name: str,
    pick: Callable[[Recorded[Event]], T | None],
    *,
    revision: int = 1,
    data: bool = True,
    state_type: Any = None,
) -> Projection[T | None, Event]:
    """Make a projection whose state is what `pick` finds in the oldest event it accepts.

    It is read from the beginning of the log, and no further than to that event.

    Args:
        name: as in `Projection`.
        pick: the state that an event decides, or None if it decides nothing.
        revision: as in `Projection`.
        data: as in `Projection`; False says that `pick` does not look at `data`.
        state_type: as in `Projection`; without it the state is never saved.
    """

    def evolve(state: T | None, recorded: Recorded[Event]) -> T | None:
        return pick(recorded) if state is None else state

    def oldest_first(state: T | None, events: Iterable[Recorded[Event]]) -> T | None:
        return _pick_from(events, pick, otherwise=None) if state is None else state

    return Projection(
        name=name,
        initial=None,
        evolve=evolve,
        revision=revision,
        data=data,
        oldest_first=oldest_first,
        state_type=state_type,
    )


def _pick_from(
    events: Iterable[Recorded[Event]],
    pick: Callable[[Recorded[Event]], T | None],
    *,
    otherwise: T | None,
) -> T | None:
    for recorded in events:
        picked = pick(recorded)
        if picked is not None:
            return picked
    return otherwise
