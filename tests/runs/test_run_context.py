"""Run contexts: creating, resuming, their paths, logs and metadata."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventstore._errors import RunContextError
from eventstore._runs import (
    ConfigSummary,
    DiskWorkspace,
    LogStream,
    MemoryWorkspace,
    RunContext,
    TraceEntry,
    Workspace,
)
from tests.runs.conftest import NOON_ID, ManualClock
from tests.runs.test_ids_and_names import HOSTILE_NAMES
from tests.runs.test_workspace import put

pytestmark = pytest.mark.anyio


def content_of(workspace: Workspace, path: Path) -> bytes:
    """A file's bytes, given its absolute path."""
    with workspace.open_read(path.relative_to(workspace.root).as_posix()) as file:
        return file.read()


async def test_a_new_run_has_its_directories(workspace: Workspace, clock: ManualClock) -> None:
    """A run directory is named after the id and holds agents, provider and debug."""
    run = await RunContext.create(workspace, clock=clock)
    assert run.run_id == NOON_ID
    assert run.run_dir == workspace.root / ".agent" / f"logs-{NOON_ID}"
    assert sorted(workspace.listdir(f".agent/logs-{NOON_ID}")) == ["agents", "debug", "provider"]
    assert not run.is_resumed
    assert run.started_at.isoformat() == "2026-11-21T00:07:26.254000+00:00"


@pytest.mark.parametrize("make", [str, Path, DiskWorkspace])
async def test_a_root_is_a_path_or_a_workspace(
    tmp_path: Path, make: Callable[[Path], str | Path | DiskWorkspace]
) -> None:
    """A root that is not there is made, with its ancestors."""
    run = await RunContext.create(make(tmp_path / "a" / "b"))
    assert run.run_dir.is_dir()
    assert run.run_dir.parent == tmp_path / "a" / "b" / ".agent"


async def test_the_paths_are_the_original_s(workspace: Workspace, clock: ManualClock) -> None:
    """Every path is absolute, inside the run directory, and named as the original names it."""
    run = await RunContext.create(workspace, clock=clock)
    paths = {
        run.pipeline_log: "pipeline.log",
        run.event_loop_log: "event_loop.log",
        run.event_loop_trace: "event_loop_trace.jsonl",
        run.run_metadata: "run.json",
        run.agent_log("developer", 3): "agents/developer_3.log",
        run.agent_log("developer", 3, 0): "agents/developer_3_a0.log",
        run.agent_log("developer", 3, 2): "agents/developer_3_a2.log",
        run.provider_log("claude.log"): "provider/claude.log",
    }
    for path, name in paths.items():
        assert path == run.run_dir / name
        assert path.is_absolute()


async def test_taken_ids_are_passed_over(workspace: Workspace, clock: ManualClock) -> None:
    """With the base id and -01 to -05 taken, the next run is -06."""
    for _ in range(6):
        await RunContext.create(workspace, clock=clock)
    run = await RunContext.create(workspace, clock=clock)
    assert run.run_id == f"{NOON_ID}-06"
    assert run.run_dir.name == f"logs-{NOON_ID}-06"


async def test_a_dead_creator_s_directory_is_not_used_again(
    workspace: Workspace, clock: ManualClock
) -> None:
    """A run directory without `agents/`, or a file in its place, keeps its id taken."""
    workspace.mkdir(".agent")
    workspace.mkdir(f".agent/logs-{NOON_ID}")
    put(workspace, f".agent/logs-{NOON_ID}-01", b"")
    put(workspace, f".agent/logs-{NOON_ID}-02.tar.gz", b"")
    run = await RunContext.create(workspace, clock=clock)
    assert run.run_id == f"{NOON_ID}-03"
    assert workspace.listdir(f".agent/logs-{NOON_ID}") == []


