"""Run contexts: one directory per run, its paths, logs and metadata; listing, packing, removing."""

from eventstore._runs._context import RunContext
from eventstore._runs._disk_workspace import DiskWorkspace, Root
from eventstore._runs._event_loop_log import EventLoopEntry, EventLoopLog, EventLoopRecord
from eventstore._runs._housekeeping import archive_run, latest_run, list_runs, prune_runs
from eventstore._runs._log_stream import LogStream
from eventstore._runs._memory_workspace import MemoryWorkspace
from eventstore._runs._metadata import ConfigSummary, Resume, RunMetadata
from eventstore._runs._trace import TraceEntry
from eventstore._runs._workspace import Clock, Workspace

__all__ = [
    "Clock",
    "ConfigSummary",
    "DiskWorkspace",
    "EventLoopEntry",
    "EventLoopLog",
    "EventLoopRecord",
    "LogStream",
    "MemoryWorkspace",
    "Resume",
    "Root",
    "RunContext",
    "RunMetadata",
    "TraceEntry",
    "Workspace",
    "archive_run",
    "latest_run",
    "list_runs",
    "prune_runs",
]
