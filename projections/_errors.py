"""Errors of the read side; like those of the write side they build their own sentence."""

from __future__ import annotations

from eventstore import EventStoreError

__all__ = ["IterationNotFoundError"]


class IterationNotFoundError(EventStoreError, LookupError):
    """A stream was asked for its state after an iteration that it never completed."""

    def __init__(self, *, stream: str, iteration: int) -> None:
        super().__init__(
            f"stream {stream!r} has no completed iteration {iteration}; "
            "pj.LAST_ITERATION tells the last one, pj.TIMELINE all attempts"
        )
        self.stream = stream
        self.iteration = iteration
