"""Reading a snapshot in verified pages, from its beginning.

A cursor holds no handle between two pages, so whoever iterates may stop at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, NamedTuple

from eventstore._events import E, Recorded
from eventstore._log._feed import CHUNK_BYTES, chunk_size
from eventstore._log._log_files import LogFiles
from eventstore._log._scan import START, Damage, Place
from eventstore._log._snapshot import Segment, Snapshot

__all__ = ["HEAD", "Beginning", "ForwardCursor", "rising"]

_FIRST_CHUNK_BYTES: Final = 16 * 1024  # where "what was asked first" is found


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
        settled, verified_position = self._scanner.settled, self._scanner.verified_position
        return Beginning(self._segment, self._first_position, settled, verified_position)

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
        page = rising(scanner.lines) if scanner.damage_count else scanner.lines
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


def rising(page: list[Recorded[E]]) -> list[Recorded[E]]:
    """A page around damage: what was counted beyond where a line of ours stands gives way to it."""
    kept: list[Recorded[E]] = []
    for recorded in reversed(page):
        if not kept or recorded.position < kept[-1].position:
            kept.append(recorded)
    return kept[::-1]