async def test_a_hundred_tasks_in_one_millisecond_get_a_hundred_runs(
    workspace: Workspace, clock: ManualClock
) -> None:
    """Concurrent creators never share, and the 101st run of a millisecond is refused."""
    created: list[str] = []

    async def create() -> None:
        created.append((await RunContext.create(workspace, clock=clock)).run_id)

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(create)
    assert sorted(created) == [NOON_ID, *(f"{NOON_ID}-{n:02}" for n in range(1, 100))]
    with pytest.raises(RunContextError, match="Too many collisions"):
        await RunContext.create(workspace, clock=clock)
    assert len(workspace.listdir(".agent")) == 100


async def test_a_resume_makes_what_is_missing(workspace: Workspace, clock: ManualClock) -> None:
    """A resumed run has the id, the directory and its files; missing subdirectories come back."""
    run = await RunContext.create(workspace, clock=clock)
    put(workspace, f".agent/logs-{NOON_ID}/pipeline.log", b"kept")
    workspace.remove_tree(f".agent/logs-{NOON_ID}/agents")
    workspace.remove_tree(f".agent/logs-{NOON_ID}/debug")
    again = await RunContext.resume(workspace, NOON_ID)
    assert (again.run_id, again.run_dir) == (run.run_id, run.run_dir)
    assert again.is_resumed
    assert set(workspace.listdir(f".agent/logs-{NOON_ID}")) == {
        "agents",
        "debug",
        "pipeline.log",
        "provider",
    }


@pytest.mark.parametrize("run_id", [*HOSTILE_NAMES, f"{NOON_ID}\n", f"{NOON_ID}/../x"])
async def test_a_resume_refuses_what_is_no_run_id(tmp_path: Path, run_id: str) -> None:
    """Nothing is made anywhere for a text that is no run id."""
    root = tmp_path / "a" / "b" / "root"
    root.mkdir(parents=True)
    with pytest.raises(RunContextError, match="not a run id"):
        await RunContext.resume(root, run_id)
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "root"]


async def test_a_resume_refuses_a_run_that_is_not_there(tmp_path: Path) -> None:
    """A run that does not exist is not made, nor is its workspace."""
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunContextError, match="no such run"):
            await RunContext.resume(root, NOON_ID)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_hostile_names_reach_no_file(workspace: Workspace, name: str) -> None:
    """No path method, attempt or log stream takes a name that could lead elsewhere."""
    run = await RunContext.create(workspace)
    with pytest.raises(RunContextError):
        run.agent_log(name, 1)
    with pytest.raises(RunContextError):
        run.provider_log(name)
    with pytest.raises(RunContextError):
        await run.next_attempt(name, 1)
    with pytest.raises(RunContextError):
        run.open_log(run.run_dir / "provider" / name)
    with pytest.raises(RunContextError):
        run.open_log(name)


async def test_a_log_of_another_run_is_not_opened(workspace: Workspace) -> None:
    """A path outside this run's directory is refused."""
    run = await RunContext.create(workspace)
    other = await RunContext.create(workspace)
    for path in (other.pipeline_log, Path("/etc/passwd"), run.run_dir / ".." / other.run_dir.name):
        with pytest.raises(RunContextError, match="nothing was opened"):
            run.open_log(path)


async def test_logs_are_appended_to(workspace: Workspace) -> None:
    """Text and bytes go to the end of what earlier streams, and other writers, wrote."""
    run = await RunContext.create(workspace)
    path = run.agent_log("reviewer_fix", 1)
    async with run.open_log(path) as log:
        assert await log.write("one é\u2028\n") == 7
    async with run.open_log("agents/reviewer_fix_1.log") as log, run.open_log(path) as other:
        await log.write("two\n")
        await other.write("three \udc80\n")
        await log.write("four\r\n")
    async with run.open_log(path, mode="binary") as binary:
        assert await binary.write(b"\xff\n") == 2
    assert content_of(workspace, path) == (
        "one é\u2028\ntwo\nthree \\udc80\nfour\r\n".encode() + b"\xff\n"
    )


