"""Reading a snapshot in verified pages, from its beginning or from its end.

A cursor holds no handle between two pages, so whoever iterates may stop at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, NamedTuple

import msgspec

from eventstore._codec import Codec, RecordedDecoder
from eventstore._events import NO_COMMIT, E, Recorded
from eventstore._foreign import ForeignLine
from eventstore._log._block_start import foreign_start, seed_at_end, seed_in
from eventstore._log._feed import CHUNK_BYTES, chunk_size, feed_file
from eventstore._log._files import Files
from eventstore._log._lines import (
    LF,
    Header,
    has_suffix,
    header_decoder,
)
from eventstore._log._names import LogNames
from eventstore._log._scan import START, Damage, Place, Scanner
from eventstore._log._snapshot import Segment, Snapshot

__all__ = [
    "HEAD",
    "BackwardCursor",
    "Beginning",
    "ForwardCursor",
    "LogFiles",
    "ends_in_foreign_line",
]

_TAIL_BLOCK_BYTES: Final = 16 * 1024  # where "last iteration" is found, nearly always
_FIRST_CHUNK_BYTES: Final = 16 * 1024  # where "what was asked first" is found
_LAST_LINE_BYTES: Final = 4_096
_BLOCK_BYTES_MAX: Final = 8 * 2**20  # beyond it, passing through from the head takes less memory

_logger: Final = logging.getLogger("eventstore")


class Beginning(NamedTuple):
    """Where in a snapshot a forward reader begins, with all that it must know to begin there.

    Attributes:
        segment: which of the snapshot's segments.
        first_position: of that segment.
        place: a place in it that stays whatever comes.
        verified_position: of the last line of ours that fitted.
    """

    segment: int
    first_position: int
    place: Place
    verified_position: int


HEAD: Final = Beginning(segment=0, first_position=1, place=START, verified_position=0)


class LogFiles(Generic[E]):
    """What a cursor needs: the files, their names and the codec."""

    def __init__(self, files: Files, names: LogNames, codec: Codec[E]) -> None:
        self.files = files
        self.names = names
        self._codec = codec

    def scanner(
        self,
        place: Place,
        *,
        data: bool,
        numbers: bool = True,
        verified_position: int | None = None,
    ) -> Scanner[Recorded[E]]:
        """A scanner that decodes events."""
        types = self._codec.types

        def foreign(line: ForeignLine, position: int, version: int) -> Recorded[E]:
            return Recorded(
                event=types.decode(line.payload),
                timestamp=line.timestamp,
                version=version if numbers else 0,
                position=position if numbers else 0,
                data=line.data,
                foreign_timestamp=line.timestamp_text,
            )

        return Scanner(
            decoder=self._codec.decoder(data=data),
            foreign=foreign,
            place=place,
            verified_position=verified_position,
        )

    def decoder(self, *, data: bool) -> RecordedDecoder[E]:
        """A decoder of verified lines of ours."""
        return self._codec.decoder(data=data)

    def report(self, segment: Segment, damages: list[Damage]) -> None:
        """Say what reading goes around."""
        for damage in damages:
            _logger.error(
                "%s: damage at byte %d, position %d: %s; reading goes on behind it",
                self.files.path(segment.name),
                damage.offset,
                damage.position,
                damage.reason,
            )

    @contextmanager
    def opened(self, segment: Segment) -> Generator[int]:
        """Open a segment of a snapshot, which may have been sealed or renewed since."""
        handle = self._open(segment)
        try:
            yield handle
        finally:
            self.files.close(handle)

    def _open(self, segment: Segment) -> int:
        files = self.files
        handle = None
        try:
            handle = files.open(segment.name, "read")
            if files.fstat(handle).inode == segment.inode:
                return handle
        except FileNotFoundError:
            pass  # sealed, and the next active file is not made yet
        try:
            name = self._name_now(segment)
            return files.open(name, "read")
        finally:
            if handle is not None:
                files.close(handle)

    def _name_now(self, segment: Segment) -> str:
        """Where a segment is, whose file is no longer the one of that name."""
        files, names = self.files, self.names
        sealed = names.sealed_positions(files.listdir(""))
        for first_position in reversed(sealed):
            status = files.stat(names.sealed(first_position))
            if status is not None and status.inode == segment.inode:
                return names.sealed(first_position)
        # It was copied to a new inode after an error, with the same bytes (if not, the checksums
        # say so), and that copy may have been sealed since.
        later = [first_position for first_position in sealed if first_position > segment.after]
        if segment.first_position or not later:
            return segment.name
        return names.sealed(later[0])


class ForwardCursor(Generic[E]):
    """Pages from the beginning to the end of a snapshot; a later snapshot continues it.

    Args:
        log: the files.
        data: whether `data` is decoded.
        tail_record: show a complete foreign record that still lacks its LF.
        beginning: where to begin in the first snapshot; everything before is taken as verified.
    """

    def __init__(
        self,
        log: LogFiles[E],
        *,
        data: bool = True,
        tail_record: bool = True,
        beginning: Beginning = HEAD,
    ) -> None:
        self._log = log
        self._data = data
        self._tail_record = tail_record
        self._segment, self._first_position, place, verified_position = beginning
        self._scanner = log.scanner(place, data=data, verified_position=verified_position)
        self._chunk_bytes = min(_FIRST_CHUNK_BYTES, CHUNK_BYTES)
        self._shown = place.position  # of the last event given out, at least
        self._reported = 0
        self._doubt = False

    @property
    def damages(self) -> list[Damage]:
        """Damage to acknowledged data found so far, confirmed by a second look."""
        return self._scanner.damages

    @property
    def reached(self) -> Beginning:
        """Where another cursor would go on, once the caller has what was given out."""
        scanner = self._scanner
        verified_position = min(scanner.verified_position, scanner.settled.position)
        return Beginning(self._segment, self._first_position, scanner.settled, verified_position)

    @property
    def main_version(self) -> int:
        """The version of `main`, noise included, as far as was read."""
        return self._scanner.place.main_version

    def pages(self, snapshot: Snapshot) -> Iterator[list[Recorded[E]]]:
        """All pages up to the snapshot's end."""
        while (page := self.next_page(snapshot)) is not None:
            if page:
                yield page

    def next_page(self, snapshot: Snapshot) -> list[Recorded[E]] | None:
        """The next page, perhaps empty; None at the snapshot's end."""
        scanner = self._scanner
        if self._segment >= len(snapshot.segments):
            return None
        segment = snapshot.segments[self._segment]
        is_last = self._segment == len(snapshot.segments) - 1
        offset = scanner.place.offset + scanner.rest_size
        if offset >= segment.end:
            if is_last:
                self._let_go_of_tail()
                return None
            scanner.next_segment()
            self._segment += 1
            self._first_position = scanner.place.position + 1
            return []
        with self._log.opened(segment) as handle:
            size = min(self._chunk_bytes, segment.end - offset)
            data = self._log.files.pread(handle, size, offset)
        if not data:  # the file is shorter than it was: the snapshot is no longer true
            self._let_go_of_tail()
            return None
        scanner.feed(data)
        self._chunk_bytes = min(4 * self._chunk_bytes, chunk_size(scanner.rest_size, CHUNK_BYTES))
        if is_last and self._tail_record and offset + len(data) >= segment.end:
            scanner.finish_foreign_record()
        if scanner.damage_count > self._reported and self._looks_again(segment):
            return []
        page = _rising(scanner.lines) if scanner.damage_count else scanner.lines
        scanner.lines = []
        scanner.offsets.clear()
        if page and page[0].position <= self._shown:
            page = [recorded for recorded in page if recorded.position > self._shown]
        if page:
            self._shown = page[-1].position
        return page

    def _let_go_of_tail(self) -> None:
        """Forget what recovery may still cut, so that a later snapshot reads it anew."""
        scanner = self._scanner
        if scanner.rest_size or scanner.settled != scanner.place:
            self._scanner = self._log.scanner(
                scanner.settled,
                data=self._data,
                verified_position=scanner.verified_position,
            )
            self._reported = 0

    def _looks_again(self, segment: Segment) -> bool:
        """Begin again at the head before calling it damage: a writer may have cut a torn tail."""
        if not self._doubt:
            self._doubt = True
            self._segment, self._first_position = HEAD.segment, HEAD.first_position
            self._scanner = self._log.scanner(START, data=self._data)
            return True
        self._log.report(segment, self._scanner.damages[self._reported :])
        self._reported = self._scanner.damage_count
        return False


