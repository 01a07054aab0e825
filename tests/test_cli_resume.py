"""`loopledger resume`, and who drives what in `loopledger show`, as processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

import eventstore as es
import projections as pj
from tests.test_cli import DRIVES_A_TERMINAL, FOREIGN, HOSTILE, _environment, _run, _write

LOOP: Final = "bright-otter"
STARTED: Final = es.LoopStarted(prompt="implement auth")
_DRIVE: Final = """
import anyio, sys
import eventstore as es, projections as pj

async def main():
    async with es.open_store(sys.argv[1], types=es.AGENT_EVENTS) as store:
        async with pj.claim(store, "bright-otter"):
            events = [es.LoopStarted(prompt="implement auth")]
            for number in range(1, 7):
                events.append(es.IterationStarted(iteration=number))
                events.append(es.IterationCompleted(iteration=number, success=True))
            await store.append("bright-otter", events, expected_version=es.NO_STREAM)
            events = [es.IterationStarted(iteration=7)]
            events.append(es.EventPublished(topic="build.done", payload="x"))
            meta = {pj.RUN_ID: "2026-11-21_00-00-00.000Z"}
            await store.append("bright-otter", events, expected_version=es.ANY, meta=meta)
            ledger = pj.Ledger(store, "bright-otter")
            await ledger.run_tool("bash", {"cmd": "make"}, wait)

async def wait():
    print("in the tool", flush=True)
    await anyio.sleep_forever()

