"""Copying what is undamaged of a log into a new one. The damaged log is only read.

The new log is built under another name, synced, verified, and renamed at the end: a directory that
holds a `.partial` file and no log is a salvage that was interrupted.
"""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import msgspec

from eventstore._errors import StoreUnavailableError
from eventstore._log._files import DiskFiles, Files, FileStat
from eventstore._log._findings import Finding
from eventstore._log._names import LogNames
from eventstore._log._rescue import Kept, Rescuer
from eventstore._log._salvage_logs import NewLog, OldLog
from eventstore._log._verification import Progress, Verification
from eventstore._log._verify import names_of, verify_files
from eventstore._timestamps import UnixTimeText, format_timestamp

__all__ = ["SALVAGE_STREAM", "PositionRange", "Salvage", "salvage_log"]

SALVAGE_STREAM: Final = "loopledger.salvage"
"""Where the new log says what it was made of."""
_LOCK_TIMEOUT_SECONDS: Final = 30.0
_RANGES_MAX: Final = 1_000  # of a record that must stay one line


class PositionRange(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Adjacent positions of the old log that are adjacent in the new one.

    Attributes:
        first: in the old log.
        last: in the old log.
        new_first: where `first` stands in the new log.
    """

    first: int
    last: int
    new_first: int


class Salvage(msgspec.Struct, frozen=True):
    """What a salvage kept, or would keep, and what it could not.

    Attributes:
        source: the damaged log.
        log: the new log; None if nothing was written.
        found: what is wrong in the damaged log.
        checksum: CRC-32 of all its bytes, its segments one after the other.
        events: that are kept; the new log holds one more, the record of the salvage.
        foreign: of these, the records of a foreign writer.
        partial: of these, those of commits that are no longer whole.
        unfinished: intact lines that are not kept: their commits never were whole.
        repeated: lines that are not kept: they stand there a second time.
        bad: lines that claim to be ours, and whose checksum or form is wrong.
        noise: lines that are no record of anybody.
        last_position: of the damaged log, as far as that can be told.
        ranges: which positions are kept, the first 1,000; what lies between them is not.
        range_count: how many there are.
    """

    source: str
    log: str | None
    found: Verification
    checksum: int
    events: int
    foreign: int
    partial: int
    unfinished: int
    repeated: int
    bad: int
    noise: int
    last_position: int
    ranges: tuple[PositionRange, ...]
    range_count: int


class _LogSalvaged(msgspec.Struct, frozen=True, tag_field="kind", tag="log_salvaged"):
    """The event that says where a salvaged log comes from; FORMAT.md has its fields."""

    source: str
    source_inode: int
    source_bytes: int
    source_modified: str
    source_crc: str
    loopledger: str
    events: int
    foreign: int
    partial: int
    unfinished: int
    repeated: int
    bad: int
    noise: int
    findings: Sequence[Finding]
    finding_count: int
    positions: Sequence[PositionRange]
    position_range_count: int


def salvage_log(
    path: str | os.PathLike[str],
    into: str | os.PathLike[str] | None,
    *,
    lock_timeout_seconds: float = _LOCK_TIMEOUT_SECONDS,
    progress: Progress | None = None,
) -> Salvage:
    """Copy every undamaged event of a log into a new log, and leave the old one alone. Blocks.

    Undamaged is a line of ours whose own checksum holds, and a foreign record that can be read.
    `ts`, `type`, `data`, `stream`, `key` and `meta` keep their bytes, known to this program or not;
    versions and positions are new. The last event of the new log, `log_salvaged` in the stream
    `loopledger.salvage`, says where it comes from and which positions became which.

    Args:
        path: the active `.jsonl` file of the damaged log.
        into: a directory that does not exist yet, or is empty; the new log gets the name of the
            old one there. None: write nothing, and say what would be kept.
        lock_timeout_seconds: how long to wait for a writer, where its word is needed.
        progress: told now and then how many bytes were done, and how many there are in all; each
            is read twice.

    Returns:
        What was kept and what was not. The new log is durable and was verified.

    Raises:
        StoreUnavailableError: there is no log at the path, it cannot be read, it changed
            meanwhile, or the new one cannot be written. There is no new log then.
        StoreBusyError: the end could not be judged, because a writer kept the lock.
    """
    directory, names = names_of(path)
    target = None if into is None else DiskFiles(os.path.abspath(into))  # noqa: PTH100 - as `path`
    try:
        return _salvage(
            DiskFiles(directory),
            names,
            target,
            lock_timeout_seconds=lock_timeout_seconds,
            progress=progress,
        )
    except OSError as error:
        reason = f"{error.strerror or error}; nothing was salvaged"
        raise StoreUnavailableError(
            path=error.filename or os.fspath(path), reason=reason
        ) from error


def _salvage(
    files: Files,
    names: LogNames,
    target: Files | None,
    *,
    lock_timeout_seconds: float,
    progress: Progress | None,
) -> Salvage:
    verify = partial(verify_files, lock_timeout_seconds=lock_timeout_seconds)
    found = verify(files, names, progress=progress and _half(progress, behind=False))
    old = OldLog(files, names, lock_timeout_seconds=lock_timeout_seconds)
    rescuer = Rescuer(durable_position=old.durable_position)
    new = NewLog(target, names)
    try:
        tell = progress and _half(progress, behind=True)
        for _ in old.read(rescuer, progress=tell):
            _move(rescuer, new)
        rescuer.finish()
        _move(rescuer, new)
        result = _result(rescuer, found, files.path(names.active), new.path, old.checksum)
        if target is not None:
            record = _record_of(result, old.status)
            new.write([Kept(record, SALVAGE_STREAM, 0, is_ours=True)])
            new.finish()
            _check(verify(target, LogNames(new.temporary)), result)
            new.publish()
    except BaseException:  # raised again: a half-written copy goes, also on Ctrl-C
        new.abandon()
        raise
    return result


def _half(progress: Progress, *, behind: bool) -> Progress:
    """Every byte is read twice: once to verify, once to copy."""
    return lambda done, total: progress(done + total * behind, 2 * total)


def _move(rescuer: Rescuer, new: NewLog) -> None:
    for group in rescuer.groups:
        new.write(group)
        for number, kept in enumerate(group, new.position - len(group) + 1):
            rescuer.ranges.add(kept.position, number)
    rescuer.groups.clear()


def _result(
    rescuer: Rescuer, verification: Verification, source: str, log: str | None, checksum: int
) -> Salvage:
    found, runs = rescuer.found, rescuer.ranges.runs
    return Salvage(
        source=source,
        log=log,
        found=verification,
        checksum=checksum,
        events=found.ours + found.foreign,
        foreign=found.foreign,
        partial=found.partial,
        unfinished=found.unfinished,
        repeated=found.repeated,
        bad=found.bad,
        noise=found.noise,
        last_position=found.position,
        ranges=tuple(PositionRange(*run) for run in runs[:_RANGES_MAX]),
        range_count=len(runs),
    )


def _record_of(result: Salvage, status: FileStat) -> bytes:
    modified = datetime.fromtimestamp(status.modified_ns // 10**9, UTC)
    event = _LogSalvaged(
        source=_text(result.source),
        source_inode=status.inode,
        source_bytes=result.found.bytes,
        source_modified=format_timestamp(modified),
        source_crc=f"{result.checksum:08x}",
        loopledger=_version(),
        events=result.events,
        foreign=result.foreign,
        partial=result.partial,
        unfinished=result.unfinished,
        repeated=result.repeated,
        bad=result.bad,
        noise=result.noise,
        findings=[
            msgspec.structs.replace(finding, file=_text(finding.file))
            for finding in result.found.findings
        ],
        finding_count=result.found.finding_count,
        positions=result.ranges,
        position_range_count=result.range_count,
    )
    now = UnixTimeText()(time.time_ns())
    return b'{"ts":"%b","type":%b,"stream":"%b"' % (
        now,
        msgspec.json.encode(event),
        SALVAGE_STREAM.encode(),
    )


def _text(path: str) -> str:
    """A path as text that can be encoded: file names may hold bytes that are no UTF-8."""
    return path.encode(errors="backslashreplace").decode()


def _version() -> str:
    try:
        return importlib.metadata.version("loopledger")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"


def _check(written: Verification, result: Salvage) -> None:
    """Refuse to give a log its name that does not read back as what was written."""
    if not written.is_sound or written.events != result.events + 1:
        msg = f"what was written does not read back: {written.events} events, {written.findings}"
        raise OSError(msg)
