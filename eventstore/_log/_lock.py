"""Advisory locks on files, and the log's own with the record that lives in its file."""

from __future__ import annotations

import logging
import random
from typing import Final

from eventstore._errors import StoreBusyError
from eventstore._log._files import Files, OpenMode
from eventstore._log._lock_record import RECORD_BYTES, LockRecord, decode_record, encode_record
from eventstore._log._names import LogNames

__all__ = ["FileLock", "LogLock"]

# A holder keeps the lock for one commit (0.2 to 10 ms). The first tries are close together, so
# that several busy processes hand it over quickly; a long wait costs little.
_FIRST_PAUSE_SECONDS: Final = 0.000_05
_LONGEST_PAUSE_SECONDS: Final = 0.005

_logger: Final = logging.getLogger("eventstore")


class FileLock:
    """One handle of a lock file: excludes every other handle, in this process and in others.

    Args:
        name: of the lock file.
        create: make the lock file if it is missing; False for readers, who write nothing.
    """

    def __init__(self, files: Files, name: str, *, create: bool) -> None:
        self._files = files
        self._name = name
        self._create = create
        self._handle: int | None = None
        self._inode = 0

    def acquire(self, *, exclusive: bool, timeout_seconds: float) -> bool:
        """Take the lock.

        Returns:
            True when it is held; False if there is no lock file and none may be made.

        Raises:
            StoreBusyError: someone else held it until the deadline. It is never broken: a holder
                that is merely stopped may wake up.
            OSError: the lock file cannot be opened.
        """
        deadline = self._files.monotonic() + timeout_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            if self._handle is None and not self._open():
                return False
            handle = self._handle
            assert handle is not None
            if self._files.try_lock(handle, exclusive=exclusive):
                try:
                    current = self._is_current()
                except BaseException:  # raised again: everybody else would wait for it otherwise
                    self.close()
                    raise
                if current:
                    return True
                # Somebody deleted the lock file: whoever opened the new one is not excluded by
                # ours.
                self.close()
                continue
            if self._files.monotonic() >= deadline:
                raise StoreBusyError(
                    path=self._files.path(self._name),
                    holder_pid=self._files.lock_holder(handle),
                    waited_seconds=timeout_seconds,
                )
            self._files.pause(pause * random.uniform(0.5, 1.5))  # noqa: S311 - not a secret
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def release(self) -> None:
        """Give the lock back, at the latest by closing its handle."""
        if self._handle is None:
            return
        try:
            self._files.unlock(self._handle)
        except OSError as error:
            _logger.warning("%s: %s", self._files.path(self._name), error)
            self.close()

    def read(self, size: int) -> bytes:
        """The beginning of the lock file, which must be open."""
        assert self._handle is not None
        return self._files.pread(self._handle, size, 0)

    def write(self, data: bytes) -> None:
        """Replace the beginning of the lock file. The lock must be held exclusively."""
        assert self._handle is not None
        self._files.pwrite(self._handle, data, 0)

    def is_replaced(self) -> bool:
        """Whether the lock file at the path is no longer the one held here."""
        return self._handle is None or not self._is_current()

    def close(self) -> None:
        """Close the handle; the lock goes with it."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._files.close(handle)

    def _open(self) -> bool:
        mode: OpenMode = "update" if self._create else "read"
        try:
            handle = self._files.open(self._name, mode, create=self._create)
        except FileNotFoundError:
            if self._create:
                raise
            return False
        try:
            self._inode = self._files.fstat(handle).inode
        except BaseException:  # raised again: no handle stays open, whatever ends it
            self._files.close(handle)
            raise
        self._handle = handle
        return True

    def _is_current(self) -> bool:
        at_path = self._files.stat(self._name)
        return at_path is not None and at_path.inode == self._inode


class LogLock(FileLock):
    """The lock of a log, at the original's lock path, and the record in its file."""

    def __init__(self, files: Files, names: LogNames, *, create: bool) -> None:
        super().__init__(files, names.lock, create=create)
        self._text = b""
        self._record: LockRecord | None = None

    def read_record(self) -> LockRecord | None:
        """The record as it stands, with or without the lock; None if torn, absent or foreign."""
        if self._handle is None and not self._open():
            return None
        text = self.read(RECORD_BYTES)
        if text != self._text:
            self._text, self._record = text, decode_record(text)
        return self._record

    def write_record(self, record: LockRecord) -> None:
        """Replace the record. The lock must be held exclusively.

        It is never synced: after a power loss it is older than the log, never ahead of it.
        """
        text = encode_record(record)
        self.write(text)
        self._text, self._record = text, record
