"""`loopledger prove`: it really kills and compares, and it fails where an engine lies."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

import eventstore as es
from projections.cli.prove._check import check
from projections.cli.prove._crew import employ
from projections.cli.prove._cuts import cut_copies
from projections.cli.prove._disk import look_at
from projections.cli.prove._writers import Done, topic

ROOT = Path(__file__).parent.parent


def _command(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "projections.cli", "prove", *arguments]


def _environment(root: Path = ROOT) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": str(root), "PYTHONUTF8": "1"}


def _run(
    *arguments: str | Path, root: Path = ROOT, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(*arguments),
        env=_environment(root),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _record(log: Path, appends: int) -> list[Done]:
    """Appends of two events each, as a writer makes and tells them."""

    async def record() -> list[Done]:
        done: list[Done] = []
        async with es.open_store(log) as store:
            for number in range(appends):
                key = f"1-0-{number}"
                events = [
                    es.EventPublished(topic=topic(key, number=index, events=2), payload="x")
                    for index in range(2)
                ]
                result = await store.append("loop-1", events, expected_version=es.ANY, key=key)
                done.append(Done(key, "loop-1", 2, result.version, result.position))
        return done

    return anyio.run(record)


def _faults(log: Path, acknowledged: list[Done]) -> tuple[int, list[str]]:
    async def run() -> tuple[int, list[str]]:
        checked = await check(log, acknowledged, after=0)
        return checked.lost, checked.faults

    return anyio.run(run)


def test_a_campaign_kills_writers_and_loses_nothing(tmp_path: Path) -> None:
    """Two seconds of real kills: every figure counts something, and nothing is left behind."""
    (tmp_path / "mine").write_text("kept", encoding="utf-8")
    done = _run("--seconds", "2", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["lost"], told["faults"], told["directory"]) == (0, [], None)
    assert told["recorded"] >= told["acknowledged"] > 0
    assert min(told[name] for name in ("kills", "reopenings", "commits", "cuts", "events")) > 0
    assert told["disk"]["sync_p99_ms"] >= told["disk"]["sync_p50_ms"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_engine_that_tells_wrong_numbers_fails_and_the_logs_are_kept(tmp_path: Path) -> None:
    """With a planted bug the exit code is 4, what is missing is named, and where to look."""
    broken = tmp_path / "broken"
    for package in ("eventstore", "projections"):
        shutil.copytree(ROOT / package, broken / package)
    admission = broken / "eventstore" / "_log" / "_admission.py"
    source = admission.read_text(encoding="utf-8")
    planted = source.replace("= Appended(version, position)", "= Appended(version, position + 1)")
    assert planted != source
    admission.write_text(planted, encoding="utf-8")
    done = _run("--seconds", "2", "--dir", tmp_path, root=broken, cwd=tmp_path)
    assert done.returncode == 4
    assert "BROKEN" in done.stdout
    assert "acknowledged, and not there" in done.stdout
    assert not re.search(r"acknowledged and lost: 0$", done.stdout, flags=re.MULTILINE)
    kept = re.search(r"^The logs are kept in (.*)$", done.stdout, flags=re.MULTILINE)
    assert kept is not None
    assert list(Path(kept[1]).glob("log-*/history.jsonl"))


def test_what_is_not_where_it_was_said_to_be_is_lost(tmp_path: Path) -> None:
    """Another position, version, stream or number of events is not what was acknowledged."""
    log = tmp_path / "history.jsonl"
    one, two, three = _record(log, 3)
    assert _faults(log, [one, two, three]) == (0, [])
    assert _faults(log, []) == (0, [])  # recorded, and nobody was told before the kill
    for wrong in (
        Done(two.key, two.stream, 2, two.version, two.position + 1),
        Done(two.key, two.stream, 2, two.version + 1, two.position),
        Done(two.key, "loop-2", 2, two.version, two.position),
        Done(two.key, two.stream, 3, two.version, two.position),
        Done("1-0-9", two.stream, 2, three.version + 2, three.position + 2),
    ):
        lost, faults = _faults(log, [one, wrong, three])
        assert lost == 1
        assert wrong.key in faults[0]


def test_half_an_append_and_one_that_is_there_twice_are_faults(tmp_path: Path) -> None:
    """Nobody needs to have been told of an append for it to be wrong that only half is there."""

    async def record(log: Path, numbers: list[int]) -> None:
        async with es.open_store(log) as store:
            events = [
                es.EventPublished(topic=topic("1-0-1", number=number, events=2), payload="x")
                for number in numbers
            ]
            await store.append("loop-1", events, expected_version=es.ANY)

    for name, numbers in (("half", [0]), ("twice", [0, 1, 0, 1]), ("swapped", [1, 0])):
        log = tmp_path / name / "history.jsonl"
        anyio.run(record, log, numbers)
        assert _faults(log, []) == (0, ["not whole, or twice: the append with key 1-0-1"])


def test_a_log_that_does_not_open_loses_everything_it_held(tmp_path: Path) -> None:
    """Damage is a fault, and every append since the last check counts as lost."""
    log = tmp_path / "history.jsonl"
    acknowledged = _record(log, 3)
    os.truncate(log, log.stat().st_size - 1)
    lost, faults = _faults(log, acknowledged)
    assert lost == 3
    assert faults[0].startswith("the log does not open again: ")


def test_cut_copies_end_behind_what_was_acknowledged(tmp_path: Path) -> None:
    """Each copy ends elsewhere, between the last acknowledged event and the end, and is removed."""
    log = tmp_path / "history.jsonl"
    acknowledged = _record(log, 4)
    content = log.read_bytes()
    end = len(b"".join(content.splitlines(keepends=True)[:4]))
    sizes: list[int] = []
    for copy in cut_copies(log, tmp_path / "cut", acknowledged[:2], random.Random(1)):
        assert content.startswith(copy.read_bytes())
        sizes.append(copy.stat().st_size)
        assert _faults(copy, acknowledged[:2]) == (0, [])
    assert sizes[0] == end
    assert sizes == sorted(set(sizes))
    assert all(end <= size <= len(content) for size in sizes)
    assert not (tmp_path / "cut").exists()


def test_no_copy_is_cut_within_an_acknowledged_commit(tmp_path: Path) -> None:
    """Whoever was told of one append knows that its whole commit is durable, others' too."""
    log = tmp_path / "history.jsonl"
    acknowledged: list[Done] = []

    async def record() -> None:
        async with es.open_store(log) as store, anyio.create_task_group() as tasks:

            async def append(number: int) -> None:
                key, stream = f"1-{number}-1", f"loop-{number}"
                event = es.EventPublished(topic=topic(key, number=0, events=1), payload="x")
                result = await store.append(stream, [event], expected_version=0, key=key)
                acknowledged.append(Done(key, stream, 1, result.version, result.position))

            for number in range(8):
                tasks.start_soon(append, number)

    anyio.run(record)
    shared = [line["commit"] for line in map(json.loads, log.read_bytes().splitlines())]
    (first,) = [done for done in acknowledged if done.position == shared[-1][0]]
    assert shared[-1][1] > first.position
    for copy in cut_copies(log, tmp_path / "cut", [first], random.Random(1)):
        assert _faults(copy, [first]) == (0, [])


