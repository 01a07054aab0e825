"""The benchmarks run, and print and write what they say; how fast they are is no test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import anyio
import msgspec
import pytest

import eventstore as es
from benchmarks import _environment
from benchmarks._environment import Environment, describe, survey
from benchmarks._kept_log import KeptLog
from benchmarks._measure import Case, Options, Run, compare, scratch
from benchmarks._peers import PEERS, installed
from benchmarks._plot import bars, lines
from benchmarks._results import main as write_results
from benchmarks.rebuild import write_log

ROOT = Path(__file__).parents[1]


def run(directory: Path, module: str, *arguments: str) -> tuple[str, Any]:
    """Run one benchmark as its user would; return what it printed and its JSON."""
    results = directory / "results.json"
    command = [sys.executable, "-W", "error", "-m", module, "--quick", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--json", str(results), "--directory", str(directory / "new"), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout, msgspec.json.decode(results.read_bytes())


def check_results(written: Any) -> None:
    """Check what holds on every machine, however loaded."""
    environment = msgspec.convert(written["environment"], Environment)
    assert environment.sync_p50_us > 0
    assert environment.cores >= 1
    for result in written["results"]:
        assert result["rate"]["lowest"] > 0
        assert result["floor"]["lowest"] > 0
        assert result["ratio"]["median"] > 0
        assert len(result["ratio"]["rounds"]) == 1


def test_append_measures_every_case_beside_its_floor(tmp_path: Path) -> None:
    """Each number of tasks, `written` and bulk, per event loop, with p50 and p99."""
    printed, written = run(tmp_path, "benchmarks.append", "--trio")
    check_results(written)
    results = written["results"]
    loops = {result["setting"] for result in results}
    assert loops >= {"asyncio", "trio"}
    for loop in loops:
        assert [result["case"] for result in results if result["setting"] == loop] == [
            "1 task",
            "64 tasks",
            "256 tasks",
            "1024 tasks",
            "1 task, written",
            "bulk, 1 task",
            "bulk, 4 tasks",
        ]
    assert all(0 < result["latency_p50_ms"] <= result["latency_p99_ms"] for result in results)
    assert "floor/s" in printed
    assert not (tmp_path / "new").exists()


def test_rebuild_measures_every_fold_beside_a_bare_decode(tmp_path: Path) -> None:
    """SUMMARY, REGISTRY and all built-in projections; each folded the whole log."""
    printed, written = run(tmp_path, "benchmarks.rebuild", "--events", "2000", "--streams", "3")
    check_results(written)
    assert [result["case"] for result in written["results"]] == ["SUMMARY", "REGISTRY", "all"]
    assert "2,000 events, 3 streams" in printed
    assert not (tmp_path / "new").exists()


def test_ceiling_measures_what_no_store_can_be_faster_than(tmp_path: Path) -> None:
    """As many tasks as `append`, per event loop."""
    _, written = run(tmp_path, "benchmarks.ceiling")
    check_results(written)
    loops = {result["setting"] for result in written["results"]}
    assert "asyncio" in loops
    for loop in loops:
        cases = [result["case"] for result in written["results"] if result["setting"] == loop]
        assert cases == ["1 task", "64 tasks", "256 tasks", "1024 tasks"]


def test_verify_measures_every_shape_of_log_beside_a_bare_checksum(tmp_path: Path) -> None:
    """Two lengths of line, three sizes of commit, with and without numbers; all of each log."""
    printed, written = run(tmp_path, "benchmarks.verify")
    check_results(written)
    assert [result["case"] for result in written["results"]] == 2 * [
        f"{what}, {shape} a commit"
        for shape in ("1 event", "64 tasks", "1,000 events")
        for what in ("verify", "checksums")
    ]
    lengths = [int(result["setting"].split()[0]) for result in written["results"]]
    assert lengths == pytest.approx(6 * [200] + 6 * [300], abs=15)
    assert "bytes/s" in printed
    assert not (tmp_path / "new").exists()


def test_projector_measures_catching_up_restarting_and_rebuilding(tmp_path: Path) -> None:
    """Each beside its floor; every view includes every event."""
    printed, written = run(tmp_path, "benchmarks.projector", "--events", "11000")
    check_results(written)
    assert [result["case"] for result in written["results"]] == [
        "catch up, SUMMARY",
        "catch up, REGISTRY",
        "catch up, all",
        *["restart, saved states"] * 3,
        "rebuild, with progress",
    ]
    assert "11,000 events" in printed
    assert not (tmp_path / "new").exists()


def test_compare_measures_ours_beside_each_peer_that_is_installed(tmp_path: Path) -> None:
    """Each workload beside each peer; the lossy ones and the missing ones are named as such."""
    printed, written = run(tmp_path, "benchmarks.compare")
    check_results(written)
    results = written["results"]
    workloads = ["1 task", "64 tasks", "1,000 by 100", "1,000 by 1,000", "read 1,000"]
    assert list(dict.fromkeys(result["case"] for result in results)) == workloads
    beside = {result["setting"].partition(" (")[0] for result in results}
    assert beside == {peer.name for peer in PEERS if installed(peer)}
    assert beside >= {"aiofiles", "aiofiles, fsync", "logging"}
    lossy = {
        one["setting"].partition(" (")[0] for one in results if "NOT DURABLE" in one["setting"]
    }
    assert lossy == {"aiofiles", "logging"}
    missing = [f"not installed: {peer.name}" for peer in PEERS if not installed(peer)]
    assert written["notes"] == missing
    assert all(line in printed for line in missing)
    assert "theirs/s" in printed
    assert not (tmp_path / "new").exists()


def test_growth_opens_and_reads_logs_of_every_size(tmp_path: Path) -> None:
    """Closed, killed, without an index, one stream; each with its memory, and the index's size."""
    printed, written = run(tmp_path, "benchmarks.growth")
    check_results(written)
    assert [(result["case"], result["size"]) for result in written["results"]] == [
        (case, size)
        for size in (2_000, 10_000)
        for case in ("open, closed", "open, killed", "open, no index", "read stream")
    ]
    assert all(result["peak_bytes"] >= 0 for result in written["results"])
    assert written["notes"][0].endswith(" 0.0 bytes of index per event")  # less than a MiB
    assert float(written["notes"][1].rpartition(", ")[2].split()[0]) > 1
    assert "floor ms" in printed
    assert not (tmp_path / "new").exists()


