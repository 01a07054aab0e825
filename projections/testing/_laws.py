"""The laws every projection keeps, checked on given events. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from eventstore import Event, HistoryEvent, Recorded, Unknown
from projections._difference import diff
from projections._projection import Projection, S
from projections.testing._places import record

__all__ = ["check_projection"]

E = TypeVar("E", bound=Event)

_CUTS_MAX: Final = 64
_SHOWN_MAX: Final = 10
_NEVER_HEARD_OF: Final = Unknown(name="never_heard_of", fields={"some": ["thing"]})


def check_projection(
    projection: Projection[S, E],
    events: Iterable[E | Unknown | HistoryEvent[E] | Recorded[E]],
    *,
    state_type: Any = None,
) -> None:
    """Check that a projection is one: what `load`, saved states and followers rely on.

    Over these events: `evolve` never raises, also at an event nobody has heard of; it changes
    neither state nor events and answers the same when asked again; folding in pieces is folding
    at once, wherever the cut; the page form and reading from the deciding end give what `evolve`
    gives; a state that is encoded and decoded in between changes nothing; `key` gives names; and
    with `data=False` nothing depends on `data`.

    Args:
        projection: yours.
        events: what it should meet, oldest first; the more different ones, the better. A property
            test hands in generated ones.
        state_type: as what a saved state is decoded, if its class does not say it all
            (`dict[str, int]`, for example).

    Raises:
        AssertionError: a law is broken; it says which, where, and what differs.
    """
    recorded = record(events)
    kept = copy.deepcopy(recorded)
    laws = _Laws(projection, recorded, state_type)
    laws.check_evolve()
    laws.check_pieces()
    laws.check_ends()
    laws.check_key_and_data()
    laws.same("the events are left as they are", recorded, kept)


class _Laws(Generic[S, E]):
    """One projection, some events, and the states after each of them."""

    def __init__(
        self, projection: Projection[S, E], recorded: Sequence[Recorded[E]], state_type: Any
    ) -> None:
        self._projection = projection
        self._recorded = recorded
        self._state_type = state_type
        every = range(len(recorded) + 1)
        step = max(1, -(-len(every) // _CUTS_MAX))
        self._cuts = {*every[::step], len(recorded)}
        self._states: dict[int, S] = {}
        self._final = projection.initial

    def check_evolve(self) -> None:
        initial = copy.deepcopy(self._projection.initial)
        state = self._projection.initial
        for number, recorded in enumerate(self._recorded):
            if number in self._cuts:
                self._states[number] = state
            before = copy.deepcopy(state)
            after = self._evolved(state, recorded)
            self.same("asked again, evolve answers the same", self._evolved(state, recorded), after)
            self._evolved(state, msgspec.structs.replace(recorded, event=_NEVER_HEARD_OF))
            self.same("evolve leaves the state it is given as it is", state, before)
            state = after
        self._states[len(self._recorded)] = self._final = state
        self.same("the initial state stays as it is", self._projection.initial, initial)

    def check_pieces(self) -> None:
        projection = self._projection
        whole = projection.fold(projection.initial, self._recorded)
        self.same("folding all events at once is evolving by each", whole, self._final)
        self.same("folding nothing changes nothing", projection.fold(self._final, ()), self._final)
        for cut in sorted(self._cuts):
            state = self._states[cut]
            prefix = projection.fold(projection.initial, self._recorded[:cut])
            rest = self._recorded[cut:]
            self.same(f"folding {cut} events is evolving by each", prefix, state)
            self.same(
                f"after {cut} events, the rest goes on", projection.fold(prefix, rest), self._final
            )
            saved = self._saved(state)
            self.same(f"the state after {cut} events can be saved", saved, state)
            self.same(
                f"from the state saved after {cut} events, the rest goes on",
                projection.fold(saved, rest),
                self._final,
            )

    def check_ends(self) -> None:
        for cut in sorted(self._cuts):
            pages = [self._recorded[:cut], self._recorded[cut:]]
            if self._projection.backwards:
                pages = [page[::-1] for page in reversed(pages)]
            found = self._projection.fold_pages(pages)
            self.same(f"reading it in pages, cut at {cut}, is folding it", found, self._final)

    def check_key_and_data(self) -> None:
        for recorded in self._recorded:
            key = cast("object", self._projection.key(recorded))
            if key is not None and not isinstance(key, str):
                self._broken(f"key gives a name or None, not {key!r}")
        if not self._projection.data:
            bare = [msgspec.structs.replace(recorded, data=None) for recorded in self._recorded]
            found = self._projection.fold(self._projection.initial, bare)
            self.same("data=False says that data does not matter", found, self._final)

    def same(self, law: str, found: object, expected: object) -> None:
        """Compare what a law says is equal."""
        if found != expected or type(found) is not type(expected):
            changes = diff(expected, found, changes_max=_SHOWN_MAX)
            self._broken("\n".join([f"{law}; expected -> found:", *(f"  {c}" for c in changes)]))

    def _evolved(self, state: S, recorded: Recorded[E]) -> S:
        try:
            return self._projection.evolve(state, recorded)
        except Exception as error:
            msg = f"{self._projection}: evolve never raises, but did at {recorded}"
            raise AssertionError(msg) from error

    def _saved(self, state: S) -> S:
        try:
            encoded = msgspec.json.encode(state)
            saved: S = msgspec.json.decode(encoded, type=self._state_type or type(state))
        except (TypeError, msgspec.MsgspecError, ValueError) as error:
            msg = f"{self._projection}: a state can be saved as JSON, but {state!r} cannot"
            raise AssertionError(msg) from error
        return saved

    def _broken(self, law: str) -> None:
        msg = f"{self._projection}: {law}"
        raise AssertionError(msg)
