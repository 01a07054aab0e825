"""Sixteen processes on one log, and everything they were told, judged together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

import eventstore as es
from tests.contract._lines import check_lines
from tests.real._effort import RACE_SECONDS
from tests.real._forked import Child
from tests.real._histories import Line, Operation, anomalies
from tests.real._log_bytes import log_bytes
from tests.real._racers import Race, race

_PROCESSES: Final = 16
_START_SECONDS: Final = 1.0
_STUCK_SECONDS: Final = 60.0
_SEGMENT_BYTES: Final = 300_000


def test_sixteen_processes_appear_as_one_after_the_other(
    tmp_path: Path, tell: Callable[[str, int], None]
) -> None:
    """I3, I4, I7, I19: what 16 processes were told is linearizable.

    Each acknowledged append is there once, in its place; what was answered before something else
    was called stands before it; each conflict was one; each look at a version saw the version of
    some moment of the call; one key gave one result to all.
    """
    path = tmp_path / "history.jsonl"
    begin = time.monotonic_ns() + int(_START_SECONDS * 1e9)
    end = begin + int(RACE_SECONDS * 1e9)
    racers = [
        Child(race, Race(str(path), number, begin, end, _SEGMENT_BYTES))
        for number in range(_PROCESSES)
    ]
    told: list[list[Operation]] = []
    try:
        for racer in racers:
            assert racer.connection.poll(_START_SECONDS + RACE_SECONDS + _STUCK_SECONDS), "stuck"
            told.append(msgspec.msgpack.decode(racer.connection.recv_bytes(), type=list[Operation]))
    finally:
        for racer in racers:
            racer.close()
    (tmp_path / "operations.json").write_bytes(msgspec.json.encode(told))  # kept with the log
    operations = [one for of_process in told for one in of_process]
    found = es.verify_log(path)
    assert found.findings == ()
    assert anomalies(operations, read_lines(path)) == []
    outcomes = Counter(one.outcome for one in operations)
    repeats = outcomes["acknowledged"] - len({one.position for one in operations if one.position})
    assert min(outcomes["conflict"], outcomes["read"], repeats) > 0, "they never met"
    waits = [one.returned - one.invoked for one in operations if one.name]
    share = min(map(len, told)) / (len(operations) / _PROCESSES)
    tell(
        f"{_PROCESSES} processes raced for {RACE_SECONDS:g} s: {outcomes['acknowledged']} appends "
        f"acknowledged, {repeats} of them repeats of a key, {outcomes['conflict']} conflicts, "
        f"{outcomes['read']} looks, {found.segments} segments: linearizable; the slowest process "
        f"did {share:.0%} of its share, an append waited {max(waits) / 1e6:.0f} ms at most",
        len(operations),
    )


def read_lines(path: Path) -> list[Line]:
    """The log, its numbers and checksums found right."""
    return [
        Line(line["stream"], line["version"], line["position"], line["type"]["topic"])
        for line in check_lines(log_bytes(path))
    ]
