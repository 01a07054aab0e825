"""Limits: each is refused before anything is written, with a message that says what to do."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import pytest

import eventstore as es
from tests.contract._backends import Backend, line

pytestmark = pytest.mark.anyio

EVENT = es.MergeQueued()
MIB = 2**20


def text(size: int) -> es.EventPublished:
    """An event of about this many bytes."""
    return es.EventPublished(topic="t", payload="x" * size)


async def refused(
    backend: Backend,
    store: es.LogStore[es.LoopEvent],
    events: Sequence[es.LoopEvent | es.HistoryEvent[es.LoopEvent]],
    match: str,
    *,
    stream: Any = "otter",
    key: Any = None,
) -> None:
    """Check that an append is refused with this message, and that nothing was written."""
    before = backend.look()
    with pytest.raises(es.EventRefusedError, match=match) as caught:
        await store.append(stream, events, expected_version=es.ANY, key=key)
    assert str(caught.value).endswith("; nothing was recorded")
    assert backend.look() == before


# --- how much ---


async def test_an_append_takes_up_to_ten_thousand_events(
    backend: Backend, store: es.LogStore[es.LoopEvent]
) -> None:
    """They are one commit; one event more is refused."""
    await refused(backend, store, [EVENT] * 10_001, "1 to 10000 events, not 10001")
    appended = await store.append("otter", [EVENT] * 10_000, expected_version=es.ANY)
    assert appended == es.Appended(version=10_000, position=10_000)
    assert line(backend.raw(), 10_000)["commit"] == [1, 10_000]


async def test_an_append_takes_at_least_one_event(
    backend: Backend, store: es.LogStore[es.LoopEvent]
) -> None:
    """An empty one has no place to return."""
    await refused(backend, store, [], "1 to 10000 events, not 0")


async def test_an_append_takes_up_to_64_mib(
    backend: Backend, store: es.LogStore[es.LoopEvent]
) -> None:
    """More is refused with the advice to split it."""
    await refused(backend, store, [text(MIB - 1_000)] * 65, "67108864 bytes.*split it")


async def test_a_line_takes_up_to_one_mib(
    backend: Backend, store: es.LogStore[es.LoopEvent]
) -> None:
    """A longer event is refused with the advice to keep the large part in a file."""
    await refused(backend, store, [text(MIB)], "keep the large part in a file.*line_bytes_max")
    event = text(MIB - 1_000)
    await store.append("otter", [event], expected_version=es.ANY)
    assert [r.event async for r in store.read("otter")] == [event]


async def test_the_limit_of_a_line_counts_bytes_not_characters(
    backend: Backend, store: es.LogStore[es.LoopEvent]
) -> None:
    """A snowman is three bytes."""
    event = es.EventPublished(topic="t", payload="\N{SNOWMAN}" * (MIB // 3))
    await refused(backend, store, [event], "the limit is 1048576")


async def test_the_limit_of_a_line_is_an_option(backend: Backend) -> None:
    """It may be lower or higher; what is in the log already is read whatever it says."""
    async with backend.open(line_bytes_max=3 * MIB) as store:
        await store.append("otter", [text(2 * MIB)], expected_version=es.ANY)
    async with backend.open(line_bytes_max=1_000) as store:
        await refused(backend, store, [text(1_000)], "the limit is 1000")
        await store.append("otter", [text(800)], expected_version=1)
        assert [r.event async for r in store.read("otter")] == [text(2 * MIB), text(800)]


async def test_no_option_raises_the_limit_of_a_line_above_16_mib(backend: Backend) -> None:
    """Readers hold a whole line."""
    async with backend.open(line_bytes_max=64 * MIB) as store:
        await refused(backend, store, [text(16 * MIB)], "the limit is 16777216")
        event = text(16 * MIB - 1_000)
        await store.append("otter", [event], expected_version=es.ANY)
        assert [r.event async for r in store.read("otter")] == [event]
        assert [r.event async for r in store.read("otter", backwards=True)] == [event]


# --- names ---


@pytest.mark.parametrize(
    "stream",
    [
        "a",
        "7",
        "main",
        "a" * 200,
        "loop-1.b_c:d@e+f=g",
        string.ascii_letters + string.digits + "._:@+=-",
        "a.",
    ],
)
async def test_a_stream_name_may_hold_letters_digits_and_some_signs(
    store: es.LogStore[es.LoopEvent], stream: str
) -> None:
    """Up to 200 of them."""
    await store.append(stream, [EVENT], expected_version=es.NO_STREAM)
    assert [r.stream async for r in store.read(stream)] == [stream]


@pytest.mark.parametrize(
    "stream",
    [
        "",
        "a" * 201,
        "../a",
        "a/../b",
        "a..b",
        "/etc/passwd",
        "a/b",
        "a\\b",
        ".hidden",
        "-rf",
        "a b",
        "a\n",
        "a\x00",
        "\N{SNOWMAN}",
        "a\ud800",
        "\N{ARABIC-INDIC DIGIT ONE}",
        'a","key":"b',
        None,
        7,
        b"a",
    ],
    ids=ascii,
)
async def test_a_stream_name_is_no_path_and_no_text(
    backend: Backend, store: es.LogStore[es.LoopEvent], stream: Any
) -> None:
    """Nothing that could lead out of a directory, break a line or look like an option."""
    await refused(backend, store, [EVENT], "no stream name: 1 to 200 characters", stream=stream)


@pytest.mark.parametrize("key", ["k", "k" * 200, "\N{SNOWMAN}/../\n\x00", '","crc":"'], ids=ascii)
async def test_a_key_is_any_text(store: es.LogStore[es.LoopEvent], key: str) -> None:
    """Up to 200 characters; it is data, never a name."""
    await store.append("otter", [EVENT], expected_version=es.ANY, key=key)
    assert [r.key async for r in store.read("otter")] == [key]


@pytest.mark.parametrize("key", ["", "k" * 201, 7, b"k", "\ud800"], ids=ascii)
async def test_a_key_is_short_and_text(
    backend: Backend, store: es.LogStore[es.LoopEvent], key: Any
) -> None:
    """Anything else is refused."""
    await refused(backend, store, [EVENT], "key", key=key)


# --- values ---


def nested(depth: int) -> Any:
    """Lists and objects in each other, this deep."""
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


async def test_data_nests_up_to_64_levels(
    backend: Backend, store: es.LogStore[es.LoopEvent]
) -> None:
    """What others can read back without running out of stack."""
    too_deep = es.HistoryEvent(EVENT, data=nested(65))
    await refused(backend, store, [too_deep], "deeper than 64 levels")
    await refused(
        backend, store, [es.HistoryEvent(EVENT, data=nested(100_000))], "data: (list|dict)"
    )
    await store.append("otter", [es.HistoryEvent(EVENT, data=nested(64))], expected_version=es.ANY)
    assert [r.data async for r in store.read("otter")] == [nested(64)]


async def test_brackets_in_text_do_not_nest(store: es.LogStore[es.LoopEvent]) -> None:
    """Only structure counts."""
    data = ["[" * 1_000, '\\"{' * 1_000]
    await store.append("otter", [es.HistoryEvent(EVENT, data=data)], expected_version=es.ANY)
    assert [r.data async for r in store.read("otter")] == [data]


@pytest.mark.parametrize("number", [-(2**63), 2**64 - 1])
async def test_integers_have_64_bits(
    backend: Backend, store: es.LogStore[es.LoopEvent], number: int
) -> None:
    """The smallest and the largest are kept; one further is refused, because others round it."""
    further = number - 1 if number < 0 else number + 1
    for data in (further, [further], {"a": [further]}):
        await refused(backend, store, [es.HistoryEvent(EVENT, data=data)], "integer|data")
    await store.append("otter", [es.HistoryEvent(EVENT, data=number)], expected_version=es.ANY)
    assert [r.data async for r in store.read("otter")] == [number]


@pytest.mark.parametrize("iteration", [-1, 2**32, 2**64])
async def test_an_integer_of_an_event_has_the_range_its_field_says(
    backend: Backend, store: es.LogStore[es.LoopEvent], iteration: int
) -> None:
    """The original reads an unsigned 32-bit number."""
    await refused(backend, store, [es.IterationStarted(iteration=iteration)], "iteration")
