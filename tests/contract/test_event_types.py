"""Kinds of events: a user's own, unions, old payloads, kinds nobody registered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, assert_type

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


# --- upcasts ---


def _cents_to_amount(fields: dict[str, Any]) -> dict[str, Any]:
    return {"amount": fields["cents"] // 100}


def _refund_to_refunded(fields: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "refunded", **fields}


def _no_use(fields: dict[str, Any]) -> dict[str, Any]:
    return fields


UPCASTS: Mapping[str, es.Upcast] = {"paid": _cents_to_amount, "refund": _refund_to_refunded}


@pytest.mark.parametrize("backwards", [False, True])
async def test_an_old_payload_becomes_todays_while_reading(
    backend: Backend, *, backwards: bool
) -> None:
    """Fields are turned, kinds are renamed; the log itself is not rewritten."""
    async with backend.open_as(OLD) as store:
        events: list[OldPaid | OldRefunded] = [OldPaid(cents=300), OldRefunded(amount=2)]
        await store.append("till", events, expected_version=es.ANY)
    before = backend.raw()
    async with backend.open_as(es.EventTypes[Money](Paid, Refunded, upcasts=UPCASTS)) as store:
        found = [r.event async for r in store.read("till", backwards=backwards)]
    expected = [Paid(amount=3), Refunded(amount=2)]
    assert found == (expected[::-1] if backwards else expected)
    assert backend.raw() == before


async def test_an_upcast_leaves_todays_payloads_alone(backend: Backend) -> None:
    """It is asked only where the payload does not fit."""
    async with backend.open_as(es.EventTypes[Money](Paid, Refunded, upcasts=UPCASTS)) as store:
        await store.append("till", [Paid(amount=7)], expected_version=es.ANY)
        assert [r.event async for r in store.read("till")] == [Paid(amount=7)]


async def test_an_upcast_that_gives_nothing_fitting_gives_unknown(backend: Backend) -> None:
    """The event keeps its old name and fields."""
    async with backend.open_as(OLD) as store:
        await store.append("till", [OldPaid(cents=300)], expected_version=es.ANY)
    async with backend.open_as(es.EventTypes[Paid](Paid, upcasts={"paid": _no_use})) as store:
        found = [r.event async for r in store.read("till")]
    assert found == [es.Unknown(name="paid", fields={"cents": 300})]


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
