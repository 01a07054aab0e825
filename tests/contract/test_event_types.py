"""Kinds of events: a user's own, unions, old payloads, kinds nobody registered."""

from __future__ import annotations

import re
from typing import Any, TypeAlias, assert_type, cast

import pytest

import eventstore as es
from tests.contract._backends import Backend, line

pytestmark = pytest.mark.anyio


class Paid(es.Event):
    """A kind of a user's own."""

    amount: int


class HTTPServed(es.Event):
    """A kind whose name has an abbreviation in it."""

    path: str
    headers: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it


class Renamed(es.Event, tag="was_called_otherwise"):
    """A kind that keeps its name on disk."""

    parts: tuple[int, ...] = ()


class OldPaid(es.Event, tag="paid"):
    """What `Paid` was once: another field."""

    cents: int


class OldRefunded(es.Event, tag="refund"):
    """A kind that got another name later."""

    amount: int


class Refunded(es.Event):
    """What `refund` became."""

    amount: int
    reason: str = "none given"


Money: TypeAlias = Paid | Refunded
Mixed: TypeAlias = Paid | HTTPServed | Renamed

PAID = es.EventTypes[Paid](Paid)
MONEY = es.EventTypes[Money](Paid, Refunded)
MIXED = es.EventTypes[Mixed](Paid, HTTPServed, Renamed)
OLD = es.EventTypes[OldPaid | OldRefunded](OldPaid, OldRefunded)


async def test_a_users_own_kinds_read_back_equal(backend: Backend) -> None:
    """A store is generic over the union of its kinds."""
    events: list[Mixed] = [
        Paid(amount=3),
        HTTPServed(path="/", headers={"a": "b"}),
        Renamed(parts=(1, 2)),
    ]
    async with backend.open_as(MIXED) as store:
        await store.append("till", events, expected_version=es.NO_STREAM)
        found = [r.event async for r in store.read("till")]
    assert_type(found, list[Paid | HTTPServed | Renamed | es.Unknown])
    assert found == events


async def test_a_kind_is_the_class_name_in_snake_case_or_what_the_class_says(
    backend: Backend,
) -> None:
    """So it is on disk, and so `kind` tells it."""
    events: list[Mixed] = [Paid(amount=3), HTTPServed(path="/"), Renamed()]
    async with backend.open_as(MIXED) as store:
        await store.append("till", events, expected_version=es.NO_STREAM)
        kinds = [r.kind async for r in store.read("till")]
    assert kinds == ["paid", "http_served", "was_called_otherwise"]
    assert line(backend.raw(), 2)["type"] == {"kind": "http_served", "path": "/", "headers": {}}


async def test_an_event_of_another_kind_is_refused(backend: Backend) -> None:
    """A store records only the kinds it knows; the error says what to do."""
    async with backend.open_as(PAID) as store:
        with pytest.raises(es.EventRefusedError, match=r"Refunded .* types="):
            await store.append("till", [Refunded(amount=1)], expected_version=es.ANY)  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    assert backend.raw() == b""


@pytest.mark.parametrize("nothing", ["paid", {"kind": "paid", "amount": 3}, None, 3])
async def test_what_is_no_event_is_refused(backend: Backend, nothing: Any) -> None:
    """A string, a mapping or None is no event, whatever it says."""
    async with backend.open_as(PAID) as store:
        with pytest.raises(es.EventRefusedError, match="subclass Event"):
            await store.append("till", [nothing], expected_version=es.ANY)
    assert backend.raw() == b""


# --- kinds nobody registered ---


async def test_an_unknown_kind_is_read_with_all_its_fields(backend: Backend) -> None:
    """A reader that knows fewer kinds still sees every event, in its place."""
    async with backend.open_as(MIXED) as store:
        events: list[Mixed] = [Paid(amount=3), HTTPServed(path="/", headers={"a": "b"})]
        await store.append("till", events, expected_version=es.ANY)
    async with backend.open_as(PAID) as store:
        found = [r async for r in store.read("till")]
        assert await store.version("till") == 2
    unknown = es.Unknown(name="http_served", fields={"path": "/", "headers": {"a": "b"}})
    assert [r.event for r in found] == [Paid(amount=3), unknown]
    assert [(r.kind, r.version) for r in found] == [("paid", 1), ("http_served", 2)]


