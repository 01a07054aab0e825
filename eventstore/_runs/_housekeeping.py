"""Which runs there are, packing one, and removing old ones.

A run being packed or removed holds its directory's lock, so that neither meets the other halfway.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import posixpath
import stat
import tarfile
import time
from collections.abc import Generator, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from eventstore._errors import RunContextError
from eventstore._runs._disk_workspace import Root, workspace_of
from eventstore._runs._layout import AGENT_DIRECTORY, RunLayout, pruned_run, run_of_directory
from eventstore._runs._run_ids import check_run_id
from eventstore._runs._threads import in_thread
from eventstore._runs._workspace import Clock, EntryStat, Workspace, is_temporary

__all__ = ["archive_run", "latest_run", "list_runs", "prune_runs"]

_NS_PER_S: Final = 1_000_000_000
_NS_PER_US: Final = 1_000


async def list_runs(root: Root) -> tuple[str, ...]:
    """The ids of all runs of a workspace, oldest first.

    Directories whose names are not exactly those of runs are none; a run whose creator died early
    is one.

    Raises:
        RunContextError: the workspace is not there, or `.agent` is not a directory of it.

    Cancellation: nothing has changed.
    """
    return await in_thread(partial(_list_runs, workspace_of(root)))


async def latest_run(root: Root) -> str | None:
    """The id of the run that was started last, for `RunContext.resume`; None if there is none.

    Raises:
        RunContextError: as `list_runs`.

    Cancellation: nothing has changed.
    """
    return next(reversed(await list_runs(root)), None)


async def archive_run(root: Root, run_id: str) -> Path:
    """Pack a run's directory into one file beside it, `.agent/logs-<run_id>.tar.gz` (0600).

    The same files give the same bytes. Regular files and directories go in; symlinks are not
    followed, and are left out like FIFOs and sockets: they hold no log. The run itself stays; an
    archive it had is replaced.

    Args:
        root: the workspace.
        run_id: of the run.

    Returns:
        The archive's path. It is whole and durable.

    Raises:
        RunContextError: the text is not a run id, there is no such run, it is being packed or
            removed by somebody else, or the system refused. An earlier archive is as it was.

    Cancellation: an earlier archive is as it was, or wholly replaced.
    """
    workspace = workspace_of(root)
    layout = RunLayout(check_run_id(run_id))
    await in_thread(partial(_archive, workspace, layout))
    return workspace.root / layout.archive


async def prune_runs(
    root: Root,
    *,
    keep: int | None = None,
    older_than: timedelta | None = None,
    apply: bool = False,
    clock: Clock = time.time_ns,
) -> tuple[str, ...]:
    """Remove old runs' directories, or say which it would remove. Archives stay.

    Args:
        root: the workspace.
        keep: never remove this many of the newest runs.
        older_than: only remove runs in which nothing was written for so long. If both limits are
            given, both must allow it.
        apply: remove them; without it nothing changes.
        clock: tells now.

    Returns:
        The ids of the runs removed, or that would be, oldest first. Runs that are being packed or
        removed by somebody else are not among them.

    Raises:
        RunContextError: neither limit was given, or one is negative: nothing was removed. Or the
            system refused: older runs may be gone; ask again.

    Cancellation: each run is there, whole, or gone. What is left of one is no run any more, and
        the next `prune_runs` removes it.
    """
    if keep is None and older_than is None:
        raise RunContextError("prune needs keep= or older_than=; nothing was removed")
    if (keep or 0) < 0 or (older_than or timedelta()) < timedelta():
        raise RunContextError(
            f"prune's limits cannot be negative (keep={keep}, older_than={older_than}); "
            "nothing was removed"
        )
    quiet_since_ns = None if older_than is None else clock() - _nanoseconds(older_than)
    work = partial(
        _prune, workspace_of(root), keep=keep or 0, quiet_since_ns=quiet_since_ns, apply=apply
    )
    return await in_thread(work)


def _nanoseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * _NS_PER_US


def _list_runs(workspace: Workspace) -> tuple[str, ...]:
    if workspace.stat("") is not None and workspace.stat(AGENT_DIRECTORY) is None:
        return ()
    found = map(run_of_directory, workspace.listdir(AGENT_DIRECTORY))
    runs = sorted(run_id for run_id in found if run_id is not None)
    return tuple(run_id for run_id in runs if _is_directory(workspace, RunLayout(run_id).directory))


def _is_directory(workspace: Workspace, name: str) -> bool:
    found = workspace.stat(name)
    return found is not None and found.kind == "directory"


def _archive(workspace: Workspace, layout: RunLayout) -> None:
    with _locked(workspace, layout):
        _remove_stale(workspace, layout)
        with workspace.replacing(layout.archive) as file:
            _pack(workspace, layout.directory, file)


@contextlib.contextmanager
def _locked(workspace: Workspace, layout: RunLayout) -> Generator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(workspace.exclusive(layout.directory))
        except FileNotFoundError as error:
            path = workspace.root / layout.directory
            raise RunContextError(f"{path}: there is no such run; nothing was created") from error
        except BlockingIOError as error:
            raise RunContextError(
                f"run {layout.run_id} is being packed or removed by somebody else; "
                "nothing was changed; try again later"
            ) from error
        yield


def _remove_stale(workspace: Workspace, layout: RunLayout) -> None:
    """Remove what packers that died left of this run; its lock says that none is at work."""
    of = posixpath.basename(layout.archive)
    for leaf in workspace.listdir(AGENT_DIRECTORY):
        if is_temporary(leaf, of=of):
            workspace.remove_file(f"{AGENT_DIRECTORY}/{leaf}")


def _pack(workspace: Workspace, directory: str, file: io.BufferedIOBase) -> None:
    # No time, name, owner or mode of this machine gets in, only the files' own times.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, found in _walk(workspace, directory):
            member = tarfile.TarInfo(posixpath.relpath(name, AGENT_DIRECTORY))
            member.mtime = found.modified_unix_ns // _NS_PER_S
            if found.kind == "directory":
                member.type, member.mode = tarfile.DIRTYPE, stat.S_IRWXU
                tar.addfile(member)
            else:
                # A live log may grow meanwhile: exactly `size` bytes are read.
                member.size, member.mode = found.size, stat.S_IRUSR | stat.S_IWUSR
                with workspace.open_read(name) as content:
                    tar.addfile(member, content)


def _walk(workspace: Workspace, directory: str) -> Iterator[tuple[str, EntryStat]]:
    """Directories and regular files, parents first, in the order of their names."""
    waiting = [directory]
    while waiting:
        name = waiting.pop()
        found = workspace.stat(name)
        if found is None or found.kind == "other":
            continue
        yield name, found
        if found.kind == "directory":
            leaves = (leaf for leaf in workspace.listdir(name) if not is_temporary(leaf))
            waiting.extend(f"{name}/{leaf}" for leaf in sorted(leaves, reverse=True))


def _prune(
    workspace: Workspace, *, keep: int, quiet_since_ns: int | None, apply: bool
) -> tuple[str, ...]:
    runs = _list_runs(workspace)
    if apply:
        _remove_halves(workspace)
    removed: list[str] = []
    for run_id in runs[: max(0, len(runs) - keep)]:
        layout = RunLayout(run_id)
        try:
            with workspace.exclusive(layout.directory):
                if _is_quiet(workspace, layout, since_ns=quiet_since_ns):
                    removed.append(run_id)
                    if apply:
                        _remove(workspace, layout)
        except (BlockingIOError, FileNotFoundError):
            continue  # being packed, or gone meanwhile
    return tuple(removed)


def _is_quiet(workspace: Workspace, layout: RunLayout, *, since_ns: int | None) -> bool:
    if since_ns is None:
        return True
    return all(found.modified_unix_ns < since_ns for _, found in _walk(workspace, layout.directory))


def _remove(workspace: Workspace, layout: RunLayout) -> None:
    """Take the run's name away first: a removal that dies leaves no half of a run."""
    workspace.rename(layout.directory, layout.pruned)
    workspace.sync_directory(AGENT_DIRECTORY)
    _remove_stale(workspace, layout)
    workspace.remove_tree(layout.pruned)
    workspace.sync_directory(AGENT_DIRECTORY)


def _remove_halves(workspace: Workspace) -> None:
    """Finish removals that died."""
    if not _is_directory(workspace, AGENT_DIRECTORY):
        return
    for leaf in workspace.listdir(AGENT_DIRECTORY):
        if pruned_run(leaf) is None:
            continue
        name = f"{AGENT_DIRECTORY}/{leaf}"
        with (
            contextlib.suppress(BlockingIOError, FileNotFoundError),
            workspace.exclusive(name),
        ):
            workspace.remove_tree(name)
