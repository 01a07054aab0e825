"""What a database has to offer to be kept up to date with a log: `ReadModel`, `ReadModelSession`.

The effect of an event and the checkpoint go into one transaction, so both are there or neither is.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from eventstore import Bookmark, Recorded
from projections._projection import E_contra

__all__ = ["Checkpoint", "ReadModel", "ReadModelSession"]


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """How much of the log a read model includes, as it stands in the database.

    Attributes:
        revision: of the read model that wrote it.
        bookmark: the place in the log; None for its beginning.
    """

    revision: int
    bookmark: Bookmark | None


class ReadModelSession(Protocol[E_contra]):
    """An open database. Its calls come one at a time, from worker threads, and may block."""

    def checkpoint(self) -> Checkpoint:
        """What was committed last."""
        ...

    def begin(self) -> None:
        """Begin a transaction that nobody else can come between."""
        ...

    def apply(self, recorded: Recorded[E_contra]) -> None:
        """Let the user's code turn one event into changes, inside the transaction."""
        ...

    def record(self, checkpoint: Checkpoint) -> None:
        """Note the checkpoint, inside the transaction."""
        ...

    def commit(self) -> None:
        """Make all of it visible at once, or nothing."""
        ...

    def rollback(self) -> None:
        """Undo all since `begin`."""
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


class ReadModel(Protocol[E_contra]):
    """A database that is kept up to date with the log."""

    @property
    def name(self) -> str:
        """What it is called, unique among yours."""
        ...

    @property
    def revision(self) -> int:
        """Raised when the code changes, so that the database is built anew."""
        ...

    def open(self) -> ReadModelSession[E_contra]:
        """Open what readers see; make it if it is not there."""
        ...

    def open_next(self, *, anew: bool) -> ReadModelSession[E_contra]:
        """Open what is being built beside it; make it if it is not there, or always if `anew`."""
        ...

    def swap(self, live: ReadModelSession[Any], following: ReadModelSession[Any]) -> None:
        """Put what was built in place of what readers see, at once or not at all; close it."""
        ...
