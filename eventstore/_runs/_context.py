"""`RunContext`: one run's directory under `.agent/`, and what is written there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import Any, Literal, overload

from eventstore._runs._allocation import allocate_run, reopen_run
from eventstore._runs._disk_workspace import Root, workspace_of
from eventstore._runs._event_loop_log import EventLoopEntry, EventLoopLog, parse_log
from eventstore._runs._layout import RunLayout
from eventstore._runs._log_stream import LogStream, binary_file, open_stream, text_file
from eventstore._runs._metadata import ConfigSummary, Invocation, RunMetadata, parse_metadata
from eventstore._runs._moments import moment_of
from eventstore._runs._paths import RunPaths
from eventstore._runs._run_files import (
    append_entry,
    read_file,
    read_metadata,
    replace_file,
    write_metadata,
)
from eventstore._runs._run_ids import check_run_id
from eventstore._runs._threads import in_thread
from eventstore._runs._trace import TraceEntry, trace_lines
from eventstore._runs._workspace import Clock, Workspace

__all__ = ["RunContext"]


class RunContext(RunPaths):
    """One run's directory `.agent/logs-<run_id>/`. Made by `create` and `resume`.

    Paths are absolute properties and methods that touch nothing. A name given to one of them
    (a phase, a provider's log) is 1 to 100 characters of [A-Za-z0-9._-] that begin with a letter
    or digit, without `..`, not ending in a dot, not reserved by Windows; others raise
    `RunContextError`. Nothing is held open between two calls, so there is nothing to close.
    """

    def __init__(
        self,
        workspace: Workspace,
        run_id: str,
        *,
        clock: Clock,
        pid: int,
        at: datetime,
        resumed: bool,
    ) -> None:
        super().__init__(workspace.root, RunLayout(run_id))
        self._workspace = workspace
        self._clock = clock
        self._pid = pid
        self._at = at
        self._resumed = resumed

    @classmethod
    async def create(
        cls, root: Root, *, clock: Clock = time.time_ns, pid: int | None = None
    ) -> RunContext:
        """Start a run: make a directory that no other run has or will have.

        Args:
            root: the workspace; made if it is not there.
            clock: gives the run its id, and its records their times.
            pid: of the orchestrator, for `run.json`; this process's by default.

        Returns:
            The run's context. Its directories (0700) are durable.

        Raises:
            RunContextError: "Too many collisions": the millisecond's hundred ids are taken. Or the
                system refused, or `.agent` is a symlink, a file, or writable by everybody. There
                is no new run.

        Cancellation: the directory may have been made; it stays, and belongs to nobody.
        """
        workspace = workspace_of(root)
        unix_ns = clock()
        run_id = await in_thread(partial(allocate_run, workspace, unix_ns))
        at = moment_of(unix_ns)
        pid = os.getpid() if pid is None else pid
        return cls(workspace, run_id, clock=clock, pid=pid, at=at, resumed=False)

    @classmethod
    async def resume(
        cls, root: Root, run_id: str, *, clock: Clock = time.time_ns, pid: int | None = None
    ) -> RunContext:
        """Go on with a run: its directory, its logs, its numbering, its metadata.

        Args:
            root: the workspace.
            run_id: of the run.
            clock: gives its records their times.
            pid: of the orchestrator, for `run.json`; this process's by default.

        Returns:
            The run's context. Subdirectories that were missing are there again.

        Raises:
            RunContextError: the text is not a run id, or there is no such run. Nothing was made.

        Cancellation: some missing subdirectories may have been made.
        """
        workspace = workspace_of(root)
        check_run_id(run_id)
        unix_ns = clock()
        await in_thread(partial(reopen_run, workspace, RunLayout(run_id)))
        at = moment_of(unix_ns)
        pid = os.getpid() if pid is None else pid
        return cls(workspace, run_id, clock=clock, pid=pid, at=at, resumed=True)

    def __repr__(self) -> str:
        return f"RunContext({str(self.run_dir)!r})"

    @property
    def is_resumed(self) -> bool:
        """Whether this context came from `resume`."""
        return self._resumed

    async def next_attempt(self, phase: str, iteration: int) -> int:
        """The attempt after all that have an agent log; 0 is the log without a suffix.

        `context.agent_log(phase, iteration, attempt or None)` is then a log that is not there.

        Raises:
            RunContextError: as `agent_log`; or the system refused.

        Cancellation: nothing has changed.
        """
        find = partial(self._layout.next_attempt, phase, iteration)
        find(existing=())  # refuse a bad name before a thread is asked
        listdir = partial(self._workspace.listdir, self._layout.agents)
        return find(existing=await in_thread(listdir))

    @overload
    def open_log(
        self, path: str | os.PathLike[str], *, mode: Literal["text"] = "text"
    ) -> AbstractAsyncContextManager[LogStream[str]]: ...
    @overload
    def open_log(
        self, path: str | os.PathLike[str], *, mode: Literal["binary"]
    ) -> AbstractAsyncContextManager[LogStream[bytes]]: ...
    def open_log(
        self, path: str | os.PathLike[str], *, mode: Literal["text", "binary"] = "text"
    ) -> AbstractAsyncContextManager[LogStream[Any]]:
        r"""Open the pipeline's, an agent's or a provider's log for appending.

            async with context.open_log(context.agent_log("review", 1)) as log:
                await log.write("line\n")

        Args:
            path: what `pipeline_log`, `agent_log` or `provider_log` gave, or the same relative to
                the run directory.
            mode: `text` is UTF-8 that reaches the system with every line; `binary` does at `flush`
                and at the end.

        Yields:
            The stream; a file that was not there is made (0600). aiofiles carries it on asyncio,
            anyio on trio. Its writes, and leaving, raise `OSError` as those of any file.

        Raises:
            RunContextError: no log of this run has that path; or something else than a plain file
                of ours stands there (a symlink, a second hard link, a FIFO). Nothing was opened.

        Cancellation: a write that began lands whole and in order; the file is always closed.
        """
        name = self._log_name(path)
        if mode == "text":
            return open_stream(lambda: text_file(self._workspace.open_append(name)))
        return open_stream(lambda: binary_file(self._workspace.open_append(name)))

    async def write_metadata(
        self,
        command: str,
        *,
        repo_root: str | os.PathLike[str] | None = None,
        ralph_version: str = "",
        config_summary: ConfigSummary | None = None,
    ) -> None:
        """Write `run.json`, replacing it whole; in a resumed run, add this resume to what it says.

        The first start's time and command stay for ever. Calling it again in the same context
        replaces what this context said before. A file that cannot be understood is kept beside
        it, as `run.json.damaged-<checksum>`.

        Args:
            command: how the orchestrator was called. Leave secrets out of it.
            repo_root: of the repository worked on; the workspace's root by default.
            ralph_version: of the orchestrator, under the original's name for it.
            config_summary: what the run was configured to do.

        Raises:
            RunContextError: the system refused, or a string holds a lone surrogate. The file is as
                it was.

        Cancellation: the file is as it was, or wholly new.
        """
        invocation = Invocation(
            at=self._at,
            resumed=self._resumed,
            command=command,
            repo_root=str(self._workspace.root) if repo_root is None else os.fspath(repo_root),
            ralph_version=ralph_version,
            pid=self._pid,
            config_summary=config_summary,
        )
        await in_thread(partial(write_metadata, self._workspace, self._layout, invocation))

    async def read_metadata(self) -> RunMetadata | None:
        """What `run.json` says, or None if nobody wrote it.

        Raises:
            RunContextError: it is damaged.

        Cancellation: nothing has changed.
        """
        name = self._layout.run_metadata
        content = await in_thread(partial(read_metadata, self._workspace, name))
        return None if content is None else parse_metadata(content, path=str(self.run_metadata))

    async def append_event_loop(
        self,
        *,
        phase: str,
        effect: str,
        event: str,
        extra: Iterable[str] = (),
        context: Mapping[str, object] | None = None,
        duration_ms: int = 0,
    ) -> int:
        """Append one line to `event_loop.log`. It survives the process, perhaps not a power loss.

        Log names and numbers only, never prompts, model output, diffs or secrets.

        Args:
            phase: blanks are ordinary in it.
            effect: what the loop did.
            event: what came of it.
            extra: further events.
            context: counters by name; values become text.
            duration_ms: how long it took, in milliseconds.

        Returns:
            The line's number: one more than that of the last whole line, whoever wrote it.

        Raises:
            RunContextError: the entry cannot be one line; nothing was recorded. Or the system
                refused; part of the line may be there, and the next one will not touch it.

        Cancellation: once a thread has it, the line is written, whole.
        """
        entry = EventLoopEntry(
            phase=phase,
            effect=effect,
            event=event,
            extra=tuple(extra),
            context=tuple((key, str(value)) for key, value in (context or {}).items()),
            duration_ms=duration_ms,
        )
        name = self._layout.event_loop_log
        unix_ns = self._clock()
        return await in_thread(partial(append_entry, self._workspace, name, entry, unix_ns=unix_ns))

    async def read_event_loop(self) -> EventLoopLog:
        """The records of `event_loop.log` in file order, the original's too; absent is empty.

        Raises:
            RunContextError: the system refused.

        Cancellation: nothing has changed.
        """
        name = self._layout.event_loop_log
        content = await in_thread(partial(read_file, self._workspace, name))
        return parse_log(content or b"")

    async def write_event_loop_trace(
        self, entries: Iterable[TraceEntry], *, reason: str, state: object
    ) -> None:
        """Write `event_loop_trace.jsonl`, replacing it whole: for when the event loop dies.

        Args:
            entries: the loop's turns, oldest first; the last 200 are kept.
            reason: why it ended.
            state: what it ended in, any JSON value.

        Raises:
            RunContextError: something in it is not JSON, or the system refused. The file is as it
                was.

        Cancellation: the file is as it was, or wholly new.
        """
        content = trace_lines(entries, reason=reason, state=state)
        await in_thread(
            partial(replace_file, self._workspace, self._layout.event_loop_trace, content)
        )
