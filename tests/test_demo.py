"""The demo: it really kills, really recovers, and counts what it promised."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest

import eventstore as es
import projections as pj
from projections.cli.demo._loops import LOOPS, Acknowledged
from projections.cli.demo._story import JQ_LINES, count_broken

ROOT = Path(__file__).parent.parent


class Told(NamedTuple):
    """One run of the demo."""

    text: str
    path: Path


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Run the demo once, as `make demo` does."""
    done = subprocess.run(
        [sys.executable, "-m", "projections.cli.demo"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path_factory.mktemp("demo"))},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    path = Path(done.stdout.splitlines()[-1].removeprefix("The log: "))
    return Told(done.stdout, path)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _numbers(pattern: str, text: str) -> tuple[int, ...]:
    match = re.search(pattern, text)
    assert match is not None, pattern
    return tuple(map(int, match.groups()))


def test_every_acknowledged_event_is_in_the_log(told: Told) -> None:
    """What was acknowledged before and after the kills is there, and the log is sound."""
    acknowledged, kept, missing = _numbers(
        r"acknowledged (\d+), of these in the log (\d+), missing (\d+)", told.text
    )
    (unheard,) = _numbers(r"before anyone was told: (\d+)", told.text)
    assert (kept, missing) == (acknowledged, 0)
    assert acknowledged + unheard == len(_lines(told.path))
    assert es.verify_log(told.path).is_sound


def test_a_torn_commit_really_was_there(told: Told) -> None:
    """The bytes that recovery says it cut stand in the quarantine, at the place it names."""
    offset, torn = _numbers(r"byte (\d+), position \d+: an unfinished write of (\d+) b", told.text)
    (cut,) = _numbers(r"Cut (\d+) bytes of the torn commit", told.text)
    quarantined = re.search(r"^  (/.*\.bin)$", told.text, flags=re.MULTILINE)
    assert quarantined is not None
    kept = Path(quarantined[1]).read_bytes()
    assert torn == cut == len(kept) > 0
    assert kept.startswith(b'{"ts":')
    assert f"-{offset}-{cut}-" in quarantined[1]


def test_each_loop_goes_on_where_it_was(told: Told) -> None:
    """`loop_resumed` names the iteration that was open, or the next one, and it is done next."""
    for loop in LOOPS:
        types = [line["type"] for line in _lines(told.path) if line.get("stream") == loop.name]
        kinds = [event["kind"] for event in types]
        assert kinds.count("loop_resumed") == 1
        at = kinds.index("loop_resumed")
        done = [event["iteration"] for event in types[:at] if event["kind"].endswith("n_completed")]
        assert types[at]["from_iteration"] == len(done) + 1
        assert types[at + 1] == {"kind": "iteration_started", "iteration": len(done) + 1}
        last_line = next(line for line in told.text.splitlines() if f"  {loop.name} " in line)
        assert f"resume at iteration {len(done) + 1}" in " ".join(last_line.split())


def test_the_loops_end_as_the_story_says(told: Told) -> None:
    """One is completed, two are merged, one merge fails, one loop is discarded."""

    async def registry() -> dict[str, pj.LoopEntry]:
        async with es.open_store(told.path, read_only=True) as store:
            loaded = await pj.load_all(store, pj.REGISTRY)
            return {name: loop.state for name, loop in loaded.items()}

    entries = anyio.run(registry)
    states = sorted(entries[loop.name].state for loop in LOOPS)
    assert states == ["completed", "discarded", "merged", "merged", "needs-review"]
    for loop in LOOPS:
        entry = entries[loop.name]
        assert (entry.last_iteration, entry.iterations_failed) == (
            loop.iterations,
            len(loop.failing),
        )
        assert (entry.run, entry.anomaly_count) == (1, 0)
        assert told.text.count(f"\n{loop.name} ") == 2


def test_the_jq_lines_it_names_work(told: Told) -> None:
    """Each line, pasted into a shell, prints something about the loops."""
    for line in JQ_LINES:
        (command,) = [row.strip() for row in told.text.splitlines() if row.startswith(f"  {line}")]
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        assert "quick-lynx" in done.stdout


def test_it_is_plain_in_a_pipe(told: Told) -> None:
    """No escape sequence, and no line of the tables is wider than a terminal."""
    assert "\x1b" not in told.text


def test_a_missing_acknowledged_event_fails_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One event that is not where it was said to be is counted and named."""
    path = tmp_path / "history.jsonl"

    async def write() -> list[es.Recorded[es.LoopEvent]]:
        async with es.open_store(path) as store:
            await store.append("otter", [es.MergeQueued()], expected_version=es.NO_STREAM)
            return [recorded async for recorded in store.read_all()]

    recorded = anyio.run(write)
    kept = Acknowledged("otter", 1, 1, "merge_queued")
    assert count_broken(path, [kept], recorded) == 0
    assert count_broken(path, [kept, Acknowledged("otter", 2, 2, "merge_started")], recorded) == 1
    assert "MISSING merge_started at position 2 of otter" in capsys.readouterr().out
    assert count_broken(path, [Acknowledged("otter", 2, 1, "merge_queued")], recorded) == 1
    path.write_bytes(path.read_bytes()[:-1])
    assert count_broken(path, [kept], recorded) == 1
