"""Every error of the write side, each carrying its facts and building its own sentence.

The three outcomes of an append (I5 in FORMAT.md) are three kinds of error or none: no error means
acknowledged; `CommitUnknownError` means unknown; every other one means nothing was recorded.
"""

from __future__ import annotations

from datetime import datetime

__all__ = [
    "BookmarkLostError",
    "CommitUnknownError",
    "CorruptLogError",
    "EventRefusedError",
    "EventStoreError",
    "EventTypesError",
    "LoopClaimedError",
    "RunContextError",
    "StoreBusyError",
    "StoreClosedError",
    "StorePoisonedError",
    "StoreUnavailableError",
    "VersionConflictError",
]


class EventStoreError(Exception):
    """Base of every error that loopledger raises on purpose."""


class VersionConflictError(EventStoreError):
    """The stream is not where the writer believed it to be; nothing was recorded."""

    def __init__(self, *, stream: str, expected: str, actual: int) -> None:
        super().__init__(
            f"stream {stream!r} is at version {actual}, expected {expected}; nothing was recorded"
        )
        self.stream = stream
        self.expected = expected
        self.actual = actual


class EventRefusedError(EventStoreError):
    """An append asks for something that could not be read back equal; nothing was recorded."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; nothing was recorded")
        self.reason = reason


class CommitUnknownError(EventStoreError):
    """An I/O error hit this commit after its first byte: its events may or may not survive.

    Reopen the store and ask, or append again with the same `key`.
    """

    def __init__(self, *, path: str, cause: str) -> None:
        super().__init__(
            f"{path}: the commit failed ({cause}); its events may or may not be on disk; "
            "reopen the store and look, or append again with the same key"
        )
        self.path = path
        self.cause = cause


class StorePoisonedError(EventStoreError):
    """An earlier write or sync failed, so this store appends no more; nothing was recorded."""

    def __init__(self, *, path: str, cause: str) -> None:
        super().__init__(
            f"{path}: nothing was recorded, because an earlier commit failed ({cause}); "
            "reopen the store to learn what survived"
        )
        self.path = path
        self.cause = cause


class StoreClosedError(EventStoreError):
    """The store was closed, or belongs to the process this one was forked from."""

    def __init__(self, *, path: str, reason: str = "the store is closed") -> None:
        super().__init__(f"{path}: {reason}; open it again")
        self.path = path
        self.reason = reason


class StoreBusyError(EventStoreError):
    """Someone else held the log's lock until the deadline; nothing was recorded."""

    def __init__(self, *, path: str, holder_pid: int | None, waited_seconds: float) -> None:
        holder = "another process" if holder_pid is None else f"process {holder_pid}"
        super().__init__(
            f"{path}: {holder} holds the lock; waited {waited_seconds:.1f} s; nothing was "
            "recorded; look what that process does, or wait longer (lock_timeout_seconds)"
        )
        self.path = path
        self.holder_pid = holder_pid
        self.waited_seconds = waited_seconds


class LoopClaimedError(EventStoreError):
    """Somebody else drives the stream; nothing was changed."""

    def __init__(
        self,
        *,
        stream: str,
        path: str,
        pid: int | None,
        host: str | None,
        since: datetime | None,
    ) -> None:
        holder = "another process" if pid is None else f"process {pid}"
        if host is not None:
            holder += f" on {host!r}"
        if since is not None:
            holder += f" since {since.isoformat(sep=' ', timespec='seconds')}"
        super().__init__(
            f"{path}: stream {stream!r} is driven by {holder}; look what that process does, or "
            "end it: its claim ends with it, and the file must stay"
        )
        self.stream = stream
        self.path = path
        self.pid = pid
        self.host = host
        self.since = since


class CorruptLogError(EventStoreError):
    """Acknowledged data is damaged or gone; the file was left exactly as it is."""

    def __init__(self, *, path: str, offset: int, position: int, reason: str) -> None:
        super().__init__(
            f"{path}: damage at byte {offset}, position {position}: {reason}; nothing was "
            "changed; read it with read_only=True and keep the file"
        )
        self.path = path
        self.offset = offset
        self.position = position
        self.reason = reason


class BookmarkLostError(EventStoreError):
    """The log is no longer the one that a bookmark was taken from."""

    def __init__(self, *, path: str, position: int) -> None:
        super().__init__(
            f"{path}: up to position {position} this is not the log that the bookmark was taken "
            "from: it was rolled back, replaced or changed; read it from its beginning"
        )
        self.path = path
        self.position = position


class StoreUnavailableError(EventStoreError):
    """The log cannot be used here: wrong kind of file, no permission, no space."""

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class EventTypesError(EventStoreError):
    """The registered event classes contradict each other or the annotated union."""


class RunContextError(EventStoreError):
    """A run directory cannot be created, found or named as asked; nothing outside was touched."""
