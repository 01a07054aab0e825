"""A line that another writer of the file left: the record of ralph-core's history.jsonl. Pure.

What its reader (serde_json) takes, we take, and what it skips is *noise* here. Two paths agree:

* `decode_canonical`: a line exactly as the original writes it. msgspec decodes it, and the bytes
  are compared with the ones they must be, so no member stands twice, and none too many.
* `decode_exact`: everything else, by the original's rules, which differ from msgspec's:
  - `ts`, `type` or `data` twice is noise, and so is `kind` or a field of the kind within `type`;
    other members may be repeated, and the last of two equal keys in `data` wins;
  - an unknown top-level member needs to be JSON by its grammar only, of any depth; elsewhere
    a value nests to 126, a number is finite, and a string holds no half of a surrogate pair;
  - an integer beyond 64 bits is a float, and so is `-0`: neither is a u32;
  - serde's sequence forms: `["<ts>",{"kind":...},null]`, and `"type":["loop_started","x"]`.

One deviation, on purpose: an object `type` of a kind the original does not know is noise to it,
and an event here, so that the kinds of later writers survive as `Unknown`.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NoReturn

import msgspec

from eventstore._chrono import parse_chrono
from eventstore._loop import LOOP_EVENTS, LoopEvent

__all__ = ["Envelope", "ForeignLine", "decode_canonical", "decode_exact", "decode_foreign"]

_RECORD: Final = ("ts", "type", "data")
_ENVELOPE: Final = frozenset({"version", "position", "commit", "crc"})
_NESTING_MAX: Final = 126
"""Of one value in the record: serde_json stops at 127 open brackets, and the record's is one."""
_RECORD_BYTES_MIN: Final = len('["1-1-1T1:1:1Z",{"kind":""}]')
"""No record is shorter, and no claim is an array: tiny lines of garbage cost next to nothing."""
_U32_MAX: Final = 2**32 - 1
_INTEGER_DIGITS_MAX: Final = len(str(-(2**63)))

_KINDS: Final[Mapping[str, Mapping[str, type]]] = {
    kind: {
        field.name: field.type if field.type in (str, bool) else int
        for field in msgspec.structs.fields(cls)
    }
    for kind, cls in LOOP_EVENTS.by_kind.items()
}

_ODD_NUMBER: Final = re.compile(rb"-0(?![.eE])|[0-9]{19}")
"""Where msgspec and the original may read a number differently. Strings match too: harmless."""

_BLANKS: Final = b" \t\r\n"
_SHORT_ESCAPE: Final = re.compile(rb'\\["\\/bfnrt]')
_LONG_ESCAPE: Final = re.compile(rb"\\u[0-9a-fA-F]{4}")
_SURROGATE_PAIR: Final = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")

# JSON's grammar, after `_without_escapes`. No group repeats, so matching takes linear time.
_KEY: Final = re.compile(rb'[ \t\r\n]*("[^"\x00-\x1f]*")[ \t\r\n]*:')
_START: Final = re.compile(
    rb'[ \t\r\n]*(?:([\[{])|"[^"\x00-\x1f]*"|true|false|null|'
    rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
)
_AFTER: Final = re.compile(rb"[ \t\r\n]*([,\]}])")
_CLOSING: Final = re.compile(rb"[ \t\r\n]*[\]}]")
_CLOSER_OF: Final = {b"[": b"]", b"{": b"}"}


class ForeignLine(msgspec.Struct, frozen=True, gc=False):
    """What a foreign line records.

    Attributes:
        timestamp: when, UTC, cut to microseconds and to what a datetime can hold.
        timestamp_text: the timestamp as it stands in the line.
        payload: a JSON object with `kind` and the event's fields, for `EventTypes.decode`.
        data: the JSON value recorded beside the event, or None.
    """

    timestamp: datetime
    timestamp_text: str
    payload: bytes
    data: Any | None


class Envelope(enum.Enum):
    """The verdict on a line with a member that only our lines have."""

    CLAIMED = "claims to be one of ours"


