"""What every backend promises: reading (`EventReader`) and appending (`EventStore`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

import msgspec

from eventstore._events import Appended, E, E_co, ExpectedVersion, HistoryEvent, Recorded

__all__ = ["Bookmark", "Durability", "EventReader", "EventStore", "Page", "SubscribedPage"]

T = TypeVar("T")

Page: TypeAlias = Sequence[Recorded[E_co]]
"""Events that are read, and let go, together."""

Durability: TypeAlias = Literal["synced", "written"]
"""`synced`: survives power loss. `written`: survives the death of the process only."""


class Bookmark(msgspec.Struct, frozen=True, gc=False):
    """A place in one log, and the proof that a log is, up to there, that one.

    Attributes:
        position: how many lines of the log are before it.
        proof: the backend's own; it means nothing anywhere else.
    """

    position: int
    proof: str


class SubscribedPage(msgspec.Struct, Generic[E_co], frozen=True):
    """What a subscription hands out at once.

    Attributes:
        events: in position order; perhaps none.
        bookmark: the place behind them.
        caught_up: whether the log held no more when it was looked at.
    """

    events: Sequence[Recorded[E_co]]
    bookmark: Bookmark
    caught_up: bool


class EventReader(Protocol[E_co]):
    """A log that can be read. Everything it shows is durable and part of a whole commit."""

    @property
    def position(self) -> int:
        """The log's position as last known here: how many lines it holds. No I/O."""
        ...

    async def version(self, stream: str) -> int:
        """How many events the stream holds now, 0 for one that does not exist."""
        ...

    def read(
        self,
        stream: str,
        *,
        after_version: int = 0,
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[Recorded[E_co]]:
        """Iterate the events a stream holds now; ends.

        Args:
            stream: its name; one that does not exist is empty.
            after_version: leave out this many events at the stream's beginning, whatever the
                direction.
            backwards: newest first.
            limit: stop after this many events.

        Yields:
            The events in version order, without gaps.

        Cancellation: safe at any await, and so is `break`; nothing is held between two events.
        """
        ...

    def read_all(
        self, *, after_position: int = 0, backwards: bool = False, limit: int | None = None
    ) -> AsyncIterator[Recorded[E_co]]:
        """Iterate the events of all streams that the log holds now; ends.

        Args:
            after_position: leave out the log's beginning up to this position, in either direction.
            backwards: newest first.
            limit: stop after this many events.

        Yields:
            The events in position order; positions skip lines that hold no event.

        Cancellation: as `read`.
        """
        ...

    def subscribe(self, *, after_position: int = 0) -> AsyncIterator[Recorded[E_co]]:
        """Iterate the log's events and then those to come; never ends by itself.

        Args:
            after_position: the checkpoint: the position of the last event already seen.

        Yields:
            Every event exactly once, in position order, whichever process appended it.

        Raises:
            BookmarkLostError: the log was cut before what was seen: nothing can follow it.

        Cancellation: safe at any await; continue with the last position seen.
        """
        ...

    def subscribe_pages(
        self, *, after: Bookmark | None = None, data: bool = True
    ) -> AsyncGenerator[SubscribedPage[E_co], None]:
        """Iterate the log's events and those to come, as `subscribe`, by the page.

        It begins at a bookmark without reading what is before. Whenever it has caught up, it hands
        out one page that says so, which holds no events.

        Args:
            after: the bookmark of the last page already seen; None for the log's beginning.
            data: False leaves `data` undecoded (None).

        Yields:
            Every event exactly once, in position order, whichever process appended it.

        Raises:
            BookmarkLostError: the log is not the one of the bookmark (ask `recognizes` before), or
                it was cut before what was seen.

        Cancellation: safe at any await; continue with the last bookmark seen.
        """
        ...

    async def recognizes(self, bookmark: Bookmark) -> bool:
        """Say whether the log is, up to a bookmark, the one that the bookmark was taken from.

        False if it was rolled back, replaced or changed. Nothing is read but a few bytes, unless a
        foreign writer's line stands there.
        """
        ...

    async def scan(
        self,
        work: Callable[[Iterator[Page[E_co]]], T],
        *,
        stream: str | None = None,
        after: int = 0,
        backwards: bool = False,
        data: bool = True,
        numbers: bool = True,
    ) -> T:
        """Run a fold in a worker thread, over pages of the events that the log holds now.

        Args:
            work: takes the pages one after the other and returns the result. It runs in a worker
                thread, must not touch the event loop, and may stop early.
            stream: only this stream, or None for all.
            after: a version of `stream`, or a position of the log if that is None.
            backwards: newest page first, and newest event first in each.
            data: False leaves `data` undecoded (None).
            numbers: False allows version and position 0 where a foreign line's numbers would cost
                counting the lines before it. For folds that are decided at the end of a file.

        Returns:
            What `work` returned.

        Cancellation: noticed between two pages; `work` is then ended by an exception.
        """
        ...


class EventStore(EventReader[E], Protocol[E]):
    """A log that can be read and appended to."""

    async def append(
        self,
        stream: str,
        events: Sequence[E | HistoryEvent[E]],
        *,
        expected_version: ExpectedVersion,
        key: str | None = None,
        meta: Mapping[str, str] | None = None,
        durability: Durability | None = None,
    ) -> Appended:
        """Record events at the end of a stream, all of them or none.

        Args:
            stream: its name, 1 to 200 characters of [A-Za-z0-9._:@+=-], beginning with a letter
                or digit, without `..`.
            events: 1 to 10,000 events; their order is kept and their versions are adjacent.
            expected_version: the stream's version as the caller knows it; `NO_STREAM`,
                `STREAM_EXISTS`, or `ANY` to skip the check.
            key: idempotency key, 1 to 200 characters. If this stream holds an append with the same
                key and the same events, its result is returned and nothing is recorded, whatever
                `expected_version` says.
            meta: correlation, causation, actor, trace context: strings by name.
            durability: for this append; None means the store's own.

        Returns:
            The stream's version and the log's position after the last of these events. They are
            durable.

        Raises:
            VersionConflictError: the stream is at another version. Nothing was recorded.
            EventRefusedError: an event would not read back equal, is too large, the key was used
                with other events, or an argument is none. Nothing was recorded.
            StoreBusyError: the lock was held by someone else until the deadline. Nothing was
                recorded.
            CommitUnknownError: the write or the sync failed. Whether the events survive is known
                after reopening.
            StorePoisonedError: an earlier commit failed. Nothing was recorded.
            StoreClosedError: the store is closed. Nothing was recorded.
            CorruptLogError: acknowledged data is damaged, or the file was replaced. Nothing was
                recorded or changed.

        Cancellation:
            While still queued: nothing is recorded. Once the commit began: it finishes, whole;
            ask `version()`, or append again with the same `key`.

        Invariants: I1, I2, I4, I5.
        """
        ...
