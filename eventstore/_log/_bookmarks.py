"""Places in a log that outlive the process: noted by a reader, proved against the bytes later.

A bookmark's proof is what the scanner knew there: the segment, the offset, the running CRC. It is
believed if the line of ours that ends there claims that running CRC, which stands for every byte
before it: one short read, however long the log is. Where no line of ours ends there (in a file of
a foreign writer), the segment is summed up to there instead, at the speed of a CRC.
"""

from __future__ import annotations

import re
from typing import Any, Final

from eventstore._log._crc import crc32
from eventstore._log._feed import CHUNK_BYTES
from eventstore._log._lines import SUFFIX_BYTES, running_after
from eventstore._log._log_files import LogFiles
from eventstore._log._reading import HEAD, Beginning
from eventstore._log._scan import Place
from eventstore._log._snapshot import Segment, Snapshot
from eventstore._store import Bookmark

__all__ = ["bookmark_at", "prove"]

_NUMBER: Final = r"(-?[0-9]{1,18})"
_PROOF: Final = re.compile(rf"{_NUMBER}/{_NUMBER}/([0-9a-f]{{8}})/{_NUMBER}/{_NUMBER}", re.ASCII)


def bookmark_at(beginning: Beginning) -> Bookmark:
    """Note a place."""
    place = beginning.place
    return Bookmark(
        place.position,
        f"{beginning.first_position}/{place.offset}/{place.running:08x}/{place.main_version}"
        f"/{beginning.verified_position}",
    )


def prove(log: LogFiles[Any], snapshot: Snapshot, bookmark: Bookmark) -> Beginning | None:
    """Find the place of a bookmark, if the log is up to there the one that it was noted in."""
    parts = _PROOF.fullmatch(bookmark.proof)
    if parts is None:
        return None
    first_position, offset, main_version, verified = (int(parts[at]) for at in (1, 2, 4, 5))
    place = Place(offset, bookmark.position, int(parts[3], 16), main_version)
    if place == HEAD.place:
        return HEAD
    segments = snapshot.segments
    sealed = [segment.first_position for segment in segments if segment.first_position]
    if first_position in sealed:
        number = sealed.index(first_position)
    elif len(sealed) < len(segments) and first_position > max(sealed, default=0):
        number = len(sealed)
    else:
        return None
    if not (
        0 <= offset <= segments[number].end
        and (first_position <= place.position if offset else first_position == place.position + 1)
        and 0 <= verified <= place.position
        and place.running == _running_at(log, segments, number, offset)
    ):
        return None
    return Beginning(number, first_position, place, verified)


def _running_at(
    log: LogFiles[Any], segments: tuple[Segment, ...], number: int, offset: int
) -> int | None:
    """The running CRC at a place, of the bytes that are there now."""
    if not offset and not number:
        return 0
    if not offset:
        return _running_at(log, segments, number - 1, segments[number - 1].end)
    size = min(SUFFIX_BYTES + 1, offset)
    with log.opened(segments[number]) as handle:
        running = running_after(log.files.pread(handle, size, offset - size))
        if running is not None:
            return running
        running = _running_at(log, segments, number, 0)
        for start in range(0, offset, CHUNK_BYTES):
            chunk = log.files.pread(handle, min(CHUNK_BYTES, offset - start), start)
            running = None if running is None else crc32(chunk, running)
    return running
