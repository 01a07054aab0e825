"""The gate before the log: what an append may hold, and what is refused. Pure.

Its one rule: what is appended must read back equal and of the same types, by us and by the
original. So an event is encoded, decoded again and compared, before anything is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final, NoReturn, TypeGuard, cast

import msgspec
from msgspec.structs import astuple

from eventstore._errors import EventRefusedError
from eventstore._events import Event

__all__ = [
    "PLAIN_TYPES",
    "TEXT_MAX",
    "check_shape",
    "encode_data",
    "encode_key_and_meta",
    "is_flat",
    "is_same",
    "not_equal",
    "refuse",
]

PLAIN_TYPES: Final = frozenset((str, bool, int))
"""Of the values of a flat event. What equals one may be something else: an enum's member."""
TEXT_MAX: Final = 200
"""Characters of a key, a meta name; a meta value may be ten times that."""
_META_MAX: Final = 32
_NESTING_MAX: Final = 64  # readers take 126; a deep value decodes or not by the caller's own stack
_INTEGER_MIN: Final = -(2**63)
_INTEGER_MAX: Final = 2**64 - 1
_LONG_INTEGER: Final = re.compile(rb"[0-9]{19}")

_SCALARS: Final = frozenset((str, int, float, bool, type(None)))

_encode: Final = msgspec.json.Encoder().encode
_decode_any: Final = msgspec.json.Decoder().decode


def refuse(reason: str) -> NoReturn:
    """Say no."""
    raise EventRefusedError(reason)


def not_equal(value: object, why: str, *, where: str = "") -> str:
    """The reason for refusing a value."""
    return f"{where}{type(value).__name__} would not read back equal ({why})"


def is_flat(cls: type[Event]) -> bool:
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


def is_same(decoded: Any, value: Any) -> bool:
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
            and all(map(is_same, decoded, value))
            and all(map(is_same, decoded.values(), value.values()))
        )
    if issubclass(cls, list | tuple):
        return len(decoded) == len(value) and all(map(is_same, decoded, value))
    if issubclass(cls, set | frozenset):
        own = {member: member for member in value}
        return decoded == value and all(is_same(member, own[member]) for member in decoded)
    if issubclass(cls, msgspec.Struct):
        return all(map(is_same, astuple(decoded), astuple(value)))
    if is_dataclass(cls):
        return decoded == value and all(
            is_same(getattr(decoded, field.name), getattr(value, field.name))
            for field in fields(cls)
        )
    return bool(decoded == value)


def check_shape(encoded: bytes) -> None:
    """Refuse what nests too deep or holds an integer that others read as a float.

    Bytes that the caller encoded (`msgspec.Raw`) are refused unless they are JSON on one line.
    """
    if b"\n" in encoded:
        refuse("it holds an LF, which ends a line; a msgspec.Raw must be compact")
    if encoded.count(b"[") + encoded.count(b"{") > _NESTING_MAX and (
        _nesting(encoded) > _NESTING_MAX
    ):
        refuse(f"it nests deeper than {_NESTING_MAX} levels")
    if _LONG_INTEGER.search(encoded) and not _integers_fit(_decode_any(encoded)):
        refuse(f"an integer lies outside {_INTEGER_MIN} to {_INTEGER_MAX}")


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


def encode_data(data: Any) -> bytes:
    """The `data` member, or nothing for None."""
    if data is None:
        return b""
    try:
        encoded = _encode(data)
        same = is_same(_decode_any(encoded), data)
    except Exception as error:
        raise EventRefusedError(not_equal(data, str(error), where="data: ")) from error
    if not same:
        why = "only JSON values do: no bytes, tuples, NaN, or keys but strings"
        refuse(not_equal(data, why, where="data: "))
    check_shape(encoded)
    return b',"data":' + encoded


def encode_key_and_meta(key: str | None, meta: Mapping[str, str] | None) -> bytes:
    end = b""
    if key is not None:
        if not isinstance(key, str) or not 1 <= len(key) <= TEXT_MAX:  # pyright: ignore[reportUnnecessaryIsInstance]
            refuse(f"a key is a string of 1 to {TEXT_MAX} characters, not {key!r:.80}")
        end += b',"key":' + _encode_checked(key, "the key")
    if meta:
        plain = dict(meta) if isinstance(meta, Mapping) else {}  # pyright: ignore[reportUnnecessaryIsInstance]
        if not plain or len(plain) > _META_MAX or not all(map(_is_meta, plain.items())):
            refuse(
                f"meta takes up to {_META_MAX} strings of up to {10 * TEXT_MAX} characters, "
                f"under names of up to {TEXT_MAX}"
            )
        end += b',"meta":' + _encode_checked(plain, "meta")
    return end


def _is_meta(item: tuple[object, object]) -> bool:
    name, value = item
    return (
        isinstance(name, str)
        and isinstance(value, str)
        and len(name) <= TEXT_MAX
        and len(value) <= 10 * TEXT_MAX
    )


def _encode_checked(value: Any, what: str) -> bytes:
    try:
        encoded = _encode(value)
        same = is_same(_decode_any(encoded), value)
    except Exception as error:
        reason = f"{what} cannot be written as JSON: {error}"
        raise EventRefusedError(reason) from error
    if not same:
        refuse(f"{what} would not read back equal: it takes plain strings only")
    return encoded
