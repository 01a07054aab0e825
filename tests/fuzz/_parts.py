"""What an input is made of: several files in one byte string, and checksums that hold again.

A fuzzer that changes a byte of a line of ours breaks its checksum, and never gets past that check.
`mended` makes the checksums right again, so that the rules behind them are reached.
"""

from __future__ import annotations

import re
from typing import Final
from zlib import crc32

from eventstore._log._index_run import _HEAD_BYTES, _MAGIC, _PAGE_BYTES, _PAGE_USED
from eventstore._log._lines import LF, SUFFIX_BYTES, has_suffix
from eventstore._log._lock_record import RECORD_BYTES

__all__ = [
    "SEPARATOR",
    "joined",
    "mended",
    "mended_record",
    "mended_run",
    "parted",
    "parted_run",
]

SEPARATOR: Final = b"\xff\x00\xff"
"""Between the files of one input: no line that a writer ends looks like it."""
_RECORD_CHECKSUM_BYTES: Final = 9
_CHECK_BYTES: Final = 4
_FENCE_BYTES: Final = 8
_ENTRY_BYTES: Final = {b"streams": 40, b"keys": 16}
_COUNT: Final = re.compile(rb'"(streams|keys)":([0-9]{1,9})[,}]')


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


def parted_run(run: bytes) -> bytes:
    """A file of the index with its head as one line of JSON, so that numbers in it may grow."""
    return run[len(_MAGIC) : _HEAD_BYTES - _CHECK_BYTES].rstrip() + LF + run[_HEAD_BYTES:]


def mended_run(parts: bytes) -> bytes:
    """The file that `parted_run` took apart, with all its checksums made right."""
    text, _, rest = parts.partition(LF)
    head = _checked((_MAGIC + text).ljust(_HEAD_BYTES)[: _HEAD_BYTES - _CHECK_BYTES])
    pages: list[bytes] = []
    for name, count in _COUNT.findall(text):
        per_page = _PAGE_USED // _ENTRY_BYTES[name]
        for _ in range(min(-(-int(count) // per_page), len(rest) // _PAGE_BYTES)):
            page = _checked(rest[:_PAGE_USED], crc32(head) ^ (len(pages) + 1))
            pages.append(page.ljust(_PAGE_BYTES, b"\0"))
            rest = rest[_PAGE_BYTES:]
    fences = _FENCE_BYTES * len(pages)
    places = rest[fences + _CHECK_BYTES :]
    return b"".join([head, *pages, _checked(rest[:fences], crc32(head)), places])


def _checked(data: bytes, start: int = 0) -> bytes:
    return data + crc32(data, start).to_bytes(_CHECK_BYTES, "big")
