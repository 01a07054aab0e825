"""Looking back: `load` at a moment, `bisect`, `diff`."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple, assert_type

import msgspec
import pytest

import eventstore as es
import projections as pj
from projections import _load, _travel

OTTER = "bright-otter"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def at(minute: int) -> datetime:
    """A moment after noon."""
    return NOON + timedelta(minutes=minute)


def completed(
    iteration: int, *, minute: int = 0, success: bool = True
) -> es.HistoryEvent[es.LoopEvent]:
    """An iteration that ended at some minute."""
    event = es.IterationCompleted(iteration=iteration, success=success)
    return es.HistoryEvent[es.LoopEvent](event, timestamp=at(minute))


async def fill(store: es.EventStore[es.LoopEvent], *events: es.HistoryEvent[es.LoopEvent]) -> None:
    """Record each event behind one of another stream, so that no number is like another."""
    for event in events:
        await store.append("calm-heron", [completed(99)], expected_version=es.ANY)
        await store.append(OTTER, [event], expected_version=es.ANY)


async def history(store: es.EventReader[es.LoopEvent]) -> list[es.Recorded[es.LoopEvent]]:
    """What the stream holds."""
    return [recorded async for recorded in store.read(OTTER)]


# --- load, at a moment ---

EVERY_FORM = pytest.mark.parametrize(
    "projection",
    [pj.REGISTRY, pj.SUMMARY, pj.LAST_ITERATION, pj.PROMPT],
    ids=["registry", "page form", "newest", "oldest"],
)


@pytest.mark.anyio
@EVERY_FORM
async def test_a_state_at_any_position_is_the_fold_of_the_events_up_to_it(
    store: es.EventStore[es.LoopEvent], projection: pj.Projection[object, es.Event]
) -> None:
    """Whichever end the projection reads from."""
    start = es.HistoryEvent[es.LoopEvent](es.LoopStarted(prompt="auth"))
    await fill(store, completed(0), start, *(completed(n) for n in range(1, 20)))
    everything = await history(store)
    for position in range(store.position + 2):
        prefix = [recorded for recorded in everything if recorded.position <= position]
        loaded = await pj.load(store, projection, OTTER, at_position=position)
        assert loaded.state == functools.reduce(projection.evolve, prefix, projection.initial)
        assert loaded.version == len(prefix)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("minute", "last", "version"), [(-1, None, 0), (0, 1, 1), (4, 1, 1), (5, 2, 2), (60, 3, 3)]
)
async def test_a_state_at_a_time_includes_what_is_stamped_up_to_it(
    store: es.EventStore[es.LoopEvent], minute: int, last: int | None, version: int
) -> None:
    """The moment itself is included; version and position are those of the last event."""
    await fill(store, completed(1), completed(2, minute=5), completed(3, minute=9))
    loaded = await pj.load(store, pj.LAST_ITERATION, OTTER, at_time=at(minute))
    assert loaded == pj.Loaded(last, version, 2 * version)


@pytest.mark.anyio
@EVERY_FORM
async def test_nothing_that_stands_behind_a_later_event_is_in_a_state_of_before(
    store: es.EventStore[es.LoopEvent], projection: pj.Projection[object, es.Event]
) -> None:
    """A clock that was set back changes no order: what follows 12:09 was recorded after it."""
    minutes = [0, 5, 9, 2, 3, 9, 11]
    await fill(store, *(completed(n, minute=minute) for n, minute in enumerate(minutes)))
    everything = await history(store)
    included = {-1: 0, 0: 1, 2: 1, 5: 2, 8: 2, 9: 6, 10: 6, 11: 7}
    for minute, version in included.items():
        loaded = await pj.load(store, projection, OTTER, at_time=at(minute))
        folded = functools.reduce(projection.evolve, everything[:version], projection.initial)
        assert (loaded.state, loaded.version) == (folded, version)


def test_a_state_at_a_time_ends_at_the_first_page_with_a_later_event() -> None:
    """Pages behind it are not looked at, whatever stands in them."""
    minutes = [(0, 1), (2, 9), (3, 4)]
    pages = [
        [es.Recorded(es.MergeQueued(), at(minute), 2 * n + m, 7) for m, minute in enumerate(page)]
        for n, page in enumerate(minutes)
    ]
    counted = pj.Projection[int, es.Event](name="count", initial=0, evolve=lambda n, _: n + 1)
    assert _load._fold_before(counted, at(5), iter(pages)) == pj.Loaded(3, 2, 7)


@pytest.mark.anyio
async def test_a_time_may_be_given_in_any_timezone(store: es.EventStore[es.LoopEvent]) -> None:
    """The moment counts, not how it is written; without a timezone it is none."""
    await fill(store, completed(1), completed(2, minute=5))
    there = at(1).astimezone(timezone(timedelta(hours=9)))
    assert (await pj.load(store, pj.LAST_ITERATION, OTTER, at_time=there)).state == 1
    with pytest.raises(ValueError, match="needs a timezone"):
        await pj.load(store, pj.LAST_ITERATION, OTTER, at_time=at(1).replace(tzinfo=None))


@pytest.mark.anyio
async def test_a_state_at_an_iteration_is_that_after_its_last_attempt(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """An iteration that was repeated counts as it ended last."""
    await fill(store, completed(1, success=False), completed(2), completed(1), completed(3))
    loaded = await pj.load(store, pj.SUMMARY, OTTER, at_iteration=1)
    assert (loaded.state.iterations_failed, loaded.version, loaded.position) == (1, 3, 6)
    assert (await pj.load(store, pj.LAST_ITERATION, OTTER, at_iteration=2)).version == 2


@pytest.mark.anyio
async def test_an_iteration_that_never_ended_has_no_state(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """That another stream completed it, or that this one started it, does not help."""
    await fill(store, es.HistoryEvent(es.IterationStarted(iteration=99)))
    with pytest.raises(pj.IterationNotFoundError, match="'bright-otter' has no completed iter"):
        await pj.load(store, pj.SUMMARY, OTTER, at_iteration=99)


@pytest.mark.anyio
async def test_one_moment_at_most_is_asked_for(store: es.EventStore[es.LoopEvent]) -> None:
    """Two would have to agree, so they are refused, also where both are 0."""
    with pytest.raises(ValueError, match="give one of"):
        await pj.load(store, pj.SUMMARY, OTTER, at_position=0, at_iteration=0)


# --- bisect ---


@pytest.mark.anyio
@pytest.mark.parametrize("wanted", [0, 1, 2, 7, 30, 31])
async def test_bisect_finds_the_event_that_made_the_difference(
    store: es.EventStore[es.LoopEvent], wanted: int
) -> None:
    """The event as it stands in the log, the state before it and the state after it."""
    await fill(store, *(completed(n, success=n % 3 > 0) for n in range(31)))
    turn = await pj.bisect(
        store, pj.SUMMARY, OTTER, lambda summary: summary.iterations_completed >= wanted
    )
    everything = await history(store)
    if wanted == 31:
        assert turn is None
        return
    assert turn is not None
    assert_type(turn, pj.Turn[pj.Summary, es.LoopEvent])
    assert turn.recorded == everything[wanted]
    assert turn.before == (await pj.load(store, pj.SUMMARY, OTTER, at_position=2 * wanted)).state
    after = await pj.load(store, pj.SUMMARY, OTTER, at_position=2 * wanted + 2)
    assert turn.after == after.state


@pytest.mark.anyio
async def test_bisect_shows_the_data_beside_the_event(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """Also where the projection itself needs none: somebody is looking for a cause."""
    event = es.HistoryEvent[es.LoopEvent](es.LoopStarted(prompt="auth"), data={"who": "me"})
    await fill(store, event)
    turn = await pj.bisect(store, pj.PROMPT, OTTER, lambda prompt: prompt is not None)
    assert turn is not None
    assert turn.recorded.data == {"who": "me"}


@pytest.mark.anyio
async def test_bisect_in_a_stream_that_does_not_exist_finds_nothing(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """There is no event, whatever the initial state is."""
    assert await pj.bisect(store, pj.SUMMARY, "nobody", lambda _: True) is None


@pytest.mark.anyio
async def test_what_the_predicate_raises_is_the_callers(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """It passes through the worker thread as it is."""
    await fill(store, completed(1))
    with pytest.raises(ZeroDivisionError):
        await pj.bisect(store, pj.SUMMARY, OTTER, lambda _: 1 // 0 > 0)


@pytest.mark.parametrize("wanted", [1, 2, 99, 100, 101, 250, 999, 1_000])
def test_bisect_folds_hardly_more_than_what_lies_before_the_event(wanted: int) -> None:
    """Ten pages of a hundred: those up to the event, one once more, and seven questions for it."""
    folded = 0
    asked = 0

    def add(total: int, _: es.Recorded[es.Event]) -> int:
        nonlocal folded
        folded += 1
        return total + 1

    def reached(total: int) -> bool:
        nonlocal asked
        asked += 1
        return total >= wanted

    numbers = itertools.count(1)
    event = es.MergeQueued()
    pages = [
        [es.Recorded(event, NOON, n, n) for n in itertools.islice(numbers, 100)] for _ in range(10)
    ]
    projection = pj.Projection[int, es.Event](name="count", initial=0, evolve=add)
    turn = _travel._bisect(projection, reached, iter(pages))
    assert turn is not None
    assert (turn.recorded.version, turn.before, turn.after) == (wanted, wanted - 1, wanted)
    pages_read = -(-wanted // 100)
    assert folded <= (pages_read + 1) * 100 + 1
    assert asked <= pages_read + 7


# --- diff ---


class Inner(msgspec.Struct, frozen=True):
    """A part of a state."""

    number: int = 0
    texts: tuple[str, ...] = ()


class State(msgspec.Struct, frozen=True):
    """A state."""

    inner: Inner = Inner()
    by_name: dict[str, Inner] = {}
    flag: bool | int = False


@dataclasses.dataclass
class Plain:
    """A dataclass with an inner list."""

    items: list[int]


class Named(NamedTuple):
    """A named tuple."""

    a: int
    b: int


UNSET = msgspec.UNSET


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        (State(), State(), []),
        (State(), State(inner=Inner(number=2)), [(("inner", "number"), 0, 2)]),
        (1, 2, [((), 1, 2)]),
        (None, Inner(), [((), None, Inner())]),
        (State(flag=False), State(flag=0), [(("flag",), False, 0)]),
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, [
            (("a",), 1, UNSET), (("b",), 2, 3), (("c",), UNSET, 4),
        ]),
        ([1, 2, 3], [1, 9, 3], [((1,), 2, 9)]),
        ([1, 2, 3], [0, 1, 2, 3], [((0,), UNSET, 0)]),
        ([1, 1], [1], [((1,), 1, UNSET)]),
        ([1, 2, 3, 4], [1, 4], [((1,), 2, UNSET), ((2,), 3, UNSET)]),
        (("a", Inner()), ("a", Inner(number=1)), [((1, "number"), 0, 1)]),
        (Plain([1]), Plain([1, 2]), [(("items", 1), UNSET, 2)]),
        (Named(1, 2), Named(1, 3), [(("b",), 2, 3)]),
        ({1: "a"}, {1: "b"}, [((1,), "a", "b")]),
        ({NOON: "a"}, {NOON: "b"}, [((str(NOON),), "a", "b")]),
        ({1, 2}, {1}, [((), {1, 2}, {1})]),
        (
            State(by_name={"x": Inner(texts=("a",))}),
            State(by_name={"x": Inner(texts=("a", "b"))}),
            [(("by_name", "x", "texts", 1), UNSET, "b")],
        ),
    ],
)  # fmt: skip
def test_diff_names_the_places_where_two_states_differ(
    old: object, new: object, changes: list[tuple[Any, object, object]]
) -> None:
    """Structs, dataclasses, mappings and sequences by member; everything else as a whole."""
    found = pj.diff(old, new)
    assert_type(found, tuple[pj.Change, ...])
    assert [(change.path, change.old, change.new) for change in found] == changes


def test_a_diff_is_bounded() -> None:
    """A thousand changes are more than anybody reads; it stops early, also on endless input."""
    assert len(pj.diff(list(range(5_000)), list(range(5_000, 10_000)))) == 1_000
    assert len(pj.diff([1, 2, 3], [4, 5, 6], changes_max=2)) == 2


def test_a_diff_of_what_nests_without_end_ends() -> None:
    """Deeper than 64 levels two values differ as a whole."""
    old: Any = 1
    new: Any = 2
    for _ in range(200):
        old, new = [old], [new]
    (change,) = pj.diff(old, new)
    assert change.path == (0,) * 64


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (pj.Change(("inner", "number"), 0, 2), "inner.number: 0 -> 2"),
        (pj.Change(("by_name", "a b", 3), UNSET, "x"), "by_name['a b'][3]: nothing -> 'x'"),
        (pj.Change((), None, 1), "state: None -> 1"),
        (pj.Change(("text",), "\x1b[2J", "a" * 99), "text: '\\x1b[2J' -> '" + "a" * 59 + "…"),
    ],
)
def test_a_change_is_one_line_of_text(change: pj.Change, text: str) -> None:
    """It can be printed: long values are cut, and nothing in it drives a terminal."""
    assert str(change) == text
