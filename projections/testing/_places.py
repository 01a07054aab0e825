"""Giving events a place, as a log would. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from eventstore import Event, HistoryEvent, Recorded, Unknown

__all__ = ["START", "record"]

E = TypeVar("E", bound=Event)

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When the first event of a test happens; each one after it a second later."""

_STREAM: Final = "test"


def record(events: Iterable[E | Unknown | HistoryEvent[E] | Recorded[E]]) -> list[Recorded[E]]:
    """Record events one after the other in one stream, as if others lay between them.

    What is recorded already keeps its place.
    """
    recorded: list[Recorded[E]] = []
    for version, given in enumerate(events, start=1):
        if isinstance(given, Recorded):
            recorded.append(given)
            continue
        item = given if isinstance(given, HistoryEvent) else HistoryEvent(given)
        timestamp = item.timestamp or START + timedelta(seconds=version)
        recorded.append(
            Recorded(item.event, timestamp, version, 2 * version, _STREAM, data=item.data)
        )
    return recorded