async def test_a_line_is_readable_while_the_log_is_open(workspace: Workspace) -> None:
    """Text is with the system after each line, bytes after a flush: a kill loses none of it."""
    run = await RunContext.create(workspace)
    async with run.open_log(run.pipeline_log) as log:
        await log.write("line\n")
        assert content_of(workspace, run.pipeline_log) == b"line\n"
    path = run.provider_log("raw.bin")
    async with run.open_log(path, mode="binary") as binary:
        await binary.write(b"bytes")
        await binary.flush()
        assert content_of(workspace, path) == b"bytes"


async def test_a_stream_is_closed_whatever_ends_it(workspace: Workspace) -> None:
    """An error or a cancelled scope around a stream still writes what was accepted."""
    run = await RunContext.create(workspace)

    async def fail() -> None:
        async with run.open_log(run.pipeline_log) as log:
            await log.write("unfinished")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    with anyio.CancelScope() as scope:
        async with run.open_log(run.pipeline_log) as log:
            await log.write(" line")
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert content_of(workspace, run.pipeline_log) == b"unfinished line"


def test_a_task_cancelled_anywhere_closes_its_log(tmp_path: Path) -> None:
    """A native cancellation leaves no file open, and of the writes a beginning, in order."""
    expected = "".join(f"{number}\n" for number in range(100))

    async def write(run: RunContext, iteration: int) -> None:
        async with run.open_log(run.agent_log("dev", iteration)) as log:
            for line in expected.splitlines(keepends=True):
                await log.write(line)

    async def main() -> RunContext:
        run = await RunContext.create(tmp_path)
        for iteration in range(40):
            task = asyncio.create_task(write(run, iteration))
            for _ in range(iteration**2):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        return run

    run = asyncio.run(main())
    gc.collect()  # a file that nobody closed warns here, and warnings are errors
    written = [path.read_text() for path in (run.run_dir / "agents").iterdir()]
    assert all(expected.startswith(text) for text in written)
    assert "".join(written)


class GatedAppend(io.RawIOBase):
    """A file whose first write waits in its thread until the gate opens."""

    def __init__(
        self,
        raw: io.RawIOBase,
        started: threading.Event,
        gate: threading.Event,
        let_go: threading.Event,
    ) -> None:
        self._raw = raw
        self._started = started
        self._gate = gate
        self._let_go = let_go

    def close(self) -> None:
        """Say so."""
        super().close()
        self._let_go.set()

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any, /) -> int | None:
        """Say that a write began, wait, and write."""
        self._started.set()
        assert self._gate.wait(timeout=30)
        return self._raw.write(data)


class GatedWorkspace(MemoryWorkspace):
    """A workspace on a slow disk."""

    def __init__(self) -> None:
        super().__init__()
        self.started = threading.Event()
        self.gate = threading.Event()
        self.let_go = threading.Event()

    def open_append(self, name: str, *, lock_timeout_seconds: float | None = None) -> io.RawIOBase:
        """Open the slow file."""
        raw = super().open_append(name, lock_timeout_seconds=lock_timeout_seconds)
        return GatedAppend(raw, self.started, self.gate, self.let_go)


def test_a_write_left_behind_lands_before_later_ones() -> None:
    """A write whose task was cancelled on a slow disk is whole, and before what follows it."""
    workspace = GatedWorkspace()

    async def main() -> RunContext:
        run = await RunContext.create(workspace)
        async with run.open_log(run.pipeline_log) as log:
            first = asyncio.create_task(write(log, "first\n"))
            await asyncio.to_thread(workspace.started.wait)
            first.cancel()
            await asyncio.wait([first])
            second = asyncio.create_task(write(log, "second\n"))
            await asyncio.sleep(0)
            workspace.gate.set()
            await second
        return run

    async def write(log: LogStream[str], text: str) -> None:
        await log.write(text)

    run = asyncio.run(main())
    assert content_of(workspace, run.pipeline_log) == b"first\nsecond\n"


