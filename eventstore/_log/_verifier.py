"""One look at a whole log, segment by segment: what is there, and what is wrong where.

It reads what a reader would be shown, by the same rules, and judges the end as recovery would.
"""

from __future__ import annotations

from typing import Final

import msgspec

from eventstore._events import MAIN_STREAM
from eventstore._log._chain_run import ChainRun
from eventstore._log._clean_run import CleanRun
from eventstore._log._evidence import weigh_record
from eventstore._log._feed import CHUNK_BYTES
from eventstore._log._files import Files
from eventstore._log._findings import Finding, NotingScanner, Severity
from eventstore._log._lines import Header
from eventstore._log._lock_record import LockRecord
from eventstore._log._names import LogNames
from eventstore._log._recovery import plan_recovery
from eventstore._log._scan import START, Place
from eventstore._log._snapshot import Segment, Snapshot
from eventstore._log._verification import ChecksumVerification, Progress, Verification

__all__ = ["Verifier"]

_FINDINGS_MAX: Final = 100  # a list of more is no longer read; the count goes on
_LESSER: Final = ("malformed", "notice")


class Verifier:
    """One look at a log, segment by segment."""

    def __init__(
        self, files: Files, names: LogNames, *, checksums_only: bool, progress: Progress | None
    ) -> None:
        self.findings: list[Finding] = []
        self.finding_count = 0
        self.is_sound = True
        self._cut_bytes = 0
        self._lacks_lf = self._is_failed = False
        self._files = files
        self._names = names
        self._checksums_only = checksums_only
        self._progress = progress
        self._bytes = 0  # in all segments
        self._bytes_before = 0  # in those before the current one
        self._name = names.active
        self._events = 0
        self._versions: dict[str, int] = {}  # of the last event of each stream
        self._counts = dict.fromkeys(("foreign", "noise", "void", "bad"), 0)
        self._place = START
        self._verified_position = 0  # up to `_place`, less if what stands before it is damaged

    def verify(self, snapshot: Snapshot, record: LockRecord | None) -> None:
        """Look through everything."""
        self._bytes = sum(segment.end for segment in snapshot.segments)
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
            self._bytes_before += segment.end

    def checksum_verification(self, snapshot: Snapshot) -> ChecksumVerification:
        """What is wrong."""
        order = {self._files.path(s.name): number for number, s in enumerate(snapshot.segments)}
        self.findings.sort(key=lambda finding: (order[finding.file], finding.offset))
        return ChecksumVerification(
            segments=len(snapshot.segments),
            bytes=self._bytes,
            lines=self._place.position,
            findings=tuple(self.findings),
            finding_count=self.finding_count,
            is_sound=self.is_sound,
            cut_bytes=self._cut_bytes,
            lacks_lf=self._lacks_lf,
            is_failed=self._is_failed,
        )

    def verification(self, snapshot: Snapshot) -> Verification:
        """What is wrong, and what is there."""
        return Verification(
            **msgspec.structs.asdict(self.checksum_verification(snapshot)),
            events=self._events,
            streams=len(self._versions),
            foreign=self._counts["foreign"],
            noise=self._counts["noise"],
            void=self._counts["void"],
            bad=self._counts["bad"],
        )

    def note(self, offset: int, position: int, reason: str, severity: Severity) -> None:
        """Take down a finding in the current segment."""
        self.finding_count += 1
        self.is_sound = self.is_sound and severity == "notice"
        if len(self.findings) == _FINDINGS_MAX:
            lesser = severity in _LESSER or self._forget_lesser() is None
            if lesser:
                return
        path = self._files.path(self._name)
        self.findings.append(Finding(path, offset, position, reason, severity))

    def _forget_lesser(self) -> Finding | None:
        """Make room for damage behind very many lines of no consequence."""
        for index in range(len(self.findings) - 1, -1, -1):
            if self.findings[index].severity in _LESSER:
                return self.findings.pop(index)
        return None

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
            self._note_stale_record(record, segment, scanner.settled)
        record = proven
        self._judge_end(scanner, size=segment.end, record=record, contradicted=contradicted)
        if record is not None and record.state == "failed":
            self._is_failed = True
            reason = "the last writer met an I/O error; the next one copies the file to a new inode"
            self.note(record.end, record.position + 1, reason, "notice")
        self._add(scanner)

    def _note_stale_record(self, record: LockRecord, segment: Segment, settled: Place) -> None:
        """A record that fits no bytes of this file: it is not judged by it, but somebody should."""
        if record.end <= segment.end:
            reason = "the lock record speaks of another file that stood here; it does not count"
            self.note(0, record.segment, reason, "notice")
            return
        reason = (
            f"the lock record calls {record.end} bytes durable, up to position {record.position}, "
            f"and the file has {segment.end}: it was cut, or another one was put in its place, "
            "which the next writer will take as it is"
        )
        self.note(settled.offset, settled.position + 1, reason, "damage")

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
        self._cut_bytes, self._lacks_lf = plan.cut, plan.terminate
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
        """Look through a segment: over what is sound in a run, line by line over the rest.

        Returns:
            The scanner that saw the end.
        """
        place, watched = start, start.running if watch == start.offset else None
        verified = self._verified_position
        while True:
            passed = self._pass_over(handle, place, end=end)
            if passed != place:
                place, verified = passed, passed.position
            scanner = NotingScanner(
                self.note, place, watch=watch, offsets=True, verified_position=verified
            )
            is_over = self._scan_lines(handle, scanner, end=end)
            watched = watched if scanner.watched is None else scanner.watched
            if is_over:
                scanner.watched = watched
                return scanner
            self._count(scanner)
            place, verified = scanner.place, scanner.place.position

    def _scan_lines(self, handle: int, scanner: NotingScanner, *, end: int) -> bool:
        """Look at line after line, until they are sound again.

        Returns:
            Whether that was never, up to the end.
        """
        offset = scanner.place.offset
        while offset < end and (data := self._read(handle, offset, end=end)):
            scanner.feed(data)
            self._take_lines(scanner)
            offset += len(data)
            self._tell(offset)
            if offset < end and _is_on_clean_ground(scanner):
                return False
        return True

    def _pass_over(self, handle: int, place: Place, *, end: int) -> Place:
        run = ChainRun(place) if self._checksums_only else CleanRun(place, self._versions)
        while run.offset < end and run.take(self._read(handle, run.offset, end=end)):
            self._tell(run.offset)
        if isinstance(run, CleanRun):
            self._events += run.events
        return run.place

    def _read(self, handle: int, offset: int, *, end: int) -> bytes:
        return self._files.pread(handle, min(CHUNK_BYTES, end - offset), offset)

    def _tell(self, offset: int) -> None:
        if self._progress is not None:
            self._progress(self._bytes_before + offset, self._bytes)

    def _take_lines(self, scanner: NotingScanner) -> None:
        """Count events, and check that each stream's versions have no gap."""
        if not self._checksums_only:
            self._follow_versions(scanner)
        scanner.lines.clear()
        scanner.offsets.clear()

    def _follow_versions(self, scanner: NotingScanner) -> None:
        versions = self._versions
        for header, offset in zip(scanner.lines, scanner.offsets, strict=True):
            before = versions.get(header.stream, 0)
            versions[header.stream] = header.version
            if header.version != before + 1:
                self._note_gap(header, before, offset)
        self._events += len(scanner.lines)

    def _note_gap(self, header: Header, before: int, offset: int) -> None:
        # Noise uses up versions of `main`, and damage, noted already, takes events away.
        may_skip = header.stream == MAIN_STREAM or not self.is_sound
        if header.version <= before or not may_skip:
            reason = f"version {header.version} of stream {header.stream!r} follows {before}"
            self.note(offset, header.position, reason, "damage")

    def _add(self, scanner: NotingScanner) -> None:
        self._place = scanner.place
        self._verified_position = scanner.verified_position
        self._count(scanner)

    def _count(self, scanner: NotingScanner) -> None:
        for name in self._counts:
            self._counts[name] += getattr(scanner.counts, name)


def _is_on_clean_ground(scanner: NotingScanner) -> bool:
    """Whether the last line was one of ours that fits and ends its commit.

    Then nothing before it is undecided, and what comes may be passed over again.
    """
    place = scanner.place
    return (
        scanner.sound == (place.offset, place.position)
        and scanner.settled == place
        and scanner.rest_size < CHUNK_BYTES  # the run would not reach the end of a longer line
    )
