"""From a file to a scanner, a MiB at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from eventstore._log._files import Files
from eventstore._log._scan import Place, Scanner

__all__ = ["CHUNK_BYTES", "feed_file"]

CHUNK_BYTES: Final = 2**20


def feed_file(
    files: Files, handle: int, scanner: Scanner[Any], *, end: int, after_chunk: Callable[[], None]
) -> Place:
    """Feed a file to a scanner, up to an offset.

    Returns:
        The settled place before the last chunk: a place near the end whose CRC is known.
    """
    offset = scanner.place.offset + scanner.rest_size
    before = scanner.settled
    while offset < end and (data := files.pread(handle, min(CHUNK_BYTES, end - offset), offset)):
        before = scanner.settled
        scanner.feed(data)
        offset += len(data)
        after_chunk()
    return before
