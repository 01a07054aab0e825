"""What an input may cost: the CPU time of one thread, and the memory that Python gives out.

CPU time is that of a machine which does `_work` in 0.7 ms: on a slower one, or one that others slow
down at the moment, a bound is as much higher as `_work` takes longer right before and after.
"""

from __future__ import annotations

import json
import re
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
_WORK_SECONDS: Final = 0.000_7
_WORK: Final = json.dumps([{"n": number, "text": "x" * 40} for number in range(400)])
_WORD: Final = re.compile(r'"[^"]*"')


def run_bounded(name: str, data: bytes) -> None:
    """Run a target within its bound; a short input gets a quarter of it at least."""
    target = TARGETS[name]
    bound = target.passes * SECONDS_PER_PASS * max(1 / 4, len(data) / INPUT_BYTES_MAX)
    seconds = best_seconds(lambda: target.run(data), bound)
    if seconds > bound:
        pytest.fail(f"{name}: {seconds:.3f} s of CPU for {len(data)} bytes; {bound:.3f} are meant")


def best_seconds(call: Callable[[], object], bound: float) -> float:
    """CPU time of a call: the best of a few, until one is within the bound."""
    best = float("inf")
    for _ in range(_TRIES):
        before = _seconds_of(_work)
        seconds = _seconds_of(call)
        slowness = (before + _seconds_of(_work)) / 2 / _WORK_SECONDS
        best = min(best, seconds / max(1.0, slowness))
        if best <= bound:
            break
    return best


def _seconds_of(call: Callable[[], object]) -> float:
    start = time.thread_time()
    call()
    return time.thread_time() - start


def _work() -> None:
    """Decode, match and count, as the code under test does."""
    json.loads(_WORK)
    words: dict[str, int] = {}
    for match in _WORD.finditer(_WORK):
        words[match[0]] = words.get(match[0], 0) + 1


def peak_bytes(call: Callable[[], object]) -> int:
    """The most memory that a call had at one time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
