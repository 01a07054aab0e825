"""Projections over a store: load and load_all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type, cast

import pytest

import eventstore as es
import projections as pj

pytestmark = pytest.mark.anyio

STARTED = es.LoopStarted(prompt="implement auth")


class Paid(es.Event):
    """A kind of a user's own."""

    amount: int


async def fill(store: es.EventStore[es.LoopEvent]) -> None:
    """Two loops whose events alternate: otter at odd positions, heron at even ones."""
    for iteration in (1, 2, 3):
        for stream in ("otter", "heron"):
            event: es.LoopEvent = es.IterationCompleted(
                iteration=iteration * (10 if stream == "heron" else 1), success=True
            )
            first = iteration == 1 and stream == "otter"
            await store.append(stream, [STARTED if first else event], expected_version=es.ANY)


async def test_load_folds_one_stream(store: es.EventStore[es.LoopEvent]) -> None:
    """State, version and position are of the stream asked for, whatever stands around it."""
    await fill(store)
    loaded = await pj.load(store, pj.SUMMARY, "otter")
    assert (loaded.state.iterations_completed, loaded.state.prompt) == (3, "implement auth")
    assert (loaded.version, loaded.position) == (3, 5)


@pytest.mark.parametrize(
    "projection", [pj.SUMMARY, pj.COMPLETION, pj.PROMPT], ids=["all", "newest", "oldest"]
)
async def test_load_of_an_absent_stream_is_the_initial_state_at_zero(
    store: es.EventStore[es.LoopEvent], projection: pj.Projection[object, es.Event]
) -> None:
    """Version 0 is what a first append expects."""
    await fill(store)
    assert await pj.load(store, projection, "nobody") == pj.Loaded(projection.initial, 0, 0)


