"""What a reader may show: which segments there are, and how far the last one is durable."""

from __future__ import annotations

import threading
from typing import Final

import msgspec

from eventstore._errors import StoreBusyError, StoreClosedError, StoreUnavailableError
from eventstore._log._files import Files
from eventstore._log._lock import LogLock
from eventstore._log._names import LogNames

__all__ = ["Segment", "Snapshot", "SnapshotTaker"]

_TRIES: Final = 100  # a segment may be sealed between two looks; a hundred times means a bug


class Segment(msgspec.Struct, frozen=True, gc=False):
    """One file of the log, and up to which byte it may be shown.

    Attributes:
        name: of the file when it was looked at.
        first_position: of a sealed segment; 0 for the active one.
        inode: the same file by another name is still the same.
        end: up to which byte.
        after: first position of the segment before it, 0 for none.
    """

    name: str
    first_position: int
    inode: int
    end: int
    after: int = 0


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """The log as one reader sees it, oldest segment first. It holds no handle.

    Attributes:
        segments: none if there is no log.
        position: the log's position at the end, where the lock record tells; else None.
    """

    segments: tuple[Segment, ...]
    position: int | None = None

    @property
    def end(self) -> tuple[int, int, int]:
        """Changes exactly when there is more to read: inode, size and number of segments."""
        if not self.segments:
            return (0, 0, 0)
        last = self.segments[-1]
        return (last.inode, last.end, len(self.segments))


class SnapshotTaker:
    """Takes snapshots of one log. Writes nothing, and creates no lock file.

    What lies before the end in a valid lock record is durable: no lock is needed. Behind it may
    be a commit at work, a foreign writer's lines, or what a dead process left: then the shared
    lock is taken for a moment, and the bytes are synced and re-read from the medium before they
    are shown, because the page cache may show what the disk never got.
    """

    def __init__(self, files: Files, names: LogNames, *, lock_timeout_seconds: float) -> None:
        self._files = files
        self._names = names
        self._lock_timeout_seconds = lock_timeout_seconds
        self._lock = LogLock(files, names, create=False)
        self._guard = threading.Lock()
        self._closed = False

    def take(self) -> Snapshot:
        """Look how far the log can be read now.

        Raises:
            StoreBusyError: bytes beyond the lock record's end could not be judged, because a
                writer kept the lock until the deadline.
            StoreClosedError: the store is closed.
            StoreUnavailableError: what stands at the path is no file, or may not be read.
        """
        path = self._files.path(self._names.active)
        try:
            with self._guard:
                if self._closed:
                    raise StoreClosedError(path=path)
                for _ in range(_TRIES):
                    snapshot = self._try_take()
                    if snapshot is not None:
                        return snapshot
        except OSError as error:
            raise StoreUnavailableError(
                path=error.filename or path, reason=f"{error.strerror or error}; it cannot be read"
            ) from error
        finally:
            if self._closed:
                self.close()
        raise StoreUnavailableError(path=path, reason="the segments change faster than they open")

    def has_grown(self, end: tuple[int, int, int]) -> bool:
        """Whether a snapshot taken now may end elsewhere; takes no lock and reads no file.

        Raises:
            OSError: the file cannot be looked at.
            StoreClosedError: the store is closed.
        """
        if self._closed:
            raise StoreClosedError(path=self._files.path(self._names.active))
        status = self._files.stat(self._names.active)
        # A log grows in its active file, or gets a new one; what is sealed stays as it is.
        return end[:2] != (0, 0) if status is None else (status.inode, status.size) != end[:2]

    def abandon(self) -> None:
        """In a forked child: close the handle without waiting for a thread of the parent."""
        self._guard = threading.Lock()
        self.close()

    def close(self) -> None:
        """Close the lock handle; a thread that is still looking does it when it is done."""
        self._closed = True
        if self._guard.acquire(blocking=False):
            try:
                self._lock.close()
            finally:
                self._guard.release()

    def _try_take(self) -> Snapshot | None:
        files, names = self._files, self._names
        status = files.stat(names.active)
        if status is not None and status.kind != "file":
            raise StoreUnavailableError(
                path=files.path(names.active),
                reason="is not a regular file (a directory, a symlink, a FIFO or a device)",
            )
        handle = None
        try:
            if status is not None:
                handle = files.open(names.active, "read")
            return self._look(handle)
        except FileNotFoundError:
            return None  # sealed and renamed between two looks
        finally:
            if handle is not None:
                files.close(handle)

    def _look(self, handle: int | None) -> Snapshot | None:
        files, names = self._files, self._names
        end, position, inode = (0, None, 0) if handle is None else self._readable_end(handle)
        try:
            listed = files.listdir("")
        except FileNotFoundError:
            listed = []
        segments: list[Segment] = []
        for first_position in names.sealed_positions(listed):
            sealed = files.stat(names.sealed(first_position))
            if sealed is None or sealed.inode == inode:
                return None
            segments.append(
                Segment(names.sealed(first_position), first_position, sealed.inode, sealed.size)
            )
        at_path = files.stat(names.active)
        if (0 if at_path is None else at_path.inode) != inode:
            return None
        if handle is not None:
            after = segments[-1].first_position if segments else 0
            segments.append(Segment(names.active, 0, inode, end, after))
        return Snapshot(tuple(segments), position)

    def _readable_end(self, handle: int) -> tuple[int, int | None, int]:
        files = self._files
        status = files.fstat(handle)
        if self._lock.is_replaced():
            self._lock.close()
        record = self._lock.read_record()
        if record is not None and (record.inode, record.end) == (status.inode, status.size):
            return record.end, record.position, status.inode
        try:
            locked = self._lock.acquire(exclusive=False, timeout_seconds=self._lock_timeout_seconds)
        except StoreBusyError:
            # A stopped writer must not stop readers: what its record vouches for can be shown.
            if record is None or record.inode != status.inode or record.end > status.size:
                raise
            return record.end, record.position, status.inode
        try:
            record = self._lock.read_record()
            status = files.fstat(handle)
            if record is not None and (record.inode, record.end) == (status.inode, status.size):
                return record.end, record.position, status.inode
            files.fsync(handle)
            files.fsync_directory("")  # a foreign writer that made the file did not do it
            files.drop_cache(handle)
            return files.fstat(handle).size, None, status.inode
        finally:
            if locked:
                self._lock.release()
