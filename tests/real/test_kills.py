"""SIGKILL at any moment: writers die in the middle of everything, and nothing is lost.

Rounds of kills, each on a log of its own. Four writers of three lanes each append to it at once;
each is killed again and again, and a new one takes over its lanes at once: an append without an
answer is repeated if it has a key, and given up if not. At the end the bytes of the log are judged
by what was acknowledged.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

import eventstore as es
from eventstore._log._names import LogNames
from tests.contract._lines import check_lines
from tests.real._effort import KILL_SECONDS, KILLS_MIN
from tests.real._forked import Child
from tests.real._log_bytes import log_bytes
from tests.real._writers import ACKNOWLEDGED, LARGE, OPENED, OPENING, Planned, Task, planned, write

_WRITERS: Final = 4
_LANES: Final = 3
_KILLS_PER_ROUND: Final = 50  # a longer log would be read more than written
_SEGMENTS: Final = [30_000, 2**28]  # sealed by every second commit; one file
_LIFE_SECONDS: Final = 0.15
_OPEN_SECONDS: Final = 0.02
_WRITE_SECONDS: Final = 0.005
_STUCK_SECONDS: Final = 60.0

Lane = tuple[int, int]
Place = tuple[int, int]


class Writer:
    """A writer's place in a round: the processes that fill it die, the place remembers.

    Attributes:
        kill_at: the moment its process is to be killed, on the monotonic clock.
        stuck_at: it should be dead long before.
        state: what its process was doing when last heard of.
    """

    def __init__(self, number: int, path: Path, seed: int, segment_bytes_max: int) -> None:
        self._number = number
        self._path = path
        self._seed = seed
        self._segment_bytes_max = segment_bytes_max
        self._randomness = random.Random(f"{seed}/{number}")
        self._counts = [0] * _LANES
        self.acknowledged: dict[tuple[int, int, int], Place] = {}
        self.start()

    def start(self) -> None:
        """Start a process, and decide when it will die."""
        task = Task(
            path=str(self._path),
            seed=self._seed,
            writer=self._number,
            counts=tuple(self._counts),
            segment_bytes_max=self._segment_bytes_max,
        )
        self.state = "starting"
        self.stuck_at = self.kill_at = time.monotonic() + _STUCK_SECONDS
        self._opens_for: float | None = None
        self._writes_for: float | None = None
        self._answers: int | None = None
        match self._randomness.choice(("any time", "opening", "writing", "answered")):
            case "any time":
                self.kill_at = time.monotonic() + self._randomness.uniform(0, _LIFE_SECONDS)
            case "opening":
                self._opens_for = self._randomness.uniform(0, _OPEN_SECONDS)
            case "writing":
                self._writes_for = self._randomness.uniform(0, _WRITE_SECONDS)
            case _:
                self._answers = self._randomness.randint(1, 30)
        self.child = Child(write, task)

    def listen(self) -> None:
        """Take one message of its process; it may say that the time to die has come."""
        try:
            message = self.child.connection.recv_bytes()
        except EOFError:
            pytest.fail(f"writer {self._number} ended by itself; it said why on stderr")
        self._note(message)

    def kill(self) -> str:
        """End its process, take what it said before, and tell what it was doing."""
        self.child.kill()
        try:
            while self.child.connection.poll():
                self._note(self.child.connection.recv_bytes())
        except EOFError:
            pass
        self.child.close()
        for lane, count in enumerate(self._counts):
            if planned(self._seed, self._number, lane, count).key is None:
                self._counts[lane] += 1  # perhaps recorded: without a key nobody may repeat it
        return self.state

    def _note(self, message: bytes) -> None:
        if message == OPENING:
            self.state = "opening"
            if self._opens_for is not None:
                self.kill_at = time.monotonic() + self._opens_for
        elif message == OPENED:
            self.state = "appending"
        elif message == LARGE:
            if self._writes_for is not None:
                self.kill_at = min(self.kill_at, time.monotonic() + self._writes_for)
        else:
            lane, count, version, position = ACKNOWLEDGED.unpack(message)
            assert count == self._counts[lane]
            self._counts[lane] += 1
            self.acknowledged[self._number, lane, count] = (version, position)
            if self._answers is not None:
                self._answers -= 1
                if self._answers == 0:
                    self.kill_at = 0.0


class Round:
    """A number of kills on one log.

    Attributes:
        kills: how many processes died doing what.
    """

    def __init__(self, path: Path, seed: int, segment_bytes_max: int) -> None:
        self._randomness = random.Random(seed)
        self._writers = [
            Writer(number, path, seed, segment_bytes_max) for number in range(_WRITERS)
        ]
        self.kills = Counter[str]()

    def run(self, kills: int) -> dict[tuple[int, int, int], Place]:
        """Kill that many; afterwards none is left.

        Returns:
            The place of each append that was acknowledged, by its writer, lane and count.
        """
        try:
            while self.kills.total() < kills - _WRITERS:
                self._listen()
                now = time.monotonic()
                due = [writer for writer in self._writers if writer.kill_at <= now]
                if due and self._randomness.random() < 0.1:
                    due = self._writers  # nobody is left who would see the log between
                for writer in due:
                    assert now < writer.stuck_at, f"a writer is stuck {writer.state}"
                    self.kills[writer.kill()] += 1
                for writer in due:
                    writer.start()
        finally:
            for writer in self._writers:
                self.kills[writer.kill()] += 1
        return {what: place for one in self._writers for what, place in one.acknowledged.items()}

    def _listen(self) -> None:
        until = min(writer.kill_at for writer in self._writers)
        pipes = [writer.child.connection for writer in self._writers]
        ready = wait(pipes, timeout=max(0.0, until - time.monotonic()))
        for writer, pipe in zip(self._writers, pipes, strict=True):
            if pipe in ready:
                writer.listen()


async def _recover(path: Path) -> None:
    async with es.open_store(path):
        pass


def judge(
    lines: list[dict[str, Any]], seed: int, acknowledged: dict[tuple[int, int, int], Place]
) -> None:
    """Each append in the log is there once, whole, as planned; none that was told is missing.

    Args:
        lines: the log, its numbers and checksums already found right.
        seed: of the plan.
        acknowledged: what writers told.
    """
    found: dict[tuple[int, int, int], Place] = {}
    last: dict[Lane, int] = {}
    at = 0
    while at < len(lines):
        name = lines[at]["type"]["topic"].partition("/")[0]
        writer, lane, count, _ = (int(number) for number in name.split("."))
        todo = planned(seed, writer, lane, count)
        parts = lines[at : at + len(todo.events)]
        assert [appended_by(line) for line in parts] == [
            appended_as(todo, event) for event in todo.events
        ], f"position {at + 1}: not what was appended"
        assert len({tuple(line["commit"]) for line in parts}) == 1
        assert (writer, lane, count) not in found, f"position {at + 1}: {name} is there twice"
        found[writer, lane, count] = (parts[-1]["version"], parts[-1]["position"])
        assert last.get((writer, lane), -1) < count, f"position {at + 1}: {name} came too late"
        last[writer, lane] = count
        at += len(parts)
    told = {what: found.get(what) for what in acknowledged}
    assert told == acknowledged


def appended_by(line: dict[str, Any]) -> tuple[object, ...]:
    """What a line says was appended."""
    event = line["type"]
    return line["stream"], line.get("key"), event["topic"], event["payload"]


def appended_as(todo: Planned, event: es.EventPublished) -> tuple[object, ...]:
    """The same, of what was planned."""
    return todo.stream, todo.key, event.topic, event.payload


def test_writers_killed_at_any_moment_lose_nothing(
    tmp_path: Path, tell: Callable[[str, int], None]
) -> None:
    """I1, I2, I3, I5, I7, I14, I15, I19: at least 300 kills of four writers at once.

    What was acknowledged is there, in its place; what was not is there whole or not at all; what
    was repeated with its key is there once; each lane's appends are in their order; no position
    and no version is missing; no byte of the log is wrong.
    """
    began = time.monotonic()
    kills = Counter[str]()
    appends = written = segments = torn = 0
    for number in itertools.count():
        if kills.total() >= KILLS_MIN and time.monotonic() - began >= KILL_SECONDS:
            break
        seed = random.SystemRandom().getrandbits(32)
        path = tmp_path / f"round-{number}" / "history.jsonl"
        path.parent.mkdir()
        kept = f"seed {seed}, segments of {_SEGMENTS[number % 2]} bytes, log kept in {path.parent}"
        try:
            one = Round(path, seed, _SEGMENTS[number % 2])
            acknowledged = one.run(_KILLS_PER_ROUND)
            found = es.verify_log(path)
            ends_torn = {finding.severity for finding in found.findings} <= {"torn", "notice"}
            assert ends_torn, found.findings
            anyio.run(_recover, path)
            assert es.verify_log(path).findings == ()
            judge(check_lines(log_bytes(path)), seed, acknowledged)
        except BaseException as error:
            error.add_note(kept)
            raise
        kills += one.kills
        appends += len(acknowledged)
        written += found.bytes
        segments += found.segments
        torn += len(list((path.parent / LogNames(path.name).quarantine).glob("*")))
        for file in sorted(path.parent.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
    assert min(kills[state] for state in ("opening", "appending")) > 0
    tell(
        f"{kills.total()} writers killed ({', '.join(f'{n} {s}' for s, n in kills.items())}) in "
        f"{time.monotonic() - began:.1f} s: {appends} acknowledged appends, {written:,} bytes, "
        f"{segments} segments, {torn} torn tails; none lost",
        kills.total(),
    )
