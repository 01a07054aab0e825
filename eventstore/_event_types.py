"""Which kinds of events a store knows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Generic, Union, cast, get_args

import msgspec

from eventstore._errors import EventTypesError
from eventstore._events import E, Event, Unknown
from eventstore._upcasts import Chain, Upcasts, chains_of

__all__ = ["EventTypes"]


class EventTypes(Generic[E]):
    """The kinds a store reads and writes: `EventTypes[A | B](A, B)`.

    Write the union out: a type checker infers it from the brackets, and the classes are compared
    with it when a store opens, so that a forgotten one is an error there, not at the first read.

    How a kind may change while its old events stay in the log, which is never rewritten:

    * a new field with a default needs nothing: what lacks it gets the default;
    * anything else about the fields takes a step in `upcasts`;
    * a class may be renamed freely if it keeps its kind (`tag="paid"`); a kind that is renamed
      takes its new name in `upcasts`;
    * a kind nobody registers any more reads as `Unknown`, with all its fields.

    Args:
        classes: every class of the union, once.
        upcasts: for a kind on disk, the steps from its oldest payload to today's, such as
            `{"paid": [cents_to_amount, add_currency], "refund": [give_reason, "refunded"]}`. A name
            at the end is what the kind is called now; that kind's own steps follow. They are asked
            only where a payload does not fit: the last step alone, then the last two, and so on,
            until what comes out fits the class. So a step should take no other form than its own:
            `fields["cents"]`, not `fields.get("cents", 0)`.

    Raises:
        EventTypesError: two classes share a kind, a class is not an event, or steps lead nowhere
            or in a circle.
    """

    def __init__(self, *classes: type[Event], upcasts: Upcasts | None = None) -> None:
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
        self.upcasts: Mapping[str, Chain] = MappingProxyType(
            chains_of(upcasts or {}, registered=by_kind)
        )
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
            return self._decode_misfit(payload)

    def why_unknown(self, event: Unknown) -> str | None:
        """Say why an event reads as `Unknown` here; None if it would not.

        The reason quotes the log, so clean it before a terminal gets it.
        """
        kind = event.name
        if kind not in self.by_kind and kind not in self.upcasts:
            return "the kind is not registered"
        payload = msgspec.json.encode({**event.fields, "kind": kind})
        reasons: list[str] = []
        try:
            self._decoder.decode(payload)
        except (msgspec.ValidationError, RecursionError) as error:
            if kind in self.by_kind:
                reasons.append(f"it does not fit {self.by_kind[kind].__name__}: {error}")
        else:
            return None
        is_unknown = isinstance(self._decode_misfit(payload, reasons), Unknown)
        return "; ".join(reasons) if is_unknown else None

    def _decode_misfit(
        self, payload: bytes | msgspec.Raw, reasons: list[str] | None = None
    ) -> E | Unknown:
        """Upcast what does not fit its class, or keep it as it is."""
        kind, fields = _split(payload)
        chain = self.upcasts.get(kind)
        if chain is None:
            return Unknown(name=kind, fields=fields)
        cls = self.by_kind[chain.kind]
        for steps in chain.suffixes():
            _, form = _split(payload)  # anew: a step may have changed what it was given
            try:
                for step in steps:
                    form = step(form)
                return cast("E", msgspec.convert({"kind": chain.kind} | form, cls))
            except Exception as error:  # noqa: BLE001 - a user's step never stops a reader
                if reasons is not None:
                    reasons.append(f"after {len(steps)} upcasts: {type(error).__name__}: {error}")
        return Unknown(name=kind, fields=fields)


def _split(payload: bytes | msgspec.Raw) -> tuple[str, dict[str, Any]]:
    value = msgspec.json.decode(payload)
    fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    kind = fields.pop("kind", None)
    if not isinstance(kind, str):
        msg = "the payload is not an object with a string 'kind'"
        raise ValueError(msg)  # noqa: TRY004 - a verdict about bytes, not about an argument
    return kind, fields


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
