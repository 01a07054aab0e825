"""Why a tool was not run again."""

from __future__ import annotations

from eventstore import EventStoreError
from projections._tools import OpenTool

__all__ = ["ToolFailedError", "ToolOutcomeUnknownError"]


class ToolOutcomeUnknownError(EventStoreError):
    """A tool was requested before and has no outcome; it was not run again."""

    def __init__(self, *, stream: str, tool: OpenTool) -> None:
        super().__init__(
            f"tool {tool.name!r:.80} was requested in stream {stream!r} at position "
            f"{tool.position} (call {tool.call}, attempt {tool.attempt}) and has no outcome: it "
            "may have run, or be running; it was not run again; find out, then say "
            "settle(call, succeeded=…) or settle(call, failed=…), or run it with retry=True"
        )
        self.stream = stream
        self.tool = tool


class ToolFailedError(EventStoreError):
    """A tool's recorded outcome is a failure; it was not run again."""

    def __init__(self, *, stream: str, call: str, name: str, reason: str) -> None:
        super().__init__(
            f"tool {name!r:.80} failed in stream {stream!r} (call {call}): {reason}; "
            "run it with retry=True for another attempt"
        )
        self.stream = stream
        self.call = call
        self.name = name
        self.reason = reason
