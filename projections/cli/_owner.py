"""Who drives a loop, in words."""

from __future__ import annotations

from eventstore import Ownership
from projections.cli._text import shown_time

__all__ = ["driver"]


def driver(ownership: Ownership | None) -> str | None:
    """Say who drives a loop, or drove it last; None if it never was claimed. Not cleaned."""
    if ownership is None:
        return None
    owner = ownership.owner
    who = "an unknown process"
    if owner is not None:
        who = f"process {owner.pid} on {owner.host}, since {shown_time(owner.since)}"
    if ownership.is_held:
        return who
    return f"nobody; {who}, {'gave it back' if ownership.was_released else 'is gone'}"
