"""Passing over a log by its running checksum alone. Pure.

The checksum that a line carries covers every byte of the log before it. So of a chunk only the last
line is looked at: if what it carries is what the bytes give, all of them are as they were when that
line was written. Whether they made sense then is not asked; `_clean_run` asks it.
"""

from __future__ import annotations

import msgspec

from eventstore._log._crc import crc32
from eventstore._log._lines import LF, SUFFIX_BYTES, Header, decode_header
from eventstore._log._scan import Place

__all__ = ["ChainRun"]


class ChainRun:
    """Follows the running checksum from a verified place to the first chunk that breaks it.

    Args:
        place: where to begin, between two commits.

    Attributes:
        place: behind the last line taken that ends a commit. Its `main_version` is unknown.
        offset: behind the last line taken: what to read next.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.offset = place.offset
        self._running = place.running

    def take(self, data: bytes) -> bool:
        """Take the lines at the front of the next bytes, all of them or none.

        Returns:
            Whether the last one proves them. If not, the run is over: it goes on behind `place`,
            otherwise.
        """
        end = data.rfind(LF) + 1
        cut = end - SUFFIX_BYTES - 1
        if cut <= 0:
            return False
        view = memoryview(data)
        at_cut = crc32(view[:cut], self._running)
        start = data.rfind(LF, 0, cut) + 1
        if data[cut:end] != b',"crc":"%08x%08x"}\n' % (crc32(view[start:cut]), at_cut):
            return False
        header = _decoded(data[start:end])
        if header is None:
            return False
        self.offset += end
        self._running = crc32(view[cut:end], at_cut)
        if header.position == header.commit.last:
            self.place = Place(self.offset, header.position, self._running, main_version=-1)
        return True


def _decoded(line: bytes) -> Header | None:
    try:
        return decode_header(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
