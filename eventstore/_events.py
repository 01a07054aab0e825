"""Events and their places: the values that callers hand in and get back. Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from datetime import datetime
from typing import (
    Any,
    Final,
    Generic,
    NoReturn,
    TypeAlias,
    TypeVar,
    cast,
    dataclass_transform,
)

import msgspec

from eventstore._timestamps import format_timestamp

__all__ = [
    "ANY",
    "MAIN_STREAM",
    "NO_COMMIT",
    "NO_STREAM",
    "STREAM_EXISTS",
    "Appended",
    "Commit",
    "Event",
    "Expectation",
    "ExpectedVersion",
    "HistoryEvent",
    "Recorded",
    "Unknown",
    "snake_case",
]

MAIN_STREAM: Final = "main"
"""The stream of lines that name none: ours by default, and every foreign line."""

_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake_case(class_name: str) -> str:
    """Turn a class name into a kind: `HTTPServed` becomes `http_served`."""
    return _WORD_START.sub("_", class_name).lower()


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag=snake_case):
    """Base of every event: a fact, named in the past tense, that never changes.

    A subclass's kind on disk is its name in snake_case (`HTTPServed` -> `http_served`), or what
    it says itself: `class Paid(Event, tag="payment_received")`. The tag wins over a later rename
    of the class, so give one before you rename.
    """


class Unknown(Event, tag=""):  # no kind is empty: a decoder never chooses it by itself
    """An event of a kind nobody registered, or whose fields do not fit the registered class.

    It is kept byte for byte in the log; `name` is its kind and `fields` the rest of its payload.
    """

    name: str
    fields: dict[str, Any]


E = TypeVar("E", bound=Event)
E_co = TypeVar("E_co", bound=Event, covariant=True)


class Expectation(enum.Enum):
    """What a writer may believe of a stream besides an exact version."""

    ANY = "any version"
    STREAM_EXISTS = "at least one event"


NO_STREAM: Final = 0
"""The stream holds no event yet: version 0."""
ANY: Final = Expectation.ANY
"""No check. Allowed, and visible at the call."""
STREAM_EXISTS: Final = Expectation.STREAM_EXISTS
"""The stream holds at least one event."""

ExpectedVersion: TypeAlias = int | Expectation
"""An exact version, `NO_STREAM` (0), `STREAM_EXISTS`, or `ANY`."""


class HistoryEvent(msgspec.Struct, Generic[E_co], frozen=True):
    """One event with what is recorded beside it.

    Args:
        event: the fact itself.
        data: any JSON value, or None for none.
        timestamp: when it happened, timezone-aware; None means now. Imports give one; its
            precision is one microsecond.
    """

    event: E_co
    data: Any = None
    timestamp: datetime | None = None


class Commit(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The positions that one sync made durable together: `[first, last]` on disk."""

    first: int
    last: int


NO_COMMIT: Final = Commit(0, 0)
"""What a line of a foreign writer belongs to."""


class _NoMeta(dict[str, str]):
    """The one empty mapping of all events without `meta`; nothing can be put into it.

    A new `dict` for each event is a seventh of the time it takes to decode one, and work for the
    garbage collector besides.
    """

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        msg = "the meta of a recorded event cannot be changed"
        raise TypeError(msg)

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse  # pyright: ignore[reportAssignmentType]

    def __reduce__(self) -> str:
        return "_NO_META"  # copied and unpickled as itself


_NO_META: Final = _NoMeta()


class Recorded(
    msgspec.Struct,
    Generic[E_co],
    frozen=True,
    gc=False,
    rename={"event": "type", "timestamp": "ts"},
):
    """An event with its place in the log. It is decoded straight from its line.

    Attributes:
        event: the event, or `Unknown`.
        timestamp: when it was recorded, UTC. Information, never an order.
        stream: the subject it belongs to.
        version: how many events the stream held with this one, counting from 1.
        position: how many lines the log held with this one, counting from 1.
        data: the JSON value recorded beside the event, or None.
        meta: correlation, causation, actor, trace context.
        key: the idempotency key of its append, or None.
        commit: first and last position of its commit; 0 and 0 for a line of a foreign writer.
    """

    event: E_co | Unknown
    timestamp: datetime
    version: int
    position: int
    stream: str = MAIN_STREAM
    data: Any = None
    meta: Mapping[str, str] = _NO_META
    key: str | None = None
    commit: Commit = NO_COMMIT
    foreign_timestamp: str | None = None

    @property
    def kind(self) -> str:
        """The event's name on disk."""
        event = self.event
        if isinstance(event, Unknown):
            return event.name
        return cast("str", event.__struct_config__.tag)

    @property
    def timestamp_text(self) -> str:
        """The timestamp as it stands in the line, nine digits of a foreign writer included."""
        return self.foreign_timestamp or format_timestamp(self.timestamp)


class Appended(msgspec.Struct, frozen=True, gc=False):
    """Where an append ended: the numbers of its last event."""

    version: int
    position: int