async def test_load_tells_the_streams_version_from_whichever_end_it_reads(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """An answer decided early still says how far the stream goes: it can be expected on append."""
    await fill(store)
    assert await pj.load(store, pj.PROMPT, "otter") == pj.Loaded("implement auth", 3, 5)
    assert await pj.load(store, pj.LAST_ITERATION, "heron") == pj.Loaded(30, 3, 6)


@pytest.mark.parametrize(
    ("at_position", "last_iteration", "version", "position"),
    [(0, None, 0, 0), (1, None, 0, 0), (2, 10, 1, 2), (3, 10, 1, 2), (5, 20, 2, 4), (9, 30, 3, 6)],
)
async def test_load_at_a_position_is_the_state_of_then(
    store: es.EventStore[es.LoopEvent],
    at_position: int,
    last_iteration: int | None,
    version: int,
    position: int,
) -> None:
    """Events after that position are left out, forwards and backwards alike."""
    await fill(store)
    from_the_end = await pj.load(store, pj.LAST_ITERATION, "heron", at_position=at_position)
    assert from_the_end == pj.Loaded(last_iteration, version, position)
    entry = await pj.load(store, pj.SUMMARY, "heron", at_position=at_position)
    assert entry.state.iterations_completed == (last_iteration or 0)
    assert (entry.version, entry.position) == (version, position)


async def test_a_first_projection_at_a_position_sees_nothing_younger(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """Before the event that decides, there is no answer."""
    await store.append("otter", [es.MergeQueued(), STARTED], expected_version=es.ANY)
    assert await pj.load(store, pj.PROMPT, "otter", at_position=1) == pj.Loaded(None, 1, 1)
    assert await pj.load(store, pj.PROMPT, "otter", at_position=2) == pj.Loaded(
        "implement auth", 2, 2
    )


async def test_load_all_folds_every_stream_in_one_pass(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """Each state is what `load` gives for its stream, in the order of first appearance."""
    await fill(store)
    entries = await pj.load_all(store, pj.REGISTRY)
    assert list(entries) == ["otter", "heron"]
    assert entries["otter"].state.state == "running"
    for stream, entry in entries.items():
        assert entry == await pj.load(store, pj.REGISTRY, stream)


@pytest.mark.parametrize(
    "projection", [pj.SUMMARY, pj.COMPLETION, pj.PROMPT], ids=["all", "newest", "oldest"]
)
async def test_load_all_and_load_agree(
    store: es.EventStore[es.LoopEvent], projection: pj.Projection[object, es.Event]
) -> None:
    """Whichever end decides, one pass over all streams gives what reading each one gives."""
    await fill(store)
    for stream, loaded in (await pj.load_all(store, projection)).items():
        assert loaded == await pj.load(store, projection, stream)


async def test_the_state_type_is_inferred(store: es.EventStore[es.LoopEvent]) -> None:
    """Both type checkers know a state's type, also over a store of a wider union."""
    wide = cast("es.EventStore[es.LoopEvent | Paid]", store)

    def evolve(state: int, recorded: es.Recorded[es.LoopEvent | Paid]) -> int:
        return state + recorded.event.amount if isinstance(recorded.event, Paid) else state

    paid = pj.Projection(name="paid", initial=0, evolve=evolve)
    assert_type((await pj.load(store, pj.SUMMARY, "otter")).state, pj.Summary)
    assert_type((await pj.load(wide, pj.SUMMARY, "otter")).state, pj.Summary)
    assert_type((await pj.load(store, pj.LAST_ITERATION, "otter")).state, int | None)
    assert_type((await pj.load(wide, paid, "otter")).state, int)
    assert_type((await pj.load(store, paid, "otter")).state, int)
    assert_type(await pj.load_all(wide, pj.REGISTRY), Mapping[str, pj.Loaded[pj.LoopEntry]])


async def test_load_all_groups_by_the_projections_own_key(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """Events without a key belong to no state; a key may join several streams."""
    await fill(store)

    def parity(recorded: es.Recorded[es.Event]) -> str | None:
        match recorded.event:
            case es.IterationCompleted(iteration=iteration):
                return "even" if iteration % 2 == 0 else "odd"
            case _:
                return None

    def count(state: int, _: es.Recorded[es.Event]) -> int:
        return state + 1

    counted = pj.Projection(name="parity", initial=0, evolve=count, key=parity)
    assert await pj.load_all(store, counted) == {
        "even": pj.Loaded(4, 3, 6),
        "odd": pj.Loaded(1, 3, 5),
    }


async def test_load_all_of_an_empty_log_is_empty(store: es.EventStore[es.LoopEvent]) -> None:
    """No stream, no state."""
    assert await pj.load_all(store, pj.REGISTRY) == {}


async def test_a_projection_that_wants_data_gets_it(store: es.EventStore[es.LoopEvent]) -> None:
    """`data` stands beside the event unless the projection renounces it."""
    event = es.HistoryEvent[es.LoopEvent](STARTED, data={"cost": 3})
    await store.append("otter", [event], expected_version=es.ANY)

    def cost(recorded: es.Recorded[es.Event]) -> int | None:
        return cast("int", recorded.data["cost"])

    assert (await pj.load(store, pj.latest("cost", cost), "otter")).state == 3


class Refunded(es.Event):
    """A kind that is gone from today's types."""

    amount: int


class PaidInCents(es.Event, tag="paid"):
    """What `Paid` was once."""

    cents: int


async def test_a_projection_sees_todays_events_and_may_ask_for_unknown_ones(
    tmp_path: Path,
) -> None:
    """Old payloads come upcast; what nobody registers any more comes as `Unknown`."""
    path = tmp_path / "history.jsonl"
    before = es.EventTypes[PaidInCents | Refunded](PaidInCents, Refunded)
    async with es.open_store(path, types=before) as earlier:
        old: list[PaidInCents | Refunded] = [PaidInCents(cents=300), Refunded(amount=1)]
        await earlier.append("till", old, expected_version=es.NO_STREAM)

    def to_amount(fields: dict[str, Any]) -> dict[str, Any]:
        return {"amount": fields["cents"] // 100}

    def balance(state: tuple[int, int], recorded: es.Recorded[Paid]) -> tuple[int, int]:
        paid, unknown = state
        match recorded.event:
            case Paid(amount=amount):
                return paid + amount, unknown
            case es.Unknown(name="refunded", fields=fields):
                return paid - int(fields["amount"]), unknown
            case es.Unknown():
                return paid, unknown + 1

    projection = pj.Projection(name="balance", initial=(0, 0), evolve=balance)
    types = es.EventTypes[Paid](Paid, upcasts={"paid": to_amount})
    async with es.open_store(path, types=types) as store:
        await store.append("till", [Paid(amount=5)], expected_version=2)
        assert (await pj.load(store, projection, "till")).state == (7, 0)
