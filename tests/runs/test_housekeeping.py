"""Listing, packing and removing runs."""

from __future__ import annotations

import io
import os
import tarfile
import time
from datetime import timedelta
from pathlib import Path

import pytest

from eventstore._errors import RunContextError
from eventstore._runs import RunContext, Workspace, archive_run, latest_run, list_runs, prune_runs
from eventstore._runs._layout import RunLayout
from tests.runs.conftest import NOON_ID, ManualClock
from tests.runs.test_ids_and_names import HOSTILE_NAMES
from tests.runs.test_run_context import content_of
from tests.runs.test_workspace import put

pytestmark = pytest.mark.anyio


async def create_runs(workspace: Workspace, clock: ManualClock, count: int) -> list[str]:
    """Create runs a second apart, each with a log."""
    runs: list[str] = []
    for _ in range(count):
        run = await RunContext.create(workspace, clock=clock)
        async with run.open_log(run.agent_log("dev", 1)) as log:
            await log.write(f"{run.run_id}\n")
        runs.append(run.run_id)
        clock.now_ns += 1_000_000_000
    return runs


async def test_a_workspace_without_runs_has_none(workspace: Workspace) -> None:
    """Before the first run there is nothing to list, and nothing is made to find that out."""
    assert await list_runs(workspace) == ()
    assert await latest_run(workspace) is None
    assert await prune_runs(workspace, keep=0, apply=True) == ()
    assert workspace.listdir("") == []


async def test_a_workspace_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A mistyped root is not an empty one."""
    with pytest.raises(RunContextError):
        await list_runs(tmp_path / "absent")


async def test_runs_are_listed_oldest_first(workspace: Workspace, clock: ManualClock) -> None:
    """Only directories with the exact name of a run are runs, in the order of their start."""
    runs = await create_runs(workspace, clock, 2)
    runs += [(await RunContext.create(workspace, clock=clock)).run_id for _ in range(3)]
    for name in ("logs-", "logs-x", f"logs-{NOON_ID}-00", "logs", f"x{NOON_ID}", "logs-.."):
        if name != "logs-..":
            workspace.mkdir(f".agent/{name}")
    put(workspace, ".agent/logs-2020-01-01_00-00-00.000Z", b"a file")
    assert await list_runs(workspace) == tuple(runs)
    assert await latest_run(workspace) == runs[-1]
    assert runs[-1].endswith("-02")


async def test_an_archive_holds_the_run(workspace: Workspace, clock: ManualClock) -> None:
    """The archive unpacks to the run's directories and files, byte for byte; the run stays."""
    [run_id] = await create_runs(workspace, clock, 1)
    path = await archive_run(workspace, run_id)
    assert path == workspace.root / ".agent" / f"logs-{run_id}.tar.gz"
    with tarfile.open(fileobj=io.BytesIO(content_of(workspace, path))) as tar:
        assert tar.getnames() == [
            f"logs-{run_id}",
            f"logs-{run_id}/agents",
            f"logs-{run_id}/agents/dev_1.log",
            f"logs-{run_id}/debug",
            f"logs-{run_id}/provider",
        ]
        member = tar.extractfile(f"logs-{run_id}/agents/dev_1.log")
        assert member is not None
        assert member.read() == f"{run_id}\n".encode()
    assert await list_runs(workspace) == (run_id,)
    assert set(workspace.listdir(".agent")) == {f"logs-{run_id}", f"logs-{run_id}.tar.gz"}


async def test_the_same_run_gives_the_same_archive(
    workspace: Workspace, clock: ManualClock
) -> None:
    """Packing twice gives the same bytes: no clock, owner or machine gets in."""
    [run_id] = await create_runs(workspace, clock, 1)
    first = content_of(workspace, await archive_run(workspace, run_id))
    assert first[4:8] == bytes(4)  # gzip's own time
    assert content_of(workspace, await archive_run(workspace, run_id)) == first


