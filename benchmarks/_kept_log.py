"""A log that every run finds as it was kept, however long it is: nothing of it is copied."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["KeptLog"]


class KeptLog:
    """A log that is alone in its directory; all that happens to it can be undone but a cut.

    What stands in a segment or in a file of the index never changes, so a second name of the same
    file keeps it. That leaves the inode, which the lock record names, and the page cache as they
    are, and no copy to be written back while something is timed.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "history.jsonl"
        self._kept = directory.with_name(f"{directory.name}-kept")
        self._sizes: dict[str, int] = {}
        self._lock_record = b""

    def keep(self) -> None:
        """Remember the log as it is now."""
        self._beside.mkdir(exist_ok=True)  # of a small log nothing was derived
        shutil.copytree(self.path.parent, self._kept, copy_function=os.link)
        self._sizes = {segment.name: segment.stat().st_size for segment in self.segments()}
        self._lock_record = self._lock.read_bytes()

    def restore(self, *, without_index: bool = False) -> None:
        """Make the log what was kept, or that without its index."""
        for segment in self.segments():
            segment.unlink()
        for name, size in self._sizes.items():
            segment = self.path.with_name(name)
            segment.hardlink_to(self._kept / name)
            _cut(segment, size)
        shutil.rmtree(self._beside)
        shutil.copytree(self._kept / self._beside.name, self._beside, copy_function=os.link)
        # The same file: it is what the lock is on.
        self._lock.write_bytes(self._lock_record)
        if without_index:
            shutil.rmtree(self._cache, ignore_errors=True)

    def segments(self) -> list[Path]:
        """The files of the log, in no order."""
        return list(self.path.parent.glob("history*.jsonl"))

    def describe(self, events: int) -> str:
        """How large the log and its index are, for so many events."""
        log = sum(segment.stat().st_size for segment in self.segments())
        index = sum(path.stat().st_size for path in self._cache.rglob("*") if path.is_file())
        return (
            f"{events:,} events: {log / events:.0f} bytes of log per event, "
            f"{index / events:.1f} bytes of index per event"
        )

    @property
    def _beside(self) -> Path:
        return self.path.with_name("history.jsonl.d")

    @property
    def _cache(self) -> Path:
        return self._beside / "cache"

    @property
    def _lock(self) -> Path:
        return self.path.with_name("history.jsonl.lock")


def _cut(path: Path, size: int) -> None:
    with path.open("rb+") as file:
        now = file.seek(0, os.SEEK_END)
        assert now >= size, f"{path.name}: {size - now} bytes of what was kept are gone"
        if now > size:
            file.truncate(size)
            os.fsync(file.fileno())  # or the next sync, which is timed, would do it
