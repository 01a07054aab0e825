"""Which tool calls are open: requested, and nobody knows yet what came of it. Pure.

A call is named by its content, so that the iteration that is done again after a crash finds what
was already asked for. The name is made of

* the tool's name and its arguments, and what the caller adds to tell equal ones apart;
* the occurrence: the first, second, ... call of just this content. Equal calls are
  interchangeable, so counting them says nothing about the order of different ones;
* the version of the last `IterationCompleted` or `LoopStarted` before it: which iteration this
  is. Every attempt at an iteration stands behind the same one; the next iteration, and the next
  run of the loop, do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

import msgspec

from eventstore import (
    TOOL_EVENTS,
    Event,
    EventRefusedError,
    Recorded,
    ToolEvent,
    ToolFailed,
    ToolRequested,
    ToolSucceeded,
    Unknown,
)
from projections._projection import Projection

__all__ = [
    "OPEN_TOOLS",
    "OpenTool",
    "OpenTools",
    "call_content",
    "call_id",
    "open_tool",
    "tool_event",
]

_CALL_DIGITS: Final = 32  # 128 bits of the digest: no two contents meet


class OpenTool(msgspec.Struct, frozen=True):
    """A request whose outcome is unknown: the tool may have run, or be running.

    Attributes:
        call: names it; what `Ledger.settle` takes.
        name: of the tool.
        arguments: what it was called with.
        attempt: counts the requests of this call; this is the last one.
        iteration: the one that was open, if any.
        requested_at: when it was recorded.
        version: of the request in its stream.
        position: of the request in the log.
    """

    call: str
    name: str
    arguments: Mapping[str, Any]
    attempt: int
    iteration: int | None
    requested_at: datetime
    version: int
    position: int


class OpenTools(msgspec.Struct, frozen=True):
    """The tool calls whose outcome nobody knows.

    Attributes:
        calls: in the order of their requests.
    """

    calls: tuple[OpenTool, ...] = ()


def tool_event(recorded: Recorded[Event]) -> ToolEvent | None:
    """The event of a tool call in a record, also where the store does not know its kind."""
    event = recorded.event
    if isinstance(event, ToolRequested | ToolSucceeded | ToolFailed):
        return event
    if isinstance(event, Unknown) and event.name in TOOL_EVENTS.by_kind:
        fields = {**event.fields, "kind": event.name}
        try:
            return cast("ToolEvent", msgspec.convert(fields, TOOL_EVENTS.union))
        except (msgspec.ValidationError, RecursionError):
            return None  # somebody else's kind of the same name
    return None


def open_tool(request: ToolRequested, recorded: Recorded[Event]) -> OpenTool:
    """A request, with its place in the log."""
    return OpenTool(
        call=request.call,
        name=request.name,
        arguments=request.arguments,
        attempt=request.attempt,
        iteration=request.iteration,
        requested_at=recorded.timestamp,
        version=recorded.version,
        position=recorded.position,
    )


def call_content(name: str, arguments: Mapping[str, Any], discriminator: str) -> bytes:
    """What a call is recognised by; the order of the arguments does not matter.

    Raises:
        EventRefusedError: something in it is not JSON, or the arguments are no mapping.
    """
    if not isinstance(arguments, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - a model sends anything
        raise EventRefusedError(
            f"the arguments of tool {name!r:.80} are no mapping, but {arguments!r:.80}"
        )
    content = [name, dict(arguments), discriminator]
    try:
        return msgspec.json.encode(content, order="deterministic")
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise EventRefusedError(f"the arguments of tool {name!r:.80} are not JSON: {error}") from (
            error
        )


def call_id(content: bytes, *, after_version: int, occurrence: int) -> str:
    """Name a call.

    Args:
        content: from `call_content`.
        after_version: version of the last iteration's end or the run's start before it, or 0.
        occurrence: 1 for the first call of this content behind that.
    """
    named = b"%d %d %b" % (after_version, occurrence, content)
    return hashlib.sha256(named).hexdigest()[:_CALL_DIGITS]


def _evolve(state: OpenTools, recorded: Recorded[Event]) -> OpenTools:
    return _fold(state, (recorded,))


def _fold(state: OpenTools, events: Sequence[Recorded[Event]]) -> OpenTools:
    calls: dict[str, OpenTool] | None = None
    for recorded in events:
        event = tool_event(recorded)
        if event is None:
            continue
        if calls is None:
            calls = {tool.call: tool for tool in state.calls}
        known = calls.get(event.call)
        match event:
            case ToolRequested():
                if known is None or event.attempt > known.attempt:
                    calls.pop(event.call, None)  # a later attempt stands where it was requested
                    calls[event.call] = open_tool(event, recorded)
            case ToolSucceeded() | ToolFailed():
                if known is not None and event.attempt == known.attempt:
                    del calls[event.call]
    return state if calls is None else OpenTools(tuple(calls.values()))


OPEN_TOOLS: Final = Projection[OpenTools, Event](
    name="open_tools", initial=OpenTools(), evolve=_evolve, fold=_fold, data=False
)
"""The tool calls that were requested and whose outcome nobody knows."""
