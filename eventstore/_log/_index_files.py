"""The index on the disk: runs in `cache/`, found, written, joined. Any of them may be deleted.

A run is believed if its own checksums hold, if it begins where the one before it ends, and if the
log really has, where the last one ends, the running CRC that it names. Then it was made of these
very bytes. It is never relied on for more than where to look: what stands there is verified.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from eventstore._log._files import Files
from eventstore._log._index_run import BROKEN, LOG_START, Identity, IndexRun, Mark, merge_runs
from eventstore._log._lines import SUFFIX_BYTES, running_after
from eventstore._log._names import LogNames
from eventstore._log._repair import write_all

__all__ = ["IndexFiles", "due_for_merge", "log_has"]

_NAME: Final = re.compile(r"index-([0-9]{20})-([0-9]{20})-[0-9a-f]{8}\.run(?:\.tmp)?")
_MERGED_AT_ONCE: Final = 8
# Bytes of the log that a run covers: eight smaller ones become one. The largest stay as they are.
_TIERS: Final = (16 * 2**20, 128 * 2**20, 1024 * 2**20)
_BUFFER_BYTES: Final = 2**20

_logger: Final = logging.getLogger("eventstore")


class IndexFiles:
    """The runs of one log, each open until `close`."""

    def __init__(self, files: Files, names: LogNames) -> None:
        self._files = files
        self._names = names
        self._handles: dict[str, int] = {}

    def load(self, fits: Callable[[Mark], bool]) -> list[IndexRun]:
        """Open the adjacent runs that reach farthest.

        Args:
            fits: whether the log has this mark.

        Returns:
            Those that can be believed; none if there is no index.
        """
        runs: list[IndexRun] = []
        try:
            names = self._files.listdir(self._names.cache)
        except OSError:
            return runs
        at = LOG_START.identity
        for start, _, name in sorted((start, -end, name) for start, end, name in _ranges(names)):
            run = self._open(name, at) if start == at[1] else None
            if run is not None:
                runs.append(run)
                at = run.head.end.identity
        while runs and not fits(runs[-1].head.end):
            runs.pop()
        return runs

    def save(self, start: Identity, end: Mark, chunks: Iterable[bytes]) -> IndexRun:
        """Write a run and open it.

        Raises:
            OSError: as the system says it; no run is there then.
        """
        files, names = self._files, self._names
        files.mkdir(names.cache)
        name = _name(start, end)
        temporary = f"{names.cache}/{name}.tmp"
        if files.stat(temporary) is not None:
            files.unlink(temporary)
        handle = files.open(temporary, "append", exclusive=True)
        try:
            buffer: list[bytes] = []
            size = 0
            for chunk in chunks:
                buffer.append(chunk)
                size += len(chunk)
                if size >= _BUFFER_BYTES:
                    write_all(files, handle, b"".join(buffer))
                    buffer, size = [], 0
            write_all(files, handle, b"".join(buffer))
            # Not synced: what a power cut leaves of it fails a checksum, and is not used.
            files.rename(temporary, f"{names.cache}/{name}")
        finally:
            files.close(handle)
        run = self._open(name, start)
        if run is None:
            msg = f"{files.path(names.cache)}/{name}: does not read back"
            raise OSError(msg)
        return run

    def merge(self, runs: Sequence[IndexRun]) -> IndexRun:
        """Write one run for several adjacent ones, and remove theirs.

        Raises:
            OSError: as `save`; the runs are still there then.
            ValueError: one of them is damaged.
        """
        start, end = runs[0].head.start, runs[-1].head.end
        merged = self.save(start, end, merge_runs(runs))
        # Those of other processes too, and what a crash left half written.
        names = self._files.listdir(self._names.cache)
        last = end.place.position
        inside = (entry for entry in _ranges(names) if start[1] <= entry[0] < entry[1] <= last)
        self._remove({name for *_, name in inside} - {_name(start, end)})
        return merged

    def discard(self) -> None:
        """Remove all runs: one of them is damaged."""
        with contextlib.suppress(FileNotFoundError):
            names = self._files.listdir(self._names.cache)
            self._remove({name for _, _, name in _ranges(names)})

    def close(self) -> None:
        """Close the files. The runs cannot be read any more."""
        for handle in self._handles.values():
            self._files.close(handle)
        self._handles.clear()

    def _open(self, name: str, start: Identity) -> IndexRun | None:
        """Open a run that begins there, if it is one."""
        files = self._files
        try:
            handle = files.open(f"{self._names.cache}/{name}", "read")
        except OSError:
            return None  # another process has joined it to others
        try:
            size = files.fstat(handle).size

            def read(count: int, offset: int) -> bytes:
                # What the file claims to hold is no reason to ask for more than it has.
                start = min(max(0, offset), size)
                return files.pread(handle, min(max(0, count), size - start), start)

            run = IndexRun(read)
            if run.head.start == start and _name(start, run.head.end) == name:
                self._close(name)
                self._handles[name] = handle
                return run
        except BROKEN as error:
            path = files.path(f"{self._names.cache}/{name}")
            _logger.warning("%s: no index, it is not used: %s", path, error)
        except BaseException:  # raised again: no handle stays open, whatever ends it
            files.close(handle)
            raise
        files.close(handle)
        return None

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._close(name)
            with contextlib.suppress(FileNotFoundError):
                self._files.unlink(f"{self._names.cache}/{name}")

    def _close(self, name: str) -> None:
        handle = self._handles.pop(name, None)
        if handle is not None:
            self._files.close(handle)


def log_has(files: Files, handle: int, mark: Mark) -> bool:
    """Whether a segment has, at a mark in it, the running CRC that the mark names."""
    size = SUFFIX_BYTES + 1
    place = mark.place
    if place.offset < size:
        return False
    return running_after(files.pread(handle, size, place.offset - size)) == place.running


def due_for_merge(runs: Sequence[IndexRun]) -> int:
    """How many of the last runs had better be one; 0 if they may stay as they are."""
    for bound in _TIERS:
        count = 0
        for run in reversed(runs):
            if run.head.end.log_offset - run.head.start[0] >= bound:
                break
            count += 1
        if count >= _MERGED_AT_ONCE:
            return count
    return 0


def _name(start: Identity, end: Mark) -> str:
    place = end.place
    return f"index-{start[1]:020}-{place.position:020}-{place.running:08x}.run"


def _ranges(names: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    """The first and last position of the runs among these names."""
    for match in map(_NAME.fullmatch, names):
        if match is not None:
            yield int(match[1]), int(match[2]), match[0]
