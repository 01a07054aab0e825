"""Copying what is undamaged of a log into a new one. The damaged log is only read.

The new log is built under another name, synced, verified, and renamed at the end: a directory that
holds a `.partial` file and no log is a salvage that was interrupted.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import msgspec

from eventstore._errors import StoreUnavailableError
from eventstore._log._crc import crc32
from eventstore._log._feed import CHUNK_BYTES
from eventstore._log._files import DiskFiles, Files, FileStat
from eventstore._log._findings import Finding
from eventstore._log._lines import LF, LINE_BYTES_READ_MAX, is_intact
from eventstore._log._lock import LogLock
from eventstore._log._names import LogNames
from eventstore._log._repair import write_all
from eventstore._log._rescue import Kept, Rescuer
from eventstore._log._scan import NUL, ends_as_foreign_record
from eventstore._log._snapshot import Segment, Snapshot, SnapshotTaker
from eventstore._log._verify import Progress, Verification, names_of, verify_files
from eventstore._timestamps import UnixTimeText, format_timestamp

__all__ = ["SALVAGE_STREAM", "PositionRange", "Salvage", "salvage_log"]

SALVAGE_STREAM: Final = "loopledger.salvage"
"""Where the new log says what it was made of."""
_LOCK_TIMEOUT_SECONDS: Final = 30.0
_RANGES_MAX: Final = 1_000  # of a record that must stay one line


class PositionRange(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Adjacent positions of the old log that are adjacent in the new one.

    Attributes:
        first: in the old log.
        last: in the old log.
        new_first: where `first` stands in the new log.
    """

    first: int
    last: int
    new_first: int


class Salvage(msgspec.Struct, frozen=True):
    """What a salvage kept, or would keep, and what it could not.

    Attributes:
        source: the damaged log.
        log: the new log; None if nothing was written.
        found: what is wrong in the damaged log.
        checksum: CRC-32 of all its bytes, its segments one after the other.
        events: that are kept; the new log holds one more, the record of the salvage.
        foreign: of these, the records of a foreign writer.
        partial: of these, those of commits that are no longer whole.
        unfinished: intact lines that are not kept: their commits never were whole.
        repeated: lines that are not kept: they stand there a second time.
        bad: lines that claim to be ours, and whose checksum or form is wrong.
        noise: lines that are no record of anybody.
        last_position: of the damaged log, as far as that can be told.
        ranges: which positions are kept, the first 1,000; what lies between them is not.
        range_count: how many there are.
    """

    source: str
    log: str | None
    found: Verification
    checksum: int
    events: int
    foreign: int
    partial: int
    unfinished: int
    repeated: int
    bad: int
    noise: int
    last_position: int
    ranges: tuple[PositionRange, ...]
    range_count: int


class _LogSalvaged(msgspec.Struct, frozen=True, tag_field="kind", tag="log_salvaged"):
    """The event that says where a salvaged log comes from; FORMAT.md has its fields."""

    source: str
    source_inode: int
    source_bytes: int
    source_modified: str
    source_crc: str
    loopledger: str
    events: int
    foreign: int
    partial: int
    unfinished: int
    repeated: int
    bad: int
    noise: int
    findings: Sequence[Finding]
    finding_count: int
    positions: Sequence[PositionRange]
    position_range_count: int


def salvage_log(
    path: str | os.PathLike[str],
    into: str | os.PathLike[str] | None,
    *,
    lock_timeout_seconds: float = _LOCK_TIMEOUT_SECONDS,
    progress: Progress | None = None,
) -> Salvage:
    """Copy every undamaged event of a log into a new log, and leave the old one alone. Blocks.

    Undamaged is a line of ours whose own checksum holds, and a foreign record that can be read.
    `ts`, `type`, `data`, `stream`, `key` and `meta` keep their bytes, known to this program or not;
    versions and positions are new. The last event of the new log, `log_salvaged` in the stream
    `loopledger.salvage`, says where it comes from and which positions became which.

    Args:
        path: the active `.jsonl` file of the damaged log.
        into: a directory that does not exist yet, or is empty; the new log gets the name of the
            old one there. None: write nothing, and say what would be kept.
        lock_timeout_seconds: how long to wait for a writer, where its word is needed.
        progress: told now and then how many bytes were done, and how many there are in all; each
            is read twice.

    Returns:
        What was kept and what was not. The new log is durable and was verified.

    Raises:
        StoreUnavailableError: there is no log at the path, it cannot be read, it changed
            meanwhile, or the new one cannot be written. There is no new log then.
        StoreBusyError: the end could not be judged, because a writer kept the lock.
    """
    directory, names = names_of(path)
    target = None if into is None else DiskFiles(os.path.abspath(into))  # noqa: PTH100 - as `path`
    try:
        return _salvage(
            DiskFiles(directory),
            names,
            target,
            lock_timeout_seconds=lock_timeout_seconds,
            progress=progress,
        )
    except OSError as error:
        reason = f"{error.strerror or error}; nothing was salvaged"
        raise StoreUnavailableError(
            path=error.filename or os.fspath(path), reason=reason
        ) from error


