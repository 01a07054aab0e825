"""One commit: lock, look, check, write, sync, say so. All of it is one hop to a thread.

The order of the steps is the durability of the log (FORMAT.md, "The commit"): nothing is
acknowledged before its sync, nothing is written behind bytes that were not verified, and after
any error from the first byte on the store appends no more.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

from eventstore._errors import (
    CommitUnknownError,
    CorruptLogError,
    EventStoreError,
    StoreClosedError,
    StorePoisonedError,
    StoreUnavailableError,
)
from eventstore._log._admission import Admission
from eventstore._log._files import Files
from eventstore._log._index import IndexDamagedError
from eventstore._log._index_keeper import INDEX_BYTES
from eventstore._log._lock import LogLock
from eventstore._log._names import LogNames
from eventstore._log._numbering import number_lines
from eventstore._log._recovery import Recovery
from eventstore._log._repair import PlanOutdatedError, write_all
from eventstore._log._request import Request, remaker
from eventstore._log._tail import Tail

__all__ = ["Committer"]

_logger: Final = logging.getLogger("eventstore")


class Committer:
    """The writing half of a store. Its calls exclude each other; each may block on the disk."""

    def __init__(
        self,
        files: Files,
        names: LogNames,
        *,
        lock_timeout_seconds: float,
        segment_bytes_max: int | None,
        index_bytes: int = INDEX_BYTES,
    ) -> None:
        self._files = files
        self._names = names
        self._lock = LogLock(files, names, create=True)
        self._lock_timeout_seconds = lock_timeout_seconds
        self._segment_bytes_max = segment_bytes_max
        self._tail = Tail(files, names, holds_lock=self._holds_lock, index_bytes=index_bytes)
        self._admission = Admission(files, names, self._tail)
        self._guard = threading.Lock()
        self._attached = False
        self._poison: str | None = None
        self._closed: str | None = None

    @property
    def position(self) -> int:
        """The log's position as last known here."""
        return self._tail.place.position

    @property
    def recovery(self) -> Recovery:
        """What opening and adopting found and did."""
        return self._tail.recovery

    @property
    def lags(self) -> bool:
        """Whether something written here is not synced yet."""
        return self._poison is None and self._tail.durable_position < self._tail.place.position

    def open(self) -> None:
        """Attach to the log, recovering what a dead writer left.

        Raises:
            CorruptLogError: acknowledged data is damaged.
            StoreBusyError: the lock was held until the deadline.
            StoreUnavailableError: the file or its directory cannot be used.
        """
        try:
            self._files.mkdir("")
            with self._exclusive():
                pass
        except OSError as error:
            self.close()
            raise self._unavailable(error) from error
        except BaseException:  # raised again: a half-opened log keeps no handle
            self.close()
            raise

    def commit(self, requests: Sequence[Request]) -> None:
        """Record what these appends ask for as one commit, and note in each how it ended."""
        try:
            with self._exclusive():
                accepted = self._check_twice(requests)
                synced = any(request.synced for request in requests)
                if accepted:
                    if self._must_seal():
                        self._sync()
                        self._lock.write_record(self._tail.seal())
                    self._write(accepted, synced=synced)
                elif synced and self.lags:
                    self._sync()
        except BaseException as error:
            remake = remaker(error, self._files.path(self._names.active))
            for request in requests:
                if request.failure is None:
                    request.appended, request.failure = None, remake
            if not isinstance(error, (EventStoreError, MemoryError)):
                raise  # a mistake of ours ends the store, and nobody takes it for an answer

    def version(self, stream: str) -> int:
        """How many events the stream holds now, those of other processes included.

        Raises:
            EventStoreError: as `open`.
        """
        with self._guard, contextlib.suppress(IndexDamagedError, OSError):
            if self._attached and self._closed is None and self._is_up_to_date():
                return self._tail.index.version(stream)
        with self._exclusive():
            try:
                return self._tail.index.version(stream)
            except IndexDamagedError:
                self._reindex()
                return self._tail.index.version(stream)

    def sync(self) -> None:
        """Make everything written here durable.

        Raises:
            StorePoisonedError: an earlier commit failed.
            CommitUnknownError: this sync failed.
        """
        if self.lags:
            with self._exclusive():
                self._sync()

    @property
    def is_untidy(self) -> bool:
        """Whether there is something to do for the index when nobody waits."""
        return self._poison is None and self._tail.kept_index.is_untidy

    def save_index(self, *, closing: bool = False) -> None:
        """Write down the index, if enough came since the last time. Takes no lock."""
        with self._guard:
            if self._closed is None and self._poison is None:
                kept, mark = self._tail.kept_index, self._tail.mark()
                (kept.save_at_close if closing else kept.save)(mark)

    def tidy_index(self) -> None:
        """Join the index's files, if there are many. Takes no lock."""
        with self._guard:
            if self._closed is None:
                self._tail.kept_index.merge()

    def close(self, reason: str = "the store is closed") -> None:
        """Close every handle. Does not sync.

        A thread that is still at work here, because its caller was cancelled, does it when it is
        done: a handle must never be closed under a system call.
        """
        self._closed = reason
        self._close_handles()

    def _close_handles(self) -> None:
        if self._guard.acquire(blocking=False):
            try:
                self._tail.close()
                self._lock.close()
            finally:
                self._guard.release()

    def abandon(self, reason: str) -> None:
        """In a forked child: close the handles without touching the lock of the parent."""
        self._guard = threading.Lock()  # its holder, if any, is a thread of the parent
        self.close(reason)

    # --- the lock ---

    def _holds_lock(self) -> bool:
        """Whether the lock file is still there: without it, somebody else may be at work too."""
        return not self._lock.is_replaced()

    @contextmanager
    def _exclusive(self) -> Generator[None]:
        """Hold the lock, with everything others wrote adopted."""
        try:
            with self._guard:
                if self._closed is not None:
                    path = self._files.path(self._names.active)
                    raise StoreClosedError(path=path, reason=self._closed)
                if self._poison is not None:
                    raise self._poisoned()
                self._lock_and_adopt()
                try:
                    yield
                finally:
                    self._lock.release()
        except OSError as error:  # before the first byte of a commit
            raise self._unavailable(error) from error
        finally:
            if self._closed is not None:
                self._close_handles()

    def _lock_and_adopt(self) -> None:
        while True:
            self._lock.acquire(exclusive=True, timeout_seconds=self._lock_timeout_seconds)
            try:
                self._adopt()
            except PlanOutdatedError:  # the lock file was deleted: begin again under the new one
                self._lock.release()
            except BaseException:  # raised again: nobody else would get the lock otherwise
                self._lock.release()
                raise
            else:
                return

    def _unavailable(self, error: OSError) -> StoreUnavailableError:
        path = error.filename or self._files.path(self._names.active)
        reason = f"{error.strerror or error}; nothing was recorded"
        return StoreUnavailableError(path=path, reason=reason)

    def _is_up_to_date(self) -> bool:
        """Whether the log ends, durably, where this store knows it to; without the lock."""
        record = self._lock.read_record()
        status = self._files.stat(self._names.active)
        tail = self._tail
        return (
            record == tail.record("idle")
            and status is not None
            and (status.inode, status.size) == (tail.inode, tail.place.offset)
        )

    def _adopt(self) -> None:
        record = self._lock.read_record()
        tail = self._tail
        try:
            renewed = tail.catch_up(record) if self._attached else tail.attach(record)
        except OSError as error:
            if self.lags:  # the failed sync may have been that of our own `written` events
                self._fail(error)
                raise self._poisoned() from error
            raise
        except CorruptLogError as error:
            if self.lags and tail.durable_part_stands():
                self._poison = (
                    f"events that were only written, not synced, are gone: {error.reason}"
                )
                raise self._poisoned() from error
            raise
        self._attached = True
        if renewed is not None and renewed != record:
            self._lock.write_record(renewed)

    def _reindex(self) -> None:
        """Read the whole log, because the index cannot be read."""
        _logger.warning("%s: the index is damaged; reading the log", self._files.path(""))
        renewed = self._tail.reindex(self._lock.read_record())
        if renewed is not None:
            self._lock.write_record(renewed)

    # --- checking ---

    def _check_twice(self, requests: Sequence[Request]) -> list[Request]:
        """Check; if the index turns out to be damaged, read the log and check again."""
        try:
            return self._admission.admit(requests)
        except IndexDamagedError:
            self._reindex()
            for request in requests:
                request.appended = request.failure = None
            return self._admission.admit(requests)

    # --- writing ---

    def _must_seal(self) -> bool:
        tail = self._tail
        return (
            self._segment_bytes_max is not None
            and tail.place.offset >= self._segment_bytes_max
            and tail.is_pure
        )

    def _write(self, accepted: list[Request], *, synced: bool) -> None:
        """Write one commit; from its first byte on every error poisons the store."""
        tail = self._tail
        data, end, offsets = number_lines(
            accepted, tail.place, durable_position=tail.durable_position, base=tail.base
        )
        self._lock.write_record(tail.record("writing"))
        try:
            write_all(self._files, tail.handle, data)
            if synced:
                self._files.fdatasync(tail.handle)
            self._check_size(end.offset)
        except BaseException as error:
            self._fail(error)
            raise CommitUnknownError(
                path=self._files.path(self._names.active), cause=self._poison or ""
            ) from error
        tail.advance(end, data)
        if synced:
            tail.mark_durable()
        self._note_idle()
        add, first = tail.index.recent.add_append, 0
        for request in accepted:
            last = first + len(request.bodies)
            add(request.stream, request.key, offsets[first:last], request.appended)
            first = last

    def _sync(self) -> None:
        if not self.lags:
            return
        tail = self._tail
        try:
            self._files.fdatasync(tail.handle)
            self._check_size(tail.place.offset)
        except BaseException as error:
            self._fail(error)
            raise CommitUnknownError(
                path=self._files.path(self._names.active), cause=self._poison or ""
            ) from error
        tail.mark_durable()
        self._note_idle()

    def _note_idle(self) -> None:
        try:
            self._lock.write_record(self._tail.record("idle"))
        except OSError as error:
            # The commit stands. The record stays `writing`: the next holder looks for itself.
            _logger.warning("%s: %s", self._files.path(self._names.lock), error)

    def _check_size(self, expected: int) -> None:
        """One comparison that catches a lying write, an uninvited writer and a replaced file."""
        status = self._files.stat(self._names.active)
        if status is None or (status.inode, status.size) != (self._tail.inode, expected):
            found = "no file" if status is None else f"inode {status.inode}, {status.size} bytes"
            msg = (
                f"after the write the path holds {found}, "
                f"expected inode {self._tail.inode}, {expected} bytes"
            )
            raise OSError(msg)
        if not self._holds_lock():
            msg = "the lock file was deleted during the commit, so others may have cut it off"
            raise OSError(msg)

    def _poisoned(self) -> StorePoisonedError:
        path = self._files.path(self._names.active)
        return StorePoisonedError(path=path, cause=self._poison or "")

    def _fail(self, error: BaseException) -> None:
        """Poison the store and tell the next holder to distrust the page cache."""
        self._poison = f"{type(error).__name__}: {error}"
        try:
            self._lock.write_record(self._tail.record("failed"))
        except OSError as second:
            # The record stays `writing`, which makes the next holder distrust the cache as well.
            self._poison += f"; and the lock record could not be written: {second}"
