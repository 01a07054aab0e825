"""An asyncio event loop whose task order is a seed's, and whose clock jumps."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any, Final

__all__ = ["SeededLoop", "StuckError"]

_STEPS_MAX: Final = 200_000  # a schedule takes a few hundred


class StuckError(Exception):
    """Nothing can run any more, or things run for ever."""


class SeededLoop(asyncio.BaseEventLoop):
    """Runs one ready callback at a time, any of them; time passes only when none is ready.

    This is harsher than real loops, which run callbacks in the order they were asked for.

    Args:
        rng: chooses.
        step: told what runs next, if anybody wants to know; naming it takes time.
    """

    def __init__(self, rng: random.Random, *, step: Callable[[str], None] | None = None) -> None:
        super().__init__()
        self._rng = rng
        self._step = step
        self._now = 0.0
        self._steps = 0
        self._numbers = itertools.count()
        self._due: list[tuple[int, int, Callable[[], object]]] = []

    def after(self, steps: int, call: Callable[[], object]) -> None:
        """Make something runnable a number of steps from now, or when nothing else is."""
        heapq.heappush(self._due, (self._steps + steps, next(self._numbers), call))

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        here: Any = self
        ready, scheduled = here._ready, here._scheduled
        due = self._due
        if due and not ready:
            self._steps = max(self._steps, due[0][0])
        while due and due[0][0] <= self._steps:
            self.call_soon(heapq.heappop(due)[-1])
        while scheduled and scheduled[0].cancelled():
            heapq.heappop(scheduled)._scheduled = False
        if not ready and not here._stopping:
            if not scheduled:
                msg = "no task is runnable and no work is under way"
                raise StuckError(msg)
            self._now = max(self._now, scheduled[0].when())
        while scheduled and scheduled[0].when() <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        if ready:
            chosen = int(self._rng.random() * len(ready))
            handle = ready[chosen]
            del ready[chosen]
            if not handle.cancelled():
                if self._step is not None:
                    self._step(f"{self._now:.2f} s, 1 of {len(ready) + 1}: {_name(handle)}")
                handle._run()
        self._steps += 1
        if self._steps > _STEPS_MAX:
            msg = f"still busy after {_STEPS_MAX} steps"
            raise StuckError(msg)

    def _process_events(self, event_list: object) -> None:
        del event_list

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector here."""


def _name(handle: Any) -> str:
    """What a callback is called in a trace; asyncio's own task numbers differ between runs."""
    callback = handle._callback
    owner: Any = getattr(callback, "__self__", None)
    if asyncio.isfuture(owner) and hasattr(owner, "get_coro"):
        task: Any = owner
        name = str(task.get_name())
        return str(task.get_coro().__qualname__) if name.startswith("Task-") else name
    return str(getattr(callback, "__qualname__", type(callback).__name__))