def _salvage(
    files: Files,
    names: LogNames,
    target: Files | None,
    *,
    lock_timeout_seconds: float,
    progress: Progress | None,
) -> Salvage:
    verify = partial(verify_files, lock_timeout_seconds=lock_timeout_seconds)
    found = verify(files, names, progress=progress and _half(progress, behind=False))
    old = _OldLog(files, names, lock_timeout_seconds=lock_timeout_seconds)
    rescuer = Rescuer(durable_position=old.durable_position)
    new = _NewLog(target, names)
    try:
        tell = progress and _half(progress, behind=True)
        for _ in old.read(rescuer, progress=tell):
            _move(rescuer, new)
        rescuer.finish()
        _move(rescuer, new)
        result = _result(rescuer, found, files.path(names.active), new.path, old.checksum)
        if target is not None:
            new.write_own(_record_of(result, old.status))
            new.finish()
            _check(verify(target, LogNames(new.temporary)), result)
            new.publish()
    except BaseException:  # raised again: a half-written copy goes, also on Ctrl-C
        new.abandon()
        raise
    return result


def _half(progress: Progress, *, behind: bool) -> Progress:
    """Every byte is read twice: once to verify, once to copy."""
    return lambda done, total: progress(done + total * behind, 2 * total)


def _move(rescuer: Rescuer, new: _NewLog) -> None:
    for group in rescuer.groups:
        new.write(group)
        for number, kept in enumerate(group, new.position - len(group) + 1):
            rescuer.ranges.add(kept.position, number)
    rescuer.groups.clear()


class _OldLog:
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


class _NewLog:
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

    def write_own(self, content: bytes) -> None:
        """Write the event that says where the log comes from."""
        self.write([Kept(content, SALVAGE_STREAM, 0, is_ours=True)])

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


def _result(
    rescuer: Rescuer, verification: Verification, source: str, log: str | None, checksum: int
) -> Salvage:
    found, runs = rescuer.found, rescuer.ranges.runs
    return Salvage(
        source=source,
        log=log,
        found=verification,
        checksum=checksum,
        events=found.ours + found.foreign,
        foreign=found.foreign,
        partial=found.partial,
        unfinished=found.unfinished,
        repeated=found.repeated,
        bad=found.bad,
        noise=found.noise,
        last_position=found.position,
        ranges=tuple(PositionRange(*run) for run in runs[:_RANGES_MAX]),
        range_count=len(runs),
    )


def _record_of(result: Salvage, status: FileStat) -> bytes:
    modified = datetime.fromtimestamp(status.modified_ns // 10**9, UTC)
    event = _LogSalvaged(
        source=_text(result.source),
        source_inode=status.inode,
        source_bytes=result.found.bytes,
        source_modified=format_timestamp(modified),
        source_crc=f"{result.checksum:08x}",
        loopledger=_version(),
        events=result.events,
        foreign=result.foreign,
        partial=result.partial,
        unfinished=result.unfinished,
        repeated=result.repeated,
        bad=result.bad,
        noise=result.noise,
        findings=[
            msgspec.structs.replace(finding, file=_text(finding.file))
            for finding in result.found.findings
        ],
        finding_count=result.found.finding_count,
        positions=result.ranges,
        position_range_count=result.range_count,
    )
    now = UnixTimeText()(time.time_ns())
    return b'{"ts":"%b","type":%b,"stream":"%b"' % (
        now,
        msgspec.json.encode(event),
        SALVAGE_STREAM.encode(),
    )


def _text(path: str) -> str:
    """A path as text that can be encoded: file names may hold bytes that are no UTF-8."""
    return path.encode(errors="backslashreplace").decode()


def _version() -> str:
    try:
        return importlib.metadata.version("loopledger")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"


def _check(written: Verification, result: Salvage) -> None:
    """Refuse to give a log its name that does not read back as what was written."""
    if not written.is_sound or written.events != result.events + 1:
        msg = f"what was written does not read back: {written.events} events, {written.findings}"
        raise OSError(msg)
