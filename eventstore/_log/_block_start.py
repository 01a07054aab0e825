"""Where reading may begin in a block of the log, told by the lines in it. Pure.

A line of ours that ends a commit names its position and the running CRC: all that is needed to
verify what stands behind it, whatever stands before.
"""

from __future__ import annotations

import msgspec

from eventstore._events import MAIN_STREAM
from eventstore._log._lines import (
    LF,
    SUFFIX_BYTES,
    Header,
    decode_header,
    has_suffix,
    is_intact,
    running_after,
)
from eventstore._log._scan import Place

__all__ = ["foreign_start", "seed_at_end", "seed_in"]


def seed_in(data: bytes, start: int) -> Place | None:
    """The first place in a block where one commit is known to end and the next line begins.

    Args:
        data: the block; its first bytes may be the end of a line.
        start: the block's offset.
    """
    at = data.find(LF) + 1
    is_far = False
    while at and (lf := data.find(LF, at)) >= 0:
        header = _fitting_header(data[at:lf])
        if header is not None:
            end = lf if is_far else _end_of_lines(data, lf, header.commit.last - header.position)
            last = data[data.rfind(LF, 0, end) + 1 : end]
            place = _place_after(last, start + end + 1)
            if place is not None and place.position == header.commit.last:
                return place
            is_far = True  # that commit is torn or damaged: look at every line
        at = lf + 1
    return None


def seed_at_end(data: bytes) -> Place | None:
    """The place behind the last line of a file that ends in a line of ours."""
    line = data[data.rfind(LF, 0, -1) + 1 : -1]
    return _place_after(line, 0)


def foreign_start(data: bytes, start: int) -> Place | None:
    """A place in a block that holds no line of ours: its numbers stay unknown."""
    first = data.find(LF) + 1
    if not first or first == len(data) or any(map(has_suffix, data[first:].split(LF))):
        return None
    return Place(offset=start + first, position=0, running=0, main_version=0)


def _end_of_lines(data: bytes, lf: int, lines: int) -> int:
    """Where the LF is that ends some more lines; the last one of the data if there are fewer."""
    for _ in range(lines):
        behind = data.find(LF, lf + 1)
        if behind < 0:
            break
        lf = behind
    return lf


def _place_after(line: bytes, offset: int) -> Place | None:
    header = _fitting_header(line)
    running = running_after(line[-SUFFIX_BYTES:] + LF)
    if header is None or running is None or header.position != header.commit.last:
        return None
    main_version = header.version if header.stream == MAIN_STREAM else -1
    return Place(offset, header.position, running, main_version)


def _fitting_header(line: bytes) -> Header | None:
    """What a line of ours says that fits its own checksum."""
    if not is_intact(line):
        return None
    try:
        return decode_header(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
