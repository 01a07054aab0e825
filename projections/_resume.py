"""Where a loop was interrupted, read from the end of its stream."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from eventstore import (
    LOOP_EVENTS,
    Event,
    EventPublished,
    EventReader,
    IterationCompleted,
    IterationStarted,
    LoopResumed,
    LoopStarted,
    Recorded,
    ToolRequested,
)
from projections._loop import Outcome
from projections._loop_entry import LoopEntry, LoopState, resume_from
from projections._registry import REGISTRY
from projections._tools import OpenTool, open_tool, tool_event

__all__ = ["RUN_ID", "PublishedTopic", "ResumePlan", "resume_plan"]

RUN_ID: Final = "run_id"
"""The name in an append's `meta` that links it to a run directory: `meta={pj.RUN_ID: run.run_id}`.

`RunContext.resume(root, plan.run_id)` finds the directory again. The link is text beside the
event, so no kind of event has to know of it, and files of ralph, which have none, stay as they are.
"""

_PUBLISHED_MAX: Final = 100  # the newest tell what was going on; the others are counted
_HEAD_PAGES_MAX: Final = 32  # of 256 KiB each: how far from the beginning the prompt is looked for

_KINDS: Final = frozenset(LOOP_EVENTS.by_kind.values()) - {EventPublished}


class PublishedTopic(msgspec.Struct, frozen=True):
    """What was published, without its payload.

    Attributes:
        topic: as published.
        timestamp: when it was recorded.
    """

    topic: str
    timestamp: datetime


class ResumePlan(msgspec.Struct, frozen=True):
    """Where a loop stands, and what whoever goes on with it has to know.

    *Since the last iteration* means: behind the newest `IterationCompleted` or `LoopStarted`.

    Attributes:
        loop: its stream.
        state: as the registry has it; `absent` if the stream has no event of a loop.
        outcome: the same; None for a loop that never ran.
        last_iteration: the last completed iteration of this run, or None.
        open_iteration: the iteration that began and did not end, or None.
        resume_from: the iteration to go on with, as `resume_from` tells it of the registry's entry.
        attempt: the number that the next try of that iteration has: 1 if it never began.
        published: the newest 100 topics published since the last iteration, oldest first.
        published_count: how many there were.
        open_tools: tool calls requested since the last iteration whose outcome is unknown.
        prompt: what the loop was first asked; None if it was not asked, or if that stands further
            than 8 MiB from the log's beginning (`load(store, PROMPT, loop)` reads on).
        run_id: of the newest event since the last iteration that names one, or of the end of that
            iteration; None if none does. It is text that somebody wrote.
        version: the stream's version, to be expected when appending; 0 where it is empty, and
            where a foreign writer's line is the last: ask `store.version(loop)` then.
        position: of that event in the log; 0 in the same cases.
        last_event_at: when that event was recorded; None if there is none.
    """

    loop: str
    state: LoopState
    outcome: Outcome | None
    last_iteration: int | None
    open_iteration: int | None
    resume_from: int
    attempt: int
    published: tuple[PublishedTopic, ...]
    published_count: int
    open_tools: tuple[OpenTool, ...]
    prompt: str | None
    run_id: str | None
    version: int
    position: int
    last_event_at: datetime | None


async def resume_plan(store: EventReader[Event], loop: str) -> ResumePlan:
    """Find out where a loop was interrupted.

    It reads backwards from the end, to the beginning of the iteration before the interrupted one,
    so it takes as long as that is far away, however large the log. The prompt stands at the other
    end, and is looked for there, so far.

    On a history whose events follow the registry's rules the plan says what folding all of it
    says. Where iterations were recorded behind an end without a resume, which the registry
    ignores, the plan may take them for real.

    Args:
        store: where the loop is; also a file that only ralph wrote (its loop is `main`).
        loop: its stream.

    Returns:
        The plan. It is of one moment; appending with `expected_version=plan.version` notices if
        somebody was faster.

    Raises:
        EventStoreError: as the store's `scan`.

    Cancellation: safe at any await; nothing is changed.
    """
    tail = await store.scan(_read_tail, stream=loop, backwards=True, data=False, numbers=False)
    entry = REGISTRY.fold(tail.before, tail.marks)
    prompt = tail.prompt
    if prompt is None and tail.newest is not None:
        prompt = await store.scan(lambda pages: _first_prompt(pages, loop), data=False)
    newest = tail.newest
    numbered = newest if newest is not None and _is_numbered(newest) else None
    return ResumePlan(
        loop=loop,
        state=entry.state,
        outcome=entry.outcome,
        last_iteration=entry.last_iteration,
        open_iteration=entry.open_iteration,
        resume_from=resume_from(entry),
        attempt=1 + tail.begun.count(resume_from(entry)),
        published=tuple(reversed(tail.published)),
        published_count=tail.published_count,
        open_tools=tuple(reversed(tail.open_tools)),
        prompt=prompt,
        run_id=tail.run_id,
        version=0 if numbered is None else numbered.version,
        position=0 if numbered is None else numbered.position,
        last_event_at=None if newest is None else newest.timestamp,
    )


class _Tail(NamedTuple):
    """What the end of a stream says; lists but `marks` are newest first.

    Attributes:
        newest: the newest event.
        before: the loop where `marks` begin.
        marks: what decides where a loop stands, oldest first.
        begun: the iterations that were begun since the last one ended.
    """

    newest: Recorded[Event] | None
    before: LoopEntry
    marks: list[Recorded[Event]]
    begun: list[int]
    published: list[PublishedTopic]
    published_count: int
    open_tools: list[OpenTool]
    prompt: str | None
    run_id: str | None


class _TailReader:
    """Reads a stream backwards until the rest no longer matters."""

    def __init__(self) -> None:
        self.newest: Recorded[Event] | None = None
        self.marks: list[Recorded[Event]] = []
        self.begun: list[int] = []
        self.published: list[PublishedTopic] = []
        self.published_count = 0
        self.open_tools: list[OpenTool] = []
        self.run_id: str | None = None
        self._ended: set[tuple[str, int]] = set()
        self._requested: set[str] = set()
        self._is_since = True  # behind the newest end of an iteration, or start of a run
        self._completed = False  # an iteration's end was met that may be real

    def read(self, recorded: Recorded[Event]) -> bool:
        """Take the next older event; True once the rest does not matter."""
        self.newest = self.newest or recorded
        if self._is_since:
            self._read_since(recorded)
        if type(recorded.event) not in _KINDS:
            return False
        self.marks.append(recorded)
        match recorded.event:
            case LoopStarted():
                return True
            case IterationCompleted():
                # Real if the loop was running: the next older mark of a running loop says so.
                was_completed, self._completed = self._completed, True
                return was_completed
            case IterationStarted() | LoopResumed():
                return self._completed
            case _:
                self._completed = False  # recorded behind an end: the registry ignores it
                return False

    def _read_since(self, recorded: Recorded[Event]) -> None:
        self.run_id = self.run_id or recorded.meta.get(RUN_ID)
        match recorded.event:
            case EventPublished(topic=topic):
                self.published_count += 1
                if self.published_count <= _PUBLISHED_MAX:
                    self.published.append(PublishedTopic(topic, recorded.timestamp))
            case IterationStarted(iteration=iteration):
                self.begun.append(iteration)
            case IterationCompleted() | LoopStarted():
                self._is_since = False
            case _:
                self._read_tool(recorded)

    def _read_tool(self, recorded: Recorded[Event]) -> None:
        event = tool_event(recorded)
        if event is None:
            return
        if not isinstance(event, ToolRequested):
            self._ended.add((event.call, event.attempt))
        elif event.call not in self._requested:  # a later attempt has taken its place otherwise
            self._requested.add(event.call)
            if (event.call, event.attempt) not in self._ended:
                self.open_tools.append(open_tool(event, recorded))


def _read_tail(pages: Iterator[Sequence[Recorded[Event]]]) -> _Tail:
    reader = _TailReader()
    is_whole = not any(reader.read(recorded) for page in pages for recorded in page)
    oldest = reader.marks[-1] if reader.marks else None
    start = None if oldest is None else oldest.event
    prompt = None
    if isinstance(start, LoopStarted) and oldest is not None and _is_numbered(oldest):
        prompt = start.prompt if oldest.version == 1 else None
    is_start = is_whole or isinstance(start, LoopStarted)
    return _Tail(
        newest=reader.newest,
        before=REGISTRY.initial if is_start else LoopEntry(state="running", outcome="running"),
        marks=reader.marks[::-1],
        begun=reader.begun,
        published=reader.published,
        published_count=reader.published_count,
        open_tools=reader.open_tools,
        prompt=prompt,
        run_id=reader.run_id,
    )


def _is_numbered(recorded: Recorded[Event]) -> bool:
    """Whether its numbers are known: a foreign line's were not asked for, counting costs."""
    return recorded.commit.first > 0


def _first_prompt(pages: Iterator[Sequence[Recorded[Event]]], loop: str) -> str | None:
    for page in itertools.islice(pages, _HEAD_PAGES_MAX):
        for recorded in page:
            if recorded.stream == loop and isinstance(recorded.event, LoopStarted):
                return recorded.event.prompt
    return None
