"""Deciding: from a state to events, appended at the version that the state was loaded at."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

import anyio

from eventstore import (
    Appended,
    Event,
    EventReader,
    EventRefusedError,
    EventStore,
    HistoryEvent,
    Page,
    VersionConflictError,
)
from projections._load import load
from projections._projection import Loaded, Projection, S

__all__ = ["Transacted", "transact"]

E = TypeVar("E", bound=Event)

_ATTEMPTS: Final = 10  # 16 tasks that decide about one stream at once needed up to 8
_PAUSE_SECONDS: Final = 0.001  # about one commit; doubled with each conflict
_PAUSE_SECONDS_MAX: Final = 0.1
_NEWER_MAX: Final = 10_000  # how many events are held to fold them behind a known state


class Transacted(Loaded[S], Generic[S], frozen=True):
    """How a decision ended; also a `Loaded`, from which the next one may start (`since`).

    Attributes:
        state: the state with the decided events.
        version: version of the last event it includes.
        position: position of that event.
        appended: where the decided events ended; None if there was nothing to do.
        attempts: how many times `decide` was asked; 0 if the key showed that it had been.
    """

    appended: Appended | None = None
    attempts: int = 1


class _Look(NamedTuple, Generic[S]):
    """A state, and the append with the key, if the events looked at hold one."""

    loaded: Loaded[S]
    keyed: Appended | None


async def transact(
    store: EventStore[E],
    projection: Projection[S, E],
    stream: str,
    decide: Callable[[S], Sequence[E | HistoryEvent[E]]],
    *,
    key: str | None = None,
    meta: Mapping[str, str] | None = None,
    attempts: int = _ATTEMPTS,
    since: Loaded[S] | None = None,
) -> Transacted[S]:
    """Load a state, decide, and append what was decided if nothing came between.

    When another writer was faster, its events are folded on top and `decide` is asked again, after
    a short random pause. So what is recorded was decided knowing every event before it.

    Args:
        store: where the stream is.
        projection: what `decide` has to know of it.
        stream: its name; one that does not exist gives the initial state.
        decide: from the state to the events to record, none if there is nothing to do. Pure: it may
            be asked several times, and whatever else it does would be done several times. What it
            raises goes to the caller, and nothing is recorded.
        key: names this decision, 1 to 200 characters. If the stream holds an append with this key,
            the decision was made before: `decide` is not asked and nothing is recorded. (That there
            was nothing to do is not remembered.) A key makes it necessary to read the whole stream,
            unless there is `since`.
        meta: as `EventStore.append`.
        attempts: how many times to decide, at least 1, before a conflict is raised.
        since: what an earlier `load` or `transact` of this projection and stream gave: only newer
            events are read, from the log's end. The key is looked for among those, and one that
            is older is found by the append.

    Returns:
        The state with the decided events, where they ended, and after how many attempts.

    Raises:
        VersionConflictError: another writer was faster each time. Nothing was recorded.
        CommitUnknownError: the write or the sync failed. This is not retried, because the store
            appends no more. Reopen it and call again: with a `key` nothing is recorded twice;
            without one, `decide` has to recognise its own events in the state.
        EventStoreError: as `EventStore.append` and `EventReader.scan`.

    Cancellation:
        While loading or pausing: nothing is recorded. While appending: as `EventStore.append`; call
        again, with the same `key` if `decide` cannot tell. After that the events are recorded.
    """
    if attempts < 1:
        msg = f"attempts counts from 1, not {attempts}"
        raise ValueError(msg)
    loaded, keyed = await _look(store, projection, stream, since=since, key=key)
    attempt = 0
    while keyed is None:
        attempt += 1
        events = tuple(decide(loaded.state))
        if not events:
            break
        try:
            appended = await store.append(
                stream, events, expected_version=loaded.version, key=key, meta=meta
            )
        except VersionConflictError as conflict:
            if attempt == attempts:
                conflict.add_note(f"transact gave up after {attempt} attempts; nothing is recorded")
                raise
            await anyio.sleep(_pause_seconds(attempt))
            stale = loaded
            loaded, keyed = await _look(store, projection, stream, since=stale, key=key)
            if loaded.version == stale.version:  # nothing is newer, so `since` was of another log
                loaded, keyed = await _look(store, projection, stream, since=None, key=key)
        except EventRefusedError:
            if key is None:
                raise
            loaded, keyed = await _look(store, projection, stream, since=None, key=key)
            if keyed is None:  # refused for what it is, not because the key is taken
                raise
        else:
            # What was appended, as it stands in the log: with its time and its place. Nothing of it
            # is newer if the key was used before.
            up_to = appended.version
            loaded, _ = await _fold_newer(store, projection, stream, loaded, key=None, up_to=up_to)
            keyed = appended
    return Transacted(loaded.state, loaded.version, loaded.position, keyed, attempt)


async def _look(
    store: EventReader[E],
    projection: Projection[S, E],
    stream: str,
    *,
    since: Loaded[S] | None,
    key: str | None,
) -> _Look[S]:
    """Load the state as it is now, and look out for a key."""
    if since is None and key is None:
        return _Look(await load(store, projection, stream), None)
    if since is None:
        since = Loaded(projection.initial, 0, 0)
    elif await store.version(stream) == since.version:  # an index knows that; reading costs more
        return _Look(since, None)
    return await _fold_newer(store, projection, stream, since, key=key, up_to=None)


async def _fold_newer(
    store: EventReader[E],
    projection: Projection[S, E],
    stream: str,
    since: Loaded[S],
    *,
    key: str | None,
    up_to: int | None,
) -> _Look[S]:
    """Fold what is newer than a state, read from the end of the log if that is not much."""
    fold = functools.partial(_fold, projection, since, key, up_to)
    data = projection.data
    if since.version:
        look = await store.scan(
            functools.partial(_fold_from_end, fold),
            stream=stream,
            after=since.version,
            backwards=True,
            data=data,
        )
        if look is not None:
            return look
    return await store.scan(fold, stream=stream, after=since.version, data=data)


def _fold_from_end(
    fold: Callable[[Iterable[Page[E]]], _Look[S]], pages: Iterator[Page[E]]
) -> _Look[S] | None:
    """Fold pages that come newest first; None if they are too many to be held."""
    held: list[Page[E]] = []
    count = 0
    for page in pages:
        held.append(page[::-1])
        count += len(page)
        if count > _NEWER_MAX:
            return None
    return fold(reversed(held))


def _fold(
    projection: Projection[S, E],
    since: Loaded[S],
    key: str | None,
    up_to: int | None,
    pages: Iterable[Page[E]],
) -> _Look[S]:
    state, version, position = since.state, since.version, since.position
    keyed: Appended | None = None
    for page in pages:
        wanted = page
        if up_to is not None:
            wanted = [recorded for recorded in page if recorded.version <= up_to]
        if not wanted:
            break
        state = projection.fold(state, wanted)
        version, position = wanted[-1].version, wanted[-1].position
        if key is not None:
            for recorded in wanted:
                if recorded.key == key:
                    keyed = Appended(recorded.version, recorded.position)
    return _Look(Loaded(state, version, position), keyed)


def _pause_seconds(attempt: int) -> float:
    """Between nothing and twice as long each time, so that rivals do not meet again."""
    longest = min(_PAUSE_SECONDS * 2**attempt, _PAUSE_SECONDS_MAX)
    return random.uniform(0, longest)  # noqa: S311 - it spreads rivals, it protects nothing