def test_a_close_left_behind_closes_all_the_same() -> None:
    """A task that is cancelled natively while its log waits to be closed leaves no file open."""
    workspace = GatedWorkspace()

    async def use(run: RunContext, leaving: asyncio.Event) -> None:
        async with run.open_log(run.pipeline_log) as log:
            first = asyncio.create_task(write(log))
            await asyncio.to_thread(workspace.started.wait)
            first.cancel()
            await asyncio.wait([first])
            leaving.set()

    async def write(log: LogStream[str]) -> None:
        await log.write("first\n")

    async def main() -> RunContext:
        run = await RunContext.create(workspace)
        leaving = asyncio.Event()
        task = asyncio.create_task(use(run, leaving))
        await leaving.wait()
        await asyncio.sleep(0)  # it waits for the close now, which waits for the write
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        workspace.gate.set()
        assert await asyncio.to_thread(workspace.let_go.wait, 10)
        return run

    run = asyncio.run(main())
    assert content_of(workspace, run.pipeline_log) == b"first\n"


def test_a_full_default_pool_stops_no_log(tmp_path: Path) -> None:
    """Logs are opened, written and closed while every thread of asyncio's own pool is busy."""
    gate = threading.Event()

    async def main() -> RunContext:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(max_workers=1))
        busy = loop.run_in_executor(None, gate.wait)
        try:
            with anyio.fail_after(30):
                run = await RunContext.create(tmp_path)
                async with run.open_log(run.pipeline_log) as log:
                    await log.write("line\n")
        finally:
            gate.set()
            await busy
        return run

    assert asyncio.run(main()).pipeline_log.read_text() == "line\n"


async def test_the_next_attempt_is_free(workspace: Workspace) -> None:
    """Attempts count from 0, the log without a suffix, past every log that exists."""
    run = await RunContext.create(workspace)
    for attempt in range(3):
        assert await run.next_attempt("developer", 1) == attempt
        async with run.open_log(run.agent_log("developer", 1, attempt or None)) as log:
            await log.write("x")
    assert await run.next_attempt("developer", 2) == 0
    assert sorted(workspace.listdir(f".agent/{run.run_dir.name}/agents")) == [
        "developer_1.log",
        "developer_1_a1.log",
        "developer_1_a2.log",
    ]


async def test_metadata_has_the_original_s_fields_in_order(
    workspace: Workspace, clock: ManualClock
) -> None:
    """run.json is pretty JSON with the original's members first; what is not given is left out."""
    run = await RunContext.create(workspace, clock=clock, pid=4711)
    summary = ConfigSummary(developer_agent="claude", total_iterations=5)
    await run.write_metadata(
        "ralph run é", repo_root="/repo", ralph_version="0.7", config_summary=summary
    )
    assert content_of(workspace, run.run_metadata).decode() == (
        "{\n"
        f'  "run_id": "{NOON_ID}",\n'
        '  "started_at_utc": "2026-11-21T00:07:26.254876Z",\n'
        '  "command": "ralph run é",\n'
        '  "resume": false,\n'
        '  "repo_root": "/repo",\n'
        '  "ralph_version": "0.7",\n'
        '  "pid": 4711,\n'
        '  "config_summary": {\n'
        '    "developer_agent": "claude",\n'
        '    "total_iterations": 5\n'
        "  }\n"
        "}"
    )


async def test_a_resume_keeps_how_the_run_was_started(
    workspace: Workspace, clock: ManualClock
) -> None:
    """Start time and command stay, each resume is added once, and unknown members survive."""
    run = await RunContext.create(workspace, clock=clock, pid=1)
    await run.write_metadata("first")
    name = f".agent/{run.run_dir.name}/run.json"
    members = json.loads(content_of(workspace, run.run_metadata))
    put(workspace, name, json.dumps({**members, "future": [1.5, "x"]}).encode())
    for number in (2, 3):
        clock.now_ns += 1_000_000_000
        again = await RunContext.resume(workspace, run.run_id, clock=clock, pid=number)
        await again.write_metadata(f"half of resume {number}")
        await again.write_metadata(f"resume {number}")
    read = await run.read_metadata()
    assert read is not None
    assert (read.started_at_utc, read.command) == ("2026-11-21T00:07:26.254876Z", "first")
    assert (read.resume, read.pid) == (True, 1)
    assert [(entry.resumed_at_utc, entry.command, entry.pid) for entry in read.resumes] == [
        ("2026-11-21T00:07:27.254876Z", "resume 2", 2),
        ("2026-11-21T00:07:28.254876Z", "resume 3", 3),
    ]
    after: dict[str, Any] = json.loads(content_of(workspace, run.run_metadata))
    assert after["future"] == [1.5, "x"]
    await run.write_metadata("first, corrected")
    read = await run.read_metadata()
    assert read is not None
    assert (read.command, read.resume, len(read.resumes)) == ("first, corrected", True, 2)


