"""Reading a snapshot in verified pages, from its end.

As forwards, a cursor holds no handle between two pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Generic, NamedTuple

import msgspec

from eventstore._events import NO_COMMIT, E, Recorded
from eventstore._foreign import ForeignLine
from eventstore._log._block_start import foreign_start, seed_at_end, seed_in
from eventstore._log._feed import CHUNK_BYTES, feed_file
from eventstore._log._lines import LF, Header, has_suffix, header_decoder
from eventstore._log._log_files import LogFiles
from eventstore._log._reading import rising
from eventstore._log._scan import START, Place, Scanner
from eventstore._log._snapshot import Snapshot

__all__ = ["BackwardCursor", "ends_in_foreign_line"]

_TAIL_BLOCK_BYTES: Final = 16 * 1024  # where "last iteration" is found, nearly always
_LAST_LINE_BYTES: Final = 4_096
_BLOCK_BYTES_MAX: Final = 8 * 2**20  # beyond it, passing through from the head takes less memory


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
        return rising(scanner.lines)[::-1]


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
