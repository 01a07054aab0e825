"""Making a run's directory, exactly once, and finding it again.

One exclusive `mkdir` is the claim: the one creator whose call succeeds has the id, every other
tries the next. A directory without `agents/`, left by a creator that died, stays claimed.
"""

from __future__ import annotations

import contextlib

from eventstore._errors import RunContextError
from eventstore._runs._layout import AGENT_DIRECTORY, RunLayout
from eventstore._runs._run_ids import RUN_ID_SUFFIX_MAX, run_id_candidates
from eventstore._runs._workspace import Workspace

__all__ = ["allocate_run", "reopen_run"]


def allocate_run(workspace: Workspace, unix_ns: int) -> str:
    """Make a run directory that nobody else has, durable, and return its id.

    Raises:
        RunContextError: the hundred ids of this millisecond are taken.
    """
    workspace.make_root()
    with contextlib.suppress(FileExistsError):
        workspace.mkdir(AGENT_DIRECTORY)
    # Even if somebody else made it: it may not be durable yet, and what we return has to be.
    workspace.sync_directory("")
    for run_id in run_id_candidates(unix_ns):
        layout = RunLayout(run_id)
        if workspace.stat(layout.archive) is not None:
            continue  # a pruned run had this id, under a clock that went back since
        try:
            workspace.mkdir(layout.directory)
        except FileExistsError:
            continue
        for subdirectory in layout.subdirectories:
            workspace.mkdir(subdirectory)
        workspace.sync_directory(layout.directory)
        workspace.sync_directory(AGENT_DIRECTORY)
        return run_id
    raise RunContextError(
        f"Too many collisions: all {RUN_ID_SUFFIX_MAX + 1} run ids of this millisecond are taken "
        f"in {workspace.root / AGENT_DIRECTORY}; nothing was created; try again"
    )


def reopen_run(workspace: Workspace, layout: RunLayout) -> None:
    """Check that a run directory is there, and make those of its subdirectories that are not.

    Raises:
        RunContextError: there is no such run, or something else has its name.
    """
    path = workspace.root / layout.directory
    found = workspace.stat(layout.directory)
    if found is None:
        raise RunContextError(f"{path}: there is no such run; nothing was created")
    if found.kind != "directory":
        raise RunContextError(f"{path} is not a directory; nothing was touched")
    for subdirectory in layout.subdirectories:
        with contextlib.suppress(FileExistsError):
            workspace.mkdir(subdirectory)
        workspace.listdir(subdirectory)  # refuses a file or symlink planted there
    workspace.sync_directory(layout.directory)
