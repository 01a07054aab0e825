"""Whether a log holds what was acknowledged, and nothing that never can be there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import eventstore as es
from projections.cli.prove._writers import Done, topic

__all__ = ["Checked", "check", "last_acknowledged"]

_FAULTS_MAX: Final = 20  # more say no more


class Checked(NamedTuple):
    """What was found of the events behind a position.

    Attributes:
        faults: broken promises, in words.
        lost: acknowledged appends that are not where they were said to be.
        appends: how many are there, acknowledged or not.
        commits: how many they were made durable in.
        position: of the last event.
    """

    faults: list[str]
    lost: int = 0
    appends: int = 0
    commits: int = 0
    position: int = 0


class _Place(NamedTuple):
    stream: str
    version: int
    topic: str


def last_acknowledged(acknowledged: Sequence[Done]) -> int:
    """The position up to which the log was said to be durable; 0 if nothing was."""
    return max((done.position for done in acknowledged), default=0)


async def check(log: Path, acknowledged: Sequence[Done], *, after: int) -> Checked:
    """Open a log as the next writer would, and compare.

    Args:
        log: whose writers are dead.
        acknowledged: everything they were told since `after`.
        after: the position up to which all was compared before.
    """
    try:
        async with es.open_store(log) as store:
            there, commits = await store.scan(_collect, after=after)
    except es.EventStoreError as error:
        return Checked([f"the log does not open again: {error}"], lost=len(acknowledged))
    lost = [done for done in acknowledged if not _is_there(done, there)]
    faults = [
        f"acknowledged, and not there: {done.events} events of {done.stream}, the last at "
        f"position {done.position}, version {done.version} (key {done.key})"
        for done in lost[:_FAULTS_MAX]
    ]
    appends, torn = _appends(there)
    faults += [f"not whole, or twice: the append with key {key}" for key in torn[:_FAULTS_MAX]]
    found = es.verify_log(log)
    faults += [
        f"not sound: byte {finding.offset}, position {finding.position}: {finding.reason}"
        for finding in found.findings[:_FAULTS_MAX]
        if finding.severity != "notice"
    ]
    last = max(there, default=after)
    return Checked(faults, len(lost), appends, commits, last)


def _collect(pages: Iterator[es.Page[es.LoopEvent]]) -> tuple[dict[int, _Place], int]:
    """Every event by its position, and how many commits they were in."""
    there: dict[int, _Place] = {}
    commits: set[int] = set()
    for page in pages:
        for recorded in page:
            event = recorded.event
            name = event.topic if isinstance(event, es.EventPublished) else recorded.kind
            there[recorded.position] = _Place(recorded.stream, recorded.version, name)
            commits.add(recorded.commit.first)
    return there, len(commits)


def _is_there(done: Done, there: dict[int, _Place]) -> bool:
    return all(
        there.get(done.position - done.events + 1 + number)
        == _Place(
            done.stream,
            done.version - done.events + 1 + number,
            topic(done.key, number=number, events=done.events),
        )
        for number in range(done.events)
    )


def _appends(there: dict[int, _Place]) -> tuple[int, list[str]]:
    """How many appends there are, and the keys of those that are not there once and whole."""
    numbers: dict[str, list[int]] = {}
    events: dict[str, int] = {}
    for _, place in sorted(there.items()):
        key, number, count = place.topic.rsplit(" ", 2)
        numbers.setdefault(key, []).append(int(number))
        events[key] = int(count)
    torn = [key for key, found in numbers.items() if found != list(range(events[key]))]
    return len(numbers), torn
