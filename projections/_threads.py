"""Blocking work that has to come to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread

__all__ = ["finish_in_thread"]

T = TypeVar("T")


async def finish_in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run blocking work in a worker thread, and have its result even if cancelled meanwhile.

    Cancellation: comes after the work is done, at the next await.
    """
    with anyio.CancelScope(shield=True):
        return await anyio.to_thread.run_sync(work, *args)
    raise AssertionError("a shield swallows nothing")
