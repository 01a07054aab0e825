"""Passing over what is plainly sound, with a handful of calls for each chunk. Pure.

Nearly all of a log is whole commits of ours that fit. Of those one CRC call verifies every byte of
a chunk, and the numbers of all its lines are compared at once, in loops that run in C. Whatever is
not plainly sound is left to a `Scanner`, which knows what to call it.
"""

from __future__ import annotations

from itertools import count
from typing import Final

import msgspec

from eventstore._events import MAIN_STREAM, Commit
from eventstore._log._commits import count_whole
from eventstore._log._crc import crc32
from eventstore._log._lines import LF, SUFFIX_BYTES, start_of_last
from eventstore._log._scan import Place

__all__ = ["CleanRun"]


class _Numbers(msgspec.Struct, frozen=True, gc=False):
    """What is compared of a line; decoding it is most of what verifying costs."""

    version: int
    position: int
    commit: Commit
    stream: str = MAIN_STREAM


_decode_lines: Final = msgspec.json.Decoder(_Numbers).decode_lines


class CleanRun:
    """Follows whole commits that fit, from a verified place to the first one that does not.

    Args:
        place: where to begin, between two commits.
        versions: of each stream before that place; kept up to date with `place`.

    Attributes:
        place: behind the last whole commit.
        offset: behind the last line taken, perhaps in the middle of a commit: what to read next.
        events: those before `place`.
    """

    def __init__(self, place: Place, versions: dict[str, int]) -> None:
        self.place = place
        self.offset = place.offset
        self.events = 0
        self._versions = versions
        self._position = place.position
        self._running = place.running
        # Of a commit whose end is in a later chunk: what it is, and the numbers of its lines.
        self._open: Commit | None = None
        self._open_streams: list[str] = []
        self._open_versions: list[int] = []

    def take(self, data: bytes) -> bool:
        """Take the lines at the front of the next bytes, all of them or none.

        Returns:
            Whether they are sound. If not, the run is over: it goes on behind `place`, otherwise.
        """
        end = data.rfind(LF) + 1
        cut = end - SUFFIX_BYTES - 1
        if cut <= 0:
            return False
        view = memoryview(data)
        try:
            lines = _decode_lines(view[:end])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return False
        position, lines_count = self._position, len(lines)
        expected = list(range(position + 1, position + lines_count + 1))
        if [line.position for line in lines] != expected:
            return False
        whole = count_whole(lines, position, self._open)
        if whole is None:
            return False
        # Up to the start of a commit that goes on behind these lines, then up to the last suffix.
        start = end if whole == lines_count else start_of_last(data, end, lines_count - whole)
        at_start = crc32(view[: min(start, cut)], self._running)
        at_cut = crc32(view[start:cut], at_start) if start < cut else at_start
        own = crc32(view[data.rfind(LF, 0, cut) + 1 : cut])
        if data[cut:end] != b',"crc":"%08x%08x"}\n' % (own, at_cut):
            return False
        streams = self._open_streams + [line.stream for line in lines]
        versions = self._open_versions + [line.version for line in lines]
        shown = whole and len(self._open_streams) + whole
        if not self._follow(streams[:shown], versions[:shown]):
            return False
        running = crc32(view[cut:end], at_cut)
        if whole:
            self.events += shown
            self.place = Place(
                offset=self.offset + start,
                position=position + whole,
                running=running if start == end else at_start,
                main_version=self._main_version(streams[:shown]),
            )
        self._open = None if whole == lines_count else lines[-1].commit
        self._open_streams, self._open_versions = streams[shown:], versions[shown:]
        self.offset += end
        self._position += lines_count
        self._running = running
        return True

    def _follow(self, streams: list[str], versions: list[int]) -> bool:
        """Whether each stream's versions go on without a gap; then they are noted."""
        known = self._versions
        following = {stream: count(known.get(stream, 0) + 1) for stream in set(streams)}
        if list(map(next, map(following.__getitem__, streams))) != versions:
            return False
        known.update(zip(streams, versions, strict=True))  # of each stream the last one stays
        return True

    def _main_version(self, streams: list[str]) -> int:
        return self._versions[MAIN_STREAM] if MAIN_STREAM in streams else self.place.main_version
