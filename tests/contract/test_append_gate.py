"""The gate: what would not read back equal is refused before anything is written."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eventstore as es
from tests.contract._backends import Backend

pytestmark = pytest.mark.anyio

EVENT = es.MergeQueued()


class Noted(es.Event):
    """A kind that takes about anything."""

    anything: Any = None
    number: float = 0.0
    parts: tuple[int, ...] = ()
    names: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    at: datetime | None = None


NOTES = es.EventTypes[Noted](Noted)


class Colour(Enum):
    """No JSON value."""

    RED = "red"


@dataclass
class Point:
    """No JSON value either."""

    x: int


REFUSED: list[Any] = [
    math.nan,
    math.inf,
    -math.inf,
    "\ud800",
    "a\udfffb",
    b"bytes",
    bytearray(b"bytes"),
    (1, 2),
    {1, 2},
    frozenset({1}),
    {1: "a"},
    {None: "a"},
    {(1,): "a"},
    {b"a": "a"},
    {1.5: "a"},
    {"\ud800": 1},
    object(),
    len,
    1j,
    Decimal("1.5"),
    datetime(2026, 11, 21, tzinfo=UTC),
    UUID(int=7),
    Path("/tmp"),
    Colour.RED,
    Point(1),
    EVENT,
    2**64,
    -(2**63) - 1,
    10**400,
]


def _name(value: object) -> str:
    """The same in every process: no address, and no more than a line."""
    return re.sub(" at 0x.*", "", ascii(value))[:30]


@pytest.mark.parametrize("value", REFUSED, ids=_name)
async def test_what_would_not_read_back_equal_is_refused(backend: Backend, value: Any) -> None:
    """As data, deep in data, and as a field; nothing is written, and the store goes on."""
    noted = Noted()
    events: list[Noted | es.HistoryEvent[Noted]] = [
        es.HistoryEvent(noted, data=value),
        es.HistoryEvent(noted, data=[value]),
        es.HistoryEvent(noted, data={"a": [0, value]}),
        Noted(anything=value),
        Noted(anything=[{"a": value}]),
    ]
    async with backend.open_as(NOTES) as store:
        for event in events:
            with pytest.raises(es.EventRefusedError, match="nothing was recorded"):
                await store.append("otter", [noted, event], expected_version=es.ANY)
        assert backend.raw() == b""
        assert (await store.append("otter", [noted], expected_version=0)).version == 1


@pytest.mark.parametrize(
    "event",
    [
        Noted(number="1"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        Noted(number=math.nan),
        Noted(number=True),
        Noted(number=1),
        Noted(parts=[1, 2]),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        Noted(parts=(1, "2")),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        Noted(parts=(1, 2.0)),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        Noted(parts=(True,)),
        Noted(names={"a": 1}),  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
        Noted(names=None),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        Noted(at="2026-11-21T00:00:00Z"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ],
    ids=repr,
)
async def test_a_field_of_the_wrong_type_is_refused(backend: Backend, event: Noted) -> None:
    """A constructor checks nothing, so the gate does."""
    async with backend.open_as(NOTES) as store:
        with pytest.raises(es.EventRefusedError, match="would not read back equal"):
            await store.append("otter", [event], expected_version=es.ANY)
        assert backend.raw() == b""


@pytest.mark.parametrize(
    "event",
    [
        es.IterationStarted(iteration=True),
        es.IterationStarted(iteration=1.0),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        es.IterationStarted(iteration="1"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        es.IterationCompleted(iteration=1, success=1),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        es.LoopStarted(prompt=None),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        es.LoopStarted(prompt="\udc80"),
        es.LoopStarted(prompt=b"x"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ],
    ids=ascii,
)
async def test_a_loop_event_with_a_field_of_the_wrong_type_is_refused(
    backend: Backend, store: es.LogStore[es.LoopEvent], event: es.LoopEvent
) -> None:
    """The original could not read it."""
    with pytest.raises(es.EventRefusedError):
        await store.append("otter", [event], expected_version=es.ANY)
    assert backend.raw() == b""


# --- whatever is accepted ---

_TEXT = st.text(st.characters(codec=None, exclude_categories=()))  # lone surrogates too
_SCALAR = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, 2**64, -(2**63), 2**53 + 1, 0, 1, -0.0, 1e400, 5e-324, 1e22])
    | st.floats()
    | _TEXT
    | st.binary(max_size=3)
    | st.datetimes(timezones=st.just(UTC))
)
_KEY = _TEXT | st.integers() | st.none() | st.booleans()
_VALUE = st.recursive(
    _SCALAR,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(_KEY, inner, max_size=4)
    ),
    max_leaves=12,
)
_NOTED = st.builds(
    Noted,
    anything=_VALUE,
    number=st.floats() | st.integers() | st.none(),
    parts=st.lists(st.integers() | st.booleans(), max_size=3).map(tuple)
    | st.lists(st.integers(), max_size=3),
    names=st.dictionaries(_TEXT, _TEXT, max_size=3),
    at=st.none() | st.datetimes(timezones=st.just(UTC)) | st.datetimes(),
)
# Every example appends to the same log: more of it makes the test harder, not wrong.
_ON_ONE_LOG = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def is_same(one: object, other: object) -> bool:
    """Whether two values are equal and of equal types, all the way down; -0.0 is not 0.0."""
    return type(one) is type(other) and repr(one) == repr(other)


@_ON_ONE_LOG
@given(data=_VALUE)
async def test_any_data_that_is_accepted_reads_back_equal(
    store: es.LogStore[es.LoopEvent], data: Any
) -> None:
    """Equal in value and in type; a refusal leaves the log as it was."""
    position = store.position
    event = es.HistoryEvent(EVENT, data=data)
    try:
        await store.append("otter", [event], expected_version=es.ANY)
    except es.EventRefusedError:
        assert store.position == position
        return
    (found,) = [r.data async for r in store.read_all(after_position=position)]
    assert is_same(found, data)


@_ON_ONE_LOG
@given(event=_NOTED, key=st.none() | _TEXT, stream=st.just("otter") | _TEXT)
async def test_any_event_that_is_accepted_reads_back_equal(
    backend: Backend, event: Noted, key: str | None, stream: str
) -> None:
    """In both directions, with its key and its stream, from a store that was opened later."""
    async with backend.open_as(NOTES) as store:
        position = store.position
        try:
            await store.append(stream, [event], expected_version=es.ANY, key=key)
        except es.EventRefusedError:
            assert store.position == position
            return
        if store.position == position:
            return  # the key was used before, with an equal event
    async with backend.open_as(NOTES) as store:
        for backwards in (False, True):
            found = [r async for r in store.read_all(after_position=position, backwards=backwards)]
            assert [(r.event, r.key, r.stream) for r in found] == [(event, key, stream)]
            read = found[0].event
            assert isinstance(read, Noted)
            assert is_same(read.anything, event.anything)


@pytest.mark.parametrize(
    ("argument", "value", "text"),
    [
        ("durability", "sync", "durability is 'synced' or 'written', not 'sync'"),
        ("durability", "SYNCED", "durability is 'synced' or 'written', not 'SYNCED'"),
        ("durability", True, "durability is 'synced' or 'written', not True"),
        ("durability", [], r"durability is 'synced' or 'written', not \[\]"),
        ("expected_version", "0", "not '0'"),
        ("expected_version", None, "not None"),
        ("expected_version", 0.0, "not 0.0"),
        ("expected_version", False, "not False"),
        ("events", es.MergeQueued(), "events stand in a list or tuple, not in a MergeQueued"),
        ("events", {es.MergeQueued()}, "not in a set"),
        ("events", iter([es.MergeQueued()]), "not in a list_iterator"),
        ("events", None, "not in a NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_an_argument_of_another_kind_is_refused(
    backend: Backend, argument: str, value: Any, text: str
) -> None:
    """It is a mistake, not a wish: nothing weaker is done, and no conflict is made of it."""
    arguments: dict[str, Any] = {"events": [es.MergeQueued()], "expected_version": 0}
    async with backend.open() as store:
        before = backend.raw()
        with pytest.raises(es.EventRefusedError, match=f"{text}; nothing was recorded"):
            await store.append("otter", **{**arguments, argument: value})
        assert backend.raw() == before
        assert (await store.append("otter", **arguments)).version == 1
