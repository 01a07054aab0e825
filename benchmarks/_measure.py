"""What the benchmarks share: rounds in which a case and its floor take turns, a table, JSON.

Machines are noisy. So a case and its floor run one right after the other, the one that
went first goes second in the next round, and a ratio is always of two neighbours; what is printed
is the median over the rounds, with the lowest and the highest beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import math
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks._environment import Environment, describe

__all__ = [
    "Case",
    "Options",
    "Report",
    "Result",
    "Run",
    "Spread",
    "compare",
    "options",
    "report",
    "scratch",
]

ROUNDS: Final = 5
QUICK_ROUNDS: Final = 2
SCRATCH: Final = Path(".bench")  # in the current directory, which is hardly ever in memory


class Options(argparse.Namespace):
    """What every benchmark can be told."""

    quick: bool
    json: Path | None
    directory: Path
    rounds: int


class Run(msgspec.Struct, frozen=True):
    """What one timed run did.

    Attributes:
        count: appends or events.
        seconds: how long all of them took.
        latencies_seconds: how long each was awaited, where that is a question.
        peak_bytes: the most memory it took above what its process began with; None if not asked.
    """

    count: int
    seconds: float
    latencies_seconds: Sequence[float] = ()
    peak_bytes: int | None = None

    def __repr__(self) -> str:
        # asyncio writes out the main task, its result included, when it hands SIGINT back: with
        # a million latencies that takes longer than the run.
        return f"<run of {self.count} in {self.seconds:.3f} s>"

    @property
    def rate(self) -> float:
        """How many per second."""
        return self.count / self.seconds


class Case(msgspec.Struct, frozen=True):
    """What is measured, and the floor it is compared with. Each call is one timed run.

    Attributes:
        name: what is measured.
        setting: under what (an event loop, a size).
        measure: runs it.
        floor: runs what it is compared with.
        size: the number in name or setting that a plot has on its x axis: tasks or events.
    """

    name: str
    setting: str
    measure: Callable[[], Run]
    floor: Callable[[], Run]
    size: int | None = None


class Spread(msgspec.Struct, frozen=True):
    """The values of the rounds, in order, and what to make of them."""

    median: float
    lowest: float
    highest: float
    rounds: list[float]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarize one value per round."""
        return cls(statistics.median(values), min(values), max(values), list(values))


class Result(msgspec.Struct, frozen=True):
    """One row of the table.

    Attributes:
        case: what was measured.
        setting: under what (an event loop, a size).
        rate: per second.
        floor: per second, of the floor.
        ratio: rate / floor, of neighbours.
        latency_p50_ms: awaited by half of all, over all rounds; None where it is no question.
        latency_p99_ms: awaited by 99 of 100.
        size: as the case has it.
        peak_bytes: of memory, the most of all rounds.
    """

    case: str
    setting: str
    rate: Spread
    floor: Spread
    ratio: Spread
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    size: int | None = None
    peak_bytes: int | None = None


class Report(msgspec.Struct, frozen=True):
    """All that one benchmark found; what `--json` writes.

    Attributes:
        benchmark: the module's own name.
        unit: what is counted, in the plural.
        columns: the names of the two rates of each result.
        quick: the figures say little.
        environment: where.
        results: the rows.
        notes: what belongs below the table.
        as_durations: each run is one thing, and the table says how long it takes.
    """

    benchmark: str
    unit: str
    columns: tuple[str, str]
    quick: bool
    environment: Environment
    results: list[Result]
    notes: list[str]
    as_durations: bool

    def title(self) -> str:
        """What the figures are."""
        what = f"how long {self.unit} take" if self.as_durations else f"{self.unit} per second"
        return f"{self.benchmark}: {what}, median of the rounds (lowest .. highest)"

    def rows(self) -> list[list[str]]:
        """The table, its head first; the first two columns are words, the others numbers."""
        unit = "ms" if self.as_durations else f"{self.unit}/s"
        rate, floor = (
            f"{name} {unit}" if self.as_durations and name else f"{name}/s" if name else unit
            for name in self.columns
        )
        head = ["case", "", rate, "(spread)", floor, "(spread)", "ratio", "(spread)"]
        with_latency = any(result.latency_p50_ms is not None for result in self.results)
        with_peak = any(result.peak_bytes is not None for result in self.results)
        rows = [head + ["p50", "p99"] * with_latency + ["peak"] * with_peak]
        for result in self.results:
            row = [result.case, result.setting]
            for spread in (result.rate, result.floor):
                row += _durations(spread) if self.as_durations else _figures(spread, 0)
            row += _figures(result.ratio, 2)
            if with_latency:
                row += [_milliseconds(result.latency_p50_ms), _milliseconds(result.latency_p99_ms)]
            if with_peak:
                peak = result.peak_bytes
                row.append("" if peak is None else f"{peak / 2**20:.1f} MiB")
            rows.append(row)
        return rows


