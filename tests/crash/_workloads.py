"""Histories of several processes on one simulated disk, chosen by a seed.

A workload is a generator: it does one thing after the other (append, seal, kill, cut the power,
fail a sync), and yields a `Point` for every call that changed the disk, with what may be in the
log there. The checker does the rest.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Final, NamedTuple

import msgspec

import eventstore as es
from eventstore._log._commit import Committer
from eventstore._log._index_keeper import INDEX_BYTES
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
    complete_numbers,
    explain,
    foreign_record,
    log_contents,
    request,
)

__all__ = ["PROFILES", "Point", "Profile", "Workload", "WorkloadError"]

_AIMS: Final = ("fsync_directory", "rename", "truncate", "link", "fsync", "drop_cache")
_KILL_CALLS_MAX: Final = 30  # a commit makes about fifteen calls of the seam, a recovery thirty


class WorkloadError(AssertionError):
    """Something is wrong without any crash."""


class Point(NamedTuple):
    """The disk at one moment, and what may be in the log.

    Attributes:
        step: its number in the workload.
        label: what had just happened.
        disk: a copy.
        expected: what may be in the log after a power cut now.
        is_faulty: whether a sync has failed, so that the cache shows what is lost.
    """

    step: int
    label: str
    disk: SimulatedDisk
    expected: Expected
    is_faulty: bool


class Profile(msgspec.Struct, frozen=True):
    """What kind of workload.

    Attributes:
        name: for messages.
        steps: how many things are done.
        processes: how many writers take turns.
        segment_bytes_max: when they seal.
        index_bytes: when they write down their index.
        group: most appends of one commit.
        data: bytes beside an event, at most.
        written: share of commits that are not synced.
        foreign: share of steps that are a foreign writer's.
        kills: share of steps in which the writer is killed somewhere.
        cuts: share of steps before which the power is cut.
        errors: share of steps in which a write or a sync fails.
        looks: share of steps in which a reader looks, also in the middle of a commit.
        with_directory: whether the log's directory is there already.
        aims: calls behind which a writer is killed.
        aimed: share of the kills that are so.
    """

    name: str
    steps: int = 12
    processes: int = 1
    segment_bytes_max: int | None = None
    index_bytes: int = INDEX_BYTES
    group: int = 1
    data: int = 0
    written: float = 0.0
    foreign: float = 0.0
    kills: float = 0.0
    cuts: float = 0.0
    errors: float = 0.0
    looks: float = 0.1
    with_directory: bool = True
    aims: tuple[str, ...] = _AIMS
    aimed: float = 0.5


PROFILES: Final = (
    Profile("single", with_directory=False),
    Profile("grouped", group=4, cuts=0.1),
    Profile("turns", processes=3, index_bytes=500, group=2, kills=0.3),
    Profile("foreign", processes=2, foreign=0.4, kills=0.2, cuts=0.1),
    Profile("sealing", processes=2, segment_bytes_max=500, index_bytes=1_500, kills=0.3, cuts=0.1),
    Profile("written", group=2, written=0.5, processes=2, kills=0.2, cuts=0.1),
    Profile("errors", processes=3, group=2, data=150, errors=0.4, kills=0.2, cuts=0.1),
    Profile(
        "everything",
        steps=16,
        processes=3,
        segment_bytes_max=700,
        index_bytes=500,
        group=3,
        data=100,
        written=0.3,
        foreign=0.15,
        kills=0.2,
        cuts=0.1,
        errors=0.15,
        looks=0.2,
    ),
    Profile(
        "foreign-sealing",
        processes=2,
        segment_bytes_max=400,
        index_bytes=1,
        foreign=0.3,
        kills=0.4,
        cuts=0.1,
    ),
    Profile("written-errors", group=2, data=120, written=0.5, processes=2, errors=0.3, kills=0.1),
    Profile(
        "killed-after-errors",
        steps=20,
        processes=3,
        errors=0.3,
        kills=0.4,
        aims=("rename", "link", "fsync_directory"),
        aimed=1.0,
    ),
    Profile(
        "killed-while-sealing",
        steps=20,
        processes=3,
        segment_bytes_max=1,
        foreign=0.2,
        kills=0.4,
        aims=("rename", "fsync_directory", "close", "fsync"),
        aimed=1.0,
    ),
)


class _Process:
    def __init__(self, disk: SimulatedDisk, profile: Profile) -> None:
        self.files = SimulatedFiles(disk)
        self.committer = Committer(
            self.files,
            NAMES,
            lock_timeout_seconds=LOCK_SECONDS,
            segment_bytes_max=profile.segment_bytes_max,
            index_bytes=profile.index_bytes,
        )


class Workload:
    """One run of a profile.

    Args:
        seed: chooses everything; also the profile, unless one is given.
    """

    def __init__(self, seed: int, profile: Profile | None = None) -> None:
        self.profile = profile or PROFILES[seed % len(PROFILES)]
        self.trace: list[str] = []
        self._seed = seed
        self._random = Random(seed)
        self._disk = SimulatedDisk(with_directory=self.profile.with_directory, seed=seed)
        self._processes: dict[int, _Process] = {}
        self._items: list[Item] = []
        self._promised: tuple[int, ...] = ()
        self._kept: tuple[int, ...] = ()
        self._points: list[Point] = []
        self._step = 0
        self._number = 0
        self._is_faulty = False
        self._is_unterminated = False  # a foreign record lacks its LF: its kind would glue to it
        self._keyed: list[tuple[str, str, tuple[int, ...]]] = []  # unknown appends, to be retried
        self._follower: Reader | None = None
        self._look_in: int | None = None
        self._is_looking = False

    def points(self) -> Iterator[Point]:
        """Do everything, and yield each moment at which the machine may stop."""
        yield from self._after("nothing", lambda: None)
        profile, random = self.profile, self._random
        for _ in range(profile.steps):
            if random.random() < profile.cuts:
                yield from self._after("power cut", self._cut_power)
            if random.random() < profile.looks:
                yield from self._after("look", self._look)
            if random.random() < profile.looks:
                self._look_in = random.randrange(1, 8)
            if random.random() < profile.foreign and not self._is_unterminated:
                yield from self._after("foreign", self._append_foreign)
                continue
            number = random.randrange(profile.processes)
            if number not in self._processes:
                yield from self._after(f"open {number}", partial(self._open, number))
            elif random.random() < 0.1:
                yield from self._after(f"close {number}", partial(self._close, number))
            else:
                yield from self._after(f"commit {number}", partial(self._commit, number))

    # --- moments ---

    def _after(self, label: str, work: Callable[[], None]) -> Iterator[Point]:
        disk = self._disk
        self.trace.append(label)
        disk.watch = lambda method, name: self._watch(f"{label}: {method} {name}")
        try:
            work()
        finally:
            disk.watch = None
            self._disk.watch = None
        self._note(f"{label}: done")
        points, self._points = self._points, []
        yield from points

    def _watch(self, label: str) -> None:
        self._note(label)
        if self._look_in is not None and not self._is_looking:
            self._look_in -= 1
            if not self._look_in:
                self._look_in = None
                self._look()
                self._note(f"{label}, and a look")

    def _note(self, label: str) -> None:
        items = tuple((item.numbers, item.ours, item.dead) for item in self._items)
        expected = Expected(self._promised, items, self._kept)
        point = Point(self._step, label, self._disk.copy(), expected, self._is_faulty)
        self._points.append(point)
        self._step += 1

    # --- what is there ---

    def _live(self) -> tuple[int, ...]:
        """What a reader would see now; it does not disturb the disk."""
        files = SimulatedFiles(self._disk.copy())
        reader = Reader(files, tail_record=True)
        try:
            return reader.read()
        finally:
            reader.close()
            if files.open_handles:
                raise WorkloadError(f"a reader left {files.open_handles} handles open")

    def _settle(self, *, promise: bool) -> tuple[int, ...]:
        """Compare what is there with what was attempted, and forget what is not there."""
        numbers = self._live()
        items = tuple((item.numbers, item.ours, item.dead) for item in self._items)
        wrong = explain(numbers, Expected(self._promised, items))
        if wrong is not None:
            raise WorkloadError(wrong)
        there = set(numbers)
        found: list[Item] = []
        for item in self._items:
            if there.issuperset(item.numbers):
                there.difference_update(item.numbers)  # a repeated append is there once
                item.dead = False
                found.append(item)
        # One that was repeated stands where it was recorded, not where it was tried first.
        self._items = sorted(found, key=lambda item: numbers.index(item.numbers[0]))
        if promise:
            self._promised = numbers
        return numbers

    def _look(self) -> None:
        """Let a reader of another process look; what it shows must stay."""
        if self._follower is None:
            self._follower = Reader(SimulatedFiles(self._disk))
        self._is_looking = True
        try:
            shown = self._follower.read()
        except (es.StoreBusyError, es.StoreUnavailableError):
            return  # a writer is at work, or an error of the past was reported to this reader
        finally:
            self._is_looking = False
        if len(shown) > len(self._promised):
            self._promised = shown
        elif self._promised[: len(shown)] != shown:
            raise WorkloadError(f"shown {shown}, promised {self._promised}")

    def _new_numbers(self, count: int) -> tuple[int, ...]:
        first = self._number + 1
        self._number += count
        return tuple(range(first, self._number + 1))

    # --- writers ---

    def _open(self, number: int) -> None:
        process = _Process(self._disk, self.profile)
        self._disturb(process)
        try:
            process.committer.open()
        except KilledError:
            process.files.die()
            return
        except es.StoreUnavailableError:
            # An error, perhaps one of the past that nobody was told of yet: a caller tries again.
            process = _Process(self._disk, self.profile)
            process.committer.open()
        process.files.gate = None
        self._processes[number] = process
        self._is_unterminated = False
        self._settle(promise=True)
        self._kept = ()

    def _close(self, number: int) -> None:
        process = self._processes.pop(number)
        process.committer.close()
        if process.files.open_handles:
            raise WorkloadError(f"{process.files.open_handles} handles are open after close()")

    def _commit(self, number: int) -> None:
        random, profile = self._random, self.profile
        process = self._processes[number]
        synced = random.random() >= profile.written
        again = bool(self._keyed) and random.random() < 0.5
        if again:
            requests = [self._retry(synced=synced)]
        else:
            count = random.randint(1, profile.group)
            requests = [self._request(synced=synced) for _ in range(count)]
        refused = [asked for asked in requests if asked[0].expected is not es.ANY]
        wanted = [asked for asked in requests if asked[0].expected is es.ANY]
        # A repetition may find its events recorded where they were tried first.
        item = Item(tuple(n for _, numbers in wanted for n in numbers), dead=again)
        if item.numbers:
            self._items.append(item)
        self._disturb(process)
        try:
            process.committer.commit([asked for asked, _ in requests])
            process.committer.save_index()
            process.committer.tidy_index()
        except KilledError:
            item.dead = True
            self._processes.pop(number).files.die()
            return
        process.files.gate = None
        for asked, _ in refused:
            if asked.failure is None:
                raise WorkloadError(f"an append that expected {asked.expected} was recorded")
        failures = [asked.failure() for asked, _ in wanted if asked.failure is not None]
        if not failures:
            self._is_unterminated = False
            self._acknowledged(item, synced=synced)
            return
        if all(isinstance(error, es.CommitUnknownError) for error in failures):
            self._is_faulty = True
            item.dead = True
            self._keyed += [
                (asked.stream, asked.key, numbers)
                for asked, numbers in wanted
                if asked.key is not None
            ]
        elif all(isinstance(error, es.StoreUnavailableError) for error in failures):
            self._is_faulty = True
            self._items.remove(item)
        elif any(not isinstance(error, es.StorePoisonedError) for error in failures):
            raise WorkloadError(f"{failures[0]!r}")
        else:
            self._items.remove(item)
        process.committer.close()  # as a caller does, to open it again
        del self._processes[number]

    def _acknowledged(self, item: Item, *, synced: bool) -> None:
        numbers = self._settle(promise=synced)
        if not set(numbers).issuperset(item.numbers):
            raise WorkloadError(f"acknowledged {item.numbers} and shows {numbers}")
        self._kept = () if synced else numbers[len(self._promised) :]

    def _request(self, *, synced: bool) -> tuple[Request, tuple[int, ...]]:
        random = self._random
        size = random.choice((0, self.profile.data))
        numbers = self._new_numbers(random.choice((1, 1, 2, 3)))
        stream = random.choice(("main", "bright-otter", "calm-heron"))
        if random.random() < 0.1:
            return request(numbers, stream=stream, expected=9_999, synced=synced), numbers
        key = f"key-{numbers[0]}" if random.random() < 0.3 else None
        if key is not None:
            size = 0  # so that a repetition has the same content
        return request(numbers, stream=stream, size=size, key=key, synced=synced), numbers

    def _retry(self, *, synced: bool) -> tuple[Request, tuple[int, ...]]:
        """Repeat an append whose outcome is unknown."""
        stream, key, numbers = self._keyed.pop()
        return request(numbers, stream=stream, key=key, synced=synced), numbers

    # --- what goes wrong ---

    def _disturb(self, process: _Process) -> None:
        """Perhaps make something happen to a process at one of its next calls."""
        random, profile = self._random, self.profile
        luck = random.random()
        left = random.randint(1, _KILL_CALLS_MAX)
        if luck < profile.kills:
            # An aimed kill waits for a call that is rare, and comes right behind it.
            aim = random.choice(profile.aims) if random.random() < profile.aimed else None

            def kill(method: str, name: str) -> int | None:
                nonlocal left, aim
                if aim is not None:
                    if method == aim:
                        aim, left = None, 1
                    return None
                left -= 1
                if left < 0 or (not left and method not in {"write", "pwrite"}):
                    process.files.die()
                    raise KilledError(method, name)
                return random.randint(0, 60) if not left else None

            process.files.gate = kill
        elif luck < profile.kills + profile.errors:
            methods = random.choice((("fdatasync", "fsync"), ("fdatasync",), ("write",)))
            left = random.choice((1, 1, 2))
            number = random.choice((errno.EIO, errno.ENOSPC))

            def fail(method: str, name: str) -> int | None:
                nonlocal left
                if method in methods:
                    left -= 1
                    if not left:
                        self._is_faulty = True
                        raise OSError(number, os.strerror(number), name)
                    if method == "write" and left > 0:
                        return 70  # a short write comes before the one that fails
                return None

            process.files.gate = fail

    def _append_foreign(self) -> None:
        """Append as the original does: under its lock, a record, then its LF."""
        number = self._new_numbers(1)
        item = Item(number, ours=False)
        self._items.append(item)
        files = SimulatedFiles(self._disk)
        dies = self._random.random() < self.profile.kills
        lock = files.open(NAMES.lock, "update", create=True)
        if not files.try_lock(lock, exclusive=True):
            raise WorkloadError("nobody is at work, and the lock is held")
        if ACTIVE not in self._disk.root.entries:
            # Sealing was interrupted, perhaps before its rename was durable. The original knows
            # nothing of that: here only a file system that keeps such a rename and the new file
            # in order helps.
            self._disk.root.sync()
        handle = files.open(ACTIVE, "append", create=True)
        files.write(handle, foreign_record(number[0]))
        if dies:
            self._is_unterminated = True
            item.dead = True
        else:
            files.write(handle, b"\n")
        files.die()

    def _cut_power(self) -> None:
        """Go on with what is left of the disk, all processes gone."""
        states = CrashStates(self._disk, seed=self._random.randrange(2**32), budget=32, stale=False)
        self._disk.watch = None
        self._disk = states.state(self._random.randrange(states.count))
        self._processes.clear()
        self._follower = None
        self._is_faulty = False
        self._kept = ()
        for item in self._items:
            item.dead = item.dead or not item.ours
        if not complete_numbers(self._disk) and self._promised and not log_contents(self._disk):
            raise WorkloadError("the log is gone")
        self._open(0)
