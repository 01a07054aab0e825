"""Whether what several processes did to one log, and what they were told, can be true. Pure.

Each operation took effect at one moment between its call and its answer, if the history is
linearizable. Deciding that is hard in general and easy here, because a log tells its order: every
append stands at a position, and everybody who looked at a stream was told a version. What remains
is whether real time agrees: nothing may stand before something that had ended before it began.
A history is linearizable if each of its objects is, so each stream is looked at by itself; the
order of positions is looked at for the log as a whole, and with it the order of each single writer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec

__all__ = ["Line", "Operation", "anomalies"]


class Operation(msgspec.Struct, frozen=True, array_like=True):
    """One call, and its answer.

    Attributes:
        invoked: when it was called; nanoseconds on a clock that all processes share.
        returned: when it answered.
        outcome: `acknowledged` and `conflict` of an append, `read` of a look at a version.
        stream: which one.
        version: what it was told: after the append, or where the stream is.
        position: after the append, else 0.
        name: of what was appended; on each of its lines.
        count: how many events.
        expected: the version the append expected, or None for any.
        key: of the append.
    """

    invoked: int
    returned: int
    outcome: Literal["acknowledged", "conflict", "read"]
    stream: str
    version: int
    position: int = 0
    name: str = ""
    count: int = 0
    expected: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        what = f"append {self.name!r}" if self.name else "look"
        return (
            f"{what} at {self.stream!r} ({self.invoked}..{self.returned}, {self.outcome}, "
            f"version {self.version}, position {self.position})"
        )


class Line(msgspec.Struct, frozen=True):
    """One line of the log, as it was found afterwards."""

    stream: str
    version: int
    position: int
    name: str


class _Step(msgspec.Struct, frozen=True):
    """Something that took effect between two moments."""

    after: int  # it is known to have happened after this moment
    before: int
    what: Operation


def anomalies(operations: Sequence[Operation], log: Sequence[Line]) -> list[str]:
    """Everything that cannot be true, one sentence each; empty for a linearizable history."""
    acknowledged = [one for one in operations if one.outcome == "acknowledged"]
    appends, mixed = _appends(acknowledged)
    return [
        *mixed,
        *_wrong_numbers(log),
        *_wrong_lines(acknowledged, log),
        *_wrong_expectations(operations, appends),
        *_wrong_order([[step] for step in sorted(appends, key=lambda step: step.what.position)]),
        *_wrong_streams(operations, appends),
    ]


def _appends(acknowledged: Iterable[Operation]) -> tuple[list[_Step], list[str]]:
    """What was recorded, and where one key had two results.

    All who appended under one key were told of one append. It had happened when the first of them
    was answered, and not before the first of them asked.
    """
    by_key: dict[object, list[Operation]] = defaultdict(list)
    for one in acknowledged:
        by_key[(one.stream, one.key) if one.key is not None else id(one)].append(one)
    steps: list[_Step] = []
    mixed: list[str] = []
    for same in by_key.values():
        first = same[0]
        after, before = min(one.invoked for one in same), min(one.returned for one in same)
        steps.append(_Step(after, before, first))
        mixed += [
            f"one key, two results: {first}; {one}"
            for one in same
            if (one.version, one.position) != (first.version, first.position)
        ]
    return steps, mixed


def _wrong_numbers(log: Sequence[Line]) -> Iterator[str]:
    versions: dict[str, int] = defaultdict(int)
    for position, line in enumerate(log, start=1):
        versions[line.stream] += 1
        if (line.position, line.version) != (position, versions[line.stream]):
            yield f"position {position}, version {versions[line.stream]} expected: {line}"


def _wrong_lines(acknowledged: Iterable[Operation], log: Iterable[Line]) -> Iterator[str]:
    """What was acknowledged is there once, whole and where it was said to be, and nothing else."""
    found: dict[str, list[Line]] = defaultdict(list)
    for line in log:
        found[line.name].append(line)
    told: set[str] = set()
    for one in acknowledged:
        told.add(one.name)
        expected = [
            Line(one.stream, one.version - before, one.position - before, one.name)
            for before in reversed(range(one.count))
        ]
        if found[one.name] != expected:
            yield f"not there once, whole and in its place: {one}; found {found[one.name]}"
    for name in found.keys() - told:
        if found[name]:
            yield f"recorded, and nobody was told so: {found[name]}"


def _wrong_expectations(operations: Iterable[Operation], appends: Iterable[_Step]) -> Iterator[str]:
    for step in appends:
        one = step.what
        if one.key is None and one.expected not in (None, one.version - one.count):
            yield f"recorded behind version {one.version - one.count}: {one}"
    for one in operations:
        if one.outcome == "conflict" and one.expected == one.version:
            yield f"no conflict: it is what was expected: {one}"


def _wrong_streams(operations: Iterable[Operation], appends: Iterable[_Step]) -> Iterator[str]:
    """Whoever was told a version looked after the append that led to it, before the next one."""
    looks: dict[str, dict[int, list[_Step]]] = defaultdict(lambda: defaultdict(list))
    recorded: dict[str, dict[int, list[_Step]]] = defaultdict(lambda: defaultdict(list))
    for step in appends:
        recorded[step.what.stream][step.what.version].append(step)
    for one in operations:
        if one.outcome != "acknowledged":
            looks[one.stream][one.version].append(_Step(one.invoked, one.returned, one))
    for stream in recorded.keys() | looks.keys():
        for version in looks[stream].keys() - {0, *recorded[stream]}:
            yield f"no append led to this version: {looks[stream][version][0].what}"
        yield from _wrong_order(
            group
            for version in sorted({*recorded[stream], *looks[stream]})
            for group in (recorded[stream][version], looks[stream][version])
        )


def _wrong_order(groups: Iterable[Sequence[_Step]]) -> Iterator[str]:
    """Steps that stand behind one that began after they had ended; a group has no order inside."""
    latest: _Step | None = None
    for group in groups:
        for step in group:
            if latest is not None and step.before < latest.after:
                yield f"ended before it began, and stands behind it: {step.what}; {latest.what}"
        for step in group:
            if latest is None or step.after > latest.after:
                latest = step
