"""Who drives which stream: one owner at a time, for as long as it lives. Values and protocols.

A claim is an operating system's lock, not an event: it ends with its process whatever becomes of
that, so it never has to be believed after a crash, and nothing of it is in the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

import msgspec

__all__ = ["Claimable", "Owner", "OwnerReader", "Ownership"]


class Owner(msgspec.Struct, frozen=True):
    """Who drives a stream.

    Attributes:
        pid: its process.
        host: the machine of that.
        since: when it began, UTC.
    """

    pid: int
    host: str
    since: datetime


class Ownership(msgspec.Struct, frozen=True):
    """What is known of the claim on a stream that was claimed once.

    Attributes:
        is_held: whether a process holds it now; one that is merely stopped still does.
        owner: who holds it, or held it last; None if that cannot be read.
        was_released: whether the last holder gave it back. If not, and nobody holds it, that
            process died, or left by an error.
    """

    is_held: bool
    owner: Owner | None
    was_released: bool = False


class OwnerReader(Protocol):
    """What can say who drives a stream. A backend without claims leaves it out."""

    async def owners(self, streams: Iterable[str]) -> Mapping[str, Ownership]:
        """Look who holds the claims on these streams now, or held them last.

        Returns:
            An answer for each stream that was ever claimed, and none for the others.

        Cancellation: nothing has changed.
        """
        ...


class Claimable(Protocol):
    """What lets one owner at a time drive a stream. A backend without claims leaves it out."""

    def claim(self, stream: str, owner: Owner) -> AbstractAsyncContextManager[Ownership | None]:
        """Hold the claim on a stream for the life of a block.

        Args:
            stream: its name; it need not exist yet.
            owner: what others are told.

        Yields:
            What became of the claim before: None if the stream never had one.

        Raises:
            LoopClaimedError: somebody holds it.
            StoreClosedError: the store is closed.
            StoreUnavailableError: the claim cannot be recorded here.

        Cancellation: as leaving by an error: the claim is free, and not marked as given back.
        """
        ...
