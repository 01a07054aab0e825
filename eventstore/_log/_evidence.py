"""What a lock record is worth against the bytes it speaks of."""

from __future__ import annotations

from typing import Any

from eventstore._log._crc import crc32
from eventstore._log._feed import CHUNK_BYTES
from eventstore._log._files import Files
from eventstore._log._lines import SUFFIX_BYTES, running_after
from eventstore._log._lock_record import LockRecord
from eventstore._log._scan import Place, Scanner

__all__ = ["weigh_record"]


def weigh_record(
    files: Files, handle: int, record: LockRecord | None, scanner: Scanner[Any], start: Place
) -> tuple[LockRecord | None, bool]:
    """Compare a lock record with the file whose inode it names.

    Args:
        files: the seam.
        handle: the active file.
        record: the record, if its inode and segment are those of the file.
        scanner: has read the file from `start` to its end, watching the record's `start`.
        start: where the scanner began.

    Returns:
        The record, or None if it speaks of other bytes (a replaced or restored file); and
        whether the bytes it calls durable have changed.
    """
    if record is None:
        return None, False
    crc = record.start_crc
    for offset in range(record.start, record.end, CHUNK_BYTES):
        size = min(CHUNK_BYTES, record.end - offset)
        crc = crc32(files.pread(handle, size, offset), crc)
    if record.start < record.end and crc == record.crc:
        return record, False
    watched = scanner.watched
    if watched is None and record.start > 0:
        size = min(SUFFIX_BYTES + 1, record.start)
        watched = running_after(files.pread(handle, size, record.start - size))
    if watched != record.start_crc:
        return None, False
    if _only_foreign(scanner, start):
        return None, False
    return record, crc != record.crc


def _only_foreign(scanner: Scanner[Any], start: Place) -> bool:
    """Whether there is nothing but whole foreign records.

    Such a file may have been edited by hand, or be a new one that got the old one's inode: at its
    first byte any record fits, and nobody was promised anything of what it holds.
    """
    lines = scanner.place.position - start.position
    return 0 < lines == scanner.counts.foreign and not scanner.rest_size
