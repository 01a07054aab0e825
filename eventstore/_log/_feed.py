"""From a file to a scanner, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from eventstore._log._files import Files
from eventstore._log._scan import Place, Scanner

__all__ = ["CHUNK_BYTES", "chunk_size", "feed_file"]

CHUNK_BYTES: Final = 2**18
"""What is decoded of it stays in a core's own cache until it is folded or indexed."""
_LONG_CHUNK_BYTES: Final = 2**20


def chunk_size(rest: int, least: int = CHUNK_BYTES) -> int:
    """How many bytes to read behind the beginning of a line: more if that is long already.

    With each chunk the beginning of the line is looked through again.
    """
    return max(least, min(rest, _LONG_CHUNK_BYTES))


def feed_file(
    files: Files, handle: int, scanner: Scanner[Any], *, end: int, after_chunk: Callable[[], None]
) -> Place:
    """Feed a file to a scanner, up to an offset.

    Returns:
        The settled place before the last chunk: a place near the end whose CRC is known.
    """
    offset = scanner.place.offset + scanner.rest_size
    before = scanner.settled
    while offset < end:
        size = min(chunk_size(scanner.rest_size), end - offset)
        data = files.pread(handle, size, offset)
        if not data:
            break
        before = scanner.settled
        scanner.feed(data)
        offset += len(data)
        after_chunk()
    return before