async def test_an_unknown_kind_is_known_again_later(backend: Backend) -> None:
    """Reading and appending with fewer kinds changes nothing that is there."""
    async with backend.open_as(MIXED) as store:
        await store.append("till", [Renamed(parts=(1,))], expected_version=es.ANY)
    before = backend.raw()
    async with backend.open_as(PAID) as store:
        await store.append("till", [Paid(amount=1)], expected_version=1)
    assert backend.raw().startswith(before)
    async with backend.open_as(MIXED) as store:
        found = [r.event async for r in store.read("till")]
    assert found == [Renamed(parts=(1,)), Paid(amount=1)]


async def test_an_unknown_event_cannot_be_appended(backend: Backend) -> None:
    """It is something that was read, not something that is said."""
    unknown: Any = es.Unknown(name="paid", fields={"amount": 3})
    async with backend.open_as(PAID) as store:
        with pytest.raises(es.EventRefusedError, match="'paid' cannot be appended"):
            await store.append("till", [unknown], expected_version=es.ANY)


async def test_a_payload_that_does_not_fit_its_class_is_unknown(backend: Backend) -> None:
    """Without an upcast the old payload is shown as it is, not guessed at."""
    async with backend.open_as(OLD) as store:
        await store.append("till", [OldPaid(cents=300)], expected_version=es.ANY)
    async with backend.open_as(PAID) as store:
        found = [r.event async for r in store.read("till")]
    assert found == [es.Unknown(name="paid", fields={"cents": 300})]


# --- fields and kinds that came later ---


class ShortPaid(es.Event, tag="invoice"):
    """What `LongPaid` was before it got another field."""

    amount: int


class LongPaid(es.Event, tag="invoice"):
    """A kind with a field that came later."""

    amount: int
    currency: str = "EUR"


SHORT = es.EventTypes[ShortPaid](ShortPaid)
LONG = es.EventTypes[LongPaid | Paid](LongPaid, Paid)


async def test_a_new_field_with_a_default_reads_old_events(backend: Backend) -> None:
    """What lacks the field gets its default; nothing has to be upcast."""
    async with backend.open_as(SHORT) as store:
        await store.append("till", [ShortPaid(amount=1)], expected_version=es.ANY)
    async with backend.open_as(LONG) as store:
        events: list[LongPaid | Paid] = [LongPaid(amount=2, currency="CHF"), Paid(amount=3)]
        await store.append("till", events, expected_version=1)
        found = [r.event async for r in store.read("till")]
    assert found == [LongPaid(amount=1, currency="EUR"), *events]


async def test_the_program_of_before_reads_on_in_a_newer_log(backend: Backend) -> None:
    """It does not see the field it does not know, and takes the new kind for unknown."""
    async with backend.open_as(LONG) as store:
        events: list[LongPaid | Paid] = [LongPaid(amount=2, currency="CHF"), Paid(amount=3)]
        await store.append("till", events, expected_version=es.ANY)
    async with backend.open_as(SHORT) as store:
        await store.append("till", [ShortPaid(amount=4)], expected_version=2)
        found = [r.event async for r in store.read("till")]
    unknown = es.Unknown(name="paid", fields={"amount": 3})
    assert found == [ShortPaid(amount=2), unknown, ShortPaid(amount=4)]


# --- upcasts ---


class PaidOnce(es.Event, tag="paid"):
    """The first form: cents, no currency."""

    cents: int


class PaidThen(es.Event, tag="paid"):
    """The second form: a currency came along."""

    cents: int
    currency: str


class Payment(es.Event):
    """Today's form, under another name."""

    amount: int
    currency: str
    note: str


def add_currency(fields: dict[str, Any]) -> dict[str, Any]:
    """First form to second."""
    return {"cents": fields["cents"], "currency": "EUR"}