def test_a_cut_before_what_was_acknowledged_would_be_noticed(tmp_path: Path) -> None:
    """The comparison of a copy fails as soon as one acknowledged line is cut off."""
    log = tmp_path / "history.jsonl"
    acknowledged = _record(log, 2)
    for copy in cut_copies(log, tmp_path / "cut", acknowledged, random.Random(1)):
        os.truncate(copy, copy.stat().st_size - 1)
        assert _faults(copy, acknowledged)[0] == 1


def test_a_writer_that_ends_by_itself_is_a_fault(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A crash that nobody asked for does not pass as a kill."""
    (tmp_path / "history.jsonl").mkdir()
    with employ(tmp_path / "history.jsonl", 0) as crew:
        while not crew.faults and not crew.kills:
            crew.harass()
        assert crew.end() == []
    assert "ended by itself, with 1" in crew.faults[0]
    assert "StoreUnavailableError" in capfd.readouterr().err


def test_ctrl_c_ends_a_campaign_and_leaves_nothing(tmp_path: Path) -> None:
    """The writers are killed, the scratch directory goes, and there is no traceback."""
    with subprocess.Popen(
        _command("--seconds", "60", "--dir", tmp_path),
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        while not list(tmp_path.glob("*/log-*/history.jsonl")):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_written_is_exit_code_3(tmp_path: Path) -> None:
    """The directory is named, and the option to name another."""
    done = _run("--dir", tmp_path / "no\x1b[31m")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error[E-PATH] ")
    assert "--dir DIR" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", "0", "-1"])
def test_a_time_that_is_none_is_an_error_of_the_command_line(tmp_path: Path, seconds: str) -> None:
    """It has to be a finite number above 0; nothing is started."""
    done = _run("--seconds", seconds, "--dir", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error[E-USAGE] Invalid value for '--seconds': ")
    assert list(tmp_path.iterdir()) == []


def test_a_campaign_in_which_nothing_happened_proves_nothing(tmp_path: Path) -> None:
    """In a time too short to kill anything nothing is lost either; that is no success."""
    done = _run("--seconds", "1e-300", "--dir", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "0 appends acknowledged and 0 kills prove nothing" in done.stderr
    assert "--seconds" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_disk_is_named_and_its_syncs_are_timed(tmp_path: Path) -> None:
    """Where there is /proc the file system has a name; the file that was timed is gone."""
    disk = look_at(tmp_path)
    assert disk.file_system
    assert disk.device
    assert 0 < disk.sync_p50_ms <= disk.sync_p99_ms
    assert list(tmp_path.iterdir()) == []