def decode_foreign(line: bytes) -> ForeignLine | Envelope | None:
    """Read a line that is not one of ours. Never raises, whatever the bytes.

    Time and memory are linear in the line's length. Only a caller that has all but used up
    Python's stack gets None for a line that nests deeply.

    Args:
        line: the line without its LF, at most 16 MiB. A CR at its end is a blank.

    Returns:
        What it records; `Envelope.CLAIMED` for a JSON object with a top-level `version`,
        `position`, `commit` or `crc`, whatever else is right or wrong with it; None for noise.
    """
    if len(line) < _RECORD_BYTES_MIN and not line.lstrip(_BLANKS).startswith(b"{"):
        return None  # neither a record nor a claim
    try:
        return decode_canonical(line) or decode_exact(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


class _Canonical(msgspec.Struct, gc=False):
    ts: str
    type: LoopEvent
    data: msgspec.Raw = msgspec.Raw()


_decode_canonical: Final = msgspec.json.Decoder(_Canonical).decode
_decode_value: Final = msgspec.json.Decoder().decode
_decode_string: Final = msgspec.json.Decoder(str).decode
_encode: Final = msgspec.json.Encoder().encode


def decode_canonical(line: bytes) -> ForeignLine | None:
    """Read a line exactly as the original writes it; None for any other. Never raises."""
    try:
        record = _decode_canonical(line)
        text = record.ts
        payload = _encode(record.type)
        rest = record.data
        tail = b',"data":%b' % rest if rest else b""
        if line != b'{"ts":"%b","type":%b%b}' % (text.encode(), payload, tail):
            return None
        data = None
        if tail:
            if tail.count(b"[") + tail.count(b"{") > _NESTING_MAX or _ODD_NUMBER.search(tail):
                return None
            data = _decode_value(rest)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    timestamp = parse_chrono(text)
    return None if timestamp is None else ForeignLine(timestamp, text, payload, data)


def decode_exact(line: bytes) -> ForeignLine | Envelope | None:
    """Read any line by the original's rules.

    Raises:
        ValueError: it is noise; so say msgspec.MsgspecError, and RecursionError on a full stack.
    """
    line.decode()  # UTF-8 throughout, ignored members included
    if line.lstrip(_BLANKS).startswith(b"["):
        record = {name: part[1:] for name, part in zip(_RECORD, _parts(line), strict=True)}
    else:
        record = {}
        claimed = repeated = False
        for key, value, nesting in _parts(line):
            if key in _ENVELOPE:
                claimed = True
            elif key in _RECORD:
                repeated = repeated or key in record
                record[key] = (value, nesting)
        if claimed:
            return Envelope.CLAIMED
        if repeated:
            return None
    record.setdefault("data", (b"null", 0))
    if len(record) != len(_RECORD) or max(n for _, n in record.values()) > _NESTING_MAX:
        return None
    text = _decode_string(record["ts"][0])
    timestamp = parse_chrono(text)
    payload = _payload(record["type"][0])
    data = _value(record["data"][0])
    if timestamp is None or payload is None:
        return None
    return ForeignLine(timestamp, text, payload, data)


def _payload(text: bytes) -> bytes | None:
    """Check the `type` member, and turn its sequence form into an object."""
    value = _value(text)
    match value:
        case {"kind": str(kind)}:
            wanted = _KINDS.get(kind, {})
            names = [key for key, *_ in _parts(text) if key == "kind" or key in wanted]
            if len(names) != len(set(names)) or not _fits(value, wanted):
                return None
            return _encode(value) if _ODD_NUMBER.search(text) else text
        case [str(kind), *values] if kind in _KINDS:
            event = {"kind": kind, **dict(zip(_KINDS[kind], values, strict=True))}
            return _encode(event) if _fits(event, _KINDS[kind]) else None
        case _:
            return None


def _fits(event: Mapping[Any, Any], wanted: Mapping[str, type]) -> bool:
    for name, cls in wanted.items():
        if type(event.get(name)) is not cls or (cls is int and not 0 <= event[name] <= _U32_MAX):
            return False
    return True


def _parts(line: bytes) -> Iterator[tuple[str | None, bytes, int]]:
    """Yield key (None in an array), value and nesting of each part of one object or array.

    Raises:
        ValueError: it is not one object or array; what was yielded before counts for nothing.
    """
    text = _without_escapes(line)
    opening = _START.match(text) or _refuse()
    closer = _CLOSER_OF.get(opening[1]) or _refuse()
    at = opening.end()
    more = not _CLOSING.match(text, at)
    while more:
        key = None
        if closer == b"}":
            label = _KEY.match(text, at) or _refuse()
            key = _decode_string(line[label.start(1) : label.end(1)])
            at = label.end()
        end, nesting = _end_of_value(text, at)
        yield key, line[at:end].strip(_BLANKS), nesting
        after = _AFTER.match(text, end) or _refuse()
        more = after[1] == b","
        at = after.end() if more else end
    after = _AFTER.match(text, at) or _refuse()
    if after[1] != closer or text[after.end() :].strip(_BLANKS):
        _refuse()


def _without_escapes(line: bytes) -> bytes:
    """Put fillers in the place of escapes: a quote ends a string, and every offset stays."""
    text = _LONG_ESCAPE.sub(b"______", _SHORT_ESCAPE.sub(b"__", line))
    if b"\\" in text:
        _refuse()
    return text


def _end_of_value(text: bytes, at: int) -> tuple[int, int]:
    """Find where the value at an offset ends, and how deep it nests. Without recursion."""
    closers: list[bytes] = []
    nesting = 0
    while True:
        start = _START.match(text, at) or _refuse()
        at = start.end()
        if start[1]:
            closer = _CLOSER_OF[start[1]]
            closers.append(closer)
            if not _CLOSING.match(text, at):
                if closer == b"}":
                    at = _after_key(text, at)
                continue
        nesting = max(nesting, len(closers))  # it is deepest where nothing more is opened
        while closers:
            after = _AFTER.match(text, at) or _refuse()
            at = after.end()
            if after[1] == b",":
                if closers[-1] == b"}":
                    at = _after_key(text, at)
                break
            if after[1] != closers.pop():
                _refuse()
        else:
            return at, nesting


def _after_key(text: bytes, at: int) -> int:
    return (_KEY.match(text, at) or _refuse()).end()


def _value(text: bytes) -> Any:
    """Decode a value that is JSON by its grammar, with the original's strings and numbers.

    Raises:
        ValueError: a number is out of range, or a string holds half of a surrogate pair.
    """
    if _SURROGATE.search(_SURROGATE_PAIR.sub(b"", _SHORT_ESCAPE.sub(b"__", text))):
        _refuse()
    return _json.decode(text.decode())


def _integer(digits: str) -> int | float:
    if digits != "-0" and len(digits) <= _INTEGER_DIGITS_MAX:
        value = int(digits)
        if -(2**63) <= value < 2**64:
            return value
    return _float(digits)


def _float(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse()


def _refuse() -> NoReturn:
    raise ValueError("the original skips this line")


_json: Final = json.JSONDecoder(parse_int=_integer, parse_float=_float)
