"""What an input is made of: several files in one byte string, and checksums that hold again.

A fuzzer that changes a byte of a line of ours breaks its checksum, and never gets past that check.
`mended` makes the checksums right again, so that the rules behind them are reached.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from eventstore._log._lines import LF, SUFFIX_BYTES, has_suffix
from eventstore._log._lock_record import RECORD_BYTES

__all__ = ["SEPARATOR", "joined", "mended", "mended_record", "parted"]

SEPARATOR: Final = b"\xff\x00\xff"
"""Between the files of one input: no line that a writer ends looks like it."""
_RECORD_CHECKSUM_BYTES: Final = 9


def joined(*parts: bytes) -> bytes:
    """One input of several files."""
    return SEPARATOR.join(parts)


def parted(data: bytes, count: int) -> list[bytes]:
    """The files of an input; those that are missing are empty."""
    parts = data.split(SEPARATOR, count - 1)
    return parts + [b""] * (count - len(parts))


def mended(log: bytes) -> bytes:
    """The log with both checksums of every line that ends in the form of ours made right."""
    lines: list[bytes] = []
    running = 0
    for line in log.split(LF):
        end = line
        if has_suffix(line):
            body = line[:-SUFFIX_BYTES]
            end = b'%b,"crc":"%08x%08x"}' % (body, crc32(body), crc32(body, running))
        running = crc32(end + LF, running)
        lines.append(end)
    return LF.join(lines)


def mended_record(record: bytes) -> bytes:
    """The lock record with its own checksum made right, if it has the length of one."""
    if len(record) < RECORD_BYTES:
        return record
    text = record[: RECORD_BYTES - _RECORD_CHECKSUM_BYTES]
    return text + b"%08x\n" % crc32(text)