def cents_to_amount(fields: dict[str, Any]) -> dict[str, Any]:
    """Second form to third."""
    return {"amount": fields["cents"] // 100, "currency": fields["currency"]}


def add_note(fields: dict[str, Any]) -> dict[str, Any]:
    """Third form to today's."""
    assert "note" not in fields
    return {**fields, "note": ""}


def use_cents_up(fields: dict[str, Any]) -> dict[str, Any]:
    """Change what was given, then fail."""
    fields.clear()
    msg = "gone"
    raise ValueError(msg)


UPCASTS: es.Upcasts = {"paid": [add_currency, cents_to_amount, "payment"], "payment": add_note}
PAYMENT = es.EventTypes[Payment](Payment, upcasts=UPCASTS)


@pytest.mark.parametrize("backwards", [False, True])
async def test_every_form_of_a_kind_becomes_todays_while_reading(
    backend: Backend, *, backwards: bool
) -> None:
    """Each payload enters the chain where it fits; the log itself is not rewritten."""
    async with backend.open_as(es.EventTypes[PaidOnce](PaidOnce)) as first:
        await first.append("till", [PaidOnce(cents=100)], expected_version=es.ANY)
    async with backend.open_as(es.EventTypes[PaidThen](PaidThen)) as second:
        then = PaidThen(cents=200, currency="CHF")
        await second.append("till", [then], expected_version=es.ANY)
    before = backend.raw()
    async with backend.open_as(PAYMENT) as store:
        found = [r.event async for r in store.read("till", backwards=backwards)]
        assert backend.raw() == before
        await store.append("till", [Payment(3, "USD", "x")], expected_version=2)
        newest = [r.event async for r in store.read("till", backwards=True, limit=1)]
    expected = [Payment(1, "EUR", ""), Payment(2, "CHF", "")]
    assert found == (expected[::-1] if backwards else expected)
    assert newest == [Payment(3, "USD", "x")]


async def test_a_kind_that_was_only_renamed_needs_a_name_and_no_step(backend: Backend) -> None:
    """`kind` is then today's name."""
    async with backend.open_as(OLD) as store:
        await store.append("till", [OldRefunded(amount=2)], expected_version=es.ANY)
    types = es.EventTypes[Refunded](Refunded, upcasts={"refund": "refunded"})
    async with backend.open_as(types) as store:
        found = [(r.kind, r.event) async for r in store.read("till")]
    assert found == [("refunded", Refunded(amount=2))]


async def test_an_upcast_leaves_todays_payloads_alone(backend: Backend) -> None:
    """It is asked only where the payload does not fit."""
    async with backend.open_as(es.EventTypes[Paid](Paid, upcasts={"paid": use_cents_up})) as store:
        await store.append("till", [Paid(amount=7)], expected_version=es.ANY)
        assert [r.event async for r in store.read("till")] == [Paid(amount=7)]


def _no_use(fields: dict[str, Any]) -> dict[str, Any]:
    return fields


def _no_fields(_: dict[str, Any]) -> dict[str, Any]:
    nothing: Any = None
    return cast("dict[str, Any]", nothing)


def _rename(fields: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "refunded", "amount": fields["cents"]}


@pytest.mark.parametrize("step", [_no_use, _no_fields, _rename, use_cents_up, add_note])
async def test_an_upcast_that_gives_nothing_fitting_gives_unknown(
    backend: Backend, step: es.Upcast
) -> None:
    """Whatever a step returns or raises, reading goes on, and old name and fields are kept."""
    async with backend.open_as(OLD) as store:
        await store.append("till", [OldPaid(cents=300)], expected_version=es.ANY)
    async with backend.open_as(es.EventTypes[Paid](Paid, upcasts={"paid": step})) as store:
        found = [r.event async for r in store.read("till")]
        assert await store.version("till") == 1
    assert found == [es.Unknown(name="paid", fields={"cents": 300})]


def test_a_step_gets_the_payload_as_it_stands_in_the_log() -> None:
    """What an earlier try did to its copy is not seen by a later one."""

    def spoil(fields: dict[str, Any]) -> dict[str, Any]:
        fields["cents"] = 0
        return {}

    types = es.EventTypes[Paid](Paid, upcasts={"paid": [_cents_to_amount, spoil]})
    assert types.decode(b'{"kind":"paid","cents":5}') == es.Unknown("paid", {"cents": 5})
    types = es.EventTypes[Paid](Paid, upcasts={"paid": [_cents_to_amount, _spoil_unless_amount]})
    assert types.decode(b'{"kind":"paid","cents":500}') == Paid(amount=5)


def _cents_to_amount(fields: dict[str, Any]) -> dict[str, Any]:
    return {"amount": fields["cents"] // 100}


def _spoil_unless_amount(fields: dict[str, Any]) -> dict[str, Any]:
    fields["cents"] = 0
    return {"amount": fields["amount"]}


@pytest.mark.parametrize(
    ("upcasts", "reason"),
    [
        ({"old": add_note}, "'old', which is no registered kind; end its steps with the name"),
        ({"old": "paying"}, "'old' ends at 'paying', which is no registered kind"),
        ({"a": "b", "b": [add_note, "c"], "c": "a"}, "in a circle: a -> b -> c -> a"),
        ({"paid": [add_note, "paid"]}, "ends with its own name"),
        ({"paid": []}, r"upcasts\['paid'\] is empty"),
        ({"paid": ["refunded", add_note]}, "holds 'refunded': a step is a function, and only"),
        ({"paid": [3]}, "holds 3: a step is a function"),
    ],
    ids=["no end", "dangling", "circle", "itself", "empty", "name inside", "no function"],
)
def test_steps_that_lead_nowhere_are_an_error_when_registered(upcasts: Any, reason: str) -> None:
    """A gap in a chain is found before any log is read."""
    with pytest.raises(es.EventTypesError, match=reason):
        es.EventTypes[Paid](Paid, upcasts=upcasts)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"kind":"bill"}', "the kind is not registered"),
        (b'{"kind":"invoice","amount":"1"}', r"^it does not fit LongPaid: Expected `int`.*amount"),
        (b'{"kind":"paid","euros":1}', r"after 0 upcasts: .*after 3 upcasts: KeyError: 'cents'"),
        (b'{"kind":"payment"}', r"^it does not fit Payment: .*; after 0 upcasts: .*after 1 upcast"),
    ],
)
def test_the_registry_tells_why_an_event_is_unknown(payload: bytes, reason: str) -> None:
    """Not registered, not fitting, or what the last step said."""
    types = es.EventTypes[Payment | LongPaid](Payment, LongPaid, upcasts=UPCASTS)
    event = types.decode(payload)
    assert isinstance(event, es.Unknown)
    found = types.why_unknown(event)
    assert found is not None
    assert re.search(reason, found)


