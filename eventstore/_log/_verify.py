"""Checking a whole log without opening it for writing: what is there, and what is wrong where.

It reads what a reader would be shown, by the same rules, and judges the end as recovery would.
Nothing is written; the lock is taken, shared and for a moment, only where a reader takes it.
"""

from __future__ import annotations

import os
from typing import Final

import msgspec

from eventstore._errors import StoreUnavailableError
from eventstore._events import MAIN_STREAM
from eventstore._log._evidence import weigh_record
from eventstore._log._feed import feed_file
from eventstore._log._files import DiskFiles, Files
from eventstore._log._findings import Finding, NotingScanner, Severity
from eventstore._log._lines import Header
from eventstore._log._lock import LogLock
from eventstore._log._lock_record import LockRecord
from eventstore._log._names import LogNames
from eventstore._log._recovery import plan_recovery
from eventstore._log._scan import START, Place
from eventstore._log._snapshot import Segment, Snapshot, SnapshotTaker

__all__ = ["Verification", "verify_files", "verify_log"]

_LOCK_TIMEOUT_SECONDS: Final = 30.0
_FINDINGS_MAX: Final = 100  # a list of more is no longer read; the count goes on
_LOOKS_MAX: Final = 3  # a writer may recover the file while it is read; then look again


class Verification(msgspec.Struct, frozen=True):
    """What a log holds, and everything that is wrong with it.

    Attributes:
        segments: files of the log.
        bytes: in all segments.
        lines: how many there are; the log's position.
        events: lines that are events: ours in whole commits, and foreign records.
        streams: how many streams these events belong to.
        foreign: records of a foreign writer.
        noise: lines that are no record of anybody.
        void: lines of commits that never became whole.
        bad: lines that claim to be ours and are not.
        findings: the first 100, in the order of the log.
        finding_count: how many there were.
        is_sound: whether there was none but notices.
    """

    segments: int
    bytes: int
    lines: int
    events: int
    streams: int
    foreign: int
    noise: int
    void: int
    bad: int
    findings: tuple[Finding, ...]
    finding_count: int
    is_sound: bool


def verify_log(
    path: str | os.PathLike[str], *, lock_timeout_seconds: float = _LOCK_TIMEOUT_SECONDS
) -> Verification:
    """Read a whole log and check every byte of it, while others may write to it. Blocks.

    Args:
        path: the active `.jsonl` file.
        lock_timeout_seconds: how long to wait for a writer, where its word is needed.

    Returns:
        What is there and what is wrong, in the order of the log.

    Raises:
        StoreUnavailableError: there is no log at the path, or it cannot be read.
        StoreBusyError: the end could not be judged, because a writer kept the lock.
    """
    full: str = os.path.abspath(path)  # noqa: PTH100 - no symlink may be resolved here
    directory, name = os.path.split(full)
    names = LogNames(name)
    if names.lock in ("", ".", "..", name):
        raise StoreUnavailableError(path=full, reason="is no file name a log can have")
    return verify_files(DiskFiles(directory), names, lock_timeout_seconds=lock_timeout_seconds)


def verify_files(files: Files, names: LogNames, *, lock_timeout_seconds: float) -> Verification:
    """Check a log behind the seam; as `verify_log`."""
    taker = SnapshotTaker(files, names, lock_timeout_seconds=lock_timeout_seconds)
    lock = LogLock(files, names, create=False)
    try:
        looks, offsets = 0, False
        while True:
            # The record is read first: what it calls durable must then be in the snapshot.
            record = lock.read_record()
            lock.close()
            snapshot = taker.take()
            if not snapshot.segments:
                raise StoreUnavailableError(
                    path=files.path(names.active), reason="there is no such file"
                )
            verifier = _Verifier(files, names, offsets=offsets)
            verifier.verify(snapshot, record)
            looks += 1
            if verifier.has_gaps and not offsets:
                offsets = True  # they cost a quarter of the time, and are needed next to never
                continue
            if verifier.is_sound or looks == _LOOKS_MAX or taker.take().end == snapshot.end:
                return verifier.result(snapshot)
    except OSError as error:
        raise StoreUnavailableError(
            path=error.filename or files.path(names.active),
            reason=f"{error.strerror or error}; it cannot be read",
        ) from error
    finally:
        lock.close()
        taker.close()


