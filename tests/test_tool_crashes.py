"""A process is killed at every step of a tool call; afterwards nothing runs twice unasked."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias

import anyio
import pytest

import eventstore as es
import projections as pj
from eventstore._log._files import DiskFiles
from eventstore._log._log_store import _open_log
from tests._kills import DeadlyFiles, was_killed
from tests.contract._backends import NAMES

_CALLS_MIN: Final = 15  # of the seam: to look, to record a request, to record an outcome

LOOP = "bright-otter"
Outcome: TypeAlias = Literal["never requested", "unknown", "done"]


async def body(effects: Path, *, dies: Literal["before", "after", ""] = "") -> str:
    """Have an effect on the world, one line in a file; or die on its one side or the other."""
    if dies == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    with effects.open("a") as file:
        file.write("ran\n")
    if dies == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def call_tool(directory: Path, at: int | None, dies: Literal["before", "after", ""]) -> None:
    """Run one tool in an iteration, and die at a call of the seam or in the body."""

    async def main() -> None:
        files = DeadlyFiles(DiskFiles(str(directory)))
        async with _open_log(files, NAMES, es.AGENT_EVENTS) as store:
            events: list[es.AgentEvent] = [
                es.LoopStarted(prompt="p"),
                es.IterationStarted(iteration=1),
            ]
            await store.append(LOOP, events, expected_version=es.NO_STREAM)
            files.left = at
            run = partial(body, directory / "effects", dies=dies)
            await pj.Ledger(store, LOOP).run_tool("bash", {"cmd": "deploy"}, run)
            files.left = None

    anyio.run(main)


def die(directory: Path, at: int | None, dies: Literal["before", "after", ""] = "") -> bool:
    """Call the tool in a process of its own; whether that was killed."""
    return was_killed(call_tool, directory, at, dies)


def resume(directory: Path) -> Outcome:
    """Do the iteration again in another process's place, and check what the log says of it."""
    effects = directory / "effects"

    def count() -> int:
        return len(effects.read_text().splitlines()) if effects.exists() else 0

    async def main() -> Outcome:
        async with es.open_store(directory / NAMES.active, types=es.AGENT_EVENTS) as store:
            plan = await pj.resume_plan(store, LOOP)
            assert (plan.resume_from, plan.attempt) == (1, 2)
            again = es.LoopResumed(from_iteration=plan.resume_from)
            await store.append(LOOP, [again], expected_version=plan.version)
            kinds = {r.kind async for r in store.read(LOOP)}
            before = count()
            run = partial(body, effects)
            ledger = pj.Ledger(store, LOOP)
            if "tool_requested" in kinds and "tool_succeeded" not in kinds:
                with pytest.raises(pj.ToolOutcomeUnknownError) as caught:
                    await ledger.run_tool("bash", {"cmd": "deploy"}, run)
                assert count() == before <= 1
                assert plan.open_tools == (caught.value.tool,)
                return "unknown"
            result = await ledger.run_tool("bash", {"cmd": "deploy"}, run)
            assert (result, count(), plan.open_tools) == ("done", 1, ())
            return "done" if before else "never requested"

    return anyio.run(main)


def test_a_kill_at_any_call_of_the_seam_leaves_a_call_that_is_not_run_twice(
    tmp_path: Path,
) -> None:
    """Never requested, unknown, or done; in this order, and each of them is met."""
    met: list[Outcome] = []
    at = 1
    while True:
        directory = tmp_path / str(at)
        directory.mkdir()
        if not die(directory, at):
            break
        met.append(resume(directory))
        at += 1
    assert at > _CALLS_MIN
    order: list[Outcome] = ["never requested", "unknown", "done"]
    assert met == sorted(met, key=order.index)
    assert set(met) == set(order)


@pytest.mark.parametrize(("side", "runs"), [("before", 0), ("after", 1)])
def test_a_kill_inside_the_tool_leaves_it_unknown(
    tmp_path: Path, side: Literal["before", "after"], runs: int
) -> None:
    """Whether it had its effect or not, the log cannot know, and nothing guesses."""
    assert die(tmp_path, None, side)
    assert resume(tmp_path) == "unknown"
    assert (tmp_path / "effects").exists() == bool(runs)
