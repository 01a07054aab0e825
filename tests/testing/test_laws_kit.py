"""`check_projection`: it lets good projections pass, and finds each kind of bad one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec
import pytest

import eventstore as es
import projections as pj
from projections.testing import check_projection
from projections.testing._places import record

EVENTS: list[es.Event | es.HistoryEvent[es.Event]] = [
    es.LoopStarted(prompt="auth"),
    es.HistoryEvent[es.Event](es.IterationStarted(iteration=1), data={"cost": 1}),
    es.IterationCompleted(iteration=1, success=True),
    es.Unknown(name="paid", fields={"amount": 3}),
    es.IterationStarted(iteration=2),
    es.MergeFailed(reason="x"),
]


class Counted(msgspec.Struct, frozen=True):
    """A state that can be changed in spite of being frozen: it holds a list."""

    kinds: list[str] = []


Fold = pj.Projection[Any, es.Event]


def count(state: int, _: es.Recorded[es.Event]) -> int:
    """The simplest fold."""
    return state + 1


def first_kind(state: Any, events: Iterable[es.Recorded[es.Event]]) -> Any:
    """What `first` would give for the newest event: wrong."""
    return next((recorded.kind for recorded in events), state)


def raising(state: int, recorded: es.Recorded[es.Event]) -> int:
    """Know all kinds."""
    if isinstance(recorded.event, es.Unknown):
        raise TypeError(recorded.event.name)
    return state + 1


def changing(state: Counted, recorded: es.Recorded[es.Event]) -> Counted:
    """Change the state in place."""
    state.kinds.append(recorded.kind)
    return state


def careless_with_data(state: int, recorded: es.Recorded[es.Event]) -> int:
    """Change the event's data."""
    if recorded.data:
        recorded.data["seen"] = True
    return state + 1


def moody() -> Any:
    """A fold that answers otherwise each time."""
    asked: list[int] = []

    def evolve(_: int, __: es.Recorded[es.Event]) -> int:
        asked.append(1)
        return len(asked)

    return evolve


def averaged(state: float, events: Sequence[es.Recorded[es.Event]]) -> float:
    """A page form that depends on where the pages begin."""
    return state + len(events) ** 2


def last_kind(_: str | None, recorded: es.Recorded[es.Event]) -> str:
    """The newest kind."""
    return recorded.kind


def newest(state: str | None, events: Sequence[es.Recorded[es.Event]]) -> str | None:
    """The newest kind, in the page form."""
    return events[-1].kind if events else state


def cost(state: int, recorded: es.Recorded[es.Event]) -> int:
    """Sum what stands in the data."""
    return state + cast("dict[str, int]", recorded.data or {}).get("cost", 0)


BROKEN = {
    "evolve never raises": Fold(name="broken", initial=0, evolve=raising),
    "state it is given as it is": Fold(name="broken", initial=Counted(), evolve=changing),
    "events are left as they are": Fold(name="broken", initial=0, evolve=careless_with_data),
    "evolve answers the same": Fold(name="broken", initial=0, evolve=moody()),
    "is evolving by each": Fold(name="broken", initial=0, evolve=count, fold=averaged),
    "reading it in pages": Fold(
        name="broken", initial=None, evolve=last_kind, fold=newest, oldest_first=first_kind
    ),
    "can be saved as JSON": Fold(name="broken", initial=(), evolve=lambda s, _: (*s, 1j)),
    "can be saved": Fold(name="broken", initial=(), evolve=lambda s, r: (*s, r.timestamp)),
    "key gives a name or None": Fold(
        name="broken", initial=0, evolve=count, key=lambda r: r.version  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    ),
    "data does not matter": Fold(name="broken", initial=0, evolve=cost, data=False),
}  # fmt: skip


@pytest.mark.parametrize(
    "projection",
    [pj.REGISTRY, pj.SUMMARY, pj.LAST_ITERATION, pj.PROMPT, pj.TIMELINE, pj.COMPLETION],
    ids=repr,
)
def test_the_built_in_projections_keep_the_laws(projection: pj.Projection[Any, es.Event]) -> None:
    """On events, on events with data beside them, and on what nobody knows."""
    check_projection(projection, EVENTS)
    check_projection(projection, [])


@pytest.mark.parametrize("law", BROKEN)
def test_each_broken_law_is_named(law: str) -> None:
    """The message names the projection and the law."""
    with pytest.raises(AssertionError, match=law) as raised:
        check_projection(BROKEN[law], EVENTS)
    assert str(raised.value).startswith("<projection 'broken', revision 1>: ")


def test_a_state_whose_class_does_not_say_all_needs_its_type() -> None:
    """Then what is saved is decoded as that."""

    def tally(state: dict[int, int], recorded: es.Recorded[es.Event]) -> dict[int, int]:
        return {**state, recorded.version: 1}

    tallied = pj.Projection(name="tally", initial=dict[int, int](), evolve=tally)
    check_projection(tallied, EVENTS, state_type=dict[int, int])
    with pytest.raises(AssertionError, match="can be saved"):
        check_projection(tallied, EVENTS)


def test_what_differs_is_shown_member_by_member() -> None:
    """A wrong page form of a struct is told by the member that is wrong."""

    def fold(state: pj.Summary, _: Sequence[es.Recorded[es.Event]]) -> pj.Summary:
        return state

    wrong = pj.Projection(name="wrong", initial=pj.Summary(), evolve=pj.SUMMARY.evolve, fold=fold)
    with pytest.raises(AssertionError, match=r"prompt: 'auth' -> None"):
        check_projection(wrong, EVENTS)


def test_recorded_events_keep_their_places() -> None:
    """So events read from a log can be handed in as they are."""
    (recorded,) = record([EVENTS[0]])
    moved = msgspec.structs.replace(recorded, version=7, position=70, stream="otter")
    assert record([moved]) == [moved]
    check_projection(pj.REGISTRY, [moved])