class _Verifier:
    """One look at a log, segment by segment."""

    def __init__(self, files: Files, names: LogNames, *, offsets: bool) -> None:
        self.findings: list[Finding] = []
        self.finding_count = 0
        self.is_sound = True
        self.has_gaps = False
        self._files = files
        self._names = names
        self._offsets = offsets
        self._name = names.active
        self._events = 0
        self._versions: dict[str, int] = {}  # of the last event of each stream
        self._counts = dict.fromkeys(("foreign", "noise", "void", "bad"), 0)
        self._place = START

    def verify(self, snapshot: Snapshot, record: LockRecord | None) -> None:
        """Look through everything."""
        for segment in snapshot.segments:
            self._name = segment.name
            start = msgspec.structs.replace(self._place, offset=0)
            sealed = segment.name != self._names.active
            if sealed and segment.first_position != start.position + 1:
                reason = f"the segment that begins at position {start.position + 1} is missing"
                self.note(0, start.position + 1, reason, "damage")
            handle = self._files.open(segment.name, "read")
            try:
                if segment.name == self._names.active:
                    self._verify_active(segment, handle, start, record)
                else:
                    self._verify_sealed(segment, handle, start)
            finally:
                self._files.close(handle)

    def result(self, snapshot: Snapshot) -> Verification:
        """Everything that was found."""
        return Verification(
            segments=len(snapshot.segments),
            bytes=sum(segment.end for segment in snapshot.segments),
            lines=self._place.position,
            events=self._events,
            streams=len(self._versions),
            findings=tuple(self.findings),
            finding_count=self.finding_count,
            is_sound=self.is_sound,
            **self._counts,
        )

    def note(self, offset: int, position: int, reason: str, severity: Severity) -> None:
        """Take down a finding in the current segment."""
        self.finding_count += 1
        self.is_sound = self.is_sound and severity == "notice"
        if len(self.findings) < _FINDINGS_MAX:
            path = self._files.path(self._name)
            self.findings.append(Finding(path, offset, position, reason, severity))

    def _verify_sealed(self, segment: Segment, handle: int, start: Place) -> None:
        scanner = self._scan(handle, start, end=segment.end)
        settled = scanner.settled
        if scanner.rest_size or settled != scanner.place:
            reason = "a sealed segment does not end with a whole commit"
            self.note(settled.offset, settled.position + 1, reason, "damage")
        if scanner.counts.foreign:
            self.note(0, start.position + 1, "a sealed segment holds foreign lines", "notice")
        self._add(scanner)

    def _verify_active(
        self, segment: Segment, handle: int, start: Place, record: LockRecord | None
    ) -> None:
        if record is not None and (record.inode, record.segment) != (
            segment.inode,
            start.position + 1,
        ):
            record = None  # it speaks of another file
        watch = -1 if record is None else record.start
        scanner = self._scan(handle, start, end=segment.end, watch=watch)
        proven, contradicted = weigh_record(self._files, handle, record, scanner, start)
        if record is not None and proven is None:
            reason = "the lock record speaks of another file that stood here; it does not count"
            self.note(0, start.position + 1, reason, "notice")
        record = proven
        self._judge_end(scanner, size=segment.end, record=record, contradicted=contradicted)
        if record is not None and record.state == "failed":
            reason = "the last writer met an I/O error; the next one copies the file to a new inode"
            self.note(record.end, record.position + 1, reason, "notice")
        self._add(scanner)

    def _judge_end(
        self, scanner: NotingScanner, *, size: int, record: LockRecord | None, contradicted: bool
    ) -> None:
        """Say what the next writer would do to the end of the active file."""
        settled = scanner.settled
        plan = plan_recovery(
            settled=settled,
            sound=scanner.sound,
            rest=scanner.rest,
            rest_offset=scanner.place.offset,
            size=size,
            record=record,
            contradicted=contradicted,
            damages=[],  # noted already; the end is judged all the same
        )
        if plan.damage is not None:
            scanner.note_bad_end()
            self.note(plan.damage.offset, plan.damage.position, plan.damage.reason, "damage")
            return
        if plan.terminate:
            place = scanner.place
            reason = "the last record lacks its LF; the next writer adds it"
            self.note(place.offset, place.position + 1, reason, "notice")
            scanner.finish_foreign_record()
            self._take_lines(scanner)
        if plan.cut:
            reason = (
                f"an unfinished write of {plan.cut} bytes; the next writer moves it to the "
                "quarantine"
            )
            self.note(plan.keep, scanner.settled.position + 1, reason, "torn")

    def _scan(self, handle: int, start: Place, *, end: int, watch: int = -1) -> NotingScanner:
        scanner = NotingScanner(self.note, start, watch=watch, offsets=self._offsets)
        feed_file(
            self._files, handle, scanner, end=end, after_chunk=lambda: self._take_lines(scanner)
        )
        return scanner

    def _take_lines(self, scanner: NotingScanner) -> None:
        """Count events, and check that each stream's versions have no gap."""
        versions = self._versions
        for index, header in enumerate(scanner.lines):
            stream = header.stream
            before = versions.get(stream, 0)
            version = versions[stream] = header.version
            if version != before + 1:
                self._note_gap(header, before, scanner.offsets[index] if self._offsets else 0)
        self._events += len(scanner.lines)
        scanner.lines.clear()
        scanner.offsets.clear()

    def _note_gap(self, header: Header, before: int, offset: int) -> None:
        # Noise uses up versions of `main`, and damage, noted already, takes events away.
        may_skip = header.stream == MAIN_STREAM or not self.is_sound
        if header.version <= before or not may_skip:
            self.has_gaps = True
            reason = f"version {header.version} of stream {header.stream!r} follows {before}"
            self.note(offset, header.position, reason, "damage")

    def _add(self, scanner: NotingScanner) -> None:
        self._place = scanner.place
        for name in self._counts:
            self._counts[name] += getattr(scanner.counts, name)
