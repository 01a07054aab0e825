"""Carrying out a recovery plan, so that a crash at any point leaves it to be done again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from eventstore._log._crc import crc32
from eventstore._log._files import Files
from eventstore._log._lines import LF
from eventstore._log._names import LogNames
from eventstore._log._recovery import Plan

__all__ = ["PlanOutdatedError", "cut_and_terminate", "move_to_new_inode", "write_all"]

_COPY_BYTES: Final = 2**20


class PlanOutdatedError(Exception):
    """The end of the log is no longer what the plan was made for: look again."""


def write_all(files: Files, handle: int, data: bytes) -> None:
    """Write everything at the end of a file, looping on short writes.

    Raises:
        OSError: as the system says it; also if it accepts no byte at all.
    """
    view = memoryview(data)
    while view:
        written = files.write(handle, view)
        if written <= 0:
            msg = "the system accepted no byte of a write"
            raise OSError(msg)
        view = view[written:]


def cut_and_terminate(
    files: Files, names: LogNames, handle: int, plan: Plan, *, still_true: Callable[[], bool]
) -> str | None:
    """Set the torn bytes aside, durably, then cut them off; give a foreign record its LF.

    Args:
        files: the seam.
        names: the log's names.
        handle: the active file.
        plan: what to do.
        still_true: asked just before the cut, which cannot be taken back.

    Returns:
        The name of the quarantine file, or None if nothing was cut.

    Raises:
        PlanOutdatedError: the plan is no longer true. Nothing was cut.
        OSError: as the system says it.
    """
    kept = None
    if plan.cut:
        kept = _quarantine(files, names, handle, plan)
        if not still_true():
            raise PlanOutdatedError
        files.truncate(handle, plan.keep)
        files.fsync(handle)
    if plan.terminate:
        write_all(files, handle, LF)
        files.fsync(handle)
    return kept


def _quarantine(files: Files, names: LogNames, handle: int, plan: Plan) -> str:
    checksum = 0
    for offset in range(plan.keep, plan.keep + plan.cut, _COPY_BYTES):
        size = min(_COPY_BYTES, plan.keep + plan.cut - offset)
        checksum = crc32(files.pread(handle, size, offset), checksum)
    name = names.quarantined(plan.keep, plan.cut, checksum)
    if files.stat(name) is None:  # the same bytes have the same name: done before, by a crash
        files.mkdir(names.quarantine)
        temporary = f"{name}.tmp"
        if files.stat(temporary) is not None:
            files.unlink(temporary)
        _copy(files, handle, temporary, start=plan.keep, end=plan.keep + plan.cut)
        files.rename(temporary, name)
    _fsync_quarantine(files, names)
    return name


def _fsync_quarantine(files: Files, names: LogNames) -> None:
    # All three: whoever made the directories may have died before making them durable.
    for directory in (names.quarantine, names.directory, ""):
        files.fsync_directory(directory)


def move_to_new_inode(
    files: Files,
    names: LogNames,
    handle: int,
    *,
    size: int,
    start_crc: int,
    crc: int,
    still_true: Callable[[], bool],
) -> int:
    """Copy the active file to a new inode and keep the old one in quarantine.

    After an I/O error the system may drop pages it failed to write, report the error to somebody
    else, and let a rewrite of the same place succeed without effect. A new inode has none of that.

    Args:
        files: the seam.
        names: the log's names.
        handle: the active file.
        size: bytes to copy: those that were just re-read and verified.
        start_crc: running CRC at the file's beginning.
        crc: running CRC at `size`; the copy must arrive at it.
        still_true: asked just before the old file loses its name.

    Returns:
        A handle of the new file, which now is the active one.

    Raises:
        PlanOutdatedError: somebody else is at work; the old file is still the active one.
        OSError: the copy failed or differs; the old file is still the active one.
    """
    if files.stat(names.temporary) is not None:
        files.unlink(names.temporary)
    copied = _copy(files, handle, names.temporary, start=0, end=size, crc=start_crc)
    if copied != crc:
        msg = f"{files.path(names.active)}: the bytes changed while they were copied"
        raise OSError(msg)
    files.mkdir(names.quarantine)
    old = f"{names.quarantine}/{names.active}-inode-{files.fstat(handle).inode}.jsonl"
    if files.stat(old) is None:
        files.link(names.active, old)
    _fsync_quarantine(files, names)
    if not still_true():
        raise PlanOutdatedError
    files.rename(names.temporary, names.active)
    files.fsync_directory("")
    return files.open(names.active, "append")


def _copy(files: Files, source: int, target: str, *, start: int, end: int, crc: int = 0) -> int:
    """Copy a range into a new, synced file; return the CRC continued over it."""
    copy = files.open(target, "append", exclusive=True)
    try:
        for offset in range(start, end, _COPY_BYTES):
            data = files.pread(source, min(_COPY_BYTES, end - offset), offset)
            crc = crc32(data, crc)
            write_all(files, copy, data)
        files.fsync(copy)
    finally:
        files.close(copy)
    return crc
