"""Whatever an append takes reads back equal and of the same types; the rest is refused.

Through the engine's own calls, without an event loop: thousands of values take seconds.
"""

from __future__ import annotations

import enum
import re
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventstore as es
from eventstore._codec import Codec
from eventstore._log._log_files import LogFiles
from eventstore._log._reading import ForwardCursor
from eventstore._log._request import Request
from eventstore._log._snapshot import SnapshotTaker
from tests.recovery._logs import NAMES, append, content, opened

_NOW: Final = b"2026-11-21T00:00:03.255970Z"
_MOMENT: Final = datetime(2026, 11, 21, 0, 0, 3, 255970, tzinfo=UTC)


class Text(str):
    """A subclass of str: not what comes back."""

    __slots__ = ()


class Number(int):
    """The same of int."""

    __slots__ = ()


class Colour(enum.Enum):
    """Read back by a field of its type only."""

    RED = "red"
    BLUE = "blue"


class Flavour(enum.StrEnum):
    """Equal to a plain string."""

    SWEET = "sweet"


class Level(enum.IntEnum):
    """Equal to a plain integer."""

    LOW = 1


class Pair(NamedTuple):
    """A tuple with names."""

    left: int
    right: str


@dataclass(frozen=True)
class Point:
    """Its float takes an integer, which comes back as another type."""

    x: float
    names: tuple[str, ...] = ()


class Tree(msgspec.Struct, frozen=True):
    """Nests as deep as one likes."""

    value: float = 0.0
    children: tuple[Tree, ...] = ()


class Circle(msgspec.Struct, frozen=True, tag=True):
    """One of a union."""

    radius: float


class Square(msgspec.Struct, frozen=True, tag=True):
    """The other."""

    side: int | str


class Picky:
    """Compares to nothing."""

    def __eq__(self, other: object) -> bool:
        """Raise, as an array library may."""
        raise AttributeError("ask me not")

    __hash__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


class Told(es.Event):
    """About every type msgspec knows."""

    anything: Any = None
    number: float = 0.0
    count: int = 0
    exact: Decimal = Decimal(0)
    blob: bytes = b""
    at: datetime | None = None
    day: date | None = None
    hour: time | None = None
    span: timedelta | None = None
    ident: UUID | None = None
    colour: Colour | None = None
    flavour: Flavour | None = None
    pair: Pair | None = None
    point: Point | None = None
    tree: Tree = Tree()
    shape: Circle | Square | None = None
    words: frozenset[str] = frozenset()
    numbers: set[int] = set()  # noqa: RUF012 - msgspec copies it
    by_number: dict[int, float] = {}  # noqa: RUF012 - the same
    by_day: dict[date, str] = {}  # noqa: RUF012 - the same
    raw: msgspec.Raw = msgspec.Raw(b"0")


