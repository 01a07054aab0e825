"""The pytest plugin and the logs it hands out, as a user's own test run sees them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final, assert_type

import pytest

import eventstore as es
from projections.testing import TmpLog, tmp_store

ROOT: Final = Path(__file__).parents[2]
PLUGIN: Final = "projections.testing.plugin"
USES_IT: Final = """
import anyio, pytest, eventstore as es

def test_reopened(tmp_log):
    async def write():
        async with tmp_log.open() as store:
            await store.append("otter", [es.MergeQueued()], expected_version=0)
    async def read():
        async with tmp_log.open() as store:
            return [r.timestamp.isoformat() async for r in store.read_all()]
    anyio.run(write)
    assert anyio.run(read) == ["2026-01-01T00:00:00+00:00"]
"""


class Paid(es.Event):
    """A kind of a user's own."""

    amount: int


def _pytest(directory: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_it.py").write_text(source, encoding="utf-8")
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", *options],
        env={**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# The entry point may or may not be installed here, so it is left out and the module is named.
LOADED: Final = ("-p", "no:loopledger", "-p", PLUGIN)


def test_the_fixture_is_a_log_in_memory_and_one_on_disk(tmp_path: Path) -> None:
    """A test that asks for it runs twice, and may open the log again."""
    done = _pytest(tmp_path, USES_IT, "-v", *LOADED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_reopened[memory] PASSED" in done.stdout
    assert "test_reopened[disk] PASSED" in done.stdout


@pytest.mark.parametrize("other", ["anyio", "hypothesispytest", "assertion"])
def test_the_plugin_needs_no_other_plugin(tmp_path: Path, other: str) -> None:
    """Whatever else is switched off, warnings being errors."""
    done = _pytest(tmp_path, USES_IT, *LOADED, "-p", f"no:{other}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_the_plugin_nothing_is_missing_but_the_fixture(tmp_path: Path) -> None:
    """`-p no:loopledger` leaves it out; everything else can be imported."""
    source = "import projections.testing\ndef test_it(): assert projections.testing.TmpLog\n"
    assert _pytest(tmp_path, source, "-p", "no:loopledger").returncode == 0
    done = _pytest(tmp_path, USES_IT, "-p", "no:loopledger")
    assert "fixture 'tmp_log' not found" in done.stdout


def test_the_plugin_is_what_the_entry_point_names() -> None:
    """Pytest finds it by the distribution's metadata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"loopledger": PLUGIN}


def test_the_kit_works_without_pytest(tmp_path: Path) -> None:
    """Only the plugin's module imports it."""
    script = "import sys; sys.modules['pytest'] = None; import projections.testing"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_plugin_imports_little_at_start() -> None:
    """Its module asks for pytest, a path and the logs; the suites are not its business."""
    tree = ast.parse((ROOT / "projections" / "testing" / "plugin.py").read_bytes())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"__future__", "pathlib", "projections.testing._logs"}


# --- the logs themselves ---


@pytest.mark.anyio
@pytest.mark.parametrize("on", ["memory", "disk"])
async def test_a_store_for_one_test_is_empty_and_ticks(on: str) -> None:
    """Its clock is the same in every run: a millisecond per append."""
    opened = tmp_store(on="memory") if on == "memory" else tmp_store(on="disk")
    async with opened as store:
        assert store.position == 0
        for _ in range(2):
            await store.append("otter", [es.MergeQueued()], expected_version=es.ANY)
        found = [recorded.timestamp_text async for recorded in store.read_all()]
    assert found == ["2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.001000Z"]


@pytest.mark.anyio
async def test_a_store_on_disk_leaves_nothing_behind() -> None:
    """Its directory goes with it, also when the test fails in between."""
    paths: list[Path] = []

    async def fail() -> None:
        async with tmp_store(on="disk") as store:
            await store.append("otter", [es.MergeQueued()], expected_version=es.ANY)
            paths.append(Path(store._path))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert not paths[0].parent.exists()


@pytest.mark.anyio
async def test_a_log_for_one_test_can_have_events_of_its_own(tmp_path: Path) -> None:
    """Both type checkers know them; opened again it is the same log, by its path too."""
    types = es.EventTypes[Paid](Paid)
    for log in (TmpLog(), TmpLog(tmp_path)):
        async with log.open(types=types) as store:
            assert_type(store, es.LogStore[Paid])
            await store.append("till", [Paid(amount=1)], expected_version=es.NO_STREAM)
        async with log.open() as twelve:
            assert_type(twelve, es.LogStore[es.LoopEvent])
            assert await twelve.version("till") == 1
    assert (tmp_path / "history.jsonl").exists()
    async with tmp_store(types=types) as store:
        assert_type(store, es.LogStore[Paid])
