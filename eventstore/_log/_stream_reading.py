"""Reading one stream by the index: only its own lines, and what the index does not cover yet.

The index is believed as far as its lines prove it: each must be intact, of the stream, and of the
version that comes next. Otherwise `UntrueIndexError` ends the reading, and the caller goes on
without an index where it stopped.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final, Generic

import msgspec

from eventstore._events import MAIN_STREAM, E, Recorded
from eventstore._log._index_files import IndexFiles, log_has
from eventstore._log._index_run import BROKEN, IndexRun, Mark, hash_stream
from eventstore._log._lines import LF, LINE_BYTES_READ_MAX, is_intact
from eventstore._log._log_files import LogFiles
from eventstore._log._reading import Beginning, ForwardCursor
from eventstore._log._reading_backwards import BackwardCursor
from eventstore._log._snapshot import Snapshot

__all__ = ["StreamCursor", "UntrueIndexError", "find_stream"]

_PAGE_EVENTS: Final = 512
_LINE_BYTES: Final = 1_024  # what is read of a line at first, more behind a longer one
_NEAR_BYTES: Final = 16_384  # lines this near are read by one call
_TOGETHER_BYTES_MAX: Final = 2**20
_DENSE: Final = 8  # a stream with more than every eighth event is read faster with all the others


class UntrueIndexError(Exception):
    """What stands in the log is not what the index says."""


class _Found(msgspec.Struct, frozen=True):
    """A stream's events as the index knows them.

    Attributes:
        places: log offsets, in the order of versions.
        mark: where the index ends; what comes behind it has to be read.
    """

    places: array[int]
    mark: Mark


def find_stream(log: LogFiles[E], snapshot: Snapshot, stream: str) -> _Found | None:
    """Look a stream up in the index; None if reading without it is as good."""
    disk = IndexFiles(log.files, log.names)
    try:
        runs = disk.load(lambda mark: _fits(log, snapshot, mark))
        return _find(runs, stream) if runs else None
    except BROKEN:
        return None
    finally:
        disk.close()


def _find(runs: Sequence[IndexRun], stream: str) -> _Found | None:
    if stream == MAIN_STREAM and not all(run.head.main_is_ours for run in runs):
        return None  # foreign lines have no numbers of their own
    stream_hash = hash_stream(stream)
    parts = [(run, part) for run in runs if (part := run.stream(stream_hash)) is not None]
    if sum(part.size for _, part in parts) * _DENSE > runs[-1].head.end.place.position:
        return None
    places = array("Q")
    for run, part in parts:
        places += run.places(part, 0, part.size)
    return _Found(places, runs[-1].head.end)


def _fits(log: LogFiles[E], snapshot: Snapshot, mark: Mark) -> bool:
    number = _segment_of(snapshot, mark)
    if number is None:
        return False
    base = sum(segment.end for segment in snapshot.segments[:number])
    segment = snapshot.segments[number]
    if base + mark.place.offset != mark.log_offset or mark.place.offset > segment.end:
        return False
    with log.opened(segment) as handle:
        return log_has(log.files, handle, mark)


def _segment_of(snapshot: Snapshot, mark: Mark) -> int | None:
    """Which segment of a snapshot a mark lies in."""
    first_position = mark.segment_start.position + 1
    for number, segment in enumerate(snapshot.segments):
        is_active = segment.name == snapshot.segments[-1].name and not segment.first_position
        if segment.first_position == first_position or is_active:
            return number
    return None


class StreamCursor(Generic[E]):
    """Pages of one stream, oldest or newest event first.

    Args:
        log: the files.
        snapshot: how far to read.
        stream: its name.
        found: what the index knows of it.
        data: whether `data` is decoded.
    """

    def __init__(
        self, log: LogFiles[E], snapshot: Snapshot, stream: str, found: _Found, *, data: bool
    ) -> None:
        self._log = log
        self._snapshot = snapshot
        self._stream = stream
        self._found = found
        self._data = data
        self._line_bytes = _LINE_BYTES
        ends = accumulate((segment.end for segment in snapshot.segments), initial=0)
        self._bases = list(ends)[:-1]

    def pages(self, after: int, *, backwards: bool) -> Iterator[list[Recorded[E]]]:
        """All pages.

        Args:
            after: leave out this many events at the beginning.
            backwards: newest first.

        Raises:
            UntrueIndexError: the index is wrong about the rest.
        """
        if backwards:
            yield from self._behind_index(after, backwards=True)
            for end in range(len(self._found.places), after, -_PAGE_EVENTS):
                yield self._read(max(after, end - _PAGE_EVENTS), end)[::-1]
            return
        for start in range(after, len(self._found.places), _PAGE_EVENTS):
            yield self._read(start, min(len(self._found.places), start + _PAGE_EVENTS))
        yield from self._behind_index(after, backwards=False)

    def _behind_index(self, after: int, *, backwards: bool) -> Iterator[list[Recorded[E]]]:
        mark = self._found.mark
        if backwards:
            pages = BackwardCursor(self._log, self._snapshot, data=self._data).pages()
        else:
            number = _segment_of(self._snapshot, mark)
            assert number is not None
            place = mark.place
            first_position = mark.segment_start.position + 1
            beginning = Beginning(number, first_position, place, place.position)
            cursor = ForwardCursor(self._log, data=self._data, beginning=beginning)
            pages = cursor.pages(self._snapshot)
        if self._bases[-1] + self._snapshot.segments[-1].end == mark.log_offset:
            return
        for page in pages:
            wanted = [
                recorded
                for recorded in page
                if recorded.stream == self._stream
                and recorded.version > after
                and recorded.position > mark.place.position
            ]
            if wanted:
                yield wanted
            if backwards and page[-1].position <= mark.place.position:
                return

    # --- by their places ---

    def _read(self, start: int, end: int) -> list[Recorded[E]]:
        """The events of versions behind `start` up to `end`."""
        decode = self._log.decoder(data=self._data).decode
        events: list[Recorded[E]] = []
        for version, line in enumerate(self._lines(self._found.places[start:end]), start + 1):
            if not is_intact(line):
                raise UntrueIndexError
            try:
                recorded = decode(line)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise UntrueIndexError from error
            if (recorded.stream, recorded.version) != (self._stream, version):
                raise UntrueIndexError
            events.append(recorded)
        return events

    def _lines(self, places: Sequence[int]) -> Iterator[bytes]:
        """The lines at some places, without their LF."""
        at = 0
        while at < len(places):
            number = bisect.bisect_right(self._bases, places[at]) - 1
            base, segment = self._bases[number], self._snapshot.segments[number]
            if places[at] >= base + segment.end:
                raise UntrueIndexError
            with self._log.opened(segment) as handle:
                while at < len(places) and places[at] < base + segment.end:
                    first, last = places[at], _last_near(places, at)
                    size = places[last] - first + self._line_bytes
                    data = self._log.files.pread(handle, size, first - base)
                    for place in places[at : last + 1]:
                        yield self._line(handle, data[place - first :], place - base)
                    at = last + 1

    def _line(self, handle: int, data: bytes, offset: int) -> bytes:
        while (lf := data.find(LF)) < 0:
            size = 4 * max(len(data), _LINE_BYTES)
            if size > 4 * LINE_BYTES_READ_MAX:
                raise UntrueIndexError
            before, data = len(data), self._log.files.pread(handle, size, offset)
            if len(data) <= before:  # there is no more, and no LF
                raise UntrueIndexError
        self._line_bytes = max(_LINE_BYTES, lf + lf // 2)
        return data[:lf]


def _last_near(places: Sequence[int], at: int) -> int:
    """The last of the lines that are read together with this one."""
    last = at
    while (
        last + 1 < len(places)
        and 0 < places[last + 1] - places[last] <= _NEAR_BYTES
        and places[last + 1] - places[at] <= _TOGETHER_BYTES_MAX
    ):
        last += 1
    return last
