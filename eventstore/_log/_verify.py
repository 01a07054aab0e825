"""Checking a whole log without opening it for writing.

Nothing is written; the lock is taken, shared and for a moment, only where a reader takes it.
"""

from __future__ import annotations

import os
from typing import Final

from eventstore._errors import StoreUnavailableError
from eventstore._log._files import DiskFiles, Files
from eventstore._log._lock import LogLock
from eventstore._log._names import LogNames
from eventstore._log._snapshot import Snapshot, SnapshotTaker
from eventstore._log._verification import ChecksumVerification, Progress, Verification
from eventstore._log._verifier import Verifier

__all__ = ["names_of", "verify_checksums", "verify_files", "verify_log"]

_LOCK_TIMEOUT_SECONDS: Final = 30.0
_LOOKS_MAX: Final = 3  # a writer may recover the file while it is read; then look again


def verify_log(
    path: str | os.PathLike[str],
    *,
    lock_timeout_seconds: float = _LOCK_TIMEOUT_SECONDS,
    progress: Progress | None = None,
) -> Verification:
    """Read a whole log and check every byte and number of it, while others may write to it. Blocks.

    Args:
        path: the active `.jsonl` file.
        lock_timeout_seconds: how long to wait for a writer, where its word is needed.
        progress: told now and then how many bytes were checked, and how many there are in all;
            begins again at 0 if a writer recovered the log meanwhile. What it raises ends it.

    Returns:
        What is there and what is wrong, in the order of the log.

    Raises:
        StoreUnavailableError: there is no log at the path, or it cannot be read.
        StoreBusyError: the end could not be judged, because a writer kept the lock.
    """
    directory, names = names_of(path)
    return verify_files(
        DiskFiles(directory), names, lock_timeout_seconds=lock_timeout_seconds, progress=progress
    )


def verify_checksums(
    path: str | os.PathLike[str],
    *,
    lock_timeout_seconds: float = _LOCK_TIMEOUT_SECONDS,
    progress: Progress | None = None,
) -> ChecksumVerification:
    """Find every byte of a log that is not as it was written, several times as fast. Blocks.

    It asks nothing else: lines are not looked at one by one, so that events, streams and what no
    record is are not counted, and no numbers compared. What was malformed already when a later line
    was written is as it was, and not reported.

    Args:
        path: as `verify_log`.
        lock_timeout_seconds: the same.
        progress: the same.

    Returns:
        What is wrong, in the order of the log.

    Raises:
        StoreUnavailableError: as `verify_log`.
        StoreBusyError: the same.
    """
    directory, names = names_of(path)
    verifier, snapshot = _look(
        DiskFiles(directory),
        names,
        checksums_only=True,
        lock_timeout_seconds=lock_timeout_seconds,
        progress=progress,
    )
    return verifier.checksum_verification(snapshot)


def names_of(path: str | os.PathLike[str]) -> tuple[str, LogNames]:
    """The directory of a log, and the names in it.

    Raises:
        StoreUnavailableError: no log can have this name.
    """
    full: str = os.path.abspath(path)  # noqa: PTH100 - no symlink may be resolved here
    directory, name = os.path.split(full)
    names = LogNames(name)
    if names.lock in ("", ".", "..", name):
        raise StoreUnavailableError(path=full, reason="is no file name a log can have")
    return directory, names


def verify_files(
    files: Files,
    names: LogNames,
    *,
    lock_timeout_seconds: float,
    progress: Progress | None = None,
) -> Verification:
    """Check a log behind the seam; as `verify_log`."""
    verifier, snapshot = _look(
        files,
        names,
        checksums_only=False,
        lock_timeout_seconds=lock_timeout_seconds,
        progress=progress,
    )
    return verifier.verification(snapshot)


def _look(
    files: Files,
    names: LogNames,
    *,
    checksums_only: bool,
    lock_timeout_seconds: float,
    progress: Progress | None,
) -> tuple[Verifier, Snapshot]:
    """Look at a log, again if a writer recovered it meanwhile."""
    taker = SnapshotTaker(files, names, lock_timeout_seconds=lock_timeout_seconds)
    lock = LogLock(files, names, create=False)
    try:
        looks = 0
        while True:
            # The record is read first: what it calls durable must then be in the snapshot.
            record = lock.read_record()
            lock.close()
            snapshot = taker.take()
            if not snapshot.segments:
                raise StoreUnavailableError(
                    path=files.path(names.active), reason="there is no such file"
                )
            verifier = Verifier(files, names, checksums_only=checksums_only, progress=progress)
            verifier.verify(snapshot, record)
            looks += 1
            if verifier.is_sound or looks == _LOOKS_MAX or taker.take().end == snapshot.end:
                return verifier, snapshot
    except OSError as error:
        raise StoreUnavailableError(
            path=error.filename or files.path(names.active),
            reason=f"{error.strerror or error}; it cannot be read",
        ) from error
    finally:
        lock.close()
        taker.close()
