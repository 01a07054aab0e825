"""One hop to a worker thread, for everything that run contexts do with a workspace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from eventstore._errors import RunContextError

__all__ = ["in_thread", "thread_limiter"]

T = TypeVar("T")

_THREADS_MAX: Final = 8  # short operations; more would only queue at the same disk
_LIMITER: Final[RunVar[anyio.CapacityLimiter]] = RunVar("loopledger-run-contexts")


def thread_limiter() -> anyio.CapacityLimiter:
    """The event loop's limiter for run contexts, so that a full default pool starves none."""
    limiter = _LIMITER.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(_THREADS_MAX)
        _LIMITER.set(limiter)
    return limiter


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a worker thread.

    Raises:
        RunContextError: the system refused; what it said is the cause.

    Cancellation: before a thread is free nothing happens. Work that began always finishes: a scope
        that is cancelled waits for it, a native `task.cancel()` leaves it behind.
    """
    try:
        return await anyio.to_thread.run_sync(work, limiter=thread_limiter())
    except OSError as error:
        place = "the workspace" if error.filename is None else str(error.filename)
        raise RunContextError(f"{place}: {error.strerror or error}") from error
