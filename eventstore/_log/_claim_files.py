"""Claims on streams: one lock file for each, beside the log, held for the life of its owner."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec

from eventstore._claims import Owner, Ownership
from eventstore._errors import LoopClaimedError, StoreBusyError, StoreUnavailableError
from eventstore._log._files import Files
from eventstore._log._lock import FileLock
from eventstore._log._names import LogNames

__all__ = ["CARD_BYTES", "StreamClaim", "look_at_claims"]

CARD_BYTES: Final = 1_024  # always written whole, so that no shorter one leaves a rest
_HOST_CHARACTERS_MAX: Final = 100
_LOOK_SECONDS: Final = 0.25  # who looks holds the lock for a moment: a claimer outwaits that

_logger: Final = logging.getLogger("eventstore")


class _Card(msgspec.Struct, frozen=True):
    """What stands in the file: who holds it, or held it last."""

    stream: str
    pid: int
    host: str
    since: datetime
    released: bool = False


def look_at_claims(files: Files, names: LogNames, streams: Iterable[str]) -> dict[str, Ownership]:
    """Say who holds the claims on these streams; writes nothing and creates nothing."""
    try:
        listed = frozenset(files.listdir(names.owners))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found: dict[str, Ownership] = {}
    for stream in streams:
        name = names.owner(stream)
        if name.rpartition("/")[2] not in listed:
            continue
        try:
            ownership = _look(files, name, stream)
        except OSError as error:  # one odd file must not hide the others
            _logger.warning("%s: %s", files.path(name), error)
            continue
        if ownership is not None:
            found[stream] = ownership
    return found


def _look(files: Files, name: str, stream: str) -> Ownership | None:
    lock = FileLock(files, name, create=False)
    try:
        try:
            if not lock.acquire(exclusive=False, timeout_seconds=0):
                return None
            is_held = False
        except StoreBusyError:
            is_held = True
        card = _decode(lock.read(CARD_BYTES), stream)
    finally:
        lock.close()
    if card is None:
        return Ownership(is_held, None)
    return Ownership(is_held, _owner(card), was_released=card.released and not is_held)


class StreamClaim:
    """The claim of one owner on one stream: taken once in a thread, let go from anywhere."""

    def __init__(self, files: Files, names: LogNames, stream: str, owner: Owner) -> None:
        self._files = files
        self._names = names
        self._name = names.owner(stream)
        self._lock = FileLock(files, self._name, create=True)
        host = owner.host[:_HOST_CHARACTERS_MAX].encode(errors="replace").decode()
        self._card = _Card(stream, owner.pid, host, owner.since)
        self._guard = threading.Lock()
        self._is_over = False
        _claims.add(self)

    def take(self) -> Ownership | None:
        """Take the claim, and say what became of the one before.

        Raises:
            LoopClaimedError: somebody holds it.
            StoreUnavailableError: the file cannot be made or used.
        """
        try:
            with self._guard:
                return self._take()
        except OSError as error:
            raise StoreUnavailableError(
                path=self._files.path(self._name),
                reason=f"{error.strerror or error}; the stream cannot be claimed",
            ) from error
        finally:
            if self._is_over:
                self._close()

    def give_back(self) -> None:
        """Mark that the owner ends the claim by its own decision."""
        if self._is_over:
            return  # the parent's, in a forked child
        try:
            self._lock.write(_encode(msgspec.structs.replace(self._card, released=True)))
        except OSError as error:
            _logger.warning("%s: %s", self._files.path(self._name), error)

    def let_go(self) -> None:
        """Free the claim; a thread that is still taking it does so when it has it."""
        self._is_over = True
        self._close()

    def abandon(self) -> None:
        """In a forked child: close the handle. The lock is the parent's, and stays its."""
        self._is_over = True
        self._guard = threading.Lock()  # the parent's thread may have held the other one
        self._lock.close()

    def _take(self) -> Ownership | None:
        files, card = self._files, self._card
        files.mkdir(self._names.owners)
        try:
            self._lock.acquire(exclusive=True, timeout_seconds=_LOOK_SECONDS)
        except StoreBusyError as error:
            holder = _decode(self._lock.read(CARD_BYTES), card.stream)
            raise LoopClaimedError(
                stream=card.stream,
                path=files.path(self._name),
                pid=error.holder_pid if holder is None else holder.pid,
                host=None if holder is None else holder.host,
                since=None if holder is None else holder.since,
            ) from error
        content = self._lock.read(CARD_BYTES)
        before = _decode(content, card.stream)
        self._lock.write(_encode(card))
        if before is not None:
            return Ownership(is_held=False, owner=_owner(before), was_released=before.released)
        return Ownership(is_held=False, owner=None) if content else None

    def _close(self) -> None:
        if self._guard.acquire(blocking=False):
            try:
                self._lock.release()  # also where something else still has the descriptor
                self._lock.close()
            finally:
                self._guard.release()


_claims: Final[weakref.WeakSet[StreamClaim]] = weakref.WeakSet()


def _abandon_after_fork() -> None:
    for claim in list(_claims):
        claim.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_after_fork)


def _encode(card: _Card) -> bytes:
    data = msgspec.json.encode(card)
    assert len(data) < CARD_BYTES, "a stream's name and a host's are short"
    return data.ljust(CARD_BYTES - 1) + b"\n"


def _decode(data: bytes, stream: str) -> _Card | None:
    """The card in these bytes, or None if there is none, it is torn, or another stream's."""
    try:
        card = msgspec.json.decode(data, type=_Card)
    except (ValueError, RecursionError):
        return None
    return card if card.stream == stream and card.since.tzinfo is not None else None


def _owner(card: _Card) -> Owner:
    return Owner(card.pid, card.host, card.since)
