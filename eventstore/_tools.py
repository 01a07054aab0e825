"""What a tool was asked for, recorded before it runs, and what came of it, after. Pure.

They are facts beside the twelve of a loop. A request without an outcome says that the tool may
have run: whoever restarts after a crash decides, and does not find out by running it again.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias, final

import msgspec

from eventstore._event_types import EventTypes
from eventstore._events import Event
from eventstore._loop import LOOP_EVENTS, U32, LoopEvent

__all__ = [
    "AGENT_EVENTS",
    "TOOL_EVENTS",
    "AgentEvent",
    "ToolEvent",
    "ToolFailed",
    "ToolRequested",
    "ToolSucceeded",
]

_CallId: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]  # a key holds it


@final
class ToolRequested(Event, omit_defaults=True):
    """A tool was about to be called.

    Attributes:
        call: names the call by its content, so that a repetition has the same name.
        name: of the tool.
        arguments: what it was called with.
        token: chosen at random by who asked, to tell apart two who ask for the same at once.
        attempt: counts the requests of this call; the second is somebody's explicit decision.
        iteration: the one that was open, if any.
        occurrence: counts the calls of the same content in one iteration.
        discriminator: what the caller told calls of the same content apart by.
    """

    call: _CallId
    name: str
    arguments: dict[str, Any]
    token: str
    attempt: U32 = 1
    iteration: U32 | None = None
    occurrence: U32 = 1
    discriminator: str = ""


@final
class ToolSucceeded(Event, omit_defaults=True):
    """A tool returned.

    Attributes:
        call: as it was requested.
        result: what it returned, any JSON value.
        attempt: which request this is the outcome of.
    """

    call: _CallId
    result: Any = None
    attempt: U32 = 1


@final
class ToolFailed(Event, omit_defaults=True):
    """A tool raised an error, or what it returned could not be recorded.

    Attributes:
        call: as it was requested.
        reason: why.
        attempt: which request this is the outcome of.
    """

    call: _CallId
    reason: str
    attempt: U32 = 1


ToolEvent: TypeAlias = ToolRequested | ToolSucceeded | ToolFailed
"""One event of a tool's call."""

TOOL_EVENTS: Final = EventTypes[ToolEvent](ToolRequested, ToolSucceeded, ToolFailed)
"""The three kinds of tool calls. A store opened without them reads them as `Unknown`."""

AgentEvent: TypeAlias = LoopEvent | ToolEvent
"""One event of a loop whose tools are recorded too."""

AGENT_EVENTS: Final = EventTypes[AgentEvent](
    *LOOP_EVENTS.by_kind.values(), *TOOL_EVENTS.by_kind.values()
)
"""The twelve kinds of a loop and the three of its tools, for `open_store(path, types=…)`."""
