"""At one moment of a workload: stop the machine in every way, start it again, and look.

What is checked of each state, in the words of the format's invariants:

* what was acknowledged as synced, or shown to a reader, is there (I1);
* what is there is a prefix, in whole commits, of what was attempted (I2);
* no byte that recovery took out of the log lacks a durable copy in the quarantine (I3);
* what recovery exposed survives the next power cut (I4);
* opening again changes nothing, and the log takes and shows an append (I5);
* no state is refused (I6).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NoReturn

import eventstore as es
from eventstore._log._commit import Committer
from eventstore._log._index import IndexDamagedError
from tests.crash._crash_states import CrashStates
from tests.crash._disk import Directory, Inode, SimulatedDisk, SimulatedFiles
from tests.crash._model import (
    ACTIVE,
    LOCK_SECONDS,
    NAMES,
    Expected,
    Reader,
    cache_files,
    complete_numbers,
    explain,
    log_contents,
    read_backwards,
    request,
)
from tests.crash._workloads import Point, Profile, Workload, WorkloadError

__all__ = ["Checker", "ViolationError", "check_seed"]

_EXTRA: Final = 4_000_000_000
"""The number of the event that is appended to see whether a recovered log takes one."""
_DEPTH_MAX: Final = 2
_INSIDE_STATES: Final = 3  # per call of a recovery that is itself interrupted
_INSIDE_EVERY: Final = 24
_LOOK_EVERY: Final = 4
_AFTERWARDS_STATES: Final = 4

_Contents = tuple[tuple[str, bytes], ...]
_Key = tuple[_Contents, _Contents, bytes, bool]


class ViolationError(AssertionError):
    """A promise was broken. The message says which, where, and how to see it again."""


class Checker:
    """Checks the points of one workload.

    Args:
        seed: of the workload.
        states_per_point: how many power cuts are tried at each point, at most.
        only: check just this state of each point (to replay one).
    """

    def __init__(self, seed: int, *, states_per_point: int, only: int | None = None) -> None:
        self.states = 0
        self.seed = seed
        self._states_per_point = states_per_point
        self._only = only
        self._shown: dict[_Key, tuple[int, ...]] = {}
        self._segment_bytes_max: int | None = None
        self._foreign = True
        self._where = ""

    def run(self, workload: Workload) -> None:
        """Check everything.

        Raises:
            ViolationError: a promise was broken.
        """
        points = workload.points()
        while True:
            try:
                point = next(points, None)
            except (WorkloadError, AssertionError, es.EventStoreError) as error:
                last = workload.trace[-1]
                message = f"seed {self.seed} ({workload.profile.name}), in {last!r}: {error!r}"
                raise ViolationError(message) from error
            if point is None:
                return
            self.check(point, workload.profile)

    def check(self, point: Point, profile: Profile) -> None:
        """Stop the machine at one point."""
        self._segment_bytes_max = profile.segment_bytes_max
        self._foreign = bool(profile.foreign)
        states = CrashStates(
            point.disk,
            seed=(self.seed << 20) + (point.step << 32),
            budget=self._states_per_point,
            stale=not self._foreign,
        )
        try:
            self._check_cuts(states, point)
            if self._only is None or self._only < 0:
                self._check_kill(point)
        except ViolationError:
            raise
        except (es.EventStoreError, AssertionError, OSError) as error:
            self._fail(repr(error))

    def _check_cuts(self, states: CrashStates, point: Point) -> None:
        for index in range(states.count) if self._only is None else (self._only,):
            if not 0 <= index < states.count:
                continue
            self._where = f"{self.seed} {point.step} {index}: {point.label}"
            inside = (index + point.step) % _INSIDE_EVERY == 0
            disk = states.state(index)
            if (index + point.step) % _LOOK_EVERY == 0:
                self._look_before(disk, point.expected)
            self._check(disk, point.expected, inside=inside)

    # --- one state ---

    def _check(
        self,
        disk: SimulatedDisk,
        expected: Expected,
        *,
        inside: bool = False,
        depth: int = 0,
        original: dict[str, bytes] | None = None,
        was_cached: bool = False,
    ) -> tuple[int, ...]:
        """Start again from one state; return what is there then."""
        self.states += 1
        before = original or {name: node.content for name, node in log_contents(disk).items()}
        moments = self._recover(disk, watched=inside and depth < _DEPTH_MAX)
        self._check_quarantine(disk, before)
        numbers = self._look_after(disk)
        wrong = explain(numbers, expected)
        if wrong is not None:
            self._fail(wrong)
        # What a kill left in the cache only, a power cut inside the recovery may take.
        inherited = None if was_cached else before
        for number, moment in enumerate(moments):
            states = CrashStates(
                moment, seed=self.seed + self.states, budget=_INSIDE_STATES, stale=False
            )
            where = self._where
            for index in range(states.count):
                self._where = f"{where}; in its recovery, moment {number}, state {index}"
                self._check(
                    states.state(index),
                    expected,
                    inside=(number + index) % 4 == 0,
                    depth=depth + 1,
                    original=inherited,
                )
            self._where = where
        return numbers

    def _recover(self, disk: SimulatedDisk, *, watched: bool = False) -> list[SimulatedDisk]:
        """Open the log once; return the disk as it was after each change that this made."""
        moments: list[SimulatedDisk] = []
        if watched:
            disk.watch = lambda _method, _name: moments.append(disk.copy())
        files = SimulatedFiles(disk)
        committer = self._committer(files)
        try:
            committer.open()
        except es.EventStoreError as error:
            self._fail(f"a legal state is refused: {error}")
        finally:
            disk.watch = None
            committer.close()
        if disk.handles:
            self._fail(f"{len(disk.handles)} handles are open after close()")
        return moments

    def _committer(self, files: SimulatedFiles) -> Committer:
        return Committer(
            files,
            NAMES,
            lock_timeout_seconds=LOCK_SECONDS,
            segment_bytes_max=self._segment_bytes_max,
            index_bytes=1,
        )

    def _compare_index(self, disk: SimulatedDisk, committer: Committer) -> None:
        """Whoever reads the whole log knows just what the index tells."""
        if not cache_files(disk):
            return
        twin = disk.copy()
        files = SimulatedFiles(twin)
        for name in cache_files(twin):
            files.unlink(f"{NAMES.cache}/{name}")
        whole = self._committer(files)
        whole.open()
        index, truth = committer._tail.index, whole._tail.index
        with suppress(IndexDamagedError):  # a page that did not arrive is noticed when it is asked
            for stream, version in truth.recent.versions.items():
                if index.version(stream) != version:
                    self._fail(f"{stream} has {version} events, not {index.version(stream)}")
            for names, offset in truth.recent.keys.items():
                if offset not in index.keyed(*names):
                    self._fail(f"the index knows nothing of {names}")
        whole.close()

    def _look_before(self, disk: SimulatedDisk, expected: Expected) -> None:
        """A reader that comes before any writer shows nothing that is not there later."""
        shown = self._read(disk)
        wrong = explain(shown, expected)
        if wrong is not None:
            self._fail(f"a reader, before recovery: {wrong}")

    def _look_after(self, disk: SimulatedDisk) -> tuple[int, ...]:
        """Read a recovered log. What is the same as before is not looked at again."""
        segments = log_contents(disk)
        lock = disk.root.entries[NAMES.lock]
        assert isinstance(lock, Inode)
        is_durable = not disk.root.pending and all(node.is_durable for node in segments.values())
        key = (
            tuple((name, node.content) for name, node in segments.items()),
            tuple(sorted((name, node.content) for name, node in cache_files(disk).items())),
            lock.content,
            is_durable,
        )
        numbers = self._shown.get(key)
        if numbers is None:
            numbers = self._shown[key] = self._look_closely(disk, is_durable=is_durable)
        return numbers

    def _look_closely(self, disk: SimulatedDisk, *, is_durable: bool) -> tuple[int, ...]:
        numbers = self._read(disk, tail_record=True)
        backwards = read_backwards(SimulatedFiles(disk), foreign=self._foreign)
        if backwards != numbers:
            self._fail(f"forwards {numbers}, backwards {backwards}")
        before = self._bytes(disk)
        again = disk.copy()
        files = SimulatedFiles(again)
        committer = self._committer(files)
        committer.open()
        if self._bytes(again) != before or not committer.recovery.is_clean:
            self._fail(f"the second recovery is not idle: {committer.recovery}")
        self._compare_index(again, committer)
        extra = request((_EXTRA, _EXTRA + 1), stream="calm-heron")
        committer.commit([extra])
        if extra.failure is not None:
            self._fail(f"the log takes no append: {extra.failure()}")
        if committer.position != self._bytes(again).count(b"\n"):
            self._fail(f"position {committer.position} is not the number of lines")
        committer.close()
        grown = (*numbers, _EXTRA, _EXTRA + 1)
        if (found := self._read(again)) != grown:
            self._fail(f"after an append: found {found}, expected {grown}")
        self._cut(again, grown, states=_AFTERWARDS_STATES)
        self._cut(disk, numbers, states=_AFTERWARDS_STATES if is_durable else 40)
        return numbers

    def _cut(self, disk: SimulatedDisk, numbers: tuple[int, ...], *, states: int) -> None:
        """Cut the power; everything that was exposed is still there."""
        after = CrashStates(disk, seed=self.seed + self.states, budget=states, stale=False)
        for index in range(after.count):
            state = after.state(index)
            self._recover(state)
            found = self._read(state)
            if found != numbers:
                self._fail(f"exposed {numbers}, after the next power cut {found}")

    def _check_kill(self, point: Point) -> None:
        """All processes die; nothing that was written at all is lost."""
        self._where = f"{self.seed} {point.step} -1: {point.label}: kill"
        disk = point.disk.copy()
        complete = complete_numbers(disk)
        numbers = self._check(
            disk,
            point.expected,
            inside=True,
            depth=1,
            original=_on_medium(disk),
            was_cached=True,
        )
        if point.is_faulty:
            return
        items = point.expected.items
        wanted = {n for item, _, _ in items if complete.issuperset(item) for n in item}
        wanted.update(point.expected.kept)
        if not wanted <= set(numbers):
            self._fail(f"killed: {sorted(wanted - set(numbers))} were written and are lost")

    # --- looking ---

    def _read(self, disk: SimulatedDisk, *, tail_record: bool = False) -> tuple[int, ...]:
        reader = Reader(SimulatedFiles(disk), tail_record=tail_record, foreign=self._foreign)
        try:
            return reader.read()
        except (es.EventStoreError, AssertionError) as error:
            self._fail(f"a reader fails: {error!r}")
        finally:
            reader.close()

    def _bytes(self, disk: SimulatedDisk) -> bytes:
        return b"".join(node.content for node in log_contents(disk).values())

    def _check_quarantine(self, disk: SimulatedDisk, before: dict[str, bytes]) -> None:
        """Whatever stood in the log and is not there now has a durable copy."""
        segments = log_contents(disk)
        for name, content in before.items():
            node = segments.get(name)
            now = b"" if node is None else node.content
            if now.startswith(content):
                continue
            if name != ACTIVE:
                self._fail(f"{name} changed")
            removed = len(content) - _common(content, now)
            copies = _quarantined(disk)
            if not any(len(copy) >= removed and content.endswith(copy) for copy in copies):
                self._fail(f"{removed} bytes were removed, kept are {[len(c) for c in copies]}")

    def _fail(self, reason: str) -> NoReturn:
        seed, step, state = self._where.split(":")[0].split()
        message = (
            f"{reason}\n  at {self._where}\n"
            f"  again: python -m tests.crash.replay {seed} {step} {state}"
        )
        raise ViolationError(message)


def check_seed(seed: int, *, states_per_point: int) -> int:
    """Check one workload.

    Returns:
        How many states were checked.

    Raises:
        ViolationError: a promise was broken.
    """
    checker = Checker(seed, states_per_point=states_per_point)
    checker.run(Workload(seed))
    return checker.states


def _on_medium(disk: SimulatedDisk) -> dict[str, bytes]:
    """The log as it is when everything is written that still can be, and read again."""
    twin = disk.copy()
    contents: dict[str, bytes] = {}
    for name, node in log_contents(twin).items():
        node.sync()
        node.drop_cache()
        contents[name] = node.content
    return contents


def _common(one: bytes, other: bytes) -> int:
    """How many bytes two contents have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _quarantined(disk: SimulatedDisk) -> list[bytes]:
    """What would be in the quarantine if the power were cut now."""
    return [
        node.durable
        for name, node in _durable_nodes(disk.top, "")
        if "/quarantine/" in name and not name.endswith(".tmp")
    ]


def _durable_nodes(directory: Directory, path: str) -> Iterator[tuple[str, Inode]]:
    for entry, node in directory.durable.items():
        name = f"{path}/{entry}"
        if isinstance(node, Directory):
            yield from _durable_nodes(node, name)
        else:
            yield name, node
