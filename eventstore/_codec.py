"""Events to bytes and back, and the gate before the log. Pure.

The gate's one rule: what is appended must read back equal and of the same types, by us and by the
original. So an event is encoded, decoded again and compared, before anything is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any, Final, Generic, NoReturn, TypeGuard, cast

import msgspec
from msgspec.structs import astuple

from eventstore._errors import EventRefusedError
from eventstore._event_types import EventTypes
from eventstore._events import (
    MAIN_STREAM,
    NO_COMMIT,
    Commit,
    E,
    Event,
    HistoryEvent,
    Recorded,
    Unknown,
)
from eventstore._timestamps import format_timestamp

__all__ = [
    "APPEND_BYTES_MAX",
    "APPEND_EVENTS_MAX",
    "LINE_BYTES_MAX",
    "LINE_BYTES_MAX_LIMIT",
    "Codec",
    "RecordedDecoder",
    "check_stream",
]

LINE_BYTES_MAX: Final = 2**20
"""The default bound of one line."""
LINE_BYTES_MAX_LIMIT: Final = 16 * 2**20
"""The bound that no option raises: readers hold a whole line."""
APPEND_EVENTS_MAX: Final = 10_000
APPEND_BYTES_MAX: Final = 64 * 2**20
_NESTING_MAX: Final = 64  # readers take 126; a deep value decodes or not by the caller's own stack
_INTEGER_MIN: Final = -(2**63)
_INTEGER_MAX: Final = 2**64 - 1
_STREAM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,199}")
_TEXT_MAX: Final = 200  # characters of a key, a meta name; a meta value may be ten times that
_META_MAX: Final = 32
_STREAMS_KEPT: Final = 4_096
_NO_CONTENTS: Final[Sequence[tuple[bytes, bytes]]] = ()
_SOMETHING_ELSE: Final = "it comes back as something else"
_LONG_INTEGER: Final = re.compile(rb"[0-9]{19}")

_FLAT_TYPES: Final = frozenset((str, bool, int))
_SCALARS: Final = frozenset((str, int, float, bool, type(None)))

_encode: Final = msgspec.json.Encoder().encode
_decode_any: Final = msgspec.json.Decoder().decode


def check_stream(stream: object) -> None:
    """Refuse a name that is not one.

    Raises:
        EventRefusedError: with what a name may hold.
    """
    if not isinstance(stream, str) or not _STREAM.fullmatch(stream) or ".." in stream:
        shown = repr(stream) if len(repr(stream)) <= _TEXT_MAX else f"{repr(stream)[:60]}…"
        reason = (
            f"{shown} is no stream name: 1 to 200 characters of [A-Za-z0-9._:@+=-], "
            "the first a letter or digit, no '..'"
        )
        raise EventRefusedError(reason)


class _LeanRecorded(Recorded[E], Generic[E], frozen=True, gc=False):
    """A record whose `data` is not decoded."""

    # A name that no line of ours has, because the writer writes the documented members only.
    data: Any = msgspec.field(default=None, name="-data")


class _RawRecorded(msgspec.Struct, gc=False):
    """A record whose event does not fit its class."""

    type: msgspec.Raw
    ts: datetime
    version: int
    position: int
    stream: str = MAIN_STREAM
    data: Any = None
    meta: Mapping[str, str] = {}
    key: str | None = None
    commit: Commit = NO_COMMIT


_decode_raw: Final = msgspec.json.Decoder(_RawRecorded).decode


class RecordedDecoder(Generic[E]):
    """Decodes lines of ours into `Recorded`."""

    def __init__(self, types: EventTypes[E], target: Any) -> None:
        self._types = types
        decoder: msgspec.json.Decoder[Recorded[E]] = msgspec.json.Decoder(target)
        self._decode = decoder.decode
        self.decode_lines = decoder.decode_lines

    def decode(self, line: bytes, /) -> Recorded[E]:
        """Decode one line; an event that does not fit its class becomes `Unknown`."""
        try:
            return self._decode(line)
        except msgspec.ValidationError:
            raw = _decode_raw(line)
        return Recorded(
            event=self._types.decode(raw.type),
            timestamp=raw.ts,
            version=raw.version,
            position=raw.position,
            stream=raw.stream,
            data=raw.data,
            meta=raw.meta,
            key=raw.key,
            commit=raw.commit,
        )


class Codec(Generic[E]):
    """Encodes and decodes the events of one store.

    Args:
        types: the kinds the store knows.
        line_bytes_max: the bound of one line.
    """

    def __init__(self, types: EventTypes[E], *, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self.types = types
        self._body_bytes_max = line_bytes_max
        self._is_flat: dict[object, bool] = {cls: _is_flat(cls) for cls in types.by_kind.values()}
        self._stream_ends: dict[str, bytes] = {}
        union = types.union
        self._decode_event: Callable[[bytes], Event] = msgspec.json.Decoder(union).decode
        # The union is known at run time only, so the decoders' type is told, not inferred.
        recorded: Any = Recorded
        lean: Any = _LeanRecorded
        self._full = RecordedDecoder(types, recorded[union])
        self._lean = RecordedDecoder(types, lean[union])

    def decoder(self, *, data: bool) -> RecordedDecoder[E]:
        """A decoder of verified lines of ours; with or without their `data`."""
        return self._full if data else self._lean

    # --- writing ---

    def encode(
        self,
        stream: str,
        events: Sequence[E | HistoryEvent[E]],
        *,
        key: str | None,
        meta: Mapping[str, str] | None,
        now: bytes,
    ) -> tuple[list[bytes], Sequence[tuple[bytes, bytes]], int]:
        """Turn an append into the bodies of its lines: everything before the numbers.

        Args:
            stream: as `EventStore.append` has it.
            events: the same.
            key: the same.
            meta: the same.
            now: the timestamp's text, for events that bring none.

        Returns:
            The bodies, their `type` and `data` (to compare with a later append of the same key;
            empty without one), and the bytes of all bodies.

        Raises:
            EventRefusedError: something would not read back equal, or a limit is exceeded.
        """
        if not 1 <= len(events) <= APPEND_EVENTS_MAX:
            reason = f"an append takes 1 to {APPEND_EVENTS_MAX} events, not {len(events)}"
            raise EventRefusedError(reason)
        try:
            end = self._stream_ends.get(stream) or self._stream_end(stream)
        except TypeError:  # it has no hash
            end = self._stream_end(stream)
        if key is not None or meta:
            end += _encode_key_and_meta(key, meta)
        start = b'{"ts":"' + now + b'","type":'
        bodies: list[bytes] = []
        contents: list[tuple[bytes, bytes]] | None = None if key is None else []
        size = 0
        try:
            for item in events:
                data = b""
                if self._is_flat.get(type(item)):  # the check of `_encode_event`, without a call
                    payload = _encode(item)
                    if self._decode_event(payload) != item or not _FLAT_TYPES.issuperset(
                        map(type, astuple(item))  # an enum's member equals its value
                    ):
                        _refuse(_not_equal(item, _SOMETHING_ELSE))
                    body = start + payload + end
                elif isinstance(item, HistoryEvent):
                    payload, data = self._encode_event(item.event), _encode_data(item.data)
                    begin = start if item.timestamp is None else _start(item.timestamp)
                    body = begin + payload + data + end
                else:
                    payload = self._encode_event(item)
                    body = start + payload + end
                if len(body) > self._body_bytes_max:
                    _refuse(_too_long(len(body), self._body_bytes_max))
                size += len(body)
                bodies.append(body)
                if contents is not None:
                    contents.append((payload, data))
        except EventRefusedError as error:
            reason = f"event {len(bodies) + 1} of {len(events)}: {error.reason}"
            raise EventRefusedError(reason) from error
        except Exception as error:  # values compare and convert by code of their own
            culprit = events[len(bodies)]
            reason = f"event {len(bodies) + 1} of {len(events)}: {_not_equal(culprit, str(error))}"
            raise EventRefusedError(reason) from error
        if size > APPEND_BYTES_MAX:
            reason = f"an append takes {APPEND_BYTES_MAX} bytes, not {size}; split it"
            raise EventRefusedError(reason)
        return bodies, contents or _NO_CONTENTS, size

    def _encode_event(self, event: Event) -> bytes:
        flat = self._is_flat.get(type(event))
        if flat is None:
            _refuse(_unregistered(event))
        try:
            payload = _encode(event)
            same = self._decode_event(payload)
            if same != event or not _is_same(same, event):
                _refuse(_not_equal(event, _SOMETHING_ELSE))
            if not flat:
                _decode_any(payload)  # a msgspec.Raw may hold what is no JSON
                _check_shape(payload)
        except EventRefusedError:
            raise
        except Exception as error:
            raise EventRefusedError(_not_equal(event, str(error))) from error
        return payload

    def _stream_end(self, stream: str) -> bytes:
        """The `stream` member of a line; what was checked once is kept."""
        check_stream(stream)
        end = b"" if stream == MAIN_STREAM else b',"stream":"' + stream.encode() + b'"'
        if len(self._stream_ends) >= _STREAMS_KEPT:
            self._stream_ends.clear()
        self._stream_ends[stream] = end
        return end


def _refuse(reason: str) -> NoReturn:
    raise EventRefusedError(reason)


def _is_flat(cls: type[Event]) -> bool:
    """Whether a class has only strings, booleans and bounded integers.

    Its events cannot nest, hold a float, or an integer that others read as one.
    """
    info = msgspec.inspect.type_info(cls)
    assert isinstance(info, msgspec.inspect.StructType)
    return all(
        isinstance(field.type, msgspec.inspect.StrType | msgspec.inspect.BoolType)
        or (
            isinstance(field.type, msgspec.inspect.IntType)
            and field.type.ge is not None
            and field.type.le is not None
            and field.type.ge >= _INTEGER_MIN
            and field.type.le <= _INTEGER_MAX
        )
        for field in info.fields
    )


def _start(moment: datetime) -> bytes:
    try:
        text = format_timestamp(moment)
    except (ValueError, OverflowError, AttributeError, TypeError) as error:
        reason = f"the timestamp cannot be written: {error}"
        raise EventRefusedError(reason) from error
    return b'{"ts":"' + text.encode() + b'","type":'


def _encode_key_and_meta(key: str | None, meta: Mapping[str, str] | None) -> bytes:
    end = b""
    if key is not None:
        if not isinstance(key, str) or not 1 <= len(key) <= _TEXT_MAX:  # pyright: ignore[reportUnnecessaryIsInstance]
            _refuse(f"a key is a string of 1 to {_TEXT_MAX} characters, not {key!r:.80}")
        end += b',"key":' + _encode_checked(key, "the key")
    if meta:
        plain = dict(meta) if isinstance(meta, Mapping) else {}  # pyright: ignore[reportUnnecessaryIsInstance]
        if not plain or len(plain) > _META_MAX or not all(map(_is_meta, plain.items())):
            _refuse(
                f"meta takes up to {_META_MAX} strings of up to {10 * _TEXT_MAX} characters, "
                f"under names of up to {_TEXT_MAX}"
            )
        end += b',"meta":' + _encode_checked(plain, "meta")
    return end


def _is_meta(item: tuple[object, object]) -> bool:
    name, value = item
    return (
        isinstance(name, str)
        and isinstance(value, str)
        and len(name) <= _TEXT_MAX
        and len(value) <= 10 * _TEXT_MAX
    )


def _encode_data(data: Any) -> bytes:
    """The `data` member, or nothing for None."""
    if data is None:
        return b""
    try:
        encoded = _encode(data)
        same = _is_same(_decode_any(encoded), data)
    except Exception as error:
        raise EventRefusedError(_not_equal(data, str(error), where="data: ")) from error
    if not same:
        why = "only JSON values do: no bytes, tuples, NaN, or keys but strings"
        _refuse(_not_equal(data, why, where="data: "))
    _check_shape(encoded)
    return b',"data":' + encoded


def _encode_checked(value: Any, what: str) -> bytes:
    try:
        encoded = _encode(value)
        same = _is_same(_decode_any(encoded), value)
    except Exception as error:
        reason = f"{what} cannot be written as JSON: {error}"
        raise EventRefusedError(reason) from error
    if not same:
        _refuse(f"{what} would not read back equal: it takes plain strings only")
    return encoded


def _is_same(decoded: Any, value: Any) -> bool:
    """Whether what was decoded is what went in, type by type: `1`, `true` and `1.0` are three.

    Both have one encoding, so members stand in one order; only sets have an order of their own.
    """
    cls = cast("Any", type(decoded))
    if type(value) is not cls:
        return False
    if cls in _SCALARS:
        return bool(decoded == value)
    if cls is dict:
        return (
            len(decoded) == len(value)
            and all(map(_is_same, decoded, value))
            and all(map(_is_same, decoded.values(), value.values()))
        )
    if issubclass(cls, list | tuple):
        return len(decoded) == len(value) and all(map(_is_same, decoded, value))
    if issubclass(cls, set | frozenset):
        own = {member: member for member in value}
        return decoded == value and all(_is_same(member, own[member]) for member in decoded)
    if issubclass(cls, msgspec.Struct):
        return all(map(_is_same, astuple(decoded), astuple(value)))
    if is_dataclass(cls):
        return decoded == value and all(
            _is_same(getattr(decoded, field.name), getattr(value, field.name))
            for field in fields(cls)
        )
    return bool(decoded == value)


def _check_shape(encoded: bytes) -> None:
    """Refuse what nests too deep or holds an integer that others read as a float.

    Bytes that the caller encoded (`msgspec.Raw`) are refused unless they are JSON on one line.
    """
    if b"\n" in encoded:
        _refuse("it holds an LF, which ends a line; a msgspec.Raw must be compact")
    if encoded.count(b"[") + encoded.count(b"{") > _NESTING_MAX and (
        _nesting(encoded) > _NESTING_MAX
    ):
        _refuse(f"it nests deeper than {_NESTING_MAX} levels")
    if _LONG_INTEGER.search(encoded) and not _integers_fit(_decode_any(encoded)):
        _refuse(f"an integer lies outside {_INTEGER_MIN} to {_INTEGER_MAX}")


def _nesting(encoded: bytes) -> int:
    """How deep arrays and objects nest, strings left out."""
    depth = deepest = 0
    for token in re.finditer(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', encoded):
        first = token[0][:1]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest


def _integers_fit(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_integers_fit, cast("dict[str, Any]", value).values()))
    if _is_list(value):
        return all(map(_integers_fit, value))
    return not isinstance(value, int) or _INTEGER_MIN <= value <= _INTEGER_MAX


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _too_long(size: int, bound: int) -> str:
    return (
        f"the line would have {size} bytes, the limit is {bound}; keep the large part in a file "
        "and record its path and digest, or raise line_bytes_max (16 MiB at most)"
    )


def _unregistered(event: object) -> str:
    name = type(event).__name__
    if isinstance(event, Unknown):
        return f"an event of the unknown kind {event.name!r:.80} cannot be appended"
    if isinstance(event, Event):
        return f"{name} is not among this store's event types; open the store with it in types="
    return f"{name} is not an event: subclass Event"


def _not_equal(value: object, why: str, *, where: str = "") -> str:
    return f"{where}{type(value).__name__} would not read back equal ({why})"