def options(description: str | None) -> argparse.ArgumentParser:
    """Make a parser of the options that all benchmarks have; parse into `Options`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds, figures say little")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument(
        "--directory",
        type=Path,
        default=SCRATCH,
        metavar="DIR",
        help="where to make scratch files; they are removed afterwards (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=_positive, default=0, help=f"default: {ROUNDS}")
    return parser


@contextlib.contextmanager
def scratch(directory: Path) -> Generator[Path]:
    """Make an empty directory of our own inside `directory`; remove what was made at the end."""
    made = [parent for parent in (directory, *directory.parents) if not parent.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix="bench-", dir=directory))
    try:
        yield own
    finally:
        shutil.rmtree(own)
        with contextlib.suppress(OSError):  # another benchmark is still at work there
            for parent in made:
                parent.rmdir()


def compare(cases: Sequence[Case], chosen: Options, *, warm_up: bool = True) -> list[Result]:
    """Measure all cases, each in turns with its floor.

    Args:
        cases: what to measure, in this order in every round.
        chosen: how many rounds.
        warm_up: begin with a round that does not count. Nothing to gain where every run is a
            process of its own.
    """
    rounds = chosen.rounds or (QUICK_ROUNDS if chosen.quick else ROUNDS)
    runs: list[list[tuple[Run, Run]]] = [[] for _ in cases]
    for number in range(-1 if warm_up else 0, rounds):
        _progress(f"round {number + 1} of {rounds}" if number >= 0 else "warming up")
        for case, pairs in zip(cases, runs, strict=True):
            gc.collect()
            if number % 2:
                floor, run = case.floor(), case.measure()
            else:
                run, floor = case.measure(), case.floor()
            if number >= 0:
                pairs.append((run, floor))
    _progress("")
    return [_result(case, pairs) for case, pairs in zip(cases, runs, strict=True)]


def report(
    benchmark: str,
    unit: str,
    environment: Environment,
    results: Sequence[Result],
    chosen: Options,
    *,
    columns: tuple[str, str] = ("", "floor"),
    notes: Sequence[str] = (),
    as_durations: bool = False,
) -> None:
    """Print the environment and the table; write JSON if that was asked for.

    Args:
        benchmark: the module's own name.
        unit: what is counted, in the plural.
        environment: as it was before the first run, so that its load is that of others.
        results: the rows.
        chosen: the options.
        columns: what the rate of a case is called, and that of its floor; "" for the unit.
        notes: lines below the table.
        as_durations: each run is one thing; print how long it takes, not how many per second.
    """
    done = Report(
        benchmark,
        unit,
        columns,
        chosen.quick,
        environment,
        list(results),
        list(notes),
        as_durations,
    )
    print(f"{done.title()}\n")
    print("\n".join(describe(environment)))
    if chosen.quick:
        print("--quick: too short to say much")
    print()
    print("\n".join(_table(done.rows())))
    if notes:
        print("\n" + "\n".join(notes))
    if chosen.json is not None:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(done), indent=2) + b"\n")


def _result(case: Case, pairs: Sequence[tuple[Run, Run]]) -> Result:
    latencies = sorted(latency for run, _ in pairs for latency in run.latencies_seconds)
    return Result(
        case=case.name,
        setting=case.setting,
        rate=Spread.of([run.rate for run, _ in pairs]),
        floor=Spread.of([floor.rate for _, floor in pairs]),
        ratio=Spread.of([run.rate / floor.rate for run, floor in pairs]),
        latency_p50_ms=1e3 * _percentile(latencies, 50) if latencies else None,
        latency_p99_ms=1e3 * _percentile(latencies, 99) if latencies else None,
        size=case.size,
        peak_bytes=max(
            (run.peak_bytes for run, _ in pairs if run.peak_bytes is not None), default=None
        ),
    )


def _percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest rank: a value that really occurred."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_aligned(row, widths)).rstrip() for row in rows]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if column < 2 else cell.rjust(width)


def _figures(spread: Spread, digits: int) -> list[str]:
    lowest, highest = f"{spread.lowest:,.{digits}f}", f"{spread.highest:,.{digits}f}"
    return [f"{spread.median:,.{digits}f}", f"({lowest} .. {highest})"]


def _durations(spread: Spread) -> list[str]:
    shortest, longest = f"{1e3 / spread.highest:,.2f}", f"{1e3 / spread.lowest:,.2f}"
    return [f"{1e3 / spread.median:,.2f}", f"({shortest} .. {longest})"]


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f} ms"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _progress(text: str) -> None:
    """Say on a terminal what goes on, and take it away again."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