def test_flat_measures_long_logs_beside_short_ones_and_many_segments_beside_few(
    tmp_path: Path,
) -> None:
    """Appends, a fold and an opening at each size; segments are named by how many there are."""
    printed, written = run(tmp_path, "benchmarks.flat")
    check_results(written)
    cases = ("append, 1024 tasks", "bulk, 4 tasks", "fold SUMMARY", "open, no index")
    assert [(result["case"], result["setting"]) for result in written["results"]] == [
        *((case, f"{size} events") for case in cases for size in ("2,000", "10,000")),
        ("open, 20 segments", "2,000 events, beside 5 segments"),
    ]
    for result in written["results"][:4]:
        assert 0 < result["latency_p50_ms"] <= result["latency_p99_ms"]
    assert "floor/s" in printed
    assert not (tmp_path / "new").exists()


def test_follow_measures_subscribers_and_processes_that_share_a_log(tmp_path: Path) -> None:
    """Seen here and elsewhere, with p50 and p99; four processes beside one; idle costs."""
    _, written = run(tmp_path, "benchmarks.follow")
    check_results(written)
    assert [(result["case"], result["setting"]) for result in written["results"]] == [
        ("seen, in process", ""),
        ("seen, other process", ""),
        ("4 processes", "1 task each"),
        ("4 processes", "64 tasks each"),
        ("4 processes", "256 tasks each"),
    ]
    for seen in written["results"][:2]:
        assert 0 < seen["latency_p50_ms"] <= seen["latency_p99_ms"]
    notes = "\n".join(written["notes"])
    assert notes.count("the slowest appended") == 3
    assert "idle subscriber" in notes
    assert not (tmp_path / "new").exists()


def test_ends_asks_four_questions_of_our_log_and_of_the_originals(tmp_path: Path) -> None:
    """Every answer is right, and comes from a process of its own."""
    _, written = run(tmp_path, "benchmarks.ends")
    check_results(written)
    assert [result["case"] for result in written["results"]] == [
        f"{question}, {writer}"
        for writer in ("ours", "original")
        for question in ("last iteration", "completed", "prompt", "resume")
    ]
    assert all(result["peak_bytes"] >= 0 for result in written["results"])
    assert not (tmp_path / "new").exists()