def test_what_is_known_is_not_explained() -> None:
    """An event that would be decoded today has no reason to be unknown."""
    types = es.EventTypes[Payment | LongPaid](Payment, LongPaid, upcasts=UPCASTS)
    for known in (
        es.Unknown("invoice", {"amount": 1}),
        es.Unknown("paid", {"cents": 1}),
    ):
        assert types.why_unknown(known) is None


# --- the registry ---


async def test_a_missing_class_is_an_error_at_opening(backend: Backend) -> None:
    """Nothing is created when a class of the union was not given."""
    types = es.EventTypes[Money](Paid)
    with pytest.raises(es.EventTypesError, match="Refunded missing"):
        async with backend.open_as(types):
            pytest.fail("it opened")
    assert backend.look() == {}


async def test_a_class_too_many_is_an_error_at_opening(backend: Backend) -> None:
    """A class that the union does not have would be read as something nobody matches."""
    types = es.EventTypes[Paid](Paid, Refunded)
    with pytest.raises(es.EventTypesError, match="Refunded not in the union"):
        async with backend.open_as(types):
            pytest.fail("it opened")
    assert backend.look() == {}


@pytest.mark.parametrize(
    "classes", [(Paid, Paid), (Paid, OldPaid)], ids=["the same class", "the same kind"]
)
def test_a_kind_belongs_to_one_class(classes: tuple[type[es.Event], ...]) -> None:
    """Two classes with one name on disk are an error at once."""
    with pytest.raises(es.EventTypesError, match="share the kind 'paid'"):
        es.EventTypes[Any](*classes)


@pytest.mark.parametrize("cls", [es.Event, es.Unknown, int])
def test_only_kinds_can_be_registered(cls: Any) -> None:
    """`Event` itself, `Unknown` and foreign classes are no kinds."""
    with pytest.raises(es.EventTypesError, match="not a subclass of Event"):
        es.EventTypes[Any](cls)


def test_a_registry_is_never_empty() -> None:
    """A store without kinds could record nothing."""
    with pytest.raises(es.EventTypesError, match="at least one class"):
        es.EventTypes[Any]()