class _Stop(NamedTuple):
    """Where a block begins, with what a scanner must know to begin there."""

    segment: int
    place: Place
    verified_position: int


class BackwardCursor(Generic[E]):
    """Pages from the end of a snapshot to its beginning, newest event first.

    It begins at the end: a line of ours in the block that is read gives the numbers and the
    running CRC to verify the rest of the block by. Only where no line tells (a file of foreign
    lines whose numbers are wanted, or damage) is the log first passed through from its head.
    """

    def __init__(
        self, log: LogFiles[E], snapshot: Snapshot, *, data: bool = True, numbers: bool = True
    ) -> None:
        self._log = log
        self._snapshot = snapshot
        self._data = data
        self._numbers = numbers
        self._segment = len(snapshot.segments) - 1
        self._end: Place | None = None  # behind what is still to be shown; None: the very end
        self._block_bytes = _TAIL_BLOCK_BYTES
        self._stops: list[_Stop] | None = None  # where blocks begin, if passed through

    def pages(self) -> Iterator[list[Recorded[E]]]:
        """All pages."""
        while (page := self.next_page()) is not None:
            if page:
                yield page

    def next_page(self) -> list[Recorded[E]] | None:
        """The page before the last one, newest event first; None at the log's beginning."""
        if self._stops is None:
            page = self._page_from_end()
            if self._stops is None:
                return page
        return self._page_from_stop()

    # --- from the end, without knowing what is before ---

    def _page_from_end(self) -> list[Recorded[E]] | None:
        if self._segment < 0:
            return None
        segment = self._snapshot.segments[self._segment]
        end = segment.end if self._end is None else self._end.offset
        with self._log.opened(segment) as handle:
            while self._block_bytes <= _BLOCK_BYTES_MAX:
                start = max(0, end - self._block_bytes)
                data = self._log.files.pread(handle, end - start, start)
                seed = self._segment_start() if start == 0 else seed_in(data, start)
                if start == 0 or (seed is not None and seed.offset < end):
                    break
                if (
                    not self._numbers
                    and (seed := foreign_start(data, start)) is not None
                    and seed.offset < end
                ):
                    break
                self._block_bytes *= 2  # no commit ends in this block: it is larger than that
            else:
                self._pass_through()
                return None
        page = None if seed is None else self._scan_block(data[seed.offset - start :], seed)
        if page is None or seed is None:
            self._pass_through()
            return None
        self._block_bytes = min(4 * self._block_bytes, CHUNK_BYTES)
        self._end = seed
        if seed.offset == 0:
            self._segment -= 1
            self._end = seed if self._segment >= 0 else None
            if self._segment >= 0:
                last = self._snapshot.segments[self._segment]
                self._end = msgspec.structs.replace(seed, offset=last.end)
        page.reverse()
        return page

    def _scan_block(self, data: bytes, seed: Place) -> list[Recorded[E]] | None:
        """The events of a block, or None if it does not prove itself."""
        numbered = seed.position > 0 or seed.offset == 0
        scanner = self._log.scanner(seed, data=self._data, numbers=numbered)
        scanner.feed(data)
        at_end = self._end is None
        if at_end:
            scanner.finish_foreign_record()
        if scanner.damages or scanner.settled != scanner.place:
            return None
        if not at_end and not self._meets(scanner):
            return None
        if numbered and self._numbers and seed.main_version < 0 and scanner.counts.foreign:
            return None
        return scanner.lines

    def _meets(self, scanner: Scanner[Any]) -> bool:
        """Whether a block ends in just the place where the next one began."""
        end = self._end
        assert end is not None
        place = scanner.settled
        return place.offset == end.offset and (
            end.position == 0 or (place.position, place.running) == (end.position, end.running)
        )

    def _segment_start(self) -> Place | None:
        """The place at the segment's first byte, from the last line of the one before."""
        if self._segment == 0:
            return START
        before = self._snapshot.segments[self._segment - 1]
        with self._log.opened(before) as handle:
            size = min(CHUNK_BYTES, before.end)
            place = seed_at_end(self._log.files.pread(handle, size, before.end - size))
        return None if place is None else msgspec.structs.replace(place, offset=0)

    # --- with a first pass from the head ---

    def _pass_through(self) -> None:
        """Note a place in each chunk of the log, up to what was already shown."""
        stops: list[_Stop] = []
        scanner = Scanner(decoder=header_decoder, foreign=_unread, place=START)
        end = 0
        for number, segment in enumerate(self._snapshot.segments):
            is_known = number == self._segment and self._end is not None
            end = self._end.offset if is_known and self._end is not None else segment.end
            with self._log.opened(segment) as handle:
                offset = 0
                while offset < end:
                    stop = _Stop(number, scanner.settled, scanner.verified_position)
                    if not stops or stops[-1].place != stop.place or not offset:
                        stops.append(stop)
                    data = self._log.files.pread(handle, min(CHUNK_BYTES, end - offset), offset)
                    if not data:
                        break
                    scanner.feed(data)
                    scanner.lines.clear()
                    scanner.offsets.clear()
                    offset += len(data)
            self._log.report(segment, scanner.damages)
            scanner.damages.clear()
            if number == self._segment:
                break
            scanner.next_segment()
        if self._segment >= 0:
            end_place = msgspec.structs.replace(scanner.place, offset=end)
            stops.append(_Stop(self._segment, end_place, end_place.position))
        self._stops = stops

    def _page_from_stop(self) -> list[Recorded[E]] | None:
        stops = self._stops
        assert stops is not None
        if len(stops) < 2:  # noqa: PLR2004 - a block lies between two stops
            return None
        behind = stops.pop()
        stop = stops[-1]
        segment = self._snapshot.segments[stop.segment]
        end = behind.place.offset if behind.segment == stop.segment else segment.end
        with self._log.opened(segment) as handle:
            scanner = self._log.scanner(
                stop.place, data=self._data, verified_position=stop.verified_position
            )
            feed_file(self._log.files, handle, scanner, end=end, after_chunk=_nothing)
        if self._end is None:
            scanner.finish_foreign_record()
        self._end = stop.place
        return _rising(scanner.lines)[::-1]


def _rising(page: list[Recorded[E]]) -> list[Recorded[E]]:
    """A page around damage: what was counted beyond where a line of ours stands gives way to it."""
    kept: list[Recorded[E]] = []
    for recorded in reversed(page):
        if not kept or recorded.position < kept[-1].position:
            kept.append(recorded)
    return kept[::-1]


def ends_in_foreign_line(log: LogFiles[Any], snapshot: Snapshot) -> bool:
    """Whether the last line of a log is plainly not one of ours."""
    last = snapshot.segments[-1]
    with log.opened(last) as handle:
        start = max(0, last.end - _LAST_LINE_BYTES)
        data = log.files.pread(handle, last.end - start, start)
    return data.endswith(LF) and not has_suffix(data[data.rfind(LF, 0, -1) + 1 : -1])


def _nothing() -> None:
    """A block is one page: its lines stay with the scanner."""


def _unread(line: ForeignLine, position: int, version: int) -> Header:
    del line
    return Header(version=version, position=position, commit=NO_COMMIT)
