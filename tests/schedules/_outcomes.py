"""What was asked of the log, what it answered, and whether the log at the end agrees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import eventstore as es
from tests.schedules._faulty_files import ViolationError

__all__ = ["Asked", "Outcomes", "is_as_expected"]

_EVENTS_MAX: Final = 10  # an append's events are numbered from ten times its own number


class Asked(NamedTuple):
    """One append, which several attempts may ask for if it has a key."""

    stream: str
    size: int
    key: str | None
    expected: es.ExpectedVersion

    def events(self, number: int) -> list[es.LoopEvent]:
        return [es.IterationStarted(iteration=number * _EVENTS_MAX + n) for n in range(self.size)]


class Outcomes:
    """Collects answers; each `ViolationError` is a sentence of its own."""

    def __init__(self) -> None:
        self.asked: dict[int, Asked] = {}
        self.attempts: dict[int, int] = {}  # attempt -> append
        self.handed_over: set[int] = set()  # attempts of which the store's thread was told
        self.refused: set[int] = set()  # attempts that nobody may find in the log
        self.acknowledged: dict[int, es.Appended] = {}
        self.shown: dict[int, int] = {}  # position -> the event's number
        self.last_position = 0  # of what was acknowledged, and of the streams:
        self.last_versions: dict[str, int] = {}

    def begin(self, number: int) -> int:
        """An attempt at this append begins; its number."""
        attempt = len(self.attempts) + 1
        self.attempts[attempt] = number
        return attempt

    def end_unless_handed_over(self, attempt: int) -> None:
        """The caller stopped waiting: an append that still waited is not recorded."""
        if attempt not in self.handed_over:
            self.refused.add(attempt)

    def acknowledge(self, attempt: int, done: es.Appended, *, after_position: int) -> None:
        """An attempt was acknowledged; when it began, the log was known to be at a position."""
        number = self.attempts[attempt]
        asked = self.asked[number]
        first = self.acknowledged.get(number)
        if first is not None and first != done:
            _fail(f"append {number} was acknowledged as {first}, and its repetition as {done}")
        is_repeated = list(self.attempts.values()).count(number) > 1
        if not is_repeated and done.position - asked.size < after_position:
            _fail(f"append {number} is at {done}, and began after position {after_position}")
        self.acknowledged[number] = done
        self.last_position = max(self.last_position, done.position)
        known = self.last_versions.get(asked.stream, 0)
        self.last_versions[asked.stream] = max(known, done.version)

    def show(self, recorded: es.Recorded[Any]) -> None:
        """A reader saw this."""
        number = _number(recorded)
        if self.shown.setdefault(recorded.position, number) != number:
            _fail(f"position {recorded.position} was {self.shown[recorded.position]}, is {number}")

    def compare(self, log: Sequence[es.Recorded[Any]]) -> None:
        """Compare it with what the log holds at the end.

        Raises:
            ViolationError: a promise was broken.
        """
        if [recorded.position for recorded in log] != list(range(1, len(log) + 1)):
            _fail("the positions have gaps")
        ids = [_number(recorded) for recorded in log]
        if len(set(ids)) != len(ids):
            _fail(f"events are there twice: {ids}")
        for position, number in self.shown.items():
            if position > len(log) or ids[position - 1] != number:
                _fail(f"event {number} was shown at position {position}, and is not there")
        for number, asked in self.asked.items():
            there = [recorded for recorded in log if _number(recorded) // _EVENTS_MAX == number]
            self._compare_append(number, asked, there)

    def _compare_append(self, number: int, asked: Asked, there: Sequence[es.Recorded[Any]]) -> None:
        done = self.acknowledged.get(number)
        if not there:
            if done is not None:
                _fail(f"append {number} was acknowledged at {done}, and is not there")
            return
        if [recorded.event for recorded in there] != asked.events(number):
            _fail(f"append {number} is there in part")
        last = there[-1]
        versions = [recorded.version for recorded in there]
        if versions != list(range(last.version - asked.size + 1, last.version + 1)):
            _fail(f"append {number} has the versions {versions}")
        if {recorded.stream for recorded in there} != {asked.stream}:
            _fail(f"append {number} is in another stream")
        if done is not None and done != es.Appended(last.version, last.position):
            _fail(f"append {number} was acknowledged at {done}, and is at {last.position}")
        before = there[0].version - 1
        if not is_as_expected(asked.expected, before):
            _fail(f"append {number} expected {asked.expected} and is behind version {before}")
        attempts = {int(recorded.meta["attempt"]) for recorded in there}
        if attempts & self.refused:
            _fail(f"append {number} is there, and its attempt {attempts} was withdrawn or refused")


def is_as_expected(expected: es.ExpectedVersion, version: int) -> bool:
    """What `expected_version` means, once more."""
    if expected is es.ANY:
        return True
    if expected is es.STREAM_EXISTS:
        return version > 0
    return expected == version


def _number(recorded: es.Recorded[Any]) -> int:
    event = recorded.event
    assert isinstance(event, es.IterationStarted)
    return event.iteration


def _fail(what: str) -> None:
    raise ViolationError(what)
