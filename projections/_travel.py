"""Looking for the event that changed a state, in a stream as it is now."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import msgspec

from eventstore import Event, EventReader, Page, Recorded
from projections._projection import Projection, S

__all__ = ["Turn", "bisect"]

E = TypeVar("E", bound=Event)
E_co = TypeVar("E_co", bound=Event, covariant=True)


class Turn(msgspec.Struct, Generic[S, E_co], frozen=True):
    """The event at which a state began to be as asked for.

    Attributes:
        recorded: the event.
        before: the state just before it.
        after: the state just after it.
    """

    recorded: Recorded[E_co]
    before: S
    after: S


async def bisect(
    store: EventReader[E],
    projection: Projection[S, E],
    stream: str,
    predicate: Callable[[S], bool],
) -> Turn[S, E] | None:
    """Find the first event after which a state is as asked for: where did it go wrong?

    The stream is folded once, page by page, up to the first page after which `predicate` holds;
    that page is halved until one event is left. So it costs one fold of what lies before the event
    and one page more, and `predicate` is asked once per page and log2 of a page's events.

    Args:
        store: where the stream is.
        projection: what `predicate` looks at.
        stream: its name.
        predicate: pure; it runs in a worker thread. As `git bisect` does, this takes for granted
            that once it holds it goes on to hold. If it does not, the event found is one after
            which it holds and before which it does not, but perhaps not the first.

    Returns:
        The event with the states around it; the stream's first event if `predicate` held before
        any; None if it never holds at the end of a page, which includes the stream's end.

    Raises:
        EventStoreError: as the store's `scan`. What `predicate` raises goes to the caller.

    Cancellation: safe at any await; nothing is changed.
    """
    return await store.scan(functools.partial(_bisect, projection, predicate), stream=stream)


def _bisect(
    projection: Projection[S, E], predicate: Callable[[S], bool], pages: Iterator[Page[E]]
) -> Turn[S, E] | None:
    before = projection.initial
    for page in pages:
        after = projection.fold(before, page)
        if predicate(after):
            return _halve(projection, predicate, before, page)
        before = after
    return None


def _halve(
    projection: Projection[S, E], predicate: Callable[[S], bool], before: S, page: Page[E]
) -> Turn[S, E]:
    """It does not hold at `before`, and holds after the whole page."""
    while len(page) > 1:
        half = len(page) // 2
        middle = projection.fold(before, page[:half])
        if predicate(middle):
            page = page[:half]
        else:
            before, page = middle, page[half:]
    return Turn(page[0], before, projection.evolve(before, page[0]))
