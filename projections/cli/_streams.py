"""The standard streams, also where they are closed or lead to a full disk.

Output that does not arrive is an `OutputError`, whoever printed it, and so told apart from all
other errors of the operating system. Complaints that do not arrive are dropped: nobody is left to
hear of it, and the exit code tells.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["OutputError", "complain", "discard", "guard_streams"]


class OutputError(Exception):
    """What was printed on stdout could not be written; a closed pipe stays a `BrokenPipeError`."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output could not be written: {error.strerror}")


class _Output(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(error) from error


def guard_streams() -> None:
    """Make stdout raise `OutputError`, and open what is closed, before any file takes its place.

    As in C the lowest free number is the next file's: with stdout closed, a log might become it.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        # Open for reading: writing fails as it does on a closed stream.
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    output = sys.stdout
    is_unbuffered = isinstance(output, io.TextIOWrapper) and output.write_through
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(output.fileno(), "w", closefd=False)),
        encoding=output.encoding,
        errors="backslashreplace",  # a terminal may not be UTF-8; an escape is better than nothing
        line_buffering=output.isatty() or is_unbuffered,
    )


def complain(line: str) -> None:
    """Print a line on stderr."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Lead a stream nowhere; otherwise the interpreter tries once more to flush, and complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
