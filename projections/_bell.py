"""Waking whoever waits for a change."""

from __future__ import annotations

from collections.abc import Callable

import anyio

__all__ = ["Bell"]


class Bell:
    """Rung after each change. Who waits looks at the facts, not at the bell."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self) -> None:
        """Let everybody look again."""
        self._rung.set()
        self._rung = anyio.Event()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that can only become true when the bell is rung.

        Raises:
            Exception: whatever `condition` raises.
        """
        while True:
            rung = self._rung  # taken before looking: what changes later rings this one
            if condition():
                return
            await rung.wait()
