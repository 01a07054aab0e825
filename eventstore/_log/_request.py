"""An append on its way to the log, and how it may end. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from eventstore._errors import CommitUnknownError, EventStoreError, StoreUnavailableError
from eventstore._events import Appended, ExpectedVersion

__all__ = ["Request", "remaker"]


class Request(msgspec.Struct, gc=False, eq=False):
    """One append on its way: what the caller encoded, and how it ended.

    Attributes:
        bodies: a line each, up to where the numbers begin.
        contents: the `type` value and the `data` member of each, as bytes, to compare with an
            earlier append of the same key.
        size: bytes of all bodies.
        appended: its result once it is acknowledged.
        failure: makes the error it ended with, a new one for each who asks.
    """

    stream: str
    bodies: list[bytes]
    contents: Sequence[tuple[bytes, bytes]]
    expected: ExpectedVersion
    key: str | None
    synced: bool
    size: int
    appended: Appended | None = None
    failure: Callable[[], EventStoreError] | None = None


def remaker(error: BaseException, path: str) -> Callable[[], EventStoreError]:
    """A way to raise the same error once per waiting caller, each with a traceback of its own."""
    if isinstance(error, MemoryError):
        return lambda: StoreUnavailableError(path=path, reason="no memory; nothing was recorded")
    if not isinstance(error, EventStoreError):
        cause = f"{type(error).__name__}: {error}"
        return lambda: CommitUnknownError(path=path, cause=cause)
    kind, text, facts, origin = type(error), str(error), dict(vars(error)), error.__cause__

    def remake() -> EventStoreError:
        twin = kind.__new__(kind)
        Exception.__init__(twin, text)
        vars(twin).update(facts)
        twin.__cause__ = origin
        return twin

    return remake
