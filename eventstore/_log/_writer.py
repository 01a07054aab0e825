"""The writer task: everything that waits becomes one commit, made by one kept thread.

Callers hand over encoded lines and wait for one event per commit. None of them ever awaits a
file, so any of them may stop waiting at any time: a started commit is finished by the thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread

from eventstore._errors import EventStoreError, StoreClosedError
from eventstore._log._commit import Committer
from eventstore._log._inbox import Inbox
from eventstore._log._request import Request

__all__ = ["PENDING_BYTES_MAX", "Batch", "Writer"]

PENDING_BYTES_MAX: Final = 16 * 2**20
"""Bytes that may wait for the disk; then `append` waits. One larger append goes alone."""
_EARLY_MIN: Final = 128  # fewer waiting callers run in less time than a sync takes
_IDLE_SECONDS: Final = 0.1  # `written` events are synced when nothing came for this long

_logger: Final = logging.getLogger("eventstore")


class Batch:
    """The appends of one commit, and how all of them are woken at once.

    On trio that is one event. On asyncio an event makes a future for each who waits, behind two
    more coroutines; here the futures are made and awaited without them (1.4 against 2.4 us a
    waiter).
    """

    __slots__ = ("_create_future", "_done", "_futures", "requests", "size", "taken")

    def __init__(self, create_future: Callable[[], asyncio.Future[None]] | None) -> None:
        self.requests: list[Request] = []
        self.size = 0
        self.taken = False
        self._create_future = create_future
        self._futures: list[asyncio.Future[None]] = []
        self._done = anyio.Event() if create_future is None else None

    def wait(self) -> Awaitable[None]:
        """What a caller awaits until the commit is over."""
        if self._create_future is None:
            assert self._done is not None
            return self._done.wait()
        future = self._create_future()
        self._futures.append(future)
        return future

    def wake(self) -> None:
        """The commit is over."""
        if self._done is not None:
            self._done.set()
        for future in self._futures:
            if not future.done():  # its caller was cancelled
                future.set_result(None)


class Writer:
    """Takes appends from many tasks of one event loop. Run it as one task; close it to end it."""

    def __init__(
        self,
        committer: Committer,
        *,
        path: str,
        committed: Callable[[], None],
        pending_bytes_max: int = PENDING_BYTES_MAX,
    ) -> None:
        self._committer = committer
        self._path = path
        self._committed = committed
        self._pending_bytes_max = pending_bytes_max
        self._pending_bytes = 0
        self._create_future = _future_maker()
        self._next = Batch(self._create_future)
        self._wake = anyio.Event()
        self._room: anyio.Event | None = None  # made by whoever waits for it
        self._in_flight = False
        self._early = _EARLY_MIN
        self._inbox: Inbox[Batch | None] = Inbox()
        self._closed: str | None = None
        self._last_error: EventStoreError | None = None

    async def wait_for_room(self, size: int) -> None:
        """Wait until an append of this many bytes may be submitted.

        Raises:
            StoreClosedError: the store is closed.
        """
        while self._closed is None and not self.has_room(size):
            self._room = self._room or anyio.Event()
            await self._room.wait()
        self.check_open()

    def check_open(self) -> None:
        """See that the store is not closed.

        Raises:
            StoreClosedError: it is.
        """
        if self._closed is not None:
            raise StoreClosedError(path=self._path, reason=self._closed)

    def has_room(self, size: int) -> bool:
        """Whether an append of this many bytes may be submitted now."""
        pending = self._pending_bytes
        return not pending or pending + size <= self._pending_bytes_max

    def submit(self, request: Request) -> Batch:
        """Put a request into the next commit; the caller awaits the batch, or withdraws."""
        self.check_open()
        batch = self._next
        batch.requests.append(request)
        batch.size += request.size
        self._pending_bytes += request.size
        if not self._in_flight:
            if len(batch.requests) >= self._early:
                self._hand_over()
            elif len(batch.requests) == 1:
                self._wake.set()
        return batch

    def withdraw(self, batch: Batch, request: Request) -> None:
        """The caller was cancelled: nothing is recorded unless the commit has begun."""
        if not batch.taken:
            batch.requests.remove(request)
            batch.size -= request.size
            self._release(request.size)

    def close(self, reason: str = "the store is closed") -> None:
        """Take no more appends; `run` ends when what was accepted is recorded."""
        self._closed = self._closed or reason
        self._wake.set()
        self._wake_those_without_room()

    def abandon(self, reason: str) -> None:
        """In a forked child: take no more appends. No event loop runs there to be told."""
        self._closed = reason
        self._inbox.close()

    def discard(self) -> None:
        """Let go of what `run` needed; it has ended, or was never begun."""
        self._inbox.close()

    async def run(self) -> None:
        """Commit until closed and drained.

        Raises:
            EventStoreError: the last sync, of events that were only `written`, failed.

        Cancellation: ignored; close it instead.
        """
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as thread:
                soon = _call_soon(anyio.lowlevel.current_token().native_token)
                thread.start_soon(self._keep_thread, soon)
                try:
                    await self._feed()
                finally:
                    self._inbox.put(None)
        if self._last_error is not None:
            raise self._last_error

    async def _keep_thread(self, soon: Callable[..., object]) -> None:
        # A limiter of its own: a full default pool must not keep commits waiting.
        await anyio.to_thread.run_sync(self._work, soon, limiter=anyio.CapacityLimiter(1))

    async def _feed(self) -> None:
        """Begin commits whenever none is in flight, until closed and drained."""
        while True:
            self._wake = anyio.Event()
            if not self._in_flight:
                if self._next.requests:
                    self._hand_over()
                elif self._closed is not None:
                    return
            await self._wake.wait()

    def _hand_over(self) -> None:
        """Give the thread everything that waits, as one commit."""
        batch, self._next = self._next, Batch(self._create_future)
        batch.taken = True
        self._in_flight = True
        # One caller alone has nobody to wait for. Of a crowd, half go next time: while the first
        # half is synced, the second half's callers run.
        count = len(batch.requests)
        self._early = 1 if count == 1 else max(_EARLY_MIN, count // 2)
        self._inbox.put(batch)

    def _finish(self, batch: Batch) -> None:
        """Begin the next commit, and wake everyone who waits for this one, in the event loop."""
        self._in_flight = False
        if self._next.requests:
            self._hand_over()
        elif self._closed is not None:
            self._wake.set()
        self._release(batch.size)
        batch.wake()
        self._committed()

    def _release(self, size: int) -> None:
        self._pending_bytes -= size
        self._wake_those_without_room()

    def _wake_those_without_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    def _work(self, soon: Callable[..., object]) -> None:
        """The kept thread: one commit per batch."""
        committer = self._committer
        while True:
            if (committer.lags or committer.is_untidy) and not self._inbox.wait(_IDLE_SECONDS):
                self._sync()
                committer.tidy_index()
            batch = self._inbox.get()
            if batch is None:
                self._sync()
                committer.save_index(closing=True)
                return
            try:
                committer.commit(batch.requests)
            finally:
                soon(self._finish, batch)
            committer.save_index()

    def _sync(self) -> None:
        if not self._committer.lags or self._last_error is not None:
            return
        try:
            self._committer.sync()
        except EventStoreError as error:
            # Nobody waits for it now: it is raised where the store is left.
            _logger.warning("%s: written events could not be synced: %s", self._path, error)
            self._last_error = error


def _future_maker() -> Callable[[], asyncio.Future[None]] | None:
    """How asyncio makes a future; None on trio."""
    token: Any = anyio.lowlevel.current_token().native_token
    create_future: Callable[[], asyncio.Future[None]] | None = getattr(token, "create_future", None)
    return create_future


def _call_soon(native_token: Any) -> Callable[..., object]:
    """How a thread asks the running event loop to call something, without waiting for it."""
    call: Callable[..., object] | None = getattr(native_token, "call_soon_threadsafe", None)
    return call or native_token.run_sync_soon
