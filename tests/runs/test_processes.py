"""Several processes at one workspace: the race in which the original shares directories."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from eventstore._runs._event_loop_log import parse_log

PROCESSES: Final = 32
RUNS_EACH: Final = 100
LINES_EACH: Final = 100

CREATOR: Final = """
import asyncio, sys
from eventstore._runs import RunContext

async def main():
    for _ in range(int(sys.argv[2])):
        print((await RunContext.create(sys.argv[1])).run_id)

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
"""

LOGGER: Final = """
import asyncio, sys
from eventstore._runs import RunContext

async def main():
    run = await RunContext.resume(sys.argv[1], sys.argv[3])
    for _ in range(int(sys.argv[2])):
        print(await run.append_event_loop(phase="P", effect="A", event="B"))

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
"""


def run_together(code: str, *arguments: str, processes: int) -> list[str]:
    """Start processes, let them go at the same moment, and collect the lines they print."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    lines: list[str] = []
    for process in running:
        output, _ = process.communicate()
        assert process.returncode == 0
        lines += output.splitlines()
    return lines


def test_32_processes_never_share_a_run_directory(tmp_path: Path) -> None:
    """32 processes that create 100 runs each in one workspace get 3,200 different directories."""
    created = run_together(CREATOR, str(tmp_path), str(RUNS_EACH), processes=PROCESSES)
    assert len(created) == PROCESSES * RUNS_EACH
    assert len(set(created)) == len(created)
    directories = list((tmp_path / ".agent").iterdir())
    assert {directory.name for directory in directories} == {f"logs-{name}" for name in created}
    for directory in directories:
        assert {entry.name for entry in directory.iterdir()} == {"agents", "provider", "debug"}


def test_processes_that_log_to_one_run_share_its_numbering(tmp_path: Path) -> None:
    """Entries that several processes append get each number once, in file order."""
    [run_id] = run_together(CREATOR, str(tmp_path), "1", processes=1)
    numbers = run_together(LOGGER, str(tmp_path), str(LINES_EACH), run_id, processes=4)
    everything = list(range(1, 4 * LINES_EACH + 1))
    assert sorted(map(int, numbers)) == everything
    log = parse_log((tmp_path / ".agent" / f"logs-{run_id}" / "event_loop.log").read_bytes())
    assert [record.number for record in log.records] == everything
    assert log.bad_lines == 0