async def test_an_archive_follows_no_symlink(tmp_path: Path) -> None:
    """Symlinks and FIFOs in a run directory are left out, and nothing they lead to gets in."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("precious")
    run = await RunContext.create(tmp_path / "root")
    (run.run_dir / "agents" / "link").symlink_to(secret / "key")
    (run.run_dir / "debug" / "link").symlink_to(secret)
    os.mkfifo(run.run_dir / "fifo")
    (run.run_dir / "debug" / "odd \udcff name").write_bytes(b"kept")
    path = await archive_run(tmp_path / "root", run.run_id)
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as tar:
        assert {member.type for member in tar} == {tarfile.DIRTYPE, tarfile.REGTYPE}
        assert [member.name for member in tar if member.isfile()] == [
            f"logs-{run.run_id}/debug/odd \udcff name"
        ]


async def test_an_unfinished_archive_is_cleared_away(
    workspace: Workspace, clock: ManualClock
) -> None:
    """What a packer that was killed left is removed by the next one, and belongs to no archive."""
    [run_id] = await create_runs(workspace, clock, 1)
    stale = f".agent/.logs-{run_id}.tar.gz.{'0' * 15}f.tmp"
    put(workspace, stale, b"half")
    put(workspace, f".agent/logs-{run_id}/.run.json.{'0' * 15}e.tmp", b"half")
    path = await archive_run(workspace, run_id)
    assert workspace.stat(stale) is None
    with tarfile.open(fileobj=io.BytesIO(content_of(workspace, path))) as tar:
        assert not [name for name in tar.getnames() if name.endswith(".tmp")]


@pytest.mark.parametrize("run_id", [*HOSTILE_NAMES, NOON_ID])
async def test_only_runs_are_archived(workspace: Workspace, run_id: str) -> None:
    """A text that names no run makes no archive."""
    workspace.mkdir(".agent")
    with pytest.raises(RunContextError):
        await archive_run(workspace, run_id)
    assert workspace.listdir(".agent") == []


async def test_prune_only_says_what_it_would_do(workspace: Workspace, clock: ManualClock) -> None:
    """Without apply the runs beyond the newest are named and stay; with it they go, for good."""
    runs = await create_runs(workspace, clock, 5)
    assert await prune_runs(workspace, keep=2) == tuple(runs[:3])
    assert await list_runs(workspace) == tuple(runs)
    assert await prune_runs(workspace, keep=2, apply=True) == tuple(runs[:3])
    assert await list_runs(workspace) == tuple(runs[3:])
    assert len(workspace.listdir(".agent")) == 2
    assert await prune_runs(workspace, keep=2, apply=True) == ()
    assert await prune_runs(workspace, keep=99, apply=True) == ()


async def test_prune_counts_from_the_last_write(workspace: Workspace, clock: ManualClock) -> None:
    """A run is old when nothing in it was written for so long, whenever it began."""
    runs = await create_runs(workspace, clock, 2)  # by their ids years from the files' times
    hour = timedelta(hours=1)
    assert await prune_runs(workspace, older_than=hour, clock=time.time_ns, apply=True) == ()

    def in_two_hours() -> int:
        return time.time_ns() + 2 * 3600 * 10**9

    assert await prune_runs(workspace, older_than=hour, keep=1, clock=in_two_hours) == (runs[0],)
    assert await prune_runs(workspace, older_than=hour, clock=in_two_hours) == tuple(runs)


@pytest.mark.parametrize(
    ("keep", "older_than"), [(None, None), (-1, None), (None, timedelta(-1)), (-1, timedelta(1))]
)
async def test_prune_needs_a_limit(
    workspace: Workspace, clock: ManualClock, keep: int | None, older_than: timedelta | None
) -> None:
    """Without a limit, or with a negative one, nothing is removed."""
    runs = await create_runs(workspace, clock, 1)
    with pytest.raises(RunContextError, match="nothing was removed"):
        await prune_runs(workspace, keep=keep, older_than=older_than, apply=True)
    assert await list_runs(workspace) == tuple(runs)


async def test_a_run_being_packed_is_not_touched(workspace: Workspace, clock: ManualClock) -> None:
    """While somebody packs or removes a run, prune passes it over and archive says so."""
    runs = await create_runs(workspace, clock, 2)
    with workspace.exclusive(RunLayout(runs[0]).directory):
        assert await prune_runs(workspace, keep=0) == (runs[1],)
        assert await prune_runs(workspace, keep=0, apply=True) == (runs[1],)
        with pytest.raises(RunContextError, match="being packed or removed"):
            await archive_run(workspace, runs[0])
    assert await list_runs(workspace) == (runs[0],)


async def test_prune_touches_nothing_but_runs(workspace: Workspace, clock: ManualClock) -> None:
    """Archives, and whatever else stands in `.agent`, survive a prune of everything."""
    [run_id] = await create_runs(workspace, clock, 1)
    await archive_run(workspace, run_id)
    for name in ("logs-x", "logs-", f"logs-{NOON_ID}-00", ".pruned-x", ".pruned-"):
        workspace.mkdir(f".agent/{name}")
    put(workspace, ".agent/checkpoint.json", b"{}")
    before = set(workspace.listdir(".agent"))
    assert await prune_runs(workspace, keep=0, apply=True) == (run_id,)
    assert set(workspace.listdir(".agent")) == before - {f"logs-{run_id}"}


async def test_prune_follows_no_symlink(tmp_path: Path) -> None:
    """Symlinks inside a run go with it, symlinks named like a run stay, their targets stay."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    root = tmp_path / "root"
    run = await RunContext.create(root)
    (run.run_dir / "debug" / "link").symlink_to(outside)
    (run.run_dir.parent / f"logs-{NOON_ID}").symlink_to(outside)
    assert await prune_runs(root, keep=0, apply=True) == (run.run_id,)
    assert (outside / "file").read_text() == "precious"
    assert [path.name for path in (root / ".agent").iterdir()] == [f"logs-{NOON_ID}"]


async def test_a_removal_that_died_is_finished(workspace: Workspace, clock: ManualClock) -> None:
    """Half of a removed run is no run, and the next applied prune removes it."""
    runs = await create_runs(workspace, clock, 2)
    layout = RunLayout(runs[0])
    workspace.rename(layout.directory, layout.pruned)
    assert await list_runs(workspace) == (runs[1],)
    assert await prune_runs(workspace, keep=1) == ()
    assert workspace.stat(layout.pruned) is not None
    assert await prune_runs(workspace, keep=1, apply=True) == ()
    assert workspace.stat(layout.pruned) is None
