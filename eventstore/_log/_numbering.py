"""The numbers and checksums of the lines of one commit. Pure."""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Sequence
from itertools import accumulate
from struct import Struct
from typing import Final

from eventstore._events import MAIN_STREAM
from eventstore._log._crc import crc32
from eventstore._log._request import Request
from eventstore._log._scan import Place

__all__ = ["number_lines"]

_pack_checksums: Final = Struct(">II").pack


def number_lines(
    accepted: Sequence[Request], place: Place, *, durable_position: int, base: int
) -> tuple[bytes, Place, list[int]]:
    """Number and seal the lines of admitted appends.

    Args:
        accepted: each with its result.
        place: where they are written.
        durable_position: of the last line before that is known to be synced.
        base: bytes of the log before the active file.

    Returns:
        The bytes of the commit, the place after it, and the log offset of each line.
    """
    position, running = place.position, place.running
    first = position + 1
    last = position + sum([len(request.bodies) for request in accepted])
    numbered = b'%%b,"version":%%d,"position":%%d,"commit":[%d,%d]' % (first, last)
    if durable_position != position:
        numbered += b',"durable":%d' % durable_position
    lines: list[bytes] = []
    put = lines.append
    main_version = place.main_version
    for request in accepted:
        assert request.appended is not None
        version = request.appended.version - len(request.bodies)
        for body in request.bodies:
            version += 1
            position += 1
            line = numbered % (body, version, position)
            running = crc32(line, running)
            suffix = b',"crc":"%b"}\n' % hexlify(_pack_checksums(crc32(line), running))
            running = crc32(suffix, running)
            put(line + suffix)
        if request.stream == MAIN_STREAM:
            main_version = version
    offsets = list(accumulate(map(len, lines), initial=base + place.offset))
    after = Place(offsets.pop() - base, position, running, main_version)
    return b"".join(lines), after, offsets
