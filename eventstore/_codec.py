"""Events to bytes and back; what may not pass is the business of `_gate`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from itertools import chain
from typing import Any, Final, Generic

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
from eventstore._gate import (
    PLAIN_TYPES,
    TEXT_MAX,
    check_shape,
    encode_data,
    encode_key_and_meta,
    is_flat,
    is_same,
    not_equal,
    refuse,
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
_TOGETHER_MIN: Final = 6  # fewer are encoded sooner one by one
_STREAM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,199}")
_STREAMS_KEPT: Final = 4_096
_NO_CONTENTS: Final[Sequence[tuple[bytes, bytes]]] = ()
_SOMETHING_ELSE: Final = "it comes back as something else"

_encoder: Final = msgspec.json.Encoder()
_encode: Final = _encoder.encode
_encode_lines: Final = _encoder.encode_lines
_decode_any: Final = msgspec.json.Decoder().decode


def check_stream(stream: object) -> None:
    """Refuse a name that is not one.

    Raises:
        EventRefusedError: with what a name may hold.
    """
    if not isinstance(stream, str) or not _STREAM.fullmatch(stream) or ".." in stream:
        shown = repr(stream) if len(repr(stream)) <= TEXT_MAX else f"{repr(stream)[:60]}…"
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

    What it needs for that is made when it is first used: a reader that answers one question needs
    one decoder, and looking at the fields of all classes takes longer than most answers.

    Args:
        types: the kinds the store knows.
        line_bytes_max: the bound of one line.
    """

    def __init__(self, types: EventTypes[E], *, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self.types = types
        self._body_bytes_max = line_bytes_max
        self._stream_ends: dict[str, bytes] = {}
        decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(types.union)
        self._decode_event = decoder.decode
        self._decode_events = decoder.decode_lines

    @cached_property
    def _is_flat(self) -> dict[object, bool]:
        """Of each registered class whether its events need less looking at."""
        return {cls: is_flat(cls) for cls in self.types.by_kind.values()}

    @cached_property
    def _flat(self) -> frozenset[object]:
        return frozenset(cls for cls, flat in self._is_flat.items() if flat)

    @cached_property
    def _full(self) -> RecordedDecoder[E]:
        # The union is known at run time only, so the decoder's type is told, not inferred.
        recorded: Any = Recorded
        return RecordedDecoder(self.types, recorded[self.types.union])

    @cached_property
    def _lean(self) -> RecordedDecoder[E]:
        lean: Any = _LeanRecorded
        return RecordedDecoder(self.types, lean[self.types.union])

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
            end = self._stream_ends.get(stream)
        except TypeError:  # it has no hash
            end = None
        if end is None:
            end = self._stream_end(stream)
        if key is not None or meta:
            end += encode_key_and_meta(key, meta)
        start = b'{"ts":"' + now + b'","type":'
        if len(events) >= _TOGETHER_MIN:
            encoded = self._encode_together(events, start, end, keyed=key is not None)
            if encoded is not None:
                return encoded
        bodies: list[bytes] = []
        contents: list[tuple[bytes, bytes]] | None = None if key is None else []
        size = 0
        try:
            for item in events:
                data = b""
                if self._is_flat.get(type(item)):  # the check of `_encode_event`, without a call
                    payload = _encode(item)
                    if self._decode_event(payload) != item or not PLAIN_TYPES.issuperset(
                        map(type, astuple(item))  # an enum's member equals its value
                    ):
                        refuse(not_equal(item, _SOMETHING_ELSE))
                    body = start + payload + end
                elif isinstance(item, HistoryEvent):
                    payload, data = self._encode_event(item.event), encode_data(item.data)
                    begin = start if item.timestamp is None else _start(item.timestamp)
                    body = begin + payload + data + end
                else:
                    payload = self._encode_event(item)
                    body = start + payload + end
                if len(body) > self._body_bytes_max:
                    refuse(_too_long(len(body), self._body_bytes_max))
                size += len(body)
                bodies.append(body)
                if contents is not None:
                    contents.append((payload, data))
        except EventRefusedError as error:
            reason = f"event {len(bodies) + 1} of {len(events)}: {error.reason}"
            raise EventRefusedError(reason) from error
        except Exception as error:  # values compare and convert by code of their own
            culprit = events[len(bodies)]
            reason = f"event {len(bodies) + 1} of {len(events)}: {not_equal(culprit, str(error))}"
            raise EventRefusedError(reason) from error
        if size > APPEND_BYTES_MAX:
            reason = f"an append takes {APPEND_BYTES_MAX} bytes, not {size}; split it"
            raise EventRefusedError(reason)
        return bodies, contents or _NO_CONTENTS, size

    def _encode_together(
        self, events: Sequence[E | HistoryEvent[E]], start: bytes, end: bytes, *, keyed: bool
    ) -> tuple[list[bytes], Sequence[tuple[bytes, bytes]], int] | None:
        """Encode flat events with a few calls for all of them: half of what it takes one by one.

        Returns:
            As `encode`; None if one is to be refused, or not flat: looking at each finds it.
        """
        if not self._flat.issuperset(map(type, events)):
            return None
        try:
            lines = _encode_lines(events)
            if self._decode_events(lines) != list(events) or not PLAIN_TYPES.issuperset(
                map(type, chain.from_iterable(map(astuple, events)))
            ):
                return None
        except Exception:  # noqa: BLE001 - the same is raised for the one event that did it
            return None
        payloads = lines[:-1].split(b"\n")
        bodies = [start + payload + end for payload in payloads]
        size = sum(map(len, bodies))
        if max(map(len, bodies)) > self._body_bytes_max or size > APPEND_BYTES_MAX:
            return None
        return bodies, [(payload, b"") for payload in payloads] if keyed else _NO_CONTENTS, size

    def _encode_event(self, event: Event) -> bytes:
        flat = self._is_flat.get(type(event))
        if flat is None:
            refuse(_unregistered(event))
        try:
            payload = _encode(event)
            same = self._decode_event(payload)
            if same != event or not is_same(same, event):
                refuse(not_equal(event, _SOMETHING_ELSE))
            if not flat:
                _decode_any(payload)  # a msgspec.Raw may hold what is no JSON
                check_shape(payload)
        except EventRefusedError:
            raise
        except Exception as error:
            raise EventRefusedError(not_equal(event, str(error))) from error
        return payload

    def _stream_end(self, stream: str) -> bytes:
        """The `stream` member of a line; what was checked once is kept."""
        check_stream(stream)
        end = b"" if stream == MAIN_STREAM else b',"stream":"' + stream.encode() + b'"'
        if len(self._stream_ends) >= _STREAMS_KEPT:
            self._stream_ends.clear()
        self._stream_ends[stream] = end
        return end


def _start(moment: datetime) -> bytes:
    try:
        text = format_timestamp(moment)
    except (ValueError, OverflowError, AttributeError, TypeError) as error:
        reason = f"the timestamp cannot be written: {error}"
        raise EventRefusedError(reason) from error
    return b'{"ts":"' + text.encode() + b'","type":'


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
