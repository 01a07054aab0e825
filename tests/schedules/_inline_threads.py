"""The engine's threads as callbacks of the seeded loop.

All that this package knows about the engine's insides stands here:

* blocking work goes through `anyio.to_thread.run_sync`, looked up at each call;
* the kept thread takes batches with `queue.SimpleQueue.get` in `eventstore._log._writer`, and holds
  nothing between two of them, so it may be left there and its function called again;
* a subscriber that misses a wake-up polls after `_POLL_SECONDS` of `_log_reader`: here never.
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from eventstore._log import _log_reader, _writer

__all__ = ["inline_threads"]


class _Parked(BaseException):
    pass


class _Queue:
    """A queue whose `get` leaves the working function where a thread would wait."""

    waiting: _Queue | None = None

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._timed_out = False
        self._timer: asyncio.TimerHandle | None = None
        self.resume: Callable[[], None] | None = None

    def put(self, item: object) -> None:
        self._items.append(item)
        self._wake()

    def get(self, timeout: float | None = None) -> Any:
        if self._items:
            return self._items.popleft()
        if self._timed_out:
            self._timed_out = False
            raise queue.Empty
        if timeout is not None:
            self._timer = asyncio.get_running_loop().call_later(timeout, self._time_out)
        _Queue.waiting = self
        raise _Parked

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
                except _Parked:
                    assert _Queue.waiting is not None
                    _Queue.waiting.resume = step
                    return
                except BaseException as error:  # noqa: BLE001 - the caller's
                    failure = error
                if not done.done():
                    done.set_result((result, failure))

            loop.call_soon(step)
            result, failure = await done
    if failure is not None:
        raise failure
    return result


@contextmanager
def inline_threads() -> Generator[None]:
    """Until left, stores opened in a seeded loop start no thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anyio.to_thread, "run_sync", _run_sync)
        patch.setattr(_writer, "queue", SimpleNamespace(SimpleQueue=_Queue, Empty=queue.Empty))
        patch.setattr(_log_reader, "_POLL_SECONDS", float("inf"))
        yield
