"""Runs in processes of their own: nothing imported late, nothing cached, no memory of others."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

from benchmarks._measure import Run

__all__ = ["SPAWNING", "Watch", "in_new_process"]

SPAWNING: Final = multiprocessing.get_context("spawn")


def in_new_process(work: Callable[..., Run], *args: object, **kwargs: object) -> Run:
    """Call a function of a module in a new process, and return what it returned."""
    with ProcessPoolExecutor(max_workers=1, mp_context=SPAWNING) as process:
        return process.submit(work, *args, **kwargs).result()


class Watch:
    """Time and memory from here on."""

    def __init__(self) -> None:
        self._peak_bytes = _peak_bytes()
        self._begin = time.perf_counter()

    def run(self, count: int = 1, *, until: float | None = None, **more: Any) -> Run:
        """What was done since the beginning.

        Args:
            count: how much.
            until: when it was done, by `time.perf_counter`; now if None.
            more: other members of the run.
        """
        taken = (time.perf_counter() if until is None else until) - self._begin
        return Run(count, taken, peak_bytes=_peak_bytes() - self._peak_bytes, **more)


def _peak_bytes() -> int:
    try:
        # Not `ru_maxrss`: on Linux a new program inherits that of the process it was started by.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    peak_kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(peak_kib)
