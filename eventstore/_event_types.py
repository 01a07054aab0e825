"""Which kinds of events a store knows. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeAlias, Union, cast, get_args

import msgspec

from eventstore._errors import EventTypesError
from eventstore._events import E, Event, Unknown

__all__ = ["EventTypes", "Upcast"]

Upcast: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns an old payload (its fields, without `kind`) into today's; may set `kind` to rename it."""


class EventTypes(Generic[E]):
    """The kinds a store reads and writes: `EventTypes[A | B](A, B)`.

    Write the union out: a type checker infers it from the brackets, and the classes are compared
    with it when a store opens, so that a forgotten one is an error there, not at the first read.

    Args:
        classes: every class of the union, once.
        upcasts: for a kind on disk, how its old payload becomes today's. It is applied when the
            payload does not fit the registered class, or the kind is not registered; the log
            itself is never rewritten.

    Raises:
        EventTypesError: two classes share a kind, or a class is not an event.
    """

    def __init__(self, *classes: type[Event], upcasts: Mapping[str, Upcast] | None = None) -> None:
        if not classes:
            msg = "EventTypes needs at least one class"
            raise EventTypesError(msg)
        by_kind: dict[str, type[Event]] = {}
        for cls in classes:
            kind = _kind_of(cls)
            if kind in by_kind:
                msg = f"{cls.__name__} and {by_kind[kind].__name__} share the kind {kind!r}"
                raise EventTypesError(msg)
            by_kind[kind] = cls
        self.by_kind: Mapping[str, type[Event]] = MappingProxyType(by_kind)
        self.upcasts: Mapping[str, Upcast] = MappingProxyType(dict(upcasts or {}))
        self.union: Any = Union[classes]  # noqa: UP007 - the classes are known at run time only
        self._decoder = msgspec.json.Decoder(self.union)

    def check_union(self) -> None:
        """Compare the classes with the union in the brackets, if there is one.

        Raises:
            EventTypesError: a class of the union was not given, or one too many was.
        """
        annotated = getattr(self, "__orig_class__", None)
        if annotated is None:
            return
        (union,) = get_args(annotated)
        wanted: set[Any] = set(get_args(union)) or {union}
        given: set[Any] = set(self.by_kind.values())
        for difference, what in ((wanted - given, "missing"), (given - wanted, "not in the union")):
            if difference:
                names = ", ".join(sorted(cls.__name__ for cls in difference))
                msg = f"EventTypes and its union differ: {names} {what}"
                raise EventTypesError(msg)

    def decode(self, payload: bytes | msgspec.Raw) -> E | Unknown:
        """Turn the bytes of a `type` member into an event. Never raises on a JSON object.

        Raises:
            ValueError: the payload is not an object with a string `kind`.
        """
        try:
            return cast("E", self._decoder.decode(payload))
        except (msgspec.ValidationError, RecursionError):
            return self._decode_misfit(msgspec.json.decode(payload))

    def _decode_misfit(self, value: Any) -> E | Unknown:
        fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        kind = fields.pop("kind", None)
        if not isinstance(kind, str):
            msg = "the payload is not an object with a string 'kind'"
            raise ValueError(msg)  # noqa: TRY004 - a verdict about bytes, not about an argument
        upcast = self.upcasts.get(kind)
        if upcast is not None:
            try:
                return cast("E", msgspec.convert({"kind": kind} | upcast(dict(fields)), self.union))
            except msgspec.ValidationError:
                return Unknown(name=kind, fields=fields)
        return Unknown(name=kind, fields=fields)


def _is_event(cls: object) -> bool:
    return isinstance(cls, type) and issubclass(cls, Event)


def _kind_of(cls: type[Event]) -> str:
    if not _is_event(cls) or cls is Event or cls is Unknown:
        msg = f"{cls!r} is not a subclass of Event with a kind of its own"
        raise EventTypesError(msg)
    kind = cls.__struct_config__.tag
    if not isinstance(kind, str) or not kind:
        msg = f"{cls.__name__}: the kind must be a string of at least one character, not {kind!r}"
        raise EventTypesError(msg)
    return kind
