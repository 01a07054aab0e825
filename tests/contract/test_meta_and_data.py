"""What is recorded beside an event: data, meta and when it happened."""

from __future__ import annotations

import copy
import operator
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

import eventstore as es
from tests.contract._backends import Backend, line

pytestmark = pytest.mark.anyio

EVENT = es.MergeQueued()
MOMENT = datetime(2026, 11, 21, 0, 0, 3, 255_970, UTC)


@pytest.mark.parametrize(
    "data",
    [{"cost": 0.31, "tags": ["a", None, True]}, [], {}, "", 0, False, -0.0, "\N{SNOWMAN}", [[[1]]]],
    ids=repr,
)
async def test_data_is_any_json_value(store: es.LogStore[es.LoopEvent], data: Any) -> None:
    """It comes back as it was given, empty and false values too."""
    await store.append("otter", [es.HistoryEvent(EVENT, data=data)], expected_version=es.ANY)
    (found,) = [r.data async for r in store.read("otter")]
    assert (found, type(found)) == (data, type(data))


async def test_no_data_leaves_no_trace(backend: Backend, store: es.LogStore[es.LoopEvent]) -> None:
    """Without data, meta or key the line has no such members."""
    await store.append("main", [es.HistoryEvent(EVENT)], expected_version=es.ANY, meta={})
    assert list(line(backend.raw(), 1)) == ["ts", "type", "version", "position", "commit", "crc"]
    (found,) = [r async for r in store.read("main")]
    assert (found.data, found.meta, found.key) == (None, {}, None)


async def test_data_belongs_to_its_event(store: es.LogStore[es.LoopEvent]) -> None:
    """Each event of an append has its own, or none."""
    events: list[es.MergeQueued | es.HistoryEvent[es.MergeQueued]] = [
        es.HistoryEvent(EVENT, data=1),
        EVENT,
        es.HistoryEvent(EVENT, data=[3]),
    ]
    await store.append("otter", events, expected_version=es.ANY)
    assert [r.data async for r in store.read("otter")] == [1, None, [3]]


async def test_meta_belongs_to_every_event_of_its_append(store: es.LogStore[es.LoopEvent]) -> None:
    """Correlation and causation are those of the append."""
    meta = {"correlation_id": "it-7", "actor": "\N{SNOWMAN}", "": ""}
    await store.append("otter", [EVENT, EVENT], expected_version=es.ANY, meta=meta)
    await store.append("otter", [EVENT], expected_version=es.ANY)
    assert [r.meta async for r in store.read("otter")] == [meta, meta, {}]


