"""The proof at length: the families of tests, for a chosen time, and a scorecard.

    python -m tests.prove [--minutes 10] [--only NAME]

Each row is a run of pytest of its own, with LOOPLEDGER_PROVE=1; rows that can use more time get an
equal share of what is left. A row's cases are what its tests say they tried (the property `cases`),
or else the number of tests. It exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import tests

__all__ = ["ROWS", "Row"]

_ROOT: Final = Path(tests.__file__).resolve().parent.parent
_SECONDS_MIN: Final = 10.0
_ON_ALL_CORES: Final = ("--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal")


class Row(NamedTuple):
    """A line of the scorecard.

    Attributes:
        name: what is shown.
        paths: the tests that show it.
        takes_time: whether they go on for as long as they are told.
    """

    name: str
    paths: tuple[str, ...]
    takes_time: bool = False


ROWS: Final = (
    Row(
        "planted bugs killed",
        ("tests/crash/test_mutants.py", "tests/schedules/test_planted_bugs.py"),
    ),
    Row(
        "every call of the seam fails",
        ("tests/crash/test_faults.py", "tests/recovery/test_io_errors.py"),
    ),
    Row(
        "every byte cut, changed, lost",
        ("tests/recovery/test_torn_tail.py", "tests/recovery/test_damage.py"),
    ),
    Row("torn and short writes, for real", ("tests/real/test_torn_writes.py",)),
    Row("contract of every backend", ("tests/contract",)),
    Row("odd input, index, other recovery", ("tests/recovery", "tests/format")),
    Row("several processes", ("tests/test_processes.py", "tests/runs/test_processes.py")),
    Row(
        "killed tools, claims, read models",
        ("tests/test_tool_crashes.py", "tests/test_owners.py", "tests/projector/test_kills.py"),
    ),
    Row("power cuts on a simulated disk", ("tests/crash/test_crash_states.py",), takes_time=True),
    Row("seeded schedules", ("tests/schedules/test_schedules.py",), takes_time=True),
    Row("real kills", ("tests/real/test_kills.py",), takes_time=True),
    Row("race of 16 processes, judged", ("tests/real/test_linearizable.py",), takes_time=True),
    Row("power cuts on ext4 and XFS", ("tests/power/test_real_file_systems.py",), takes_time=True),
    Row("a file system that forgets", ("tests/power/test_fuse.py",), takes_time=True),
    Row("hostile input", ("tests/fuzz",), takes_time=True),
)


class _Score(NamedTuple):
    cases: int
    failures: int
    skipped: tuple[str, ...]
    killers: tuple[tuple[str, str], ...]
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows and print the scorecard; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", metavar="NAME", help="only rows with this in their name")
    chosen = parser.parse_args(arguments)
    rows = [row for row in ROWS if not chosen.only or chosen.only in row.name]
    end = time.monotonic() + 60 * chosen.minutes
    scores: list[tuple[Row, _Score]] = []
    for number, row in enumerate(rows):
        left = max(0.0, end - time.monotonic())
        seconds = max(_SECONDS_MIN, left / (len(rows) - number)) if row.takes_time else None
        print(f"prove: {row.name}" + (f", {seconds:.0f} s" if seconds else ""), flush=True)
        scores.append((row, _run(row, seconds)))
    _print_scorecard(scores)
    return 1 if any(score.failures for _, score in scores) else 0


def _run(row: Row, seconds: float | None) -> _Score:
    with tempfile.TemporaryDirectory(prefix="loopledger-prove-") as directory:
        report = Path(directory, "report.xml")
        environment = {**os.environ, "LOOPLEDGER_PROVE": "1"}
        if seconds is not None:
            environment["LOOPLEDGER_PROVE_SECONDS"] = f"{seconds:.0f}"
        paths = [path for path in row.paths if (_ROOT / path).exists()]
        # What goes on for a given time uses all cores by itself.
        cores = () if row.takes_time else _ON_ALL_CORES
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *cores, *paths],
            cwd=_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        taken = time.monotonic() - started
        if not report.exists():
            print(done.stdout[-4_000:], done.stderr[-4_000:], sep="\n")
            return _Score(0, 1, (), (), taken)
        score = _score(ET.parse(report).getroot(), taken)  # noqa: S314 - pytest wrote it
    if score.failures:
        print(done.stdout[-8_000:])
    return score


def _score(report: ET.Element, seconds: float) -> _Score:
    cases = failures = 0
    skipped: dict[str, int] = {}
    killers: list[tuple[str, str]] = []
    for test in report.iter("testcase"):
        properties = dict(_properties(test))
        reason = test.find("skipped")
        if reason is not None:
            message = reason.get("message", "")
            skipped[message] = skipped.get(message, 0) + 1
            continue
        failures += test.find("failure") is not None or test.find("error") is not None
        cases += int(properties.get("cases", 1))
        if "killer" in properties:
            killers.append((properties["planted"], properties["killer"]))
    reasons = tuple(f"{count} x {message}" for message, count in skipped.items())
    return _Score(cases, failures, reasons, tuple(killers), seconds)


def _properties(test: ET.Element) -> Iterator[tuple[str, str]]:
    for item in test.iter("property"):
        yield item.get("name", ""), item.get("value", "")


def _print_scorecard(scores: Sequence[tuple[Row, _Score]]) -> None:
    killers = [killer for _, score in scores for killer in score.killers]
    if killers:
        print(f"\n{len(killers)} planted bugs, and what kills each:\n")
        width = max(len(planted) for planted, _ in killers)
        for planted, killer in killers:
            print(f"  {planted:<{width}}  {killer}")
    print(f"\n{'row':<36} {'cases':>10} {'failures':>9} {'seconds':>8}")
    for row, score in scores:
        print(f"{row.name:<36} {score.cases:>10,} {score.failures:>9} {score.seconds:>8.0f}")
    for row, score in scores:
        for reason in score.skipped:
            print(f"skipped in {row.name!r}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
