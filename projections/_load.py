"""Folding what a log holds now. Each fold runs in a worker thread, page by page."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from eventstore import Event, EventReader, IterationCompleted, Recorded
from projections._errors import IterationNotFoundError
from projections._projection import Loaded, Projection, S, split_by

__all__ = ["load", "load_all"]

E = TypeVar("E", bound=Event)


async def load(
    store: EventReader[E],
    projection: Projection[S, E],
    stream: str,
    *,
    at_position: int | None = None,
    at_time: datetime | None = None,
    at_iteration: int | None = None,
) -> Loaded[S]:
    """Fold one stream, as it is now or as it was.

    A projection that is decided at one end of the stream reads from that end, and no further than
    it must.

    Args:
        store: where the stream is.
        projection: what to make of it.
        stream: its name; one that does not exist gives the initial state.
        at_position: leave out what the log got after this position: the state as it was then.
        at_time: leave out the stream's first event that is stamped later than this, and everything
            behind it. The order of a log is certain and clocks are not: what stands behind a later
            event was recorded later, whatever its own stamp says. So nothing from after that time
            is in the state, also where a clock was set back; and where a stamp is far in the
            future, ask by position for what stands behind it.
        at_iteration: the state just after the newest event that completed the iteration of this
            number, in whichever run.

    Returns:
        The state, and version and position of the stream's last event that it includes.

    Raises:
        IterationNotFoundError: no iteration of that number was completed.
        ValueError: more than one moment is given, or the time has no timezone.
        EventStoreError: as the store's `scan`.

    Cancellation: safe at any await; nothing is changed.
    """
    if sum(moment is not None for moment in (at_position, at_time, at_iteration)) > 1:
        msg = "give one of at_position, at_time and at_iteration"
        raise ValueError(msg)
    if at_time is not None:
        if at_time.utcoffset() is None:
            msg = f"at_time needs a timezone: {at_time!r}"
            raise ValueError(msg)
        return await store.scan(
            functools.partial(_fold_before, projection, at_time),
            stream=stream,
            data=projection.data,
        )
    if at_iteration is not None:
        at_position = await store.scan(
            functools.partial(_end_of, at_iteration), stream=stream, backwards=True, data=False
        )
        if at_position is None:
            raise IterationNotFoundError(stream=stream, iteration=at_iteration)
    if projection.oldest_first is None:
        return await store.scan(
            functools.partial(_fold_stream, projection, at_position),
            stream=stream,
            backwards=projection.backwards,
            data=projection.data,
        )
    # The beginning decides the state, the end says how far the stream goes: one look at each.
    newest = await store.scan(
        functools.partial(_newest, at_position), stream=stream, backwards=True, data=False
    )
    if newest is None:
        return Loaded(projection.initial, 0, 0)
    loaded = await store.scan(
        functools.partial(_fold_stream, projection, newest.position),
        stream=stream,
        data=projection.data,
    )
    return Loaded(loaded.state, newest.version, newest.position)


async def load_all(store: EventReader[E], projection: Projection[S, E]) -> Mapping[str, Loaded[S]]:
    """Fold the whole log in one pass, one state for each key.

    Args:
        store: where the log is.
        projection: what to make of it; its `key` says which events belong together, by default
            those of one stream.

    Returns:
        State by key, in the order of first appearance; version and position are those of the last
        event that the state includes, so for a key that joins several streams the version counts
        the events of that event's stream.

    Raises:
        EventStoreError: as the store's `scan`.

    Cancellation: safe at any await; nothing is changed.
    """
    return await store.scan(functools.partial(_fold_by_key, projection), data=projection.data)


def _fold_stream(
    projection: Projection[S, E], at_position: int | None, pages: Iterator[Sequence[Recorded[E]]]
) -> Loaded[S]:
    version = position = 0
    backwards = projection.backwards

    def noted() -> Iterator[Sequence[Recorded[E]]]:
        nonlocal version, position
        for page in _until(at_position, pages, backwards=backwards):
            if position == 0 or not backwards:
                newest = page[0 if backwards else -1]
                version, position = newest.version, newest.position
            yield page

    state = projection.fold_pages(noted())
    return Loaded(state, version, position)


def _fold_before(
    projection: Projection[S, E], at_time: datetime, pages: Iterator[Sequence[Recorded[E]]]
) -> Loaded[S]:
    loaded = Loaded(projection.initial, 0, 0)
    for page in pages:
        later = next((n for n, recorded in enumerate(page) if recorded.timestamp > at_time), None)
        kept = page[:later]
        if kept:
            state = projection.fold(loaded.state, kept)
            loaded = Loaded(state, kept[-1].version, kept[-1].position)
        if later is not None:
            break
    return loaded


def _end_of(iteration: int, pages: Iterator[Sequence[Recorded[Event]]]) -> int | None:
    """Where an iteration was completed, in pages that come newest first."""
    for page in pages:
        for recorded in page:
            event = recorded.event
            if isinstance(event, IterationCompleted) and event.iteration == iteration:
                return recorded.position
    return None


def _newest(at_position: int | None, pages: Iterator[Sequence[Recorded[E]]]) -> Recorded[E] | None:
    page = next(_until(at_position, pages, backwards=True), None)
    return None if page is None else page[0]


def _until(
    at_position: int | None, pages: Iterator[Sequence[Recorded[E]]], *, backwards: bool
) -> Iterator[Sequence[Recorded[E]]]:
    """Leave out what comes after a position; never an empty page."""
    newest = 0 if backwards else -1
    for page in pages:
        kept = page
        if page and at_position is not None and page[newest].position > at_position:
            kept = [recorded for recorded in page if recorded.position <= at_position]
        if kept:
            yield kept
        if len(kept) < len(page) and not backwards:
            return


def _fold_by_key(
    projection: Projection[S, E], pages: Iterator[Sequence[Recorded[E]]]
) -> dict[str, Loaded[S]]:
    loaded: dict[str, Loaded[S]] = {}
    for page in pages:
        for key, part in split_by(projection.key, page).items():
            before = loaded.get(key)
            state = projection.fold(projection.initial if before is None else before.state, part)
            loaded[key] = Loaded(state, part[-1].version, part[-1].position)
    return loaded