def test_the_page_has_every_table_and_links_plots_that_are_there(tmp_path: Path) -> None:
    """From the JSON of a run: environment, rows, notes, and SVG files that an XML parser takes."""
    for name in ("compare", "append"):
        run(tmp_path, f"benchmarks.{name}")
        (tmp_path / "results.json").rename(tmp_path / f"{name}.json")
    page = tmp_path / "pages" / "RESULTS.md"
    write_results(["--from", str(tmp_path), "--page", str(page)])
    text = page.read_text(encoding="utf-8")
    assert "these figures say little" in text
    assert re.findall(r"^## (\w+)", text, re.MULTILINE) == ["append", "compare"]
    plots = re.findall(r"]\((results/[a-z-]+\.svg)\)", text)
    assert plots == [
        f"results/{name}.svg" for name in ("append-throughput", "append-latency", "peers")
    ]
    for plot in plots:
        drawn = ET.parse(page.parent / plot)  # noqa: S314 - our own file
        assert drawn.getroot().tag == "{http://www.w3.org/2000/svg}svg"
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| 64 tasks")}
    assert widths == {9}


def test_a_plot_escapes_names_and_stays_on_its_page() -> None:
    """One point, equal values, and a name that is markup: still a picture."""
    for drawn in (
        lines("<t>", "x", "y", {"<a> & b": [(1, 5)], "b floor": [(1, 5)]}),
        lines("nothing", "x", "y", {}),
        bars("b", {"<g>": {"<p>": 1.0}, "h": {"slow": 0.001, "fast": 1e6}}),
    ):
        for element in ET.fromstring(drawn).iter():  # noqa: S314 - our own text
            for name, end in (("x", 720), ("cx", 720), ("x1", 720), ("x2", 720)):
                assert 0 <= float(element.get(name, "0")) <= end


def test_a_case_and_its_floor_take_turns_and_swap_places() -> None:
    """Every round measures both; the first round only warms up, and each goes first in turn."""
    order: list[str] = []

    def timed(name: str, count: int) -> Run:
        order.append(name)
        return Run(count, seconds=2.0, latencies_seconds=[0.003, 0.001, 0.002])

    case = Case("case", "", lambda: timed("case", 10), lambda: timed("floor", 40))
    (result,) = compare([case], Options(rounds=3, quick=False))
    warm_up, *rounds = [order[at : at + 2] for at in range(0, len(order), 2)]
    assert sorted(warm_up) == ["case", "floor"]
    assert rounds == [["case", "floor"], ["floor", "case"], ["case", "floor"]]
    assert result.rate.rounds == [5.0, 5.0, 5.0]
    assert (result.ratio.lowest, result.ratio.median, result.ratio.highest) == (0.25, 0.25, 0.25)
    assert (result.latency_p50_ms, result.latency_p99_ms) == (2.0, 3.0)


def test_scratch_files_are_removed_and_what_was_there_stays(tmp_path: Path) -> None:
    """A directory that existed keeps its files; one that was made for the run goes."""
    (tmp_path / "mine").write_text("kept", encoding="utf-8")
    with scratch(tmp_path) as own:
        (own / "log").touch()
    with scratch(tmp_path / "made" / "for it") as own:
        (own / "log").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_kept_log_is_the_same_after_appends_and_after_sealing(tmp_path: Path) -> None:
    """The same bytes in the same file, vouched for by the same lock record, with the same index."""

    def found() -> dict[str, tuple[int, bytes]]:
        paths = (path for path in log.path.parent.rglob("*") if path.is_file())
        return {path.name: (path.stat().st_ino, path.read_bytes()) for path in paths}

    async def append(segment_bytes_max: int | None) -> None:
        async with es.open_store(log.path, segment_bytes_max=segment_bytes_max) as store:
            await store.append("other", [es.LoopStarted(prompt="more")], expected_version=es.ANY)

    log = KeptLog(tmp_path / "log")
    anyio.run(write_log, log.path, 10_000, 2)
    log.keep()
    kept = found()
    assert sum(name.endswith(".run") for name in kept) == 1
    for segment_bytes_max, segments in ((None, 1), (1, 2)):
        anyio.run(append, segment_bytes_max)
        assert len(log.segments()) == segments
        log.restore()
        assert found() == kept
    log.restore(without_index=True)
    assert {name for name in kept.keys() - found().keys() if name.endswith(".run")}


def test_a_directory_in_memory_is_named_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync in memory costs nothing, so the figures of such a run say so above the table."""

    def in_memory(directory: Path) -> str:
        del directory
        return "tmpfs"

    monkeypatch.setattr(_environment, "_file_system", in_memory)
    assert "this is memory" in describe(survey(tmp_path))[-1]