async def test_metadata_the_original_wrote_is_kept_on_resume(workspace: Workspace) -> None:
    """A run.json without pid and resumes is read, kept and added to."""
    run = await RunContext.create(workspace)
    members = {
        "run_id": run.run_id,
        "started_at_utc": "2026-01-01T00:00:00.1Z",
        "command": "ralph",
        "resume": False,
        "repo_root": "/r",
        "ralph_version": "0.6.0",
    }
    put(workspace, f".agent/{run.run_dir.name}/run.json", json.dumps(members).encode())
    again = await RunContext.resume(workspace, run.run_id)
    await again.write_metadata("again")
    after = json.loads(content_of(workspace, run.run_metadata))
    assert list(after) == [*members, "resumes"]
    assert {**after, "resume": False, "resumes": 0} == {**members, "resumes": 0}


_STARTED = (
    b'{"run_id":"x","started_at_utc":"2026-01-01T00:00:00Z","command":"c","resume":false,'
    b'"repo_root":"/","ralph_version":"1"'
)


@pytest.mark.parametrize(
    "damaged",
    [
        *(b"", b"{", b"[]", b"\xff", b"{}", b"[" * 100_000, b'{"resumes":1}', b'{"run_id":"\xff"}'),
        _STARTED + b',"stranger":"\xff"}',
        _STARTED + b',"\xff":1}',
    ],
)
async def test_damaged_metadata_is_kept_aside(
    workspace: Workspace, clock: ManualClock, damaged: bytes
) -> None:
    """A run.json that says nothing is kept under another name; the id still tells the start."""
    run = await RunContext.create(workspace, clock=clock)
    directory = f".agent/{run.run_dir.name}"
    put(workspace, f"{directory}/run.json", damaged)
    with pytest.raises(RunContextError, match="damaged"):
        await run.read_metadata()
    clock.now_ns += 10**12
    again = await RunContext.resume(workspace, run.run_id, clock=clock)
    await again.write_metadata("again")
    [kept] = [name for name in workspace.listdir(directory) if name.startswith("run.json.damaged")]
    assert content_of(workspace, run.run_dir / kept) == damaged
    read = await again.read_metadata()
    assert read is not None
    assert read.started_at_utc == "2026-11-21T00:07:26.254000Z"
    assert len(read.resumes) == 1


async def test_a_giant_is_no_metadata(workspace: Workspace) -> None:
    """A run.json over a mebibyte is neither read nor replaced."""
    run = await RunContext.create(workspace)
    put(workspace, f".agent/{run.run_dir.name}/run.json", b" " * 1_048_577)
    with pytest.raises(RunContextError, match="over 1048576 bytes"):
        await run.write_metadata("x")
    assert len(content_of(workspace, run.run_metadata)) == 1_048_577


async def test_metadata_that_is_no_text_changes_nothing(workspace: Workspace) -> None:
    """A lone surrogate is refused and the file stays; nobody's file reads as None."""
    run = await RunContext.create(workspace)
    assert await run.read_metadata() is None
    await run.write_metadata("before")
    with pytest.raises(RunContextError, match="nothing was written"):
        await run.write_metadata("\ud800")
    read = await run.read_metadata()
    assert read is not None
    assert read.command == "before"


