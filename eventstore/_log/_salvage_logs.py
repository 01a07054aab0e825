"""The two logs of a salvage: the damaged one, which is only read, and the new one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from eventstore._errors import StoreUnavailableError
from eventstore._log._crc import crc32
from eventstore._log._feed import CHUNK_BYTES
from eventstore._log._files import Files, FileStat
from eventstore._log._lines import LF, LINE_BYTES_READ_MAX, is_intact
from eventstore._log._lock import LogLock
from eventstore._log._names import LogNames
from eventstore._log._repair import write_all
from eventstore._log._rescue import Kept, Rescuer
from eventstore._log._scan import NUL, ends_as_foreign_record
from eventstore._log._snapshot import Segment, Snapshot, SnapshotTaker
from eventstore._log._verification import Progress

__all__ = ["NewLog", "OldLog"]


class OldLog:
    """The bytes of the damaged log, as they were at one moment."""

    def __init__(self, files: Files, names: LogNames, *, lock_timeout_seconds: float) -> None:
        self.checksum = 0
        self._files = files
        lock = LogLock(files, names, create=False)
        taker = SnapshotTaker(files, names, lock_timeout_seconds=lock_timeout_seconds)
        try:
            record = lock.read_record()
            self._snapshot: Snapshot = taker.take()
        finally:
            lock.close()
            taker.close()
        last = self._snapshot.segments[-1]
        status = files.stat(last.name)
        assert status is not None, "a segment has just been listed"
        self.status: FileStat = status
        is_of_this = record is not None and record.inode == last.inode
        self.durable_position = record.position if record is not None and is_of_this else 0

    def read(self, rescuer: Rescuer, *, progress: Progress | None) -> Iterator[None]:
        """Give every line to the rescuer; yield after each chunk."""
        segments = self._snapshot.segments
        total, before = sum(segment.end for segment in segments), 0
        for segment in segments:
            for offset in self._read_segment(segment, rescuer):
                if progress is not None:
                    progress(before + offset, total)
                yield
            before += segment.end

    def _read_segment(self, segment: Segment, rescuer: Rescuer) -> Iterator[int]:
        handle = self._files.open(segment.name, "read")
        rest, skipping, offset = b"", False, 0
        try:
            while offset < segment.end:
                data = self._files.pread(handle, min(CHUNK_BYTES, segment.end - offset), offset)
                if not data:
                    msg = f"{self._files.path(segment.name)} became shorter while it was read"
                    raise OSError(msg)
                self.checksum = crc32(data, self.checksum)
                offset += len(data)
                *lines, rest = (rest + data).split(LF)
                if skipping and lines:
                    rescuer.skip()
                    del lines[0]
                    skipping = False
                for line in lines:
                    if len(line) <= LINE_BYTES_READ_MAX:
                        rescuer.take(line)
                    else:
                        rescuer.skip()
                if len(rest) > LINE_BYTES_READ_MAX or skipping:
                    rest, skipping = b"", True
                yield offset
        finally:
            self._files.close(handle)
        if is_intact(rest):
            rescuer.take(rest)
        elif ends_as_foreign_record(rest):
            rescuer.take(rest.rstrip(NUL))


class NewLog:
    """Writes a log from its first line on, in one segment; or only counts."""

    def __init__(self, files: Files | None, names: LogNames) -> None:
        self.position = 0
        self.temporary = f"{names.active}.partial"
        self.path = None if files is None else files.path(names.active)
        self._files = files
        self._names = names
        self._handle: int | None = None
        self._running = 0
        self._versions: dict[str, int] = {}
        self._buffer: list[bytes] = []
        self._buffered = 0
        if files is not None:
            made = files.mkdir("")
            if not made and files.listdir(""):
                reason = "is there already; a salvage goes into a new directory"
                raise StoreUnavailableError(path=files.path(""), reason=reason)
            self._handle = files.open(self.temporary, "append", exclusive=True)

    def write(self, group: Sequence[Kept]) -> None:
        """Write the lines of one commit, or one foreign line."""
        end = b',"commit":[%d,%d]' % (self.position + 1, self.position + len(group))
        for kept in group:
            self.position += 1
            version = self._versions[kept.stream] = self._versions.get(kept.stream, 0) + 1
            if kept.is_ours:
                numbers = b',"version":%d,"position":%d%b' % (version, self.position, end)
                body = kept.content + numbers
                self._running = crc32(body, self._running)
                tail = b',"crc":"%08x%08x"}\n' % (crc32(body), self._running)
            else:
                body, tail = kept.content, LF
                self._running = crc32(body, self._running)
            self._running = crc32(tail, self._running)
            self._buffer += (body, tail)
            self._buffered += len(body) + len(tail)
        if self._buffered >= CHUNK_BYTES:
            self._flush()

    def finish(self) -> None:
        """Make everything durable, under the temporary name."""
        self._flush()
        if self._files is not None and self._handle is not None:
            self._files.fsync(self._handle)
            self._files.close(self._handle)
            self._handle = None

    def publish(self) -> None:
        """Give the log its name."""
        assert self._files is not None, "there is a log to name"
        self._files.rename(self.temporary, self._names.active)
        self._files.fsync_directory("")

    def abandon(self) -> None:
        """Take away what was written; the directory stays, empty."""
        if self._files is None:
            return
        if self._handle is not None:
            self._files.close(self._handle)
            self._handle = None
        with contextlib.suppress(OSError):
            self._files.unlink(self.temporary)

    def _flush(self) -> None:
        if self._files is not None and self._handle is not None:
            write_all(self._files, self._handle, b"".join(self._buffer))
        self._buffer, self._buffered = [], 0
