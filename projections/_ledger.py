"""Tools run once: the request is durable before the tool runs, the outcome is recorded after it."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar, cast, overload

import anyio
import msgspec

from eventstore import (
    ANY,
    Appended,
    Durability,
    Event,
    EventReader,
    EventRefusedError,
    EventStoreError,
    ExpectedVersion,
    IterationCompleted,
    IterationStarted,
    LoopResumed,
    LoopStarted,
    Recorded,
    ToolEvent,
    ToolFailed,
    ToolRequested,
    ToolSucceeded,
)
from projections._load import load
from projections._tool_errors import ToolFailedError, ToolOutcomeUnknownError
from projections._tools import (
    OPEN_TOOLS,
    OpenTool,
    call_content,
    call_id,
    open_tool,
    tool_event,
)

__all__ = ["Ledger", "ToolStore"]

_TOKEN_BYTES: Final = 8
_REASON_CHARACTERS_MAX: Final = 4_000  # of an error's text; the whole of it belongs into a run log

T = TypeVar("T")


class ToolStore(EventReader[Event], Protocol):
    """A store that takes the events of tools, whatever else it takes."""

    async def append(
        self,
        stream: str,
        events: Sequence[ToolEvent],
        *,
        expected_version: ExpectedVersion,
        key: str | None = None,
        meta: Mapping[str, str] | None = None,
        durability: Durability | None = None,
    ) -> Appended:
        """As `EventStore.append`."""
        ...


class _Call(NamedTuple):
    """The newest request of a call, and its outcome if there is one."""

    tool: OpenTool
    token: str
    outcome: ToolSucceeded | ToolFailed | None = None


class _Attempt(NamedTuple):
    """One try of an iteration: which calls it runs, and whose outcome it gave to its caller."""

    running: set[str]
    told: set[str]


class _Facts(NamedTuple):
    """What stands in a stream behind a version, as far back as the iteration's beginning.

    Attributes:
        version: of the newest event, 0 for none.
        events: tool events and beginnings of an attempt, oldest first.
        begins_after: version of the event that the iteration begins behind, if it was reached.
    """

    version: int
    events: list[Recorded[Event]]
    begins_after: int | None


class Ledger:
    """The tool calls of one loop: each runs at most once, unless somebody says otherwise.

        ledger = pj.Ledger(store, "bright-otter")
        output = await ledger.run_tool("bash", {"cmd": "make"}, lambda: bash("make"))

    Whatever happens in between, a call was either never requested (it did not run), or requested
    and of unknown outcome (it may have run), or done; a repetition then runs it, refuses to, or
    returns what was recorded.

    A call is recognised by its content (the tool's name, the arguments, the discriminator) within
    the iteration that is open in the stream: everything behind the last `IterationCompleted` or
    `LoopStarted`. So an iteration that is done again after a crash meets its own calls, and the
    next one, or the next run, does not. Equal calls are counted: the second time a ledger runs
    the same content it means the second occurrence, until a new ledger, or `IterationStarted` or
    `LoopResumed` in the stream, begins the next attempt and counts from one again. Therefore
    record these, and have one ledger for a loop at a time.

    Arguments, results and the text of errors are recorded as they are: leave secrets out of them.

    Args:
        store: opened for `AGENT_EVENTS`, or for a union of yours with the three tool events.
        stream: the loop.
    """

    def __init__(self, store: ToolStore, stream: str) -> None:
        self._store = store
        self._stream = stream
        self._version = 0  # how much of the stream is known here
        self._begins_after = 0
        self._iteration: int | None = None
        self._calls: dict[str, _Call] = {}
        self._attempt = _Attempt(running=set(), told=set())

    async def run_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        body: Callable[[], Awaitable[T]],
        *,
        discriminator: str = "",
        retry: bool = False,
    ) -> T:
        """Run a tool, or return what came of it when it ran before.

        `ToolRequested` is durable before the body is called. What it returns is recorded as
        `ToolSucceeded`, an `Exception` as `ToolFailed`. Two tasks or processes that ask for the
        same call at once are told apart in the log: one runs it.

        Args:
            name: of the tool.
            arguments: what it is called with, as JSON: strings, numbers, lists, dicts.
            body: runs it, once, and returns JSON; called without arguments.
            discriminator: tells calls of the same content apart, where counting does not.
            retry: makes a new attempt if the call is of unknown outcome or has failed. A success
                is never repeated.

        Returns:
            What the body returned, now or when it was recorded.

        Raises:
            ToolOutcomeUnknownError: it was requested before and has no outcome. It was not run.
            ToolFailedError: its recorded outcome is a failure, and it was not run; or it ran just
                now, and what it returned cannot be recorded (no JSON, too large), which is
                recorded as its failure.
            EventRefusedError: the request cannot be recorded (no mapping, no JSON, too large, or
                the store does not know the kind). It was not run.
            EventStoreError: as `append`. If it came from the request, the tool was not run.
            Exception: what the body raised.

        Cancellation:
            Before the request is durable: as `append`; the tool does not run. In the body: nothing
            is recorded, because the tool may have run; the call is of unknown outcome until
            someone settles it. Behind the body: the outcome is recorded all the same, except
            that a native `task.cancel()` may leave it unknown.
        """
        content = call_content(name, arguments, discriminator)
        await self._catch_up()
        attempt = self._attempt
        call, occurrence = self._next(content)
        attempt.running.add(call)  # no await since the call was chosen: no two tasks choose it
        try:
            known = self._calls.get(call)
            if known is None or (retry and not isinstance(known.outcome, ToolSucceeded)):
                request = ToolRequested(
                    call=call,
                    name=name,
                    arguments=dict(arguments),
                    token=secrets.token_hex(_TOKEN_BYTES),
                    attempt=1 if known is None else known.tool.attempt + 1,
                    iteration=self._iteration,
                    occurrence=occurrence,
                    discriminator=discriminator,
                )
                known = await self._request(request)
                if known is None:
                    return await self._run(request, body, attempt)
            if known.outcome is None:
                raise ToolOutcomeUnknownError(stream=self._stream, tool=known.tool)
            attempt.told.add(call)
            if isinstance(known.outcome, ToolFailed):
                raise self._failed(name, known.outcome)
            return cast("T", known.outcome.result)  # equal to what the body returned, as JSON is
        finally:
            attempt.running.discard(call)

    @overload
    async def settle(self, call: str, *, succeeded: object) -> None: ...
    @overload
    async def settle(self, call: str, *, failed: str) -> None: ...
    async def settle(
        self, call: str, *, succeeded: object = msgspec.UNSET, failed: str | None = None
    ) -> None:
        """Record what came of a call of unknown outcome, when somebody has found out.

        Args:
            call: its name, from the error, `OPEN_TOOLS` or the resume plan.
            succeeded: it did run, and this is its result, as JSON.
            failed: it did not, or it did no good, for this reason.

        Raises:
            EventRefusedError: there is no such open call, or the result cannot be recorded.
                Nothing was recorded.
            EventStoreError: as `append`.
            TypeError: both or none of the two were given.

        Cancellation: as `append`.
        """
        if (succeeded is msgspec.UNSET) is (failed is None):
            raise TypeError("settle takes one of succeeded=… and failed=…")
        tool = await self._open_tool(call)
        outcome = (
            ToolSucceeded(call=call, result=succeeded, attempt=tool.attempt)
            if failed is None
            else ToolFailed(call=call, reason=failed, attempt=tool.attempt)
        )
        await self._append(outcome)

    # --- what the stream says ---

    async def _open_tool(self, call: str) -> OpenTool:
        await self._catch_up()
        known = self._calls.get(call)
        if known is not None and known.outcome is None:
            return known.tool
        for tool in (await load(self._store, OPEN_TOOLS, self._stream)).state.calls:
            if tool.call == call:  # of an earlier iteration
                return tool
        raise EventRefusedError(
            f"stream {self._stream!r} has no open tool call {call!r:.80}; "
            "its outcome may be recorded already"
        )

    async def _catch_up(self) -> None:
        facts = await self._store.scan(
            _read_facts, stream=self._stream, after=self._version, backwards=True, data=False
        )
        begins_after = facts.begins_after
        if begins_after is not None and begins_after > self._begins_after:
            self._begins_after = begins_after
            self._iteration = None
            self._calls.clear()
            self._attempt = _Attempt(running=set(), told=set())
        for recorded in facts.events:
            if recorded.version > self._version:  # or another task was here meanwhile
                self._note(recorded)
        self._version = max(self._version, facts.version)

    def _note(self, recorded: Recorded[Event]) -> None:
        if isinstance(recorded.event, IterationStarted | LoopResumed):
            # The next attempt meets the calls of this one, ended or not.
            self._attempt = _Attempt(running=set(), told=set())
            if isinstance(recorded.event, IterationStarted):
                self._iteration = recorded.event.iteration
            return
        event = tool_event(recorded)
        if event is None:
            return
        known = self._calls.get(event.call)
        match event:
            case ToolRequested():
                if known is None or event.attempt > known.tool.attempt:
                    self._calls[event.call] = _Call(open_tool(event, recorded), event.token)
            case ToolSucceeded() | ToolFailed():
                if known is not None and event.attempt == known.tool.attempt:
                    self._calls[event.call] = known._replace(outcome=event)

    def _next(self, content: bytes) -> tuple[str, int]:
        """The first call of this content that this attempt neither runs nor has told."""
        running, told = self._attempt
        occurrence = 1
        while True:
            call = call_id(content, after_version=self._begins_after, occurrence=occurrence)
            if call not in running and call not in told:
                return call, occurrence
            occurrence += 1

    # --- what is recorded ---

    async def _request(self, request: ToolRequested) -> _Call | None:
        """Record a request; None if it is ours, else what somebody else has recorded."""
        try:
            await self._append(request)
        except EventRefusedError:
            await self._catch_up()
            known = self._calls.get(request.call)
            if known is None or known.tool.attempt < request.attempt:
                raise  # it is not that somebody was faster
            return known
        return None

    async def _run(
        self, request: ToolRequested, body: Callable[[], Awaitable[T]], attempt: _Attempt
    ) -> T:
        try:
            result = await body()
        except Exception as error:
            reason = _text(f"{type(error).__name__}: {error}")
            failed = ToolFailed(call=request.call, reason=reason, attempt=request.attempt)
            try:
                await self._record(failed, attempt)
            except EventStoreError as unrecorded:
                error.add_note(f"tool call {request.call} stays of unknown outcome: {unrecorded}")
            raise
        succeeded = ToolSucceeded(call=request.call, result=result, attempt=request.attempt)
        try:
            await self._record(succeeded, attempt)
        except EventRefusedError as error:
            reason = _text(f"it ran, but what it returned cannot be recorded: {error.reason}")
            failed = ToolFailed(call=request.call, reason=reason, attempt=request.attempt)
            await self._record(failed, attempt)
            raise self._failed(request.name, failed) from error
        return result

    async def _record(self, outcome: ToolSucceeded | ToolFailed, attempt: _Attempt) -> None:
        """Record what is known to have happened, also if the caller was cancelled meanwhile."""
        with anyio.CancelScope(shield=True):
            await self._append(outcome)
        attempt.told.add(outcome.call)

    async def _append(self, event: ToolEvent) -> None:
        is_request = isinstance(event, ToolRequested)
        what = "requested" if is_request else "ended"
        await self._store.append(
            self._stream,
            [event],
            expected_version=ANY,
            key=f"tool:{event.call}:{event.attempt}:{what}",  # one request, and one outcome
            # A request that a power loss takes away would let the tool run again; an outcome only
            # leaves it unknown, so the store's own durability will do.
            durability="synced" if is_request else None,
        )

    def _failed(self, name: str, outcome: ToolFailed) -> ToolFailedError:
        return ToolFailedError(
            stream=self._stream, call=outcome.call, name=name, reason=outcome.reason
        )


def _read_facts(pages: Iterator[Sequence[Recorded[Event]]]) -> _Facts:
    """Read from the newest event back to where the iteration begins."""
    version = 0
    events: list[Recorded[Event]] = []
    begins_after: int | None = None
    for page in pages:
        version = version or page[0].version
        for recorded in page:
            event = recorded.event
            if isinstance(event, IterationCompleted | LoopStarted):
                begins_after = recorded.version
                break
            is_attempt = isinstance(event, IterationStarted | LoopResumed)
            if is_attempt or tool_event(recorded) is not None:
                events.append(recorded)
        else:
            continue
        break
    events.reverse()
    return _Facts(version, events, begins_after)


def _text(text: str) -> str:
    """Text that can be recorded: not endless, and without halves of characters."""
    text = text.encode(errors="backslashreplace").decode()
    if len(text) <= _REASON_CHARACTERS_MAX:
        return text
    return f"{text[: _REASON_CHARACTERS_MAX - 1]}…"
