"""The index of one open log: read from the disk when it opens, written there from time to time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from eventstore._log._files import Files
from eventstore._log._index import Index
from eventstore._log._index_files import IndexFiles, due_for_merge
from eventstore._log._index_run import BROKEN, Mark
from eventstore._log._names import LogNames

__all__ = ["INDEX_BYTES", "IndexKeeper"]

INDEX_BYTES: Final = 8 * 2**20
"""Bytes of the log between two runs: what the next open reads if this process is killed."""
_AT_CLOSE: Final = 8  # an eighth of that is worth a run when the log is closed
_RUNS_MAX: Final = 32  # each costs a lookup of a new key a page: join them, though nobody is idle
_WHILE_READING: Final = 16  # sixteen times that, when all of the log has to be read anyway

_logger: Final = logging.getLogger("eventstore")


class IndexKeeper:
    """The index, and when it goes to the disk. Nothing fails because that failed."""

    def __init__(self, files: Files, names: LogNames, *, every_bytes: int) -> None:
        self.index = Index()
        self._every_bytes = every_bytes
        self._is_tidied = True
        self._not_before = 0  # log offset at which writing is tried again after a failure
        self._disk = IndexFiles(files, names)
        self._path = files.path(names.cache)

    def load(self, fits: Callable[[Mark], bool]) -> Mark:
        """Begin with what stands on the disk.

        Args:
            fits: whether the log has this mark.

        Returns:
            Up to where the log is known by that.
        """
        self.index = Index(self._disk.load(fits))
        return self.index.mark

    def forget(self) -> None:
        """Begin with nothing: a file of the index is damaged."""
        self.index = Index()
        try:
            self._disk.discard()
        except OSError as error:
            _logger.warning("%s: the damaged index was not removed: %s", self._path, error)

    def save_while_reading(self, mark: Mark | None) -> None:
        """Write down what came so far, if a whole log is being read."""
        self._save(mark, self._every_bytes * _WHILE_READING)

    def save(self, mark: Mark | None) -> None:
        """Write down what came since the last time, if it is enough.

        Args:
            mark: up to where; None if nothing there proves itself.
        """
        self._save(mark, self._every_bytes)

    def save_at_close(self, mark: Mark | None) -> None:
        """The same, and less is enough."""
        self._save(mark, max(1, self._every_bytes // _AT_CLOSE))
        self.merge()

    @property
    def is_untidy(self) -> bool:
        """Whether there are so many files that some had better be joined."""
        return not self._is_tidied and bool(due_for_merge(self.index.runs))

    def merge(self) -> None:
        """Join files of the index, if there are many."""
        index = self.index
        self._is_tidied = True  # until there is one more; also if this fails
        while count := due_for_merge(index.runs):
            try:
                index.replace_runs(count, self._disk.merge(index.runs[-count:]))
            except BROKEN as error:
                _logger.warning("%s: the index was not tidied up: %s", self._path, error)
                return

    def close(self) -> None:
        """Close its files."""
        self._disk.close()

    def _save(self, mark: Mark | None, bytes_min: int) -> None:
        index = self.index
        if mark is None or mark.place.position < index.recent.position:
            return
        if mark.log_offset < max(self._not_before, index.mark.log_offset + bytes_min):
            return
        try:
            start = index.mark.identity
            self._is_tidied = False
            index.add_run(self._disk.save(start, mark, index.encode_recent(mark)))
            if len(index.runs) >= _RUNS_MAX:
                self.merge()
        except OSError as error:
            self._not_before = mark.log_offset + bytes_min
            _logger.warning("%s: the index was not written: %s", self._path, error)
