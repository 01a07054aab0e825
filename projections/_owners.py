"""One driver per loop, and the registry with who drives what."""

from __future__ import annotations

import os
import platform
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

import msgspec

from eventstore import Claimable, Event, EventReader, Owner, OwnerReader, Ownership, Recorded
from projections._load import load_all
from projections._loop_entry import LoopEntry
from projections._overlay import STALLED_AFTER_SECONDS, LoopStanding, overlay
from projections._projection import Projection
from projections._registry import REGISTRY

__all__ = ["Claim", "OwnedReader", "claim", "registry"]

_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Claim(msgspec.Struct, frozen=True):
    """That this process drives a loop.

    Attributes:
        loop: its stream.
        owner: what others are told of this process.
        before: what became of the claim before; None if the loop never was claimed. Where
            `before.was_released` is False its last driver died, or left by an error.
    """

    loop: str
    owner: Owner
    before: Ownership | None


class OwnedReader(EventReader[Event], OwnerReader, Protocol):
    """A log that also says who drives its loops."""


@asynccontextmanager
async def claim(store: Claimable, loop: str) -> AsyncGenerator[Claim]:
    """Be the only driver of a loop for the life of a block.

    The claim is a lock of the operating system beside the log. It ends with the block or the
    process, however that ends; a process that is stopped keeps it; a forked child does not get
    it. Nothing is recorded: who wants history to know of a takeover appends `LoopResumed`. The
    claim keeps other claimers away, not other writers: whoever appends without one can.

    Args:
        store: where the loop is.
        loop: its stream.

    Yields:
        The claim, which says what became of the one before.

    Raises:
        LoopClaimedError: somebody else drives it, in this process or in another.
        StoreClosedError: the store is closed.
        StoreUnavailableError: the claim cannot be recorded beside the log.

    Cancellation: the claim is free; as with an error, the loop counts as crashed if it still runs
        by its events.
    """
    owner = Owner(pid=os.getpid(), host=platform.node(), since=datetime.now(UTC))
    async with store.claim(loop, owner) as before:
        yield Claim(loop, owner, before)


async def registry(
    store: OwnedReader,
    *,
    stalled_after_seconds: float = STALLED_AFTER_SECONDS,
    now: datetime | None = None,
) -> Mapping[str, LoopStanding]:
    """Fold the registry, and look who drives each running loop.

    Args:
        store: where the loops are.
        stalled_after_seconds: how long an owner may record nothing before its loop is stalled.
        now: the time, UTC; None asks the clock.

    Returns:
        Standing by loop, in the order of first appearance.

    Raises:
        EventStoreError: as the store's `scan`.

    Cancellation: safe at any await; nothing is changed.
    """
    loaded = await load_all(store, _STANDING)
    running = [loop for loop, found in loaded.items() if found.state.entry.state == "running"]
    owners = await store.owners(running)
    now = now or datetime.now(UTC)
    standings: dict[str, LoopStanding] = {}
    for loop, found in loaded.items():
        ownership = owners.get(loop)
        entry, last_event_at = found.state
        standings[loop] = LoopStanding(
            entry=entry,
            last_event_at=last_event_at,
            version=found.version,
            position=found.position,
            ownership=ownership,
            overlay=overlay(
                entry,
                ownership,
                last_event_at=last_event_at,
                now=now,
                stalled_after_seconds=stalled_after_seconds,
            ),
        )
    return standings


class _Standing(NamedTuple):
    entry: LoopEntry = REGISTRY.initial
    last_event_at: datetime = _LONG_AGO


def _evolve(standing: _Standing, recorded: Recorded[Event]) -> _Standing:
    return _Standing(REGISTRY.evolve(standing.entry, recorded), recorded.timestamp)


def _fold(standing: _Standing, events: Sequence[Recorded[Event]]) -> _Standing:
    return _Standing(REGISTRY.fold(standing.entry, events), events[-1].timestamp)


_STANDING: Final = Projection[_Standing, Event](
    name="standing", initial=_Standing(), evolve=_evolve, fold=_fold, data=False
)
