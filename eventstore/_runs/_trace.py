"""The crash trace: what the event loop did last, and the state it died in. Pure."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from eventstore._errors import RunContextError

__all__ = ["TRACE_ENTRIES_MAX", "TraceEntry", "trace_lines"]

TRACE_ENTRIES_MAX: Final = 200  # as the original; enough to see the cycle a loop ran into


class TraceEntry(msgspec.Struct, frozen=True):
    """One turn of the event loop with the counters that decide about its next one."""

    iteration: int
    effect: str
    event: str
    phase: str
    xsd_retry_pending: bool = False
    xsd_retry_count: int = 0
    invalid_output_attempts: int = 0
    agent_index: int = 0
    model_index: int = 0
    retry_cycle: int = 0


def trace_lines(entries: Iterable[TraceEntry], *, reason: str, state: object) -> bytes:
    """The trace's bytes: one JSON object per line, the newest entries, the final state last.

    Args:
        entries: oldest first; only the last `TRACE_ENTRIES_MAX` are kept.
        reason: why the loop ended.
        state: what it ended in: any JSON value.

    Raises:
        RunContextError: something in it would not read back equal from JSON.
    """
    rows: list[object] = [
        msgspec.structs.asdict(entry) for entry in deque(entries, maxlen=TRACE_ENTRIES_MAX)
    ]
    rows.append({"kind": "final_state", "reason": reason, "state": state})
    try:
        return b"".join(
            json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
            + b"\n"
            for row in rows
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise RunContextError(f"the trace is not JSON ({error}); nothing was written") from error
