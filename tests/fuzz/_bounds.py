"""What an input may cost: the CPU time of one thread, and the memory that Python gives out."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Final

import pytest

from tests.fuzz._targets import INPUT_BYTES_MAX, SECONDS_PER_PASS, TARGETS

__all__ = ["BYTES_MAX", "best_seconds", "peak_bytes", "run_bounded"]

BYTES_MAX: Final = 64 * 2**20
"""Of memory, for an input of 64 KiB."""
_TRIES: Final = 5


def run_bounded(name: str, data: bytes) -> None:
    """Run a target within its bound; a short input gets an eighth of it at least."""
    target = TARGETS[name]
    bound = target.passes * SECONDS_PER_PASS * max(1 / 8, len(data) / INPUT_BYTES_MAX)
    seconds = best_seconds(lambda: target.run(data), bound)
    if seconds > bound:
        pytest.fail(f"{name}: {seconds:.3f} s of CPU for {len(data)} bytes; {bound:.3f} are meant")


def best_seconds(call: Callable[[], object], bound: float) -> float:
    """CPU time of a call: the best of a few, until one is within the bound."""
    best = float("inf")
    for _ in range(_TRIES):
        start = time.thread_time()
        call()
        best = min(best, time.thread_time() - start)
        if best <= bound:
            break
    return best


def peak_bytes(call: Callable[[], object]) -> int:
    """The most memory that a call had at one time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
