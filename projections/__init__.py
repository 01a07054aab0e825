"""projections: the read side of loopledger. What the events of a log mean.

A projection is a value: a name, an initial state, and a pure function from a state and one event
to the next state. Everything here is recomputed from the log, so everything here may be deleted::

    import eventstore as es
    import projections as pj

    async with es.open_store("history.jsonl") as store:
        loaded = await pj.load(store, pj.SUMMARY, "bright-otter")
        loaded.state.iterations_completed, loaded.version
        entries = await pj.load_all(store, pj.REGISTRY)  # {"bright-otter": Loaded(...), ...}
        pj.resume_from(entries["bright-otter"].state)  # the iteration to go on with

Built in, one state per stream:

* `LAST_ITERATION`: the number of the last completed iteration. Read from the end of the log.
* `COMPLETION`: the original's `is_completed`, and our `outcome`. Read from the end.
* `PROMPT`: what was asked first. Read from the beginning.
* `SUMMARY`: the original's thirteen fields, the same values on the same bytes.
* `TIMELINE`: when the last 1,000 iterations began and ended.
* `REGISTRY`: where the loop stands (running, queued, merged, ...), with what did not fit.
* `OPEN_TOOLS`: the tool calls that were requested and whose outcome nobody knows; `Ledger` records
  requests and outcomes, and runs no call twice unless it is told to.

What the events do not say: `claim` makes one process the driver of a loop, for as long as it lives,
and `registry` tells with it which running loops have crashed or stalled.

After a crash: `resume_plan` reads from the end where a loop was, which tool calls are of unknown
outcome, and in which run directory its logs are.

Your own::

    def add(total: int, recorded: es.Recorded[Wide]) -> int:
        match recorded.event:
            case Paid(amount=amount):
                return total + amount
            case _:
                return total


    PAID = pj.Projection(name="paid", initial=0, evolve=add)
    LAST_TOPIC = pj.latest("last_topic", topic_of)  # decided by the newest event it accepts

Kept up to date while the log grows, with views that never change under their reader::

    async with pj.open_projector(store, pj.REGISTRY, snapshots="saved") as projector:
        await projector.wait_for(done.position)  # your own write
        projector.view(pj.REGISTRY)["bright-otter"].state
        async for progress in projector.rebuild(
            pj.REGISTRY
        ):  # beside the view, then in place of it
            print(progress.position, progress.total, progress.eta_seconds)

* `Handler`: a side effect, called behind the views and not again;
* `sqlite_read_model`: tables of your own, the effect of each event exactly once; `ReadModel` and
  `ReadModelSession` are what another database has to offer.

The rules for `evolve`: it never raises, changes nothing, asks no clock, and leaves the state alone
at an event it does not know (`es.Unknown` can always turn up). Then folding in pieces gives what
folding at once gives, which is what saved states and followers rely on.

To decide something, hand in a pure function from the state to events. Another writer's events in
between are seen before anything is recorded, and starting and resuming are the same call::

    def begin(loop: pj.LoopEntry) -> list[es.LoopEvent]:
        if loop.state == "absent":
            return [es.LoopStarted(prompt="make the tests pass")]
        if loop.state == "running":
            return [es.LoopResumed(from_iteration=pj.resume_from(loop))]
        return []


    begun = await pj.transact(store, pj.REGISTRY, "bright-otter", begin)

To look back, `load` takes `at_position`, `at_time` or `at_iteration`; `bisect` finds the event at
which a state went wrong, and `diff` says what changed between two states.

Coming from ralph: `async with open_history(path) as history` has the original's methods, shares
the file with its processes, and takes the same lock.
"""

from projections._difference import Change, diff
from projections._errors import IterationNotFoundError
from projections._handlers import Handler
from projections._history import HistoryReader, LoopHistory, open_history
from projections._ledger import Ledger, ToolStore
from projections._load import load, load_all
from projections._loop import (
    COMPLETION,
    LAST_ITERATION,
    PROMPT,
    SUMMARY,
    Completion,
    Outcome,
    Summary,
    outcome_of,
)
from projections._loop_entry import Anomaly, LoopEntry, LoopState, resume_from
from projections._overlay import STALLED_AFTER_SECONDS, LoopStanding, Overlay, overlay
from projections._owners import Claim, OwnedReader, claim, registry
from projections._projection import Loaded, Projection, first, latest
from projections._projector import Follows, Projector, Status, open_projector
from projections._projector_errors import (
    ProjectionFailedError,
    ProjectorClosedError,
    RebuildLostError,
)
from projections._read_model import Checkpoint, ReadModel, ReadModelSession
from projections._rebuild import Progress, Rebuild
from projections._registry import REGISTRY
from projections._resume import RUN_ID, PublishedTopic, ResumePlan, resume_plan
from projections._sqlite_read_model import SqliteReadModel, sqlite_read_model
from projections._timeline import TIMELINE, IterationSpan, Timeline
from projections._tool_errors import ToolFailedError, ToolOutcomeUnknownError
from projections._tools import OPEN_TOOLS, OpenTool, OpenTools
from projections._transact import Transacted, transact
from projections._travel import Turn, bisect
from projections._view import View

__all__ = [
    "COMPLETION",
    "LAST_ITERATION",
    "OPEN_TOOLS",
    "PROMPT",
    "REGISTRY",
    "RUN_ID",
    "STALLED_AFTER_SECONDS",
    "SUMMARY",
    "TIMELINE",
    "Anomaly",
    "Change",
    "Checkpoint",
    "Claim",
    "Completion",
    "Follows",
    "Handler",
    "HistoryReader",
    "IterationNotFoundError",
    "IterationSpan",
    "Ledger",
    "Loaded",
    "LoopEntry",
    "LoopHistory",
    "LoopStanding",
    "LoopState",
    "OpenTool",
    "OpenTools",
    "Outcome",
    "Overlay",
    "OwnedReader",
    "Progress",
    "Projection",
    "ProjectionFailedError",
    "Projector",
    "ProjectorClosedError",
    "PublishedTopic",
    "ReadModel",
    "ReadModelSession",
    "Rebuild",
    "RebuildLostError",
    "ResumePlan",
    "SqliteReadModel",
    "Status",
    "Summary",
    "Timeline",
    "ToolFailedError",
    "ToolOutcomeUnknownError",
    "ToolStore",
    "Transacted",
    "Turn",
    "View",
    "bisect",
    "claim",
    "diff",
    "first",
    "latest",
    "load",
    "load_all",
    "open_history",
    "open_projector",
    "outcome_of",
    "overlay",
    "registry",
    "resume_from",
    "resume_plan",
    "sqlite_read_model",
    "transact",
]
