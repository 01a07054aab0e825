"""What the registry knows of one loop: values and their words. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

from projections._loop import Outcome

__all__ = ["Anomaly", "LoopEntry", "LoopState", "resume_from"]

LoopState: TypeAlias = Literal[
    "absent",
    "running",
    "completed",
    "terminated",
    "queued",
    "merging",
    "needs-review",
    "merged",
    "discarded",
]
"""Where a loop stands. `merged` and `discarded` are ends."""


class Anomaly(msgspec.Struct, frozen=True, gc=False):
    """An event that was not to be expected where it stands.

    Attributes:
        what: `illegal`: no change; `late`: legal but after the end, no change; `gap`: applied,
            though its iteration is not the one to be expected.
        kind: the event's kind.
        state: where the loop stood.
        version: the event's version.
        position: the event's position.
        iteration: its iteration, if it is a gap.
        expected: the iteration to be expected, if it is a gap; None for "none is open".
    """

    what: Literal["illegal", "late", "gap"]
    kind: str
    state: LoopState
    version: int
    position: int
    iteration: int | None = None
    expected: int | None = None

    def __str__(self) -> str:
        place = f"position {self.position}, version {self.version}"
        if self.what != "gap":
            return f"{place}: {self.kind} while {self.state}: {self.what}, changes nothing"
        expected = "no open iteration" if self.expected is None else f"iteration {self.expected}"
        return f"{place}: {self.kind} {self.iteration}, expected {expected}: applied"


class LoopEntry(msgspec.Struct, frozen=True, gc=False):
    """What the registry knows of one loop. A start clears all but `run` and the anomalies.

    Attributes:
        state: where it stands.
        run: how many times it was started.
        prompt: of this run.
        started_at: when this run was started.
        ended_at: when it completed or was terminated; None again after a resume.
        queued_at: when it was last queued for merging.
        success: whether it ended with its completion promise; None before it ended.
        outcome: as `Completion.outcome`, of the events that are legal here.
        open_iteration: the iteration that began and has not ended.
        last_iteration: the iteration that ended last.
        resumed_from: what the last resume said, until the next iteration begins or ends.
        iterations: how many ended in this run.
        iterations_failed: how many of those without success.
        events_published: how many events this run published before its end.
        merge_pid: who merges, or merged last.
        commit: the merge.
        failure_reason: why the last merge failed; None again when it is retried.
        discard_reason: why it was discarded.
        anomalies: the newest 100, oldest first, of all runs.
        anomaly_count: how many there were.
    """

    state: LoopState = "absent"
    run: int = 0
    prompt: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    queued_at: datetime | None = None
    success: bool | None = None
    outcome: Outcome | None = None
    open_iteration: int | None = None
    last_iteration: int | None = None
    resumed_from: int | None = None
    iterations: int = 0
    iterations_failed: int = 0
    events_published: int = 0
    merge_pid: int | None = None
    commit: str | None = None
    failure_reason: str | None = None
    discard_reason: str | None = None
    anomalies: tuple[Anomaly, ...] = ()
    anomaly_count: int = 0


def resume_from(entry: LoopEntry) -> int:
    """Say with which iteration an interrupted loop goes on: the open one, else the next."""
    if entry.open_iteration is not None:
        return entry.open_iteration
    return 1 if entry.last_iteration is None else entry.last_iteration + 1