anyio.run(main)
"""


@contextmanager
def _driven(path: Path) -> Generator[subprocess.Popen[str]]:
    """A driver that is in the middle of a tool call of iteration 7."""
    command = [sys.executable, "-c", _DRIVE, str(path)]
    environment = _environment()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as driver:
        try:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "in the tool\n"
            yield driver
        finally:
            driver.kill()


def _json(*arguments: str | Path) -> dict[str, Any]:
    done = _run(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_driver_killed_in_iteration_7_is_continued_at_7(tmp_path: Path) -> None:
    """The plan says where, what may have run, who is gone, and the exact next steps."""
    path = tmp_path / "history.jsonl"
    with _driven(path) as driver:
        driver.kill()
        driver.wait()
    done = _run("resume", path, LOOP)
    assert (done.returncode, done.stderr) == (0, "")
    first, *_ = lines = done.stdout.splitlines()
    assert first == "bright-otter: running, completed 6, continue at 7 (attempt 2)"
    assert "  prompt     implement auth" in lines
    assert re.search(
        rf"^  driver     nobody; process {driver.pid} on .* is gone$", done.stdout, re.MULTILINE
    )
    run = "  run        2026-11-21_00-00-00.000Z, logs in .agent/logs-2026-11-21_00-00-00.000Z"
    assert run in lines
    assert "  published  1 event since the last iteration: build.done" in lines
    unknown = re.search(
        r'^  unknown    bash \{"cmd": "make"\}: .* call (\w+)$', done.stdout, re.MULTILINE
    )
    assert unknown is not None
    settle, resumed = [line for line in lines if line.startswith("next   ")]
    assert f"settle('{unknown[1]}', succeeded=...)" in settle
    assert resumed == (
        "next   await store.append('bright-otter', [es.LoopResumed(from_iteration=7)], "
        "expected_version=17)"
    )


def test_the_next_steps_of_a_plan_are_a_program_that_works(tmp_path: Path) -> None:
    """Taken as they are printed, they settle the call and resume at the expected version."""
    path = tmp_path / "history.jsonl"
    with _driven(path) as driver:
        driver.kill()
        driver.wait()
    settle, resumed = _json("resume", path, LOOP)["next"]
    settle = settle.partition("then: ")[2].replace("=...", "='ok'")

    async def follow() -> None:
        async with es.open_store(path, types=es.AGENT_EVENTS) as store:
            for step in (settle, resumed):
                program = f"async def step(store, es, pj):\n    {step}\n"
                names: dict[str, Any] = {}
                exec(program, names)  # noqa: S102 - what the command printed
                await names["step"](store, es, pj)
            assert (await pj.load(store, pj.OPEN_TOOLS, LOOP)).state == pj.OpenTools()
            assert (await pj.load(store, pj.REGISTRY, LOOP)).state.resumed_from == 7

    anyio.run(follow)


def test_a_loop_that_is_driven_is_left_alone(tmp_path: Path) -> None:
    """The one next step is none, and it says who is at it; stopped is not gone."""
    path = tmp_path / "history.jsonl"
    with _driven(path) as driver:
        os.kill(driver.pid, signal.SIGSTOP)
        plan = _json("resume", path, LOOP)
        os.kill(driver.pid, signal.SIGCONT)
        assert plan["ownership"]["is_held"]
        (step,) = plan["next"]
    assert step.startswith(f"nothing: the loop is driven by process {driver.pid} on ")


def test_the_plan_as_json_is_one_object(tmp_path: Path) -> None:
    """Every field of the plan is in it, by its name."""
    path = _write(tmp_path / "history.jsonl", {LOOP: [STARTED]})
    plan = _json("resume", path, LOOP)
    assert plan.pop("schema") == "loopledger.resume/1"
    assert set(plan) == {*pj.ResumePlan.__struct_fields__, "ownership", "next"}
    assert (plan["resume_from"], plan["attempt"], plan["ownership"]) == (1, 1, None)


@pytest.mark.parametrize(
    ("events", "where"),
    [
        ([es.LoopCompleted(reason="completion_promise")], "completed (succeeded), completed none"),
        ([es.LoopTerminated(signal="x"), es.LoopDiscarded(reason="x")], "discarded (discarded)"),
    ],
)
def test_a_loop_that_is_over_has_nothing_to_resume(
    tmp_path: Path, events: list[es.LoopEvent], where: str
) -> None:
    """It says so, and names no step."""
    path = _write(tmp_path / "history.jsonl", {LOOP: [STARTED, *events]})
    done = _run("resume", path, LOOP)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{LOOP}: {where}")
    assert done.stdout.splitlines()[0].endswith("nothing to resume")
    assert "next " not in done.stdout


def test_a_history_that_ralph_wrote_has_a_plan(tmp_path: Path) -> None:
    """Its loop is `main`; the step then expects a stream, not a version."""
    path = tmp_path / "history.jsonl"
    path.write_bytes(FOREIGN.read_bytes().split(b"\n")[0] + b"\n")
    done = _run("resume", path, "main")
    assert done.returncode == 0
    assert "[es.LoopResumed(from_iteration=1)], expected_version=es.STREAM_EXISTS)" in done.stdout
    assert list(tmp_path.iterdir()) == [path]


def test_a_loop_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """The message says how to find out which there are; a file that is not there is another."""
    path = _write(tmp_path / "history.jsonl", {LOOP: [STARTED]})
    done = _run("resume", path, "nobody")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no loop 'nobody'" in done.stderr
    assert f"loopledger show {path}" in done.stderr
    done = _run("resume", tmp_path / "other.jsonl", LOOP)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no such file" in done.stderr


def test_a_damaged_log_is_verified_before_anything_is_resumed(tmp_path: Path) -> None:
    """No append works where opening refuses, so the plan stands, and the one step is to verify."""
    path = _write(tmp_path / "a log.jsonl", {LOOP: [STARTED]})
    _write(path, {LOOP: [es.EventPublished(topic="build.done", payload="x")]})
    content = _write(path, {LOOP: [es.IterationStarted(iteration=1)]}).read_bytes()
    verify = f"loopledger verify '{path}'"
    path.write_bytes(content.replace(b"build.done", b"build.gone", 1))
    done = _run("resume", path, LOOP)
    assert done.returncode == 4
    assert done.stdout.startswith(f"{LOOP}: ")
    assert [line for line in done.stdout.splitlines() if line.startswith("next")] == [
        f"next   {verify}"
    ]
    assert json.loads(_run("resume", path, LOOP, "--json").stdout)["next"] == [verify]
    path.write_bytes(content + b"{")  # a torn end is cut by opening, so the plan works
    done = _run("resume", path, LOOP)
    assert (done.returncode, done.stderr) == (0, "")
    assert "next   await store.append(" in done.stdout


def test_nothing_an_event_holds_drives_the_terminal(tmp_path: Path) -> None:
    """Prompts, topics, run ids, arguments and owners are shown as escapes."""
    path = tmp_path / "history.jsonl"

    async def write() -> None:
        async with es.open_store(path, types=es.AGENT_EVENTS) as store:
            events: list[es.AgentEvent] = [
                es.LoopStarted(prompt=HOSTILE),
                es.EventPublished(topic=HOSTILE, payload=""),
                es.ToolRequested(
                    call=HOSTILE[:90], name=HOSTILE, arguments={HOSTILE: HOSTILE}, token=""
                ),
            ]
            await store.append(LOOP, events, expected_version=es.ANY, meta={pj.RUN_ID: HOSTILE})

    anyio.run(write)
    for arguments in ([], ["--json"]):
        done = _run("resume", path, LOOP, *arguments)
        assert done.returncode == 0
        assert not DRIVES_A_TERMINAL.search(done.stdout)
    stderr = _run("resume", path, HOSTILE.replace("\0", "")).stderr
    assert "no loop" in stderr
    assert not DRIVES_A_TERMINAL.search(stderr)


def test_show_tells_a_crashed_loop_from_a_running_one(tmp_path: Path) -> None:
    """The overlay takes the place of the state; the folded state stays in the JSON."""
    path = tmp_path / "history.jsonl"
    with _driven(path) as driver:
        alive = _run("show", path).stdout
        driver.kill()
        driver.wait()
    assert re.search(r"^bright-otter +running ", alive, re.MULTILINE)
    assert re.search(rf"^  driver +process {driver.pid} on ", alive, re.MULTILINE)
    dead = _run("show", path).stdout
    assert re.search(r"^bright-otter +crashed ", dead, re.MULTILINE)
    assert re.search(rf"^  driver +nobody; process {driver.pid} on .* is gone", dead, re.MULTILINE)
    shown = _json("show", path)
    assert (shown["state"], shown["overlay"]) == ("running", "crashed")
    assert shown["ownership"]["owner"]["pid"] == driver.pid