async def test_the_trace_holds_the_last_200_entries_and_the_state(workspace: Workspace) -> None:
    """The trace keeps the newest entries, ends with the final state, and replaces an older one."""
    run = await RunContext.create(workspace)
    entries = [
        TraceEntry(iteration=number, effect="A", event="é", phase="Final Validation")
        for number in range(1, 251)
    ]
    await run.write_event_loop_trace(entries, reason="first", state="x")
    await run.write_event_loop_trace(entries, reason="iteration cap", state={"phase": ["P", None]})
    lines = content_of(workspace, run.event_loop_trace).decode().split("\n")
    rows = [json.loads(line) for line in lines[:-1]]
    assert lines[-1] == ""
    assert [row["iteration"] for row in rows[:-1]] == list(range(51, 251))
    assert lines[0] == (
        '{"iteration":51,"effect":"A","event":"é","phase":"Final Validation",'
        '"xsd_retry_pending":false,"xsd_retry_count":0,"invalid_output_attempts":0,'
        '"agent_index":0,"model_index":0,"retry_cycle":0}'
    )
    assert rows[-1] == {
        "kind": "final_state",
        "reason": "iteration cap",
        "state": {"phase": ["P", None]},
    }


@pytest.mark.parametrize("state", [float("nan"), object(), b"x", "\ud800", {1: {2}}])
async def test_a_state_that_is_no_json_leaves_no_trace(workspace: Workspace, state: object) -> None:
    """What would not read back is refused, and nothing is written."""
    run = await RunContext.create(workspace)
    with pytest.raises(RunContextError, match="nothing was written"):
        await run.write_event_loop_trace([], reason="x", state=state)
    assert not [name for name in workspace.listdir(f".agent/{run.run_dir.name}") if "trace" in name]


async def write_to(run: RunContext, file: str) -> None:
    """Write a line to the pipeline's or the event loop's log."""
    if file == "event_loop.log":
        await run.append_event_loop(phase="P", effect="A", event="B")
    else:
        async with run.open_log(file) as log:
            await log.write("x\n")


@pytest.mark.parametrize("planted", [".agent", "run", "agents", "pipeline.log", "event_loop.log"])
async def test_planted_symlinks_lead_nowhere(tmp_path: Path, planted: str) -> None:
    """A symlink at `.agent`, a run directory or one of its files is refused, nothing follows it."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / f"logs-{NOON_ID}").mkdir()
    before = sorted(path.name for path in outside.rglob("*"))
    run: RunContext | None = None
    if planted == ".agent":
        root.mkdir()
        (root / ".agent").symlink_to(outside)
        with pytest.raises(RunContextError):
            await RunContext.create(root)
        with pytest.raises(RunContextError):
            await RunContext.resume(root, NOON_ID)
    else:
        run = await RunContext.create(root)
    if run is not None and planted == "run":
        link = run.run_dir.parent / f"logs-{NOON_ID}"
        link.symlink_to(outside)
        with pytest.raises(RunContextError, match="not a directory"):
            await RunContext.resume(root, NOON_ID)
    elif run is not None and planted == "agents":
        (run.run_dir / "agents").rmdir()
        (run.run_dir / "agents").symlink_to(outside)
        with pytest.raises(RunContextError):
            await RunContext.resume(root, run.run_id)
        with pytest.raises(RunContextError):
            async with run.open_log(run.agent_log("dev", 1)):
                pytest.fail("opened outside")
    elif run is not None:
        (run.run_dir / planted).symlink_to(outside / "new")
        with pytest.raises(RunContextError, match="is a symlink"):
            await write_to(run, planted)
    assert sorted(path.name for path in outside.rglob("*")) == before


async def test_the_system_s_refusal_is_our_error(tmp_path: Path) -> None:
    """An error of the system comes as RunContextError that names the path and has it as cause."""
    (tmp_path / "file").touch()
    with pytest.raises(RunContextError, match="file") as caught:
        await RunContext.create(tmp_path / "file")
    assert isinstance(caught.value.__cause__, OSError)


async def test_the_pid_is_this_process_s_unless_given() -> None:
    """run.json names the orchestrator's process."""
    run = await RunContext.create(MemoryWorkspace())
    await run.write_metadata("x")
    read = await run.read_metadata()
    assert read is not None
    assert read.pid == os.getpid()
