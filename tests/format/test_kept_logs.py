"""Logs of released format versions open for ever."""

from __future__ import annotations

import json
import logging
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import msgspec
import pytest

import eventstore as es
from tests.format._independent_reader import read_log

pytestmark = pytest.mark.anyio

_V1: Final = Path(__file__).parents[1] / "fixtures" / "v1"
_SCRIPT: Final = _V1 / "write_logs.py"
LOGS: Final = ("whole", "segments", "foreign-lines", "torn-tail", "void-lines")
EACH = pytest.mark.parametrize("name", LOGS)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="eventstore")


def kept(name: str, tmp_path: Path) -> Path:
    """A copy of a kept log."""
    shutil.copytree(_V1 / name, tmp_path / name)
    return tmp_path / name / "history.jsonl"


def expected(name: str) -> list[dict[str, Any]]:
    """What was acknowledged when the log was written."""
    events: list[dict[str, Any]] = json.loads((_V1 / name / "expected.json").read_bytes())
    assert events
    return events


def segments(path: Path) -> list[bytes]:
    """The bytes of a log's segments, in order."""
    names = [*sorted(path.parent.glob("history-*.jsonl")), path]
    return [name.read_bytes() for name in names]


def plain(recorded: es.Recorded[Any]) -> dict[str, Any]:
    """An event in the form of the expectation."""
    return {
        "position": recorded.position,
        "stream": recorded.stream,
        "version": recorded.version,
        "type": msgspec.to_builtins(recorded.event),
        "data": recorded.data,
        "key": recorded.key,
        "meta": dict(recorded.meta),
    }


@EACH
async def test_a_log_of_version_1_reads_as_it_was_acknowledged(name: str, tmp_path: Path) -> None:
    """I22: every event, its numbers and what stands beside it, from either end."""
    path = kept(name, tmp_path)
    async with es.open_store(path, read_only=True) as store:
        assert [plain(recorded) async for recorded in store.read_all()] == expected(name)
        backwards = [plain(recorded) async for recorded in store.read_all(backwards=True)]
    assert backwards[::-1] == expected(name)


@EACH
async def test_a_log_of_version_1_is_appended_to(name: str, tmp_path: Path) -> None:
    """I22: opened for writing, nothing of it moves or is lost, and the next event has its place."""
    path = kept(name, tmp_path)
    before = b"".join(segments(path))
    versions = {event["stream"]: event["version"] for event in expected(name)}
    async with es.open_store(path) as store:
        lines = store.position
        for stream, version in sorted(versions.items()):
            held = await store.version(stream)
            assert held >= version  # in `main`, noise uses versions up
            await store.append(stream, [es.MergeQueued()], expected_version=held)
        shown = [plain(recorded) async for recorded in store.read_all()]
        quarantine = store.recovery.quarantine
    assert shown[: len(expected(name))] == expected(name)
    assert [event["position"] for event in shown[len(expected(name)) :]] == [
        lines + 1 + number for number in range(len(versions))
    ]
    cut = b"".join(Path(kept_bytes).read_bytes() for kept_bytes in quarantine)
    assert before.endswith(cut)
    assert b"".join(segments(path)).startswith(before.removesuffix(cut) if cut else before)
    assert bool(cut) == (name == "torn-tail")


@EACH
async def test_an_independent_reader_finds_the_same_in_a_log_of_version_1(name: str) -> None:
    """I12, I22: FORMAT.md still describes it."""
    log = read_log(segments(_V1 / name / "history.jsonl"))
    assert [(e.position, e.stream, e.version, e.value["type"]) for e in log.events] == [
        (e["position"], e["stream"], e["version"], e["type"]) for e in expected(name)
    ]
    assert (log.void, bool(log.torn_bytes)) == (2 * (name == "void-lines"), name == "torn-tail")


async def test_keys_of_a_log_of_version_1_still_make_a_retry_safe(tmp_path: Path) -> None:
    """I19, I22: a key used years ago is found, with its first result."""
    for name in ("whole", "segments"):
        first = next(event for event in expected(name) if event["key"] == "start")
        async with es.open_store(kept(name, tmp_path)) as store:
            event = es.HistoryEvent(
                es.LoopStarted(prompt=first["type"]["prompt"]), data=first["data"]
            )
            done = await store.append(
                first["stream"], [event], expected_version=es.NO_STREAM, key="start"
            )
        assert (done.version, done.position) == (first["version"], first["position"])


async def test_what_is_written_today_is_version_1(tmp_path: Path) -> None:
    """I22: the script that wrote the kept logs writes the same bytes; else it is version 2."""
    argv, sys.argv = sys.argv, [str(_SCRIPT), str(tmp_path)]
    try:
        await anyio.to_thread.run_sync(lambda: runpy.run_path(str(_SCRIPT), run_name="__main__"))
    finally:
        sys.argv = argv
    for name in LOGS:
        for file in sorted((_V1 / name).iterdir()):
            assert (tmp_path / name / file.name).read_bytes() == file.read_bytes(), file
        assert len(list((tmp_path / name).iterdir())) == len(list((_V1 / name).iterdir()))