async def test_everything_beside_an_event_goes_together(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """Data, meta, key and timestamp of one event, none at the cost of another."""
    event = es.HistoryEvent(es.LoopStarted(prompt="p"), data=[1], timestamp=MOMENT)
    await store.append("otter", [event], expected_version=0, key="k", meta={"actor": "test"})
    (found,) = [r async for r in store.read("otter")]
    assert (found.event, found.data, found.timestamp) == (event.event, [1], MOMENT)
    assert (found.key, found.meta, found.stream) == ("k", {"actor": "test"}, "otter")


@pytest.mark.parametrize(
    "meta",
    [
        {"n": 1},
        {"n": None},
        {1: "n"},
        {"n": "\ud800"},
        {"n" * 201: ""},
        {"n": "v" * 2_001},
        {str(number): "" for number in range(33)},
    ],
    ids=["number", "None", "key", "surrogate", "long name", "long value", "too many"],
)
async def test_meta_is_a_few_short_strings(
    backend: Backend, store: es.LogStore[es.LoopEvent], meta: Any
) -> None:
    """Anything else is refused, and nothing is recorded."""
    with pytest.raises(es.EventRefusedError, match="meta"):
        await store.append("otter", [EVENT], expected_version=es.ANY, meta=meta)
    assert backend.raw() == b""


async def test_meta_may_use_all_it_is_allowed(store: es.LogStore[es.LoopEvent]) -> None:
    """32 names of 200 characters, with values of 2,000."""
    meta = {f"{number:0200}": "v" * 2_000 for number in range(32)}
    await store.append("otter", [EVENT], expected_version=es.ANY, meta=meta)
    assert [r.meta async for r in store.read("otter")] == [meta]


# --- timestamps ---


async def test_an_event_is_stamped_when_it_is_appended(backend: Backend) -> None:
    """By the store's clock, cut to microseconds, as UTC, with six digits on disk."""
    nanoseconds = int(MOMENT.timestamp()) * 10**9 + 255_970_999
    async with backend.open(clock=lambda: nanoseconds) as store:
        await store.append("otter", [EVENT, EVENT], expected_version=es.ANY)
        found = [r async for r in store.read("otter")]
    assert [r.timestamp for r in found] == [MOMENT, MOMENT]
    assert found[0].timestamp.tzinfo is UTC
    assert found[0].timestamp_text == "2026-11-21T00:00:03.255970Z"
    assert line(backend.raw(), 1)["ts"] == "2026-11-21T00:00:03.255970Z"


async def test_a_clock_that_goes_back_changes_no_order(backend: Backend) -> None:
    """Timestamps are information; positions are the order."""
    seconds = iter([30, 10, 20])
    async with backend.open(clock=lambda: next(seconds) * 10**9) as store:
        for _ in range(3):
            await store.append("otter", [EVENT], expected_version=es.ANY)
        found = [(r.position, r.timestamp.second) async for r in store.read("otter")]
    assert found == [(1, 30), (2, 10), (3, 20)]


@pytest.mark.parametrize(
    "moment",
    [
        MOMENT,
        MOMENT.astimezone(timezone(timedelta(hours=-9, minutes=-30))),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
    ],
    ids=["UTC", "another zone", "first", "last", "epoch"],
)
async def test_a_given_timestamp_is_kept(
    store: es.LogStore[es.LoopEvent], moment: datetime
) -> None:
    """Imports say when it happened; it is recorded as UTC, to the microsecond."""
    event = es.HistoryEvent(EVENT, timestamp=moment)
    await store.append("otter", [event, EVENT], expected_version=es.ANY)
    found = [r.timestamp async for r in store.read("otter")]
    assert found[0] == moment
    assert found[0].utcoffset() == timedelta()
    assert found[1] != moment


@pytest.mark.parametrize(
    "moment",
    [
        MOMENT.replace(tzinfo=None),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    ],
    ids=["naive", "after the last", "before the first"],
)
async def test_a_timestamp_that_is_no_moment_in_utc_is_refused(
    backend: Backend, store: es.LogStore[es.LoopEvent], moment: datetime
) -> None:
    """Nobody guesses a timezone, and nothing is recorded."""
    event = es.HistoryEvent(EVENT, timestamp=moment)
    with pytest.raises(es.EventRefusedError, match="timestamp"):
        await store.append("otter", [event], expected_version=es.ANY)
    assert backend.raw() == b""


async def test_an_event_without_meta_has_an_empty_one(store: es.LogStore[es.LoopEvent]) -> None:
    """It is one for all of them, copies and pickles included, so nothing can be put into it."""
    await store.append("otter", [EVENT, EVENT], expected_version=es.ANY)
    one, other = [recorded async for recorded in store.read("otter")]
    assert one.meta == {}
    assert repr(one.meta) == "{}"
    assert pickle.loads(pickle.dumps(one)).meta is other.meta  # noqa: S301 - our own bytes
    assert copy.deepcopy(one).meta is other.meta
    assert msgspec.to_builtins(one)["meta"] == {}
    meta: Any = one.meta
    for change in (
        lambda: meta.update(actor="otter"),
        lambda: meta.setdefault("actor", "otter"),
        lambda: operator.setitem(meta, "actor", "otter"),
        meta.clear,
    ):
        with pytest.raises(TypeError, match="cannot be changed"):
            change()
    assert other.meta == {}
