"""What the events of a loop do not say: whether whoever drives it is alive. Pure.

It is computed when somebody looks, from the claim on the loop, and never stored: the next look
may find something else.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, TypeAlias

import msgspec

from eventstore import Ownership
from projections._loop_entry import LoopEntry

__all__ = ["STALLED_AFTER_SECONDS", "LoopStanding", "Overlay", "overlay"]

STALLED_AFTER_SECONDS: Final = 15 * 60.0
"""How long an owner may record nothing before its loop counts as stalled, unless said otherwise."""

Overlay: TypeAlias = Literal["crashed", "stalled"]
"""What is wrong with a loop that runs by its events.

`crashed`: it was claimed, nobody holds the claim now, and the last owner did not give it back.
`stalled`: somebody holds it, and nothing was recorded for long.
"""


class LoopStanding(msgspec.Struct, frozen=True):
    """A loop by its events, and by who drives it now.

    Attributes:
        entry: what the registry says of it.
        last_event_at: when its newest event was recorded.
        version: of that event in the stream.
        position: of that event in the log.
        ownership: of the claim on it; None if it never was claimed.
        overlay: what is wrong with it, if anything is; None for a loop that never was claimed.
    """

    entry: LoopEntry
    last_event_at: datetime
    version: int
    position: int
    ownership: Ownership | None = None
    overlay: Overlay | None = None


def overlay(
    entry: LoopEntry,
    ownership: Ownership | None,
    *,
    last_event_at: datetime,
    now: datetime,
    stalled_after_seconds: float = STALLED_AFTER_SECONDS,
) -> Overlay | None:
    """Say what is wrong with a loop that runs by its events.

    Args:
        entry: what the registry says of it.
        ownership: of the claim on it, looked at after the events were read: an owner that ended
            the loop in between has given it back.
        last_event_at: when its newest event was recorded.
        now: the time, UTC.
        stalled_after_seconds: how long an owner may record nothing.
    """
    if entry.state != "running" or ownership is None:
        return None
    if ownership.is_held:
        silent_seconds = (now - last_event_at).total_seconds()
        return "stalled" if silent_seconds > stalled_after_seconds else None
    return None if ownership.was_released else "crashed"
