"""Given, when, then: a decision and what it records. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

from eventstore import Event, HistoryEvent, Unknown
from projections._difference import diff
from projections._projection import Projection, S
from projections.testing._places import record

__all__ = ["Given", "Scenario", "When"]

E = TypeVar("E", bound=Event)

_SHOWN_MAX = 10


class Scenario(Generic[S, E]):
    """Decisions made from one projection, told as given, when, then.

    Args:
        projection: what the decisions are made from.
    """

    def __init__(self, projection: Projection[S, E]) -> None:
        self._projection = projection

    def given(self, *events: E | Unknown | HistoryEvent[E]) -> Given[S, E]:
        """Begin with what has happened, oldest first, or with nothing.

        A `HistoryEvent` brings `data` or a timestamp; otherwise events are a second apart.
        """
        return Given(self._projection, events)


class Given(Generic[S, E]):
    """What has happened, seen by a projection."""

    def __init__(
        self, projection: Projection[S, E], events: Sequence[E | Unknown | HistoryEvent[E]]
    ) -> None:
        self._projection = projection
        self._events = tuple(events)

    @property
    def state(self) -> S:
        """What the projection makes of it."""
        return self._projection.fold(self._projection.initial, record(self._events))

    def when(self, decide: Callable[[S], Sequence[E | HistoryEvent[E]]]) -> When[S, E]:
        """Name the decision; it is asked by what follows."""
        return When(self._projection, self._events, self.state, decide)


class When(Generic[S, E]):
    """A decision about what has happened. Each `then…` asks it and raises AssertionError."""

    def __init__(
        self,
        projection: Projection[S, E],
        events: Sequence[E | Unknown | HistoryEvent[E]],
        state: S,
        decide: Callable[[S], Sequence[E | HistoryEvent[E]]],
    ) -> None:
        self._projection = projection
        self._events = events
        self._state = state
        self._decide = decide

    def then(self, *events: E | HistoryEvent[E]) -> When[S, E]:
        """It decides these events, in this order; nothing else about the state matters."""
        decided = [_history_event(event) for event in self._decided()]
        expected = [_history_event(event) for event in events]
        if decided != expected:
            raise AssertionError(_told("decided", decided, expected))
        return self

    def then_nothing(self) -> When[S, E]:
        """It decides that there is nothing to do."""
        return self.then()

    def then_state(self, state: S) -> When[S, E]:
        """With the decided events, the projection's state is this one."""
        decided = record((*self._events, *self._decided()))
        found = self._projection.fold(self._projection.initial, decided)
        if found != state:
            raise AssertionError(_told("the state is", [found], [state]))
        return self

    def then_raises(self, error: type[BaseException], *, match: str | None = None) -> When[S, E]:
        """It refuses with this error; `match` is searched for in its text."""
        try:
            decided = self._decided()
        except error as raised:
            if match is not None and not re.search(match, str(raised)):
                msg = f"{error.__name__} says {str(raised)!r}, which does not match {match!r}"
                raise AssertionError(msg) from raised
            return self
        msg = f"{error.__name__} was not raised; decided: {decided}"
        raise AssertionError(msg)

    def _decided(self) -> Sequence[E | HistoryEvent[E]]:
        """Ask twice: `transact` may have to, so the answer must depend on the state alone."""
        decided, again = tuple(self._decide(self._state)), tuple(self._decide(self._state))
        if decided != again:
            raise AssertionError(_told("decide is not pure, asked again it", again, decided))
        return decided


def _history_event(event: E | HistoryEvent[E]) -> HistoryEvent[E]:
    return event if isinstance(event, HistoryEvent) else HistoryEvent(event)


def _told(what: str, found: Sequence[object], expected: Sequence[object]) -> str:
    lines = [f"{what}:", *(f"  {_plain(item)!r}" for item in found), "expected:"]
    lines += [f"  {_plain(item)!r}" for item in expected]
    plain = [_plain(item) for item in expected], [_plain(item) for item in found]
    lines += ["difference (expected -> found):"]
    lines += [f"  {change}" for change in diff(*plain, changes_max=_SHOWN_MAX)]
    return "\n".join(lines)


def _plain(item: object) -> object:
    """An event as the test wrote it, if there is nothing beside it."""
    if not isinstance(item, HistoryEvent):
        return item
    recorded = cast("HistoryEvent[Event]", item)
    bare = recorded.data is None and recorded.timestamp is None
    return recorded.event if bare else recorded
