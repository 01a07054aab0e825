"""The writer processes of a campaign, as the test that owns them sees them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from tests.power._writer import Ended, Order, Report

__all__ = ["Crew", "open_crew"]

_STUCK_SECONDS: Final = 60.0
_REPORT: Final = msgspec.json.Decoder[Report](Report)


class _Process:
    def __init__(self, number: int, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.power._writer", str(number)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input = self.process.stdin
        self.output = self.process.stdout.fileno()
        self.is_busy = False
        self._rest = b""

    def order(self, order: Order) -> None:
        self._input.write(msgspec.json.encode(order) + b"\n")
        self._input.flush()
        self.is_busy = True

    def receive(self) -> list[Report]:
        data = os.read(self.output, 2**16)
        assert data, f"a writer died: {self.process.wait(_STUCK_SECONDS)}; it said why on stderr"
        *lines, self._rest = (self._rest + data).split(b"\n")
        reports = [_REPORT.decode(line) for line in lines]
        if reports and isinstance(reports[-1], Ended):
            self.is_busy = False
        return reports

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class Crew:
    """Some writers, each a process of its own."""

    def __init__(self, processes: Sequence[_Process]) -> None:
        self._processes = processes

    def order(self, orders: Sequence[Order]) -> None:
        """Let as many writers as there are orders begin."""
        assert not self._is_busy(), "a writer still follows an earlier order"
        for process, order in zip(self._processes, orders, strict=False):
            process.order(order)

    def receive(self, *, count: int, seconds: float = 0.0) -> list[Report]:
        """What the writers report: at least `count` reports, and what comes in `seconds` more.

        Fewer if all of them have ended before.
        """
        reports: list[Report] = []
        stuck = time.monotonic() + _STUCK_SECONDS
        while len(reports) < count and self._is_busy():
            reports += self._wait(stuck - time.monotonic())
            assert time.monotonic() < stuck, "a writer is stuck"
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self._is_busy():
            reports += self._wait(left)
        return reports

    def finish(self) -> list[Report]:
        """Everything the writers still report, until all of them have ended."""
        return self.receive(count=sys.maxsize)

    def _is_busy(self) -> bool:
        return any(process.is_busy for process in self._processes)

    def _wait(self, seconds: float) -> list[Report]:
        busy = {process.output: process for process in self._processes if process.is_busy}
        readable, _, _ = select.select(list(busy), [], [], max(seconds, 0.0))
        return [report for output in readable for report in busy[output].receive()]


@contextmanager
def open_crew(size: int, root: Path) -> Generator[Crew]:
    """Start writers; none outlives the block.

    Args:
        size: how many.
        root: the directory with the `eventstore` and the `tests` that they import.
    """
    processes: list[_Process] = []
    try:
        for number in range(size):
            processes.append(_Process(number, root))  # noqa: PERF401 - those before a failure close
        yield Crew(processes)
    finally:
        for process in processes:
            process.close()
