"""Run every benchmark, and write `benchmarks/RESULTS.md` and its plots; this is `make bench`.

With `--quick` they are written below `.bench`, so that figures that say little replace none.
`--peers PYTHON` is the interpreter that has the peers of `benchmarks.compare`; `--from DIR` writes
the pages from the JSON files of an earlier run.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks._environment import describe
from benchmarks._measure import SCRATCH, Report, Result
from benchmarks._plot import Points, bars, lines

BENCHMARKS: Final = (
    "append",
    "ceiling",
    "rebuild",
    "projector",
    "verify",
    "growth",
    "flat",
    "ends",
    "follow",
    "compare",
)
_ROOT: Final = Path(__file__).parents[1]
_PAGE: Final = Path(__file__).with_name("RESULTS.md")
_INTRODUCTION: Final = """\
# Results

Written by `make bench`: every table is one run on one machine, its environment above it. A case
and its floor take turns; the ratio is of neighbours, median of the rounds, higher is better.
Rates say how good the machine is, ratios how good the code is.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, and write the pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="figures say little")
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--from", dest="saved", type=Path, metavar="DIR")
    parser.add_argument("--page", type=Path, help="default: benchmarks/RESULTS.md")
    chosen = parser.parse_args(arguments)
    page: Path = chosen.page or (SCRATCH / "RESULTS.md" if chosen.quick else _PAGE)
    if chosen.saved is not None:
        write_page(page, list(_load(chosen.saved)))
        return
    with tempfile.TemporaryDirectory() as directory:
        for name in BENCHMARKS:
            print(f"bench: {name}", flush=True)
            python = chosen.peers if name == "compare" else sys.executable
            command = [python, "-m", f"benchmarks.{name}", "--json", f"{directory}/{name}.json"]
            quick = ["--quick", "--rounds", "1"] if chosen.quick else []
            subprocess.run([*command, *quick], cwd=_ROOT, check=True)  # noqa: S603 - our own modules
            print(flush=True)
        write_page(page, list(_load(Path(directory))))


def write_page(page: Path, reports: Sequence[Report]) -> None:
    """Write the tables into `page`, and the plots beside it into `results/`."""
    plots = page.parent / "results"
    plots.mkdir(parents=True, exist_ok=True)
    parts = [_INTRODUCTION]
    for report in reports:
        parts.append(f"## {report.benchmark}\n")
        parts.append(_question(report.benchmark))
        environment = describe(report.environment, with_directory=False)
        parts.append("\n".join(["```text", *environment, "```", ""]))
        if report.quick:
            parts.append("**Measured with `--quick`: these figures say little.**\n")
        for name, draw in _PLOTS.get(report.benchmark, {}).items():
            (plots / f"{name}.svg").write_text(draw(report.results), encoding="utf-8")
            parts.append(f"![{name.replace('-', ' ')}](results/{name}.svg)\n")
        parts.append(f"{report.title()}:\n")
        parts.append("\n".join(_markdown(report.rows())) + "\n")
        parts += [f"* {note}" for note in report.notes] + [""] * bool(report.notes)
    page.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    print(f"written: {page}, and the plots in {plots}")


def _load(directory: Path) -> Iterator[Report]:
    for name in BENCHMARKS:
        path = directory / f"{name}.json"
        if path.exists():
            yield msgspec.json.decode(path.read_bytes(), type=Report)


def _question(benchmark: str) -> str:
    """What a benchmark asks, in its own words."""
    module = importlib.import_module(f"benchmarks.{benchmark}")
    return inspect.cleandoc(module.__doc__ or "") + "\n"


def _markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *body = rows
    yield _row(head)
    yield _row(["---" if column < 2 else "--:" for column in range(len(head))])
    yield from map(_row, body)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# --- the plots ---


def _series(
    results: Sequence[Result], values: Mapping[str, Callable[[Result], float | None]]
) -> dict[str, Points]:
    """Points by name: one series for each setting and value, over the results' sizes."""
    series: dict[str, dict[float, float]] = {}
    for result in results:
        for name, value_of in values.items():
            value = value_of(result)
            if result.size is not None and value is not None:
                # A floor is measured beside each case: the first stands for all of that size.
                series.setdefault(name.format(result), {}).setdefault(result.size, value)
    return {name: list(points.items()) for name, points in series.items()}


def _durable_appends(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if not result.case.endswith("written")]


def _throughput(results: Sequence[Result]) -> str:
    loops = _series(_durable_appends(results), {"{0.setting}": lambda result: result.rate.median})
    one = [result for result in _durable_appends(results) if result.setting == "asyncio"]
    floor = _series(one, {"write + fdatasync floor": lambda result: result.floor.median})
    title = "Durable appends of one event"
    return lines(title, "tasks that wait", "appends per second", {**loops, **floor})


def _latency(results: Sequence[Result]) -> str:
    values: dict[str, Callable[[Result], float | None]] = {
        "{0.setting}, p50": lambda result: result.latency_p50_ms,
        "{0.setting}, p99": lambda result: result.latency_p99_ms,
    }
    series = _series(_durable_appends(results), values)
    return lines("How long a durable append is awaited", "tasks that wait", "milliseconds", series)


def _growth(results: Sequence[Result]) -> str:
    series = _series(results, {"{0.case}": _milliseconds, "decode floor": _floor_milliseconds})
    return lines("Opening a log that grows", "events", "milliseconds", series)


def _growth_each(results: Sequence[Result]) -> str:
    values: dict[str, Callable[[Result], float | None]] = {
        "{0.case}": lambda result: 1e3 * _milliseconds(result) / (result.size or 1),
        "decode floor": lambda result: 1e3 * _floor_milliseconds(result) / (result.size or 1),
    }
    series = _series(results, values)
    return lines("The same, for each event of the log", "events", "microseconds per event", series)


def _flat(results: Sequence[Result]) -> str:
    series = _series(results, {"{0.case}": lambda result: result.ratio.median})
    return lines("Speed in a long log, beside that in a short one", "events", "ratio", series)


def _ends(results: Sequence[Result]) -> str:
    series = _series(results, {"{0.case}": _milliseconds, "tail floor": _floor_milliseconds})
    return lines("Answers of a new process, cold", "events", "milliseconds", series)


def _milliseconds(result: Result) -> float:
    return 1e3 / result.rate.median


def _floor_milliseconds(result: Result) -> float:
    return 1e3 / result.floor.median


def _peers(results: Sequence[Result]) -> str:
    groups: dict[str, dict[str, float]] = {}
    for result in results:
        name = result.setting.partition(" (")[0]
        lossy = " (not durable)" if "NOT DURABLE" in result.setting else ""
        groups.setdefault(result.case, {})[name + lossy] = result.ratio.median
    return bars("How many times as fast as each peer ours is", groups)


_PLOTS: Final[Mapping[str, Mapping[str, Callable[[Sequence[Result]], str]]]] = {
    "append": {"append-throughput": _throughput, "append-latency": _latency},
    "growth": {"growth": _growth, "growth-per-event": _growth_each},
    "flat": {"flat": _flat},
    "ends": {"ends": _ends},
    "compare": {"peers": _peers},
}


if __name__ == "__main__":
    main()
