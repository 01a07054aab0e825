"""One history in which a chosen call of the seam fails, once or from then on.

Two processes take turns, a foreign writer comes by, segments are sealed, one writer dies within a
commit and another recovers it. Every append has to end in one of three ways, and what the log
holds afterwards, also after a power cut, has to fit them.
"""

from __future__ import annotations

import errno
import os
from typing import Final

import msgspec

import eventstore as es
from eventstore._log._commit import Committer
from eventstore._log._request import Request
from tests.crash._crash_states import CrashStates
from tests.crash._disk import KilledError, SimulatedDisk, SimulatedFiles
from tests.crash._model import (
    ACTIVE,
    LOCK_SECONDS,
    NAMES,
    Expected,
    Item,
    Reader,
    explain,
    foreign_record,
    request,
)

__all__ = ["FAULTS", "Fault", "FaultError", "sweep"]

_SEGMENT_BYTES: Final = 900
_CUTS: Final = 4
_OPENS: Final = 3
_EXTRA: Final = 4_000_000_000
_CALLS_MAX: Final = 2_000  # the history makes a few hundred calls

_CHANGES: Final = frozenset({"open", "write", "pwrite", "mkdir", "rename", "link"})
_NEVER_FAIL: Final = frozenset({"close"})
_SYNCS: Final = frozenset({"fdatasync", "fsync", "fsync_directory"})


class FaultError(AssertionError):
    """An outcome and the log contradict each other."""


class Fault(msgspec.Struct, frozen=True):
    """What goes wrong.

    Attributes:
        name: for test ids.
        error: the errno; None for a write that accepts fewer bytes.
        methods: which calls can fail so; None for all.
        accepted: what share of a write is accepted, in percent.
        forever: every later such call fails as well.
    """

    name: str
    error: int | None
    methods: frozenset[str] | None = None
    accepted: int = 0
    forever: bool = False

    def applies_to(self, method: str) -> bool:
        """Whether this call can fail in this way."""
        if self.error is None:
            return method in {"write", "pwrite"}
        return method not in _NEVER_FAIL and (self.methods is None or method in self.methods)


_KINDS: Final = (
    Fault("EIO", errno.EIO),
    Fault("ENOSPC", errno.ENOSPC, _CHANGES | _SYNCS),
    Fault("EDQUOT", errno.EDQUOT, _CHANGES | {"fdatasync"}),
    Fault("EROFS", errno.EROFS, _CHANGES | {"truncate", "unlink"}),
    Fault("EFBIG", errno.EFBIG, frozenset({"write", "pwrite", "truncate"})),
    # Python repeats a call that a signal interrupts; a file system may say so all the same.
    Fault("EINTR", errno.EINTR),
    Fault("EMFILE", errno.EMFILE, frozenset({"open"})),
    Fault("short-write", None, accepted=40),
    Fault("zero-write", None),
)

FAULTS: Final = tuple(
    msgspec.structs.replace(
        kind, name=f"{kind.name}-{'forever' if forever else 'once'}", forever=forever
    )
    for kind in _KINDS
    for forever in (False, True)
)


def sweep(fault: Fault, *, after_failure: bool = False) -> int:
    """Let the first call fail, then the second, until there is none left to fail.

    Args:
        fault: what goes wrong.
        after_failure: a sync has failed before that, so that the calls of its recovery fail too.

    Returns:
        How many calls failed.

    Raises:
        FaultError: an outcome and the log contradict each other.
    """
    for nth in range(1, _CALLS_MAX):
        history = _History(fault, nth, after_failure=after_failure)
        try:
            history.run()
            history.check()
        except (AssertionError, es.EventStoreError) as error:
            message = f"{fault.name} at call {nth} ({history.failed}): {error!r}"
            raise FaultError(message) from error
        if not history.failed:
            return nth - 1
    message = f"{fault.name}: more than {_CALLS_MAX} calls"
    raise FaultError(message)


