"""The engine's threads as callbacks of the seeded loop.

All that this package knows about the engine's insides stands here:

* blocking work goes through `anyio.to_thread.run_sync`, looked up at each call;
* the kept thread takes batches with `put`, `wait`, `get` and `close` of the `Inbox` that
  `eventstore._log._writer` names, and holds nothing across `wait` and `get`, so it may be left
  there and its function called again;
* a subscriber that misses a wake-up polls after `_POLL_SECONDS` of `_log_reader`: here never;
* what has no public name: `_open_log`, and the `_pending_bytes_max` of a store's writer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import eventstore as es
from eventstore._log import _log_reader, _log_store, _writer
from eventstore._log._memory_files import MemoryFiles
from eventstore._log._names import LogNames

__all__ = ["Sizes", "inline_threads", "open_log"]

_NS_PER_S: Final = 10**9
_START_NS: Final = 1_700_000_000 * _NS_PER_S


class _Parked(BaseException):
    """The working function was left where a thread would wait."""

    def __init__(self, inbox: _Inbox) -> None:
        super().__init__()
        self.inbox = inbox


class _Inbox:
    """The engine's `Inbox`, out of which the working function is thrown where it would wait."""

    def handed_over(self, item: Any) -> None:
        """Tell the scenario; it fills this in."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._timed_out = False
        self._timer: asyncio.TimerHandle | None = None
        self.resume: Callable[[], None] | None = None

    def put(self, item: Any) -> None:
        if item is not None:
            self.handed_over(item)
        self._items.append(item)
        self._wake()

    def wait(self, timeout_seconds: float) -> bool:
        if self._items:
            return True
        if self._timed_out:
            self._timed_out = False
            return False
        self._timer = asyncio.get_running_loop().call_later(timeout_seconds, self._time_out)
        raise _Parked(self)

    def get(self) -> Any:
        if self._items:
            return self._items.popleft()
        raise _Parked(self)

    def close(self) -> None:
        assert self.resume is None, "the thread waits for ever"

    def _time_out(self) -> None:
        self._timed_out = True
        self._wake()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        resume, self.resume = self.resume, None
        if resume is not None:
            asyncio.get_running_loop().call_soon(resume)


async def _run_sync(
    work: Callable[..., Any],
    *args: Any,
    abandon_on_cancel: bool = False,
    limiter: anyio.CapacityLimiter,
) -> Any:
    """Like anyio's: a native cancel of the caller loses the result, not the work."""
    assert not abandon_on_cancel
    await anyio.lowlevel.checkpoint()
    loop = asyncio.get_running_loop()
    result: Any = None
    failure: BaseException | None = None
    async with limiter:
        with anyio.CancelScope(shield=True):
            done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

            def step() -> None:
                result: Any = None
                failure: BaseException | None = None
                try:
                    result = work(*args)
                except _Parked as parked:
                    parked.inbox.resume = step
                    return
                except BaseException as error:  # noqa: BLE001 - the caller's
                    failure = error
                if not done.done():
                    done.set_result((result, failure))

            step.__qualname__ = f"thread: {work.__qualname__}"
            loop.call_soon(step)
            result, failure = await done
    if failure is not None:
        raise failure
    return result


@contextmanager
def inline_threads(*, handed_over: Callable[[list[bytes], int], None]) -> Generator[None]:
    """Until left, stores opened in a seeded loop start no thread.

    Args:
        handed_over: told of each batch that a thread is given: the first line of each append,
            and how many bytes all of them have.
    """

    def tell(_: _Inbox, batch: Any) -> None:
        requests = batch.requests
        handed_over([request.bodies[0] for request in requests], sum(r.size for r in requests))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anyio.to_thread, "run_sync", _run_sync)
        patch.setattr(_writer, "Inbox", type("Inbox", (_Inbox,), {"handed_over": tell}))
        patch.setattr(_log_reader, "_POLL_SECONDS", float("inf"))
        yield


class Sizes(NamedTuple):
    """The bounds of one store: small ones make seldom things happen often."""

    segment_bytes_max: int | None
    index_bytes: int
    pending_bytes_max: int


@asynccontextmanager
async def open_log(files: MemoryFiles, sizes: Sizes) -> AsyncGenerator[es.EventStore[Any]]:
    """As `memory_store`, with small bounds and the loop's clock."""
    loop = asyncio.get_running_loop()
    async with _log_store._open_log(
        files,
        LogNames("history.jsonl"),
        es.LOOP_EVENTS,
        segment_bytes_max=sizes.segment_bytes_max,
        index_bytes=sizes.index_bytes,
        clock=lambda: _START_NS + int(loop.time() * _NS_PER_S),
    ) as store:
        store._writer._pending_bytes_max = sizes.pending_bytes_max
        yield store
