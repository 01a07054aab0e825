"""Reading and writing a run's own files through the seam; everything here runs in a thread."""

from __future__ import annotations

import io
from typing import Final

from eventstore._errors import RunContextError
from eventstore._runs._event_loop_log import (
    LINE_BYTES_MAX,
    EventLoopEntry,
    format_line,
    last_number,
)
from eventstore._runs._layout import RunLayout
from eventstore._runs._metadata import METADATA_BYTES_MAX, Invocation, plan_metadata
from eventstore._runs._workspace import Workspace

__all__ = ["append_entry", "read_file", "read_metadata", "replace_file", "write_metadata"]

_LOCK_TIMEOUT_SECONDS: Final = 10.0  # a holder writes one line: longer means it is stopped


def append_entry(workspace: Workspace, name: str, entry: EventLoopEntry, *, unix_ns: int) -> int:
    """Append an entry and return its number.

    The number follows the last whole record of the file, whoever wrote it: nothing is remembered
    between two entries, so a resume, a second process and a torn end are one case. A last line
    without LF is ended first; its bytes stay.

    Raises:
        RunContextError: the entry cannot be one line. Nothing was recorded.
        OSError: the system refused. Part of a line may be there; the next entry ends it.
    """
    format_line(entry, number=1, unix_ns=unix_ns)  # refuse before the file is made
    with workspace.open_append(name, lock_timeout_seconds=_LOCK_TIMEOUT_SECONDS) as file:
        previous, is_torn = _end(file)
        number = previous + 1
        line = format_line(entry, number=number, unix_ns=unix_ns)
        _write(file, b"\n" + line if is_torn else line)
    return number


def read_file(workspace: Workspace, name: str, size_max: int = -1) -> bytes | None:
    """A file's bytes, or its first so many; None if it is not there."""
    try:
        with workspace.open_read(name) as file:
            return file.read(size_max)
    except FileNotFoundError:
        return None


def replace_file(workspace: Workspace, name: str, content: bytes) -> None:
    """Write a whole file, durable, in the place of the one that had the name."""
    with workspace.replacing(name) as file:
        file.write(content)


def read_metadata(workspace: Workspace, name: str) -> bytes | None:
    """The bytes of `run.json`, or None if it is not there; refuses a giant."""
    content = read_file(workspace, name, METADATA_BYTES_MAX + 1)
    if content is not None and len(content) > METADATA_BYTES_MAX:
        raise RunContextError(
            f"{workspace.root / name} is over {METADATA_BYTES_MAX} bytes, which no run.json needs; "
            "it was left as it is; move it away"
        )
    return content


def write_metadata(workspace: Workspace, layout: RunLayout, invocation: Invocation) -> None:
    """Add a start to `run.json`; bytes that are no metadata are kept beside it first."""
    name = layout.run_metadata
    existing = read_metadata(workspace, name)
    plan = plan_metadata(existing, layout.run_id, invocation)
    if existing is not None and plan.damaged_suffix is not None:
        replace_file(workspace, name + plan.damaged_suffix, existing)
    replace_file(workspace, name, plan.content)


def _end(file: io.RawIOBase) -> tuple[int, bool]:
    """The number of the last whole record, and whether the last line has no LF."""
    size = file.seek(0, io.SEEK_END)
    length = 2 * LINE_BYTES_MAX  # any whole last line with the LF before it
    while True:
        start = max(0, size - length)
        file.seek(start)
        tail = _read(file, size - start)
        number = last_number(tail, from_start=start == 0)
        if number is not None:
            return number, bool(tail) and not tail.endswith(b"\n")
        length *= 4


def _read(file: io.RawIOBase, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size and (data := file.read(size - len(parts))):
        parts += data
    return bytes(parts)


def _write(file: io.RawIOBase, data: bytes) -> None:
    """Write it with one call; only a full disk or a signal makes it more."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) or 0 :]
