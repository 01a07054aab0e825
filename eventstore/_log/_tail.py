"""The end of the log as one store knows it: attached at opening, moved forward under the lock.

Everything here runs while the exclusive lock is held. Whatever another process appended since is
verified and adopted; what a dead one left half done is recovered first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from eventstore._errors import CorruptLogError, StoreUnavailableError
from eventstore._events import NO_COMMIT
from eventstore._foreign import ForeignLine
from eventstore._log._evidence import weigh_record
from eventstore._log._feed import feed_file
from eventstore._log._files import Files
from eventstore._log._index import Index, RecentIndex
from eventstore._log._index_files import log_has
from eventstore._log._index_keeper import INDEX_BYTES, IndexKeeper
from eventstore._log._index_run import Mark
from eventstore._log._lines import LF, Header, header_decoder, running_after
from eventstore._log._lock_record import LockRecord, LockState
from eventstore._log._names import LogNames
from eventstore._log._recovery import Plan, Recovery, plan_recovery
from eventstore._log._repair import cut_and_terminate, move_to_new_inode
from eventstore._log._scan import START, Counts, Damage, Place, Scanner
from eventstore._log._segments import Segments

__all__ = ["Tail"]

_TAIL_BYTES: Final = 64  # read back before each commit; holds the last line's two checksums
_OTHERS_MAY_WRITE: Final = 0o022
_NO_COUNTS: Final = Counts()

_logger: Final = logging.getLogger("eventstore")


class Tail:
    """The active segment, how far it is known, and the index of everything before that."""

    def __init__(
        self,
        files: Files,
        names: LogNames,
        *,
        holds_lock: Callable[[], bool],
        index_bytes: int = INDEX_BYTES,
    ) -> None:
        self._holds_lock = holds_lock
        self.kept_index = IndexKeeper(files, names, every_bytes=index_bytes)
        self._segments = Segments(files, names)
        self.recovery = Recovery()
        self.place = START
        self.segment = 1
        self.inode = 0
        self.durable_position = 0
        self._files = files
        self._names = names
        self._handle: int | None = None
        self._segment_start = START
        self._before = START  # a place before the watermark, to prove it by
        self._durable = START
        self._last_bytes = self._durable_bytes = b""

    @property
    def index(self) -> Index:
        """What is known of the log's past."""
        return self.kept_index.index

    @property
    def base(self) -> int:
        """Bytes of the log before the active segment."""
        return self._segments.base

    def locate(self, log_offset: int) -> tuple[int, int]:
        """Which segment holds a byte of the log, by its first position, and where."""
        return self._segments.locate(log_offset)

    def mark(self) -> Mark | None:
        """The log's end, if it is durable and a line of ours proves it."""
        place = self.place
        if self._durable != place or running_after(self._last_bytes) != place.running:
            return None
        done = self.recovery
        counts = Counts(foreign=done.foreign, noise=done.noise, void=done.void, bad=done.bad)
        return Mark(self.base + place.offset, place, self._segment_start, counts)

    @property
    def handle(self) -> int:
        """The active file, open for appending."""
        assert self._handle is not None
        return self._handle

    def record(self, state: LockState) -> LockRecord:
        """The lock record that says how far the active segment is durable."""
        return LockRecord(
            state=state,
            inode=self.inode,
            segment=self.segment,
            start=self._before.offset,
            start_crc=self._before.running,
            end=self._durable.offset,
            position=self._durable.position,
            crc=self._durable.running,
        )

    def close(self) -> None:
        """Close the active file and the index."""
        self._close_active()
        self.kept_index.close()

    def _close_active(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._files.close(handle)

    # --- moving forward ---

    def advance(self, place: Place, last_bytes: bytes) -> None:
        """Note what this store itself has written; it is not durable by that."""
        self.place = place
        self._last_bytes = last_bytes[-_TAIL_BYTES:]

    def mark_durable(self) -> None:
        """Note that everything up to `place` is synced."""
        if self._durable.offset != self.place.offset:
            self._before = self._durable
        self._durable = self.place
        self._durable_bytes = self._last_bytes
        self.durable_position = self.place.position

    def durable_part_stands(self) -> bool:
        """Whether what was synced here is still at its place, though what came after is not."""
        files, names = self._files, self._names
        size, end = len(self._durable_bytes), self._durable.offset
        for name in (names.sealed(self.segment), names.active):
            if files.stat(name) is None:
                continue
            handle = files.open(name, "read")
            try:
                return files.pread(handle, size, end - size) == self._durable_bytes
            finally:
                files.close(handle)
        return False

    def attach(self, record: LockRecord | None) -> LockRecord | None:
        """Find the log's end for the first time.

        Returns:
            The lock record to write, or None if the present one is right.

        Raises:
            CorruptLogError: acknowledged data is damaged, or a segment is missing.
            StoreUnavailableError: what stands at the path is no file.
            OSError: as the system says it.
        """
        files, names = self._files, self._names
        sealed = names.sealed_positions(files.listdir(""))
        self._segments.measure(sealed)
        mark = self.kept_index.load(self._has)
        self.recovery = Recovery()
        scanner = self._scanner(mark.place)
        known = mark.segment_start.position + 1
        for first_position in sealed:
            if first_position >= known or not first_position:  # no segment begins at 0: misnamed
                self._read_sealed(scanner, first_position, mark.segment_start)
        if mark.place.offset and known not in sealed:  # the mark lies in the active file
            self._open_active(mark.segment_start, record)
            self.place = self._durable = mark.place
            self.durable_position = mark.place.position
            self._count(mark.counts, anew=True)
            return self._adopt(record, rescan=False)
        if self._open_active(scanner.place, record):
            return self.record("idle")
        return self._adopt(record, rescan=True)

    def reindex(self, record: LockRecord | None) -> LockRecord | None:
        """Read the whole log again, because the index cannot be read; as `attach`."""
        self.kept_index.forget()
        return self.attach(record)

    def _has(self, mark: Mark) -> bool:
        """Whether the log is, up to a mark of an index, the one that the index was made of."""
        segment = mark.segment_start.position + 1
        base, name = self.base, self._names.active
        if segment in self._segments:
            base, name = self._segments.base_of(segment), self._names.sealed(segment)
        status = self._files.stat(name)
        if status is None or status.kind != "file" or base + mark.place.offset != mark.log_offset:
            return False
        handle = self._files.open(name, "read")
        try:
            return log_has(self._files, handle, mark)
        finally:
            self._files.close(handle)

    def catch_up(self, record: LockRecord | None) -> LockRecord | None:
        """Adopt what others did since; as `attach`.

        Raises:
            CorruptLogError: also if the file was replaced, cut or removed under the open store.
            OSError: as the system says it.
        """
        at_path = self._files.stat(self._names.active)
        if at_path is None or at_path.inode != self.inode:
            return self._reattach(record)
        size = at_path.size
        known = self.place.offset
        last = self._files.pread(self.handle, len(self._last_bytes), known - len(self._last_bytes))
        if size < known or last != self._last_bytes:
            raise self._replaced("the bytes this store had verified are no longer there")
        failed = record is not None and record.state == "failed" and record.inode == self.inode
        if size == known and not failed:
            return None
        return self._adopt(record, rescan=failed)

    def seal(self) -> LockRecord:
        """Finish the active segment for good and begin the next one. The tail must be durable.

        Raises:
            OSError: as the system says it. A crash or an error in between leaves a sealed segment
                and no active one; the next writer makes it.
        """
        files, names = self._files, self._names
        files.fsync(self.handle)
        files.rename(names.active, names.sealed(self.segment))
        files.fsync_directory("")
        self._segments.seal(self.place.offset)
        self._open_active(self.place, None)
        return self.record("idle")

    # --- opening and re-opening the active file ---

    def _open_active(self, place: Place, record: LockRecord | None) -> bool:
        """Open the active file that begins at a place; make it if it is missing.

        Nothing of this object changes before that has succeeded.

        Returns:
            Whether it is empty, so that the record must be reset.
        """
        files, names = self._files, self._names
        status = files.stat(names.active)
        if status is not None and status.kind != "file":
            raise StoreUnavailableError(
                path=files.path(names.active),
                reason="is not a regular file (a directory, a symlink, a FIFO or a device); "
                "give the path of the log file itself",
            )
        if status is None:
            # A sealing rename whose writer died must be durable before its name is used again: a
            # power cut may keep the new file's entry and lose the rename.
            files.fsync_directory("")
        handle = files.open(names.active, "append", create=status is None)
        try:
            status = files.fstat(handle)
            if record is not None and record.inode == status.inode:
                self._check_segment(record, place)
            if not status.size:
                files.fsync(handle)
            files.fsync_directory("")  # whoever made the file may have died before doing it
        except BaseException:  # raised again: no handle stays open, whatever ends it
            files.close(handle)
            raise
        if status.permissions & _OTHERS_MAY_WRITE:
            _logger.warning("%s: other users may write to it", files.path(names.active))
        self._close_active()
        self._handle = handle
        self.inode = status.inode
        self.segment = place.position + 1
        self._segments.name_active(self.segment)
        self.place = msgspec.structs.replace(place, offset=0)
        self._segment_start = self._before = self._durable = self.place
        self.durable_position = place.position
        self._last_bytes = self._durable_bytes = b""
        return not status.size

    def _check_segment(self, record: LockRecord, place: Place) -> None:
        if record.segment <= place.position + 1:
            return
        reason = (
            f"the active segment begins at position {record.segment}, and the sealed ones end at "
            f"{place.position}"
        )
        raise self._corrupt(Damage(offset=0, position=place.position + 1, reason=reason))

    def _reattach(self, record: LockRecord | None) -> LockRecord | None:
        """Follow the active file: it was sealed, or copied to a new inode after an error."""
        files, names = self._files, self._names
        if files.stat(names.sealed(self.segment)) is not None:
            self._check_still_there(names.sealed(self.segment))
            scanner = self._scanner(self.place)
            segments = names.sealed_positions(files.listdir(""))
            self._segments.measure(segments)
            for first_position in segments[segments.index(self.segment) :]:
                self._read_sealed(scanner, first_position, self._segment_start)
            if self._open_active(scanner.place, record):
                return self.record("idle")
            return self._adopt(record, rescan=True)
        status = files.stat(names.active)
        if status is None or status.kind != "file":
            raise self._replaced("the file was removed or replaced under the open store")
        self._check_still_there(names.active)
        handle = files.open(names.active, "append")
        try:
            inode = files.fstat(handle).inode
            files.fsync_directory("")  # whoever renamed it may have died before doing it
        except BaseException:  # raised again: no handle stays open, whatever ends it
            files.close(handle)
            raise
        self._close_active()
        self._handle, self.inode = handle, inode
        return self._adopt(record, rescan=True)

    def _check_still_there(self, name: str) -> None:
        """Check that a file begins with all that is known of the active segment."""
        files = self._files
        handle = files.open(name, "read")
        try:
            scanner = self._scanner(self._segment_start)
            feed_file(
                files, handle, scanner, end=self.place.offset, after_chunk=scanner.lines.clear
            )
        finally:
            files.close(handle)
        if scanner.place != self.place or scanner.damages:
            raise self._replaced("another file with other content stands at the path")

    def _replaced(self, reason: str) -> CorruptLogError:
        return self._corrupt(
            Damage(offset=self.place.offset, position=self.place.position, reason=reason)
        )

    def _corrupt(self, damage: Damage, name: str | None = None) -> CorruptLogError:
        return CorruptLogError(
            path=self._files.path(name or self._names.active),
            offset=damage.offset,
            position=damage.position,
            reason=damage.reason,
        )

    # --- reading ---

    def _scanner(self, place: Place, *, watch: int = -1) -> Scanner[Header]:
        return Scanner(
            decoder=header_decoder,
            foreign=_foreign_header,
            place=place,
            watch=watch,
            offsets=True,
        )

    def _read_sealed(
        self, scanner: Scanner[Header], first_position: int, segment_start: Place
    ) -> None:
        """Read a sealed segment, from where the scanner stands to its end.

        Args:
            scanner: stands in that segment.
            first_position: of the segment.
            segment_start: where that begins, if the scanner stands behind it.
        """
        files, names = self._files, self._names
        name = names.sealed(first_position)
        if scanner.place.offset == 0:
            segment_start = scanner.place
        if scanner.place.offset == 0 and scanner.place.position + 1 != first_position:
            reason = f"the segment that begins at position {scanner.place.position + 1} is missing"
            raise self._corrupt(
                Damage(offset=0, position=scanner.place.position + 1, reason=reason), name
            )
        handle = files.open(name, "read")
        try:
            size = files.fstat(handle).size
            self._index_file(scanner, handle, self.index.recent, end=size, segment=first_position)
        finally:
            files.close(handle)
        if scanner.damages:
            raise self._corrupt(scanner.damages[0], name)
        if scanner.rest_size or scanner.settled != scanner.place or scanner.counts != _NO_COUNTS:
            damage = Damage(
                offset=scanner.sound[0],
                position=scanner.sound[1] + 1,
                reason="a sealed segment holds a line that is not ours, or no whole commit",
            )
            raise self._corrupt(damage, name)
        end = self._segments.base_of(first_position) + size
        self.kept_index.save_while_reading(Mark(end, scanner.place, segment_start, Counts()))
        scanner.next_segment()

    def _index_file(
        self, scanner: Scanner[Header], handle: int, recent: RecentIndex, *, end: int, segment: int
    ) -> Place:
        base = self._segments.base_of(segment)

        def index_lines() -> None:
            if scanner.counts.foreign or scanner.counts.noise:
                recent.main_is_ours = False
            recent.add_lines(scanner.lines, scanner.offsets, base)
            scanner.lines.clear()
            scanner.offsets.clear()

        return feed_file(self._files, handle, scanner, end=end, after_chunk=index_lines)

    # --- adopting and recovering ---

    def _adopt(self, record: LockRecord | None, *, rescan: bool) -> LockRecord | None:
        """Verify and take over what stands behind the known end; recover what is torn.

        Args:
            record: the lock record as it stands.
            rescan: begin at the segment's first byte, not at the known end.
        """
        files, names = self._files, self._names
        handle = self.handle
        start = self._segment_start if rescan else self.place
        size = files.fstat(handle).size
        if record is not None and (record.inode, record.segment) != (self.inode, self.segment):
            record = None
        trusted = record is not None and record.state == "idle" and record.end == size
        if not trusted:
            self._distrust_cache()
            size = files.fstat(handle).size
        scanner, recent, before = self._scan_active(start, record, size)
        if trusted and record is not None and not _fits(record, scanner):
            # The record speaks of other bytes than these: it proves nothing, so nothing is durable
            # by its word.
            trusted = False
            self._distrust_cache()
            scanner, recent, before = self._scan_active(start, record, size)
        contradicted = False
        if not trusted:  # one that is trusted ends where the verified bytes do
            told, (record, contradicted) = (
                record,
                weigh_record(files, handle, record, scanner, start),
            )
            if told is not None and record is None and told.end > size:
                self._warn_of_stale(told, size)
        plan = plan_recovery(
            settled=scanner.settled,
            sound=scanner.sound,
            rest=scanner.rest,
            rest_offset=scanner.place.offset,
            size=size,
            record=record,
            contradicted=contradicted,
            damages=scanner.damages,
        )
        if plan.damage is not None:
            raise self._corrupt(plan.damage)
        tail = min(_TAIL_BYTES, plan.keep)
        last_bytes = files.pread(handle, tail, plan.keep - tail) + LF * plan.terminate
        quarantined = cut_and_terminate(
            files, names, handle, plan, still_true=lambda: self._is_still_alone(size)
        )
        end = scanner.settled
        if plan.terminate:
            scanner.finish_foreign_record()
            end = scanner.place
            recent.add_lines(scanner.lines, scanner.offsets, self.base)
        # Only now: what a second look does not find again must never have been noted.
        self.index.recent.absorb(recent)
        self.index.set_main_version(end.main_version)
        renewed = record is not None and record.state == "failed"
        if renewed:
            self._handle = move_to_new_inode(
                files,
                names,
                handle,
                size=end.offset,
                start_crc=self._segment_start.running,
                crc=end.running,
                still_true=lambda: self._is_still_alone(end.offset),
            )
            files.close(handle)
            self.inode = files.fstat(self.handle).inode
        self._note(plan, end, quarantined, renewed=renewed)
        self._count(scanner.counts, anew=rescan)
        self.place = self._durable = end
        self._before = before if before.offset < end.offset else self._before
        self.durable_position = end.position
        self._last_bytes = self._durable_bytes = last_bytes[-_TAIL_BYTES:]
        fresh = self.record("idle")
        return None if trusted else fresh

    def _warn_of_stale(self, record: LockRecord, size: int) -> None:
        _logger.warning(
            "%s: the lock record calls %d bytes durable, up to position %d, and the file has %d: "
            "it was cut, or another one was put in its place; it is taken as it is",
            self._files.path(self._names.active),
            record.end,
            record.position,
            size,
        )

    def _is_still_alone(self, size: int) -> bool:
        """Whether what was judged torn is not, after all, what somebody is just writing.

        Only a deleted lock file makes that possible.
        """
        return self._holds_lock() and self._files.fstat(self.handle).size == size

    def _distrust_cache(self) -> None:
        self._files.fsync(self.handle)
        self._files.drop_cache(self.handle)

    def _scan_active(
        self, start: Place, record: LockRecord | None, size: int
    ) -> tuple[Scanner[Header], RecentIndex, Place]:
        scanner = self._scanner(start, watch=-1 if record is None else record.start)
        recent = RecentIndex(self.index.recent.position)
        before = self._index_file(scanner, self.handle, recent, end=size, segment=self.segment)
        return scanner, recent, before

    def _note(self, plan: Plan, end: Place, quarantined: str | None, *, renewed: bool) -> None:
        done = self.recovery
        if not (plan.cut or plan.terminate or quarantined or renewed):
            self.recovery = msgspec.structs.replace(done, position=end.position)
            return
        path = self._files.path
        kept = done.quarantine
        if quarantined is not None:
            kept = (*kept, path(quarantined))
            _logger.warning(
                "%s: %d bytes of a torn commit were cut at byte %d and kept in %s",
                path(self._names.active),
                plan.cut,
                plan.keep,
                path(quarantined),
            )
        self.recovery = msgspec.structs.replace(
            done,
            position=end.position,
            cut_bytes=done.cut_bytes + plan.cut,
            quarantine=kept,
            terminated=done.terminated + plan.terminate,
            renewed=done.renewed + renewed,
        )

    def _count(self, counts: Counts, *, anew: bool) -> None:
        """Add up lines that are no events of ours; sealed segments hold none."""
        if counts == _NO_COUNTS and not anew:
            return
        done = Recovery() if anew else self.recovery
        self.recovery = msgspec.structs.replace(
            self.recovery,
            foreign=done.foreign + counts.foreign,
            noise=done.noise + counts.noise,
            void=done.void + counts.void,
            bad=done.bad + counts.bad,
        )

    @property
    def is_pure(self) -> bool:
        """Whether the active segment holds nothing but whole commits of ours."""
        done = self.recovery
        return not (done.foreign or done.noise or done.void or done.bad)


def _fits(record: LockRecord, scanner: Scanner[Header]) -> bool:
    place = scanner.settled
    return (place.offset, place.position, place.running) == (
        record.end,
        record.position,
        record.crc,
    )


def _foreign_header(line: ForeignLine, position: int, version: int) -> Header:
    del line
    return Header(version=version, position=position, commit=NO_COMMIT)
