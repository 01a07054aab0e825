"""The write side of loopledger: a history that async programs append to and can trust.

Open a log, await appends, read them back::

    import eventstore as es

    async with es.open_store("history.jsonl") as store:
        await store.append(
            "bright-otter", [es.LoopStarted(prompt="fix the tests")], expected_version=es.NO_STREAM
        )
        async for recorded in store.read("bright-otter"):
            print(recorded.version, recorded.event)

When `append` returns, its events are on the disk, in order, all of them or none. Any number of
tasks, stores and processes may append to one log; `expected_version` is compared under the same
lock as the write. After a crash the next `open_store` sets torn bytes aside and goes on.

The parts, and where to read on:

* events and their places: `Event`, `HistoryEvent`, `Recorded`, `EventTypes`, the twelve kinds of a
  loop's history (`LOOP_EVENTS`), and with the three of tool calls (`AGENT_EVENTS`);
* the log: `open_store`, `memory_store`; what every backend promises: `EventStore`, `EventReader`;
* a log after an accident: `verify_log` (for changed bytes only: `verify_checksums`) names what is
  wrong where, `salvage_log` copies what is not;
* the bytes on disk: FORMAT.md beside this file;
* one driver per stream: `store.claim`, `Claimable`, `Owner`;
* run contexts, the per-run log directories: `RunContext`, `list_runs`, `prune_runs`, ...;
* errors: all are `EventStoreError`; their names say how an append ended.

What to do with a history once it is there (folds, the registry of loops) is `projections`.
"""

from eventstore._claims import Claimable, Owner, OwnerReader, Ownership
from eventstore._errors import (
    BookmarkLostError,
    CommitUnknownError,
    CorruptLogError,
    EventRefusedError,
    EventStoreError,
    EventTypesError,
    LoopClaimedError,
    RunContextError,
    StoreBusyError,
    StoreClosedError,
    StorePoisonedError,
    StoreUnavailableError,
    VersionConflictError,
)
from eventstore._event_types import EventTypes
from eventstore._events import (
    ANY,
    MAIN_STREAM,
    NO_STREAM,
    STREAM_EXISTS,
    Appended,
    Commit,
    Event,
    ExpectedVersion,
    HistoryEvent,
    Recorded,
    Unknown,
)
from eventstore._log._findings import Finding, Severity
from eventstore._log._log_reader import LogReader
from eventstore._log._log_store import LogStore, memory_store, open_store
from eventstore._log._memory_files import MemoryFiles
from eventstore._log._recovery import Recovery
from eventstore._log._salvage import PositionRange, Salvage, salvage_log
from eventstore._log._verification import ChecksumVerification, Verification
from eventstore._log._verify import verify_checksums, verify_log
from eventstore._loop import (
    LOOP_EVENTS,
    EventPublished,
    IterationCompleted,
    IterationStarted,
    LoopCompleted,
    LoopDiscarded,
    LoopEvent,
    LoopResumed,
    LoopStarted,
    LoopTerminated,
    MergeCompleted,
    MergeFailed,
    MergeQueued,
    MergeStarted,
)
from eventstore._runs import (
    Clock,
    ConfigSummary,
    DiskWorkspace,
    EventLoopEntry,
    EventLoopLog,
    EventLoopRecord,
    LogStream,
    MemoryWorkspace,
    Resume,
    Root,
    RunContext,
    RunMetadata,
    TraceEntry,
    Workspace,
    archive_run,
    latest_run,
    list_runs,
    prune_runs,
)
from eventstore._store import (
    Bookmark,
    Durability,
    EventReader,
    EventStore,
    Page,
    SubscribedPage,
)
from eventstore._tools import (
    AGENT_EVENTS,
    TOOL_EVENTS,
    AgentEvent,
    ToolEvent,
    ToolFailed,
    ToolRequested,
    ToolSucceeded,
)
from eventstore._upcasts import Upcast, Upcasts

__all__ = [
    "AGENT_EVENTS",
    "ANY",
    "LOOP_EVENTS",
    "MAIN_STREAM",
    "NO_STREAM",
    "STREAM_EXISTS",
    "TOOL_EVENTS",
    "AgentEvent",
    "Appended",
    "Bookmark",
    "BookmarkLostError",
    "ChecksumVerification",
    "Claimable",
    "Clock",
    "Commit",
    "CommitUnknownError",
    "ConfigSummary",
    "CorruptLogError",
    "DiskWorkspace",
    "Durability",
    "Event",
    "EventLoopEntry",
    "EventLoopLog",
    "EventLoopRecord",
    "EventPublished",
    "EventReader",
    "EventRefusedError",
    "EventStore",
    "EventStoreError",
    "EventTypes",
    "EventTypesError",
    "ExpectedVersion",
    "Finding",
    "HistoryEvent",
    "IterationCompleted",
    "IterationStarted",
    "LogReader",
    "LogStore",
    "LogStream",
    "LoopClaimedError",
    "LoopCompleted",
    "LoopDiscarded",
    "LoopEvent",
    "LoopResumed",
    "LoopStarted",
    "LoopTerminated",
    "MemoryFiles",
    "MemoryWorkspace",
    "MergeCompleted",
    "MergeFailed",
    "MergeQueued",
    "MergeStarted",
    "Owner",
    "OwnerReader",
    "Ownership",
    "Page",
    "PositionRange",
    "Recorded",
    "Recovery",
    "Resume",
    "Root",
    "RunContext",
    "RunContextError",
    "RunMetadata",
    "Salvage",
    "Severity",
    "StoreBusyError",
    "StoreClosedError",
    "StorePoisonedError",
    "StoreUnavailableError",
    "SubscribedPage",
    "ToolEvent",
    "ToolFailed",
    "ToolRequested",
    "ToolSucceeded",
    "TraceEntry",
    "Unknown",
    "Upcast",
    "Upcasts",
    "Verification",
    "VersionConflictError",
    "Workspace",
    "archive_run",
    "latest_run",
    "list_runs",
    "memory_store",
    "open_store",
    "prune_runs",
    "salvage_log",
    "verify_checksums",
    "verify_log",
]
