"""An asyncio event loop whose task order is a seed's, and whose clock jumps."""

from __future__ import annotations

import asyncio
import heapq
import random
from typing import Any, Final

__all__ = ["SeededLoop", "StuckError"]

_STEPS_MAX: Final = 200_000  # a schedule takes a few thousand


class StuckError(Exception):
    """Nothing can run any more, or things run for ever."""


class SeededLoop(asyncio.BaseEventLoop):
    """Runs one ready callback at a time, any of them; time passes only when none is ready.

    This is harsher than real loops, which run callbacks in the order they were asked for.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._now = 0.0
        self._steps = 0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        here: Any = self
        ready, scheduled = here._ready, here._scheduled
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
            chosen = self._rng.randrange(len(ready))
            handle = ready[chosen]
            del ready[chosen]
            if not handle.cancelled():
                handle._run()
        self._steps += 1
        if self._steps > _STEPS_MAX:
            msg = f"still busy after {_STEPS_MAX} steps"
            raise StuckError(msg)

    def _process_events(self, event_list: object) -> None:
        del event_list

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector here."""
