"""The lock record: one fixed-width text line in the lock file. Pure.

It tells the next holder, and readers, up to where the log is durable, so that neither has to look
at the whole file or sync it again. It is only ever a hint that has to prove itself: it has a
checksum of its own, names the inode it speaks of, and its `crc` must fit the bytes. The original
program ignores the lock file's content.
"""

from __future__ import annotations

import re
from typing import Final, Literal, cast

import msgspec

from eventstore._log._crc import crc32

__all__ = ["RECORD_BYTES", "LockRecord", "LockState", "decode_record", "encode_record"]

LockState = Literal["idle", "writing", "failed"]

_FORM: Final = re.compile(
    rb"(idle   |writing|failed ) (\d{20}) (\d{20}) (\d{20}) ([0-9a-f]{8}) (\d{20}) (\d{20}) "
    rb"([0-9a-f]{8}) ([0-9a-f]{8})\n"
)
RECORD_BYTES: Final = 7 + 5 * 21 + 3 * 9 + 1


class LockRecord(msgspec.Struct, frozen=True, gc=False):
    """What the last holder knew when it let go (`idle`), began to write, or failed.

    Attributes:
        state: `idle`; `writing` if its holder died or is at it; `failed` after an I/O error.
        inode: of the active segment.
        segment: first position of the active segment.
        start: the previous `end`; the bytes from here to `end` continue `start_crc` to `crc`.
        start_crc: running CRC at `start`.
        end: offset in the active segment up to which it is durable.
        position: of the last line before `end`.
        crc: running CRC at `end`.
    """

    state: LockState
    inode: int
    segment: int
    start: int
    start_crc: int
    end: int
    position: int
    crc: int


def encode_record(record: LockRecord) -> bytes:
    """The record as its line of `RECORD_BYTES` bytes."""
    text = b"%-7b %020d %020d %020d %08x %020d %020d %08x " % (
        record.state.encode(),
        record.inode,
        record.segment,
        record.start,
        record.start_crc,
        record.end,
        record.position,
        record.crc,
    )
    return text + b"%08x\n" % crc32(text)


def decode_record(data: bytes) -> LockRecord | None:
    """The record in these bytes, or None if there is none or it is torn."""
    match = _FORM.fullmatch(data[:RECORD_BYTES])
    if match is None or crc32(data[: RECORD_BYTES - 9]) != int(match[9], 16):
        return None
    state, inode, segment, start, start_crc, end, position, crc = match.groups()[:8]
    return LockRecord(
        state=cast("LockState", state.decode().rstrip()),
        inode=int(inode),
        segment=int(segment),
        start=int(start),
        start_crc=int(start_crc, 16),
        end=int(end),
        position=int(position),
        crc=int(crc, 16),
    )
