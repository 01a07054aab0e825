"""Where each segment begins: its first position, and its first byte in the log as a whole."""

from __future__ import annotations

import bisect
import sys
from collections.abc import Sequence

from eventstore._log._files import Files
from eventstore._log._names import LogNames

__all__ = ["Segments"]


class Segments:
    """The segments of one log in their order, the active one last; one empty one to begin with."""

    def __init__(self, files: Files, names: LogNames) -> None:
        self._files = files
        self._names = names
        self._begins = [(0, 1)]  # log offset and first position

    @property
    def base(self) -> int:
        """Bytes of the log before the active segment."""
        return self._begins[-1][0]

    def measure(self, sealed: Sequence[int]) -> None:
        """Learn anew where sealed segments begin; the active one is still to be named.

        Args:
            sealed: their first positions.
        """
        begins: list[tuple[int, int]] = []
        base = 0
        for first_position in sealed:
            begins.append((base, first_position))
            status = self._files.stat(self._names.sealed(first_position))
            base += 0 if status is None else status.size
        self._begins = [*begins, (base, sys.maxsize)]  # only now: an error changes nothing

    def name_active(self, first_position: int) -> None:
        """Note the first position of the active segment."""
        self._begins[-1] = (self.base, first_position)

    def seal(self, size: int) -> None:
        """Note that the active segment got no further; the next one is still to be named."""
        self._begins.append((self.base + size, sys.maxsize))

    def __contains__(self, first_position: int) -> bool:
        return any(first == first_position for _, first in self._begins)

    def base_of(self, first_position: int) -> int:
        """Bytes of the log before a segment."""
        return next(base for base, first in reversed(self._begins) if first == first_position)

    def locate(self, log_offset: int) -> tuple[int, int]:
        """Which segment holds a byte of the log, by its first position, and where."""
        number = bisect.bisect_right(self._begins, (log_offset, sys.maxsize)) - 1
        base, first_position = self._begins[number]
        return first_position, log_offset - base