class _History:
    def __init__(self, fault: Fault, nth: int, *, after_failure: bool) -> None:
        self.failed = ""
        self._fault = fault
        self._left = nth
        self._after_failure = after_failure
        self._disk = SimulatedDisk(seed=nth)
        self._items: list[Item] = []
        self._acknowledged: set[int] = set()
        self._refused: set[int] = set()
        self._number = 0
        self._committers: dict[str, tuple[Committer, SimulatedFiles]] = {}
        self._is_spent = False
        self._calls = 0
        self._is_armed = True
        self._fails_sync = False
        self._told: list[str] = []

    # --- what fails ---

    def _gate(self, method: str, name: str) -> int | None:
        self._calls += 1
        assert self._calls < 10 * _CALLS_MAX, "it goes on for ever"
        fault = self._fault
        if not self._is_armed:
            if self._fails_sync and method == "fdatasync":
                self._fails_sync = False
                raise OSError(errno.EIO, os.strerror(errno.EIO), name)
            return None
        if not fault.applies_to(method):
            return None
        self._left -= 1
        if self._left > 0 or (self._left < 0 and not fault.forever):
            return None
        self.failed = self.failed or f"{method} {name}"
        self._is_spent = not fault.forever
        if fault.error is None:
            return fault.accepted
        raise OSError(fault.error, os.strerror(fault.error), name)

    # --- what happens ---

    def run(self) -> None:
        """Let everybody do what they came for, whatever fails."""
        if self._after_failure:
            self._fail_a_sync()
        self._commit("one", (1,), key="first")
        self._commit("one", (2, 1), size=150)  # larger than a segment: the next commit seals
        self._commit("two", (1,))
        self._commit("one", (1,), synced=False)
        self._sync("one")
        self._commit("two", (2,), size=200)
        self._commit("two", (1,), synced=False)
        self._commit("one", (3,), size=250, synced=False)
        self._commit("one", (1,), size=250)
        self._append_foreign()
        self._commit("two", (2,), key="second")
        self._die_within_a_commit()
        self._commit("one", (1, 1))
        self._commit("two", (1,))
        for committer, files in self._committers.values():
            committer.close()
            assert not files.open_handles, f"{files.open_handles} handles open after close()"

    def _open(self, who: str) -> Committer | None:
        if who in self._committers:
            return self._committers[who][0]
        for _ in range(_OPENS):
            files = SimulatedFiles(self._disk, self._gate)
            committer = _committer(files)
            try:
                committer.open()
            except es.StoreUnavailableError:
                assert not files.open_handles, f"{files.open_handles} handles after a failed open"
                continue
            self._committers[who] = (committer, files)
            return committer
        assert not self._is_spent, "one failed call made several opens fail"
        return None

    def _commit(
        self,
        who: str,
        counts: tuple[int, ...],
        *,
        size: int = 0,
        key: str | None = None,
        synced: bool = True,
    ) -> None:
        """Append, as one commit, once more if it was rejected, and from a new store if unknown."""
        committer = self._open(who)
        if committer is None:
            return
        requests: list[tuple[Request, tuple[int, ...]]] = []
        for count in counts:
            numbers = tuple(range(self._number + 1, self._number + count + 1))
            self._number += count
            asked = request(numbers, stream="calm-heron", size=size, key=key, synced=synced)
            requests.append((asked, numbers))
        item = Item(tuple(n for _, numbers in requests for n in numbers), dead=not synced)
        self._items.append(item)
        was_spent = self._is_spent
        committer.commit([asked for asked, _ in requests])
        committer.save_index()
        committer.tidy_index()
        failures = [asked.failure() for asked, _ in requests if asked.failure is not None]
        if not failures:
            assert all(asked.appended is not None for asked, _ in requests)
            if synced:
                self._acknowledged.update(item.numbers)
            return
        assert len(failures) == len(requests), "one commit ended in two ways"
        if not self._after_failure:
            assert not self._fault.accepted, f"a short write was not continued: {failures[0]!r}"
        if was_spent:
            # An error of the past is reported to each process once: it rejects, and no more.
            may_be_told = 1 + self._after_failure
            assert self._told.count(who) < may_be_told, f"nothing fails now, yet {failures[0]!r}"
            self._told.append(who)
        if isinstance(failures[0], es.CommitUnknownError):
            item.dead = True
            self._expect_poison(who)
        elif isinstance(failures[0], es.StorePoisonedError):  # what it had only written is lost
            self._items.remove(item)
            self._refused.update(item.numbers)
            self._expect_poison(who)
        else:
            assert isinstance(failures[0], es.StoreUnavailableError), repr(failures[0])
            self._items.remove(item)
            self._refused.update(item.numbers)
            if self._is_spent:  # it poisoned nothing: the same store takes the next append
                self._commit(who, (1,), synced=synced)

    def _expect_poison(self, who: str) -> None:
        """After an unknown outcome a store refuses everything until it is opened again."""
        committer, files = self._committers.pop(who)
        self._number += 1
        again = request((self._number,))
        committer.commit([again])
        assert again.failure is not None, "a poisoned store took an append"
        error = again.failure()
        assert isinstance(error, es.StorePoisonedError), repr(error)
        self._refused.add(self._number)
        committer.close()
        assert not files.open_handles, f"{files.open_handles} handles open after close()"

    def _sync(self, who: str) -> None:
        if who not in self._committers:
            return
        committer = self._committers[who][0]
        try:
            committer.sync()
        except (es.CommitUnknownError, es.StorePoisonedError):
            self._expect_poison(who)
        except es.StoreUnavailableError:
            pass
        else:
            self._acknowledged.update(
                n for item in self._items for n in item.numbers if not item.dead
            )

    def _fail_a_sync(self) -> None:
        """Three stores are open; a commit of the third is lost to an error. Then faults begin."""
        self._is_armed = False
        for who in ("one", "two", "three"):
            self._commit(who, (1,))
        self._fails_sync = True
        self._commit("three", (2,), size=70)
        self._is_armed = True

    def _append_foreign(self) -> None:
        """A process that knows nothing of our faults appends a line."""
        self._number += 1
        self._items.append(Item((self._number,), ours=False))
        files = SimulatedFiles(self._disk)
        lock = files.open(NAMES.lock, "update", create=True)
        assert files.try_lock(lock, exclusive=True)
        handle = files.open(ACTIVE, "append", create=True)
        files.write(handle, foreign_record(self._number) + b"\n")
        files.die()

    def _die_within_a_commit(self) -> None:
        """A process of ours is killed when it has written half of its lines."""
        files = SimulatedFiles(self._disk)

        def kill(method: str, name: str) -> int | None:
            if method == "write" and name == ACTIVE:
                files.gate = die
                return 300
            return None

        def die(method: str, name: str) -> int | None:
            files.die()
            raise KilledError(method, name)

        files.gate = kill
        committer = _committer(files)
        numbers = tuple(range(self._number + 1, self._number + 4))
        self._number += 3
        self._items.append(Item(numbers, dead=True))
        try:
            committer.open()
            committer.commit([request(numbers, size=60)])
        except (KilledError, es.StoreUnavailableError):
            files.die()

    # --- what is there then ---

    def check(self) -> None:
        """Open the log again without faults, as it is and after power cuts."""
        self._check(self._disk.copy())
        states = CrashStates(self._disk, seed=self._left, budget=_CUTS, stale=False)
        for index in range(states.count):
            self._check(states.state(index))

    def _check(self, disk: SimulatedDisk) -> None:
        files = SimulatedFiles(disk)
        for _ in range(_OPENS):
            committer = _committer(files)
            try:
                committer.open()
            except es.StoreUnavailableError:
                continue  # an error that nobody had been told of
            break
        else:
            raise FaultError("the log cannot be opened again")
        extra = request((_EXTRA,))
        committer.commit([extra])
        assert extra.failure is None, f"the log takes no append: {extra.failure()}"
        committer.close()
        reader = Reader(files)
        numbers = reader.read()
        reader.close()
        assert not files.open_handles, f"{files.open_handles} handles are open"
        missing = self._acknowledged - set(numbers)
        assert not missing, f"acknowledged and lost: {sorted(missing)}; found {numbers}"
        recorded = self._refused & set(numbers)
        assert not recorded, f"rejected and recorded: {sorted(recorded)}; found {numbers}"
        items = tuple((item.numbers, item.ours, True) for item in self._items)
        wrong = explain(numbers, Expected((), (*items, ((_EXTRA,), True, False))))
        assert wrong is None, wrong


def _committer(files: SimulatedFiles) -> Committer:
    return Committer(
        files,
        NAMES,
        lock_timeout_seconds=LOCK_SECONDS,
        segment_bytes_max=_SEGMENT_BYTES,
        index_bytes=1,
    )