class Renamed(es.Event, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Other names on disk, and defaults left out."""

    first_word: str = ""
    last_words: list[str] = []  # noqa: RUF012 - msgspec copies it


class Checked(es.Event):
    """Refuses some of its values, with an error of its own."""

    number: int = 0

    def __post_init__(self) -> None:
        """Refuse a number, in a way no decoder expects."""
        if self.number == _UNLUCKY:
            raise LookupError("not this one")


_UNLUCKY: Final = 13
_TYPES: Final = es.EventTypes[es.Event](Told, Renamed, Checked, es.LoopStarted)
_CODEC: Final = Codec(_TYPES)
_STRANGER: Final = Codec(es.LOOP_EVENTS)


class Clock:
    """No value of any kind."""


def _has_hash(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


_TEXT: Final = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
_INTEGERS: Final = st.integers() | st.sampled_from(
    [0, 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400]
)
_FLOATS: Final = st.floats() | st.sampled_from([-0.0, 5e-324, 1e22, 1e16, 1.7976931348623157e308])
_ZONES: Final = st.sampled_from([UTC, timezone(timedelta(hours=2)), timezone(timedelta(seconds=1))])
_MOMENTS: Final = st.datetimes() | st.datetimes(timezones=_ZONES)
_DECIMALS: Final = st.decimals() | st.sampled_from(
    [Decimal("sNaN"), Decimal("1.00"), Decimal("-0")]
)
_SCALARS: Final = (
    st.none()
    | st.booleans()
    | _INTEGERS
    | _FLOATS
    | _TEXT
    | st.binary(max_size=4)
    | _MOMENTS
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | _DECIMALS
    | st.sampled_from(
        [
            *Colour,
            *Flavour,
            *Level,
            Text("a"),
            Number(7),
            Pair(1, "b"),
            Point(1),
            Tree(),
            Circle(1.0),
            Square(2),
            es.LoopStarted(prompt="x"),
            Clock(),
            Clock,
            len,
            1j,
            ...,
            NotImplemented,
            Picky(),
            bytearray(b"x"),
            memoryview(b"x"),
            msgspec.Raw(b'{"a":\n1}'),
            msgspec.Raw(b"1"),
            msgspec.UNSET,
            range(3),
        ]
    )
)
_KEYS: Final = _TEXT | _SCALARS.filter(_has_hash)
_VALUES: Final = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(_TEXT, inner, max_size=3)
        | st.dictionaries(_KEYS, inner, max_size=2)
        | st.dictionaries(_TEXT, inner, max_size=2).map(OrderedDict)
        | st.dictionaries(_TEXT, inner, max_size=2).map(lambda d: defaultdict(int, d))
        | st.dictionaries(_TEXT, inner, max_size=2).map(MappingProxyType)
        | st.sets(_INTEGERS, max_size=3)
    ),
    max_leaves=10,
)


@st.composite
def _nested(draw: st.DrawFn) -> Any:
    """A value around the bounds of nesting, or far beyond them, or inside itself."""
    value: Any = draw(_SCALARS)
    if draw(st.integers(0, 9)) == 0:
        endless: list[Any] = [value]
        endless.append(endless)
        return endless
    for _ in range(draw(st.sampled_from([60, 62, 63, 64, 65, 66, 126, 127, 500, 5_000]))):
        value = [value] if draw(st.integers(0, 1)) else {"a": value}
    return value


def _deep_tree(depth: int) -> Tree:
    tree = Tree()
    for _ in range(depth):
        tree = Tree(children=(tree,))
    return tree


def _thinned(numbers: list[int]) -> set[int]:
    """A set in an order of its own: it was large once."""
    kept = set(range(1_000))
    kept.difference_update(range(2, 1_000))
    return kept | set(numbers)


_RAWS: Final = st.sampled_from(
    [b"1", b" [1, 2]", b"[\n1]", b'"\xff"', b"1e999", b"-0", b"", b"1 2", b'{"a":1,"a":2}']
).map(msgspec.Raw)
_RIGHT: Final[dict[str, st.SearchStrategy[Any]]] = {
    "number": _FLOATS | st.integers(),
    "count": _INTEGERS | st.booleans() | st.sampled_from(Level),
    "exact": _DECIMALS,
    "blob": st.binary(max_size=5),
    "at": _MOMENTS,
    "day": st.dates() | st.datetimes(),
    "hour": st.times() | st.times(timezones=_ZONES),
    "span": st.timedeltas(),
    "ident": st.uuids(),
    "colour": st.sampled_from(Colour),
    "flavour": st.sampled_from(Flavour) | st.just("sweet"),
    "pair": st.builds(Pair, _INTEGERS, _TEXT) | st.just((1, "a")),
    "point": st.builds(Point, _FLOATS | st.integers(), st.lists(_TEXT, max_size=2).map(tuple)),
    "tree": st.sampled_from([1, 20, 30, 31, 32, 33, 63, 64, 1_000]).map(_deep_tree)
    | st.builds(Tree, _FLOATS | st.integers() | st.booleans()),
    "shape": st.builds(Circle, _FLOATS | st.integers())
    | st.builds(Square, _INTEGERS | _TEXT | _FLOATS),
    "words": st.frozensets(_TEXT, max_size=5) | st.sets(_TEXT, max_size=3),
    "numbers": st.lists(_INTEGERS, max_size=4).map(_thinned) | st.sets(_FLOATS, max_size=2),
    "by_number": st.dictionaries(_INTEGERS | st.booleans(), _FLOATS | st.integers(), max_size=3),
    "by_day": st.dictionaries(st.dates() | _MOMENTS, _TEXT, max_size=2),
    "raw": _RAWS,
}
_FIELDS: Final = st.sampled_from(list(_RIGHT)).flatmap(
    lambda name: st.tuples(st.just(name), _RIGHT[name])
)
_TOLD: Final = st.lists(_FIELDS | st.tuples(st.just("anything"), _VALUES | _nested()), max_size=3)


def _checked(number: int) -> Checked:
    event = Checked()
    if number == _UNLUCKY % 4:
        msgspec.structs.force_setattr(event, "number", _UNLUCKY)
    return event


_EVENTS: Final = (
    _TOLD.map(lambda fields: Told(**dict(fields)))
    | st.builds(Renamed, _TEXT, st.lists(_TEXT, max_size=2) | st.tuples(_TEXT))
    | st.integers(0, 3).map(_checked)
    | st.builds(es.LoopStarted, prompt=_TEXT | _SCALARS)
)
_NAMES: Final = st.just("otter") | _TEXT | _VALUES
_KEYS_OF_APPENDS: Final = st.none() | _TEXT | _VALUES
_META: Final = (
    st.none()
    | st.dictionaries(_TEXT, _TEXT, max_size=3)
    | st.dictionaries(_KEYS, _SCALARS, max_size=2)
    | _VALUES
)


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are of one type and equal, all the way down; -0.0 is not 0.0."""
    cls = cast("Any", type(one))
    if cls is not type(other):
        return False
    if cls is dict:
        return is_same(list(one.items()), list(other.items()))
    if issubclass(cls, set | frozenset):
        return bool(one == other) and sorted(map(repr, one)) == sorted(map(repr, other))
    if issubclass(cls, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if issubclass(cls, msgspec.Struct):
        return all(
            is_same(getattr(one, name), getattr(other, name)) for name in cls.__struct_fields__
        )
    if cls is Point:
        return is_same(vars(one), vars(other))
    if cls in (datetime, time, msgspec.Raw):  # equal ones may be told apart, by zone or fold
        return bool(one == other)
    return bool(one == other) and repr(one) == repr(other)


def _check(
    event: Any, *, stream: Any = "otter", key: Any = None, meta: Any = None, data: Any = None
) -> bool:
    """Append it, if it is taken, and read it with a fresh reader; tell whether it was."""
    files = es.MemoryFiles()
    with opened(files) as committer:
        try:
            bodies, contents, size = _CODEC.encode(
                stream, [es.HistoryEvent(event, data=data)], key=key, meta=meta, now=_NOW
            )
        except es.EventRefusedError as error:
            assert str(error).isprintable()  # noqa: PT017 - taken or refused: either is right
            return False
        expected = es.ANY
        append(
            committer,
            Request(
                stream=stream,
                bodies=bodies,
                contents=contents,
                expected=expected,
                key=key,
                synced=True,
                size=size,
            ),
        )
    (found,) = _read(files, _CODEC)
    assert is_same(found.event, event)
    assert is_same(found.data, data)
    assert is_same(found.key, key)
    assert found.stream == stream
    assert is_same(found.meta, {} if meta is None else meta) or not meta
    assert found.timestamp == _MOMENT
    (seen,) = _read(files, _STRANGER)  # by a program that does not know the kind
    assert seen.position == 1
    assert content(files).count(b"\n") == 1
    return True


def _read(files: es.MemoryFiles, codec: Codec[Any]) -> list[es.Recorded[Any]]:
    taker = SnapshotTaker(files, NAMES, lock_timeout_seconds=1.0)
    try:
        cursor = ForwardCursor(LogFiles(files, NAMES, codec))
        return [recorded for page in cursor.pages(taker.take()) for recorded in page]
    finally:
        taker.close()


_FAST: Final = settings(max_examples=600, deadline=None, derandomize=True)


@_FAST
@given(_EVENTS)
def test_an_event_that_is_taken_reads_back_the_same(event: es.Event) -> None:
    """Equal, of the same types all the way down, and readable by who does not know the kind."""
    _check(event)


@_FAST
@given(_VALUES | _nested())
def test_data_that_is_taken_reads_back_the_same(data: Any) -> None:
    """JSON values only, whatever they stand in."""
    _check(es.LoopStarted(prompt="x"), data=data)


@_FAST
@given(_NAMES, _KEYS_OF_APPENDS, _META)
def test_names_keys_and_meta_that_are_taken_read_back_the_same(
    stream: Any, key: Any, meta: Any
) -> None:
    """Any object in their places is taken or refused, and nothing else happens."""
    _check(es.LoopStarted(prompt="x"), stream=stream, key=key, meta=meta)


@_FAST
@given(st.none() | _VALUES | st.datetimes(timezones=_ZONES))
def test_any_timestamp_is_recorded_or_refused(timestamp: Any) -> None:
    """It reads back as the same moment."""
    event = es.HistoryEvent(es.LoopStarted(prompt="x"), timestamp=timestamp)
    try:
        bodies, _, _ = _CODEC.encode("otter", [event], key=None, meta=None, now=_NOW)
    except es.EventRefusedError:
        return
    if timestamp is not None:
        text = msgspec.json.decode(bodies[0] + b"}")["ts"]
        assert datetime.fromisoformat(text) == timestamp


def _nested_in(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "doubtful",
    [
        es.LoopStarted(prompt="y\n"),
        es.LoopStarted(prompt="\ud800"),
        es.LoopStarted(prompt=Text("y")),
        es.LoopStarted(prompt=Flavour.SWEET),
        es.LoopStarted(prompt=cast("Any", None)),
        es.IterationStarted(iteration=2**32),
        es.IterationStarted(iteration=Level.LOW),
        es.IterationStarted(iteration=cast("Any", 1.0)),
        es.IterationCompleted(iteration=1, success=cast("Any", 1)),
        Told(anything=_nested_in(3)),
        Told(anything=_nested_in(70)),
        es.HistoryEvent(es.LoopStarted(prompt="y"), data=[1]),
        es.HistoryEvent(es.LoopStarted(prompt=Flavour.SWEET)),
        "no event",
    ],
)
@pytest.mark.parametrize("key", [None, "key"])
def test_an_event_among_many_is_encoded_as_alone(doubtful: Any, key: str | None) -> None:
    """The same bytes, or refused by its number with the same reason."""
    codec = Codec(
        es.EventTypes[es.Event](Told, es.LoopStarted, es.IterationStarted, es.IterationCompleted)
    )

    def encode(events: list[Any]) -> tuple[list[bytes], list[tuple[bytes, bytes]], int]:
        bodies, contents, size = codec.encode("otter", events, key=key, meta=None, now=_NOW)
        return bodies, list(contents), size

    plain = es.LoopStarted(prompt="x")
    events = [*[plain] * 8, doubtful, plain]
    try:
        parts = [encode([event]) for event in events]
    except es.EventRefusedError as error:
        reason = re.escape(str(error).replace("event 1 of 1", "event 9 of 10"))
        with pytest.raises(es.EventRefusedError, match=reason):
            encode(events)
    else:
        bodies, contents, size = encode(events)
        assert bodies == [body for part, _, _ in parts for body in part]
        assert contents == [content for _, part, _ in parts for content in part]
        assert size == sum(part for _, _, part in parts)


def test_many_events_are_refused_for_the_size_of_one_and_of_all() -> None:
    """The limits are the same for many."""
    small, large = es.LoopStarted(prompt="x"), es.LoopStarted(prompt="x" * 2**20)
    with pytest.raises(es.EventRefusedError, match=r"event 9 of 10: the line would have"):
        _CODEC.encode("otter", [*[small] * 8, large, small], key=None, meta=None, now=_NOW)
    heavy = es.LoopStarted(prompt="x" * (2**20 - 100))
    with pytest.raises(es.EventRefusedError, match=r"an append takes 67108864 bytes, not"):
        _CODEC.encode("otter", [heavy] * 65, key=None, meta=None, now=_NOW)


@pytest.mark.parametrize(
    "event",
    [
        Told(raw=msgspec.Raw(b"[\n1]")),
        Told(raw=msgspec.Raw(b'"\xff"')),
        Told(raw=msgspec.Raw(b"1e999")),
        Told(exact=Decimal("sNaN")),
        Told(count=Level.LOW),
        Told(anything=OrderedDict(a=1)),
        Told(anything=Picky()),
        es.LoopStarted(prompt=Flavour.SWEET),
        _checked(_UNLUCKY % 4),
    ],
    ids=lambda event: repr(event)[:40],
)
def test_a_value_that_would_break_a_line_or_come_back_as_another_is_refused(
    event: es.Event,
) -> None:
    """An LF or no JSON in a Raw, a comparison that raises, a member of an enum, an odd dict."""
    assert not _check(event)


def test_a_set_in_an_order_of_its_own_is_taken() -> None:
    """Sets have no order: one that was built otherwise is equal all the same."""
    numbers = set(range(100_000))
    numbers.difference_update({*numbers} - {1, 64})
    assert _check(Told(numbers=numbers))
