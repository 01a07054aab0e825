"""Tool calls: what is recorded around them, and that none runs twice unless somebody says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_type

import anyio
import pytest

import eventstore as es
import projections as pj
from eventstore._log._log_store import _open_log
from tests._files import RecordingFiles
from tests.contract._backends import NAMES

pytestmark = pytest.mark.anyio

LOOP = "bright-otter"
BASH: Mapping[str, Any] = {"cmd": "make test", "timeout": 30}
Open = Callable[[], Any]


@pytest.fixture(params=["memory", "disk"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Open the same log each time."""
    if request.param == "disk":
        return lambda: es.open_store(tmp_path / "history.jsonl", types=es.AGENT_EVENTS)
    files = es.MemoryFiles()
    return lambda: es.memory_store(types=es.AGENT_EVENTS, files=files)


@pytest.fixture
async def store(open_again: Open) -> AsyncIterator[es.EventStore[es.AgentEvent]]:
    """A store whose loop is in its first iteration."""
    async with open_again() as opened:
        await opened.append(
            LOOP,
            [es.LoopStarted(prompt="p"), es.IterationStarted(iteration=1)],
            expected_version=es.NO_STREAM,
        )
        yield opened


class Tool:
    """A tool that counts how often it really ran."""

    def __init__(self, result: Any = "ok") -> None:
        self.result = result
        self.runs = 0

    async def __call__(self) -> Any:
        """Run it."""
        self.runs += 1
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


async def tool_events(store: es.EventReader[es.AgentEvent]) -> list[es.AgentEvent | es.Unknown]:
    """What the log says of tools."""
    kinds = es.TOOL_EVENTS.by_kind
    return [r.event async for r in store.read(LOOP) if r.kind in kinds]


async def lose(ledger: pj.Ledger, name: str = "bash") -> None:
    """Leave a call of unknown outcome behind, as a crash does: cancelled inside the body."""
    with anyio.CancelScope() as scope:

        async def body() -> None:
            scope.cancel()
            await anyio.sleep_forever()

        await ledger.run_tool(name, BASH, body)
    assert scope.cancelled_caught


async def open_calls(store: es.EventReader[es.AgentEvent]) -> list[str]:
    """The open calls of the loop."""
    return [tool.call for tool in (await pj.load(store, pj.OPEN_TOOLS, LOOP)).state.calls]


async def test_a_request_is_recorded_before_the_tool_runs_and_its_result_after(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """While the tool runs its request stands in the log; then its outcome does, by one call."""
    seen: list[es.AgentEvent | es.Unknown] = []

    async def body() -> dict[str, int]:
        seen.extend(await tool_events(store))
        return {"exit": 0}

    result = await pj.Ledger(store, LOOP).run_tool("bash", BASH, body)
    assert_type(result, dict[str, int])
    assert result == {"exit": 0}
    (request,) = seen
    assert isinstance(request, es.ToolRequested)
    assert (request.name, request.arguments) == ("bash", BASH)
    assert (request.iteration, request.attempt, request.occurrence) == (1, 1, 1)
    outcome = es.ToolSucceeded(call=request.call, result={"exit": 0})
    assert await tool_events(store) == [request, outcome]
    assert await open_calls(store) == []


async def test_a_request_is_synced_whatever_the_store_does() -> None:
    """In a store that only writes, the tool still does not run before its request is durable."""
    files = RecordingFiles(es.MemoryFiles())
    synced: list[int] = []

    async def body() -> None:
        synced.append(files.count("fdatasync", NAMES.active))

    async with _open_log(files, NAMES, es.AGENT_EVENTS, durability="written") as store:
        before = files.count("fdatasync", NAMES.active)
        await pj.Ledger(store, LOOP).run_tool("bash", BASH, body)
    assert synced == [before + 1]


async def test_a_tool_that_ran_in_this_iteration_is_not_run_again(open_again: Open) -> None:
    """After a restart the same content gives the recorded result."""
    tool = Tool([1, {"a": None}])
    for _ in range(2):
        async with open_again() as store:
            await store.append(LOOP, [es.IterationStarted(iteration=1)], expected_version=es.ANY)
            assert await pj.Ledger(store, LOOP).run_tool("bash", BASH, tool) == [1, {"a": None}]
    assert tool.runs == 1


async def test_the_order_of_arguments_does_not_matter(store: es.EventStore[es.AgentEvent]) -> None:
    """Content is what the arguments say, not how the dict was filled."""
    tool = Tool()
    await pj.Ledger(store, LOOP).run_tool("bash", BASH, tool)
    reversed_arguments = dict(reversed(list(BASH.items())))
    await pj.Ledger(store, LOOP).run_tool("bash", reversed_arguments, tool)
    assert tool.runs == 1


@pytest.mark.parametrize(
    ("name", "arguments", "discriminator"),
    [("sh", BASH, ""), ("bash", {**BASH, "timeout": 31}, ""), ("bash", BASH, "second")],
)
async def test_other_content_is_another_call(
    store: es.EventStore[es.AgentEvent],
    name: str,
    arguments: dict[str, Any],
    discriminator: str,
) -> None:
    """The tool's name, its arguments and the discriminator tell calls apart."""
    tool = Tool()
    await pj.Ledger(store, LOOP).run_tool("bash", BASH, tool)
    await pj.Ledger(store, LOOP).run_tool(name, arguments, tool, discriminator=discriminator)
    assert tool.runs == 2


async def test_equal_calls_of_one_ledger_are_counted(store: es.EventStore[es.AgentEvent]) -> None:
    """Asking twice runs twice; done again after a crash, both find their own outcome."""
    results = iter(["first", "second", "third"])

    async def body() -> str:
        return next(results)

    ledger = pj.Ledger(store, LOOP)
    assert [await ledger.run_tool("date", {}, body) for _ in range(2)] == ["first", "second"]
    again = pj.Ledger(store, LOOP)
    told = [await again.run_tool("date", {}, body) for _ in range(3)]
    assert told == ["first", "second", "third"]


@pytest.mark.parametrize(
    "again", [es.IterationStarted(iteration=1), es.LoopResumed(from_iteration=1)], ids=repr
)
async def test_another_attempt_in_the_same_process_meets_the_calls_of_the_first(
    store: es.EventStore[es.AgentEvent], again: es.AgentEvent
) -> None:
    """The same ledger counts from one again: an attempt is an attempt, crash or not."""
    tool = Tool()
    ledger = pj.Ledger(store, LOOP)
    for _ in range(2):
        for _ in range(2):
            await ledger.run_tool("bash", BASH, tool)
        await store.append(LOOP, [again], expected_version=es.ANY)
    assert tool.runs == 2


async def test_another_attempt_does_not_run_what_the_first_still_runs(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """It is the same call, and its outcome is not known yet."""
    ledger = pj.Ledger(store, LOOP)
    begun, over = anyio.Event(), anyio.Event()
    tool = Tool()

    async def body() -> str:
        begun.set()
        await over.wait()
        return "first"

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ledger.run_tool, "bash", BASH, body)
            await begun.wait()
            await store.append(LOOP, [es.IterationStarted(iteration=1)], expected_version=es.ANY)
            with pytest.raises(pj.ToolOutcomeUnknownError):
                await ledger.run_tool("bash", BASH, tool)
            over.set()
    assert await ledger.run_tool("bash", BASH, tool, retry=True) == "first"
    assert tool.runs == 0


@pytest.mark.parametrize(
    "boundary",
    [es.IterationCompleted(iteration=1, success=True), es.LoopStarted(prompt="again")],
    ids=["the next iteration", "the next run"],
)
async def test_a_call_belongs_to_its_iteration(
    store: es.EventStore[es.AgentEvent], boundary: es.AgentEvent
) -> None:
    """Behind an iteration's end or a new start the same content is another call."""
    tool = Tool()
    ledger = pj.Ledger(store, LOOP)
    await ledger.run_tool("bash", BASH, tool)
    await store.append(LOOP, [boundary], expected_version=es.ANY)
    await ledger.run_tool("bash", BASH, tool)
    await pj.Ledger(store, LOOP).run_tool("bash", BASH, tool)
    assert tool.runs == 2


async def test_an_error_of_the_tool_is_recorded_and_raised(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """The caller gets the tool's own error; who repeats the call gets the recorded one."""
    tool = Tool(ValueError("no such \ud800 file"))
    with pytest.raises(ValueError, match="no such"):
        await pj.Ledger(store, LOOP).run_tool("bash", BASH, tool)
    with pytest.raises(pj.ToolFailedError, match=r"ValueError: no such \\ud800 file") as caught:
        await pj.Ledger(store, LOOP).run_tool("bash", BASH, tool)
    assert tool.runs == 1
    assert caught.value.reason == "ValueError: no such \\ud800 file"
    assert await open_calls(store) == []


async def test_a_failed_call_runs_again_when_told_to(store: es.EventStore[es.AgentEvent]) -> None:
    """A retry is a second attempt at the same call, and its outcome is what counts from then."""
    with pytest.raises(ValueError, match="once"):
        await pj.Ledger(store, LOOP).run_tool("bash", BASH, Tool(ValueError("once")))
    tool = Tool("fine")
    for _ in range(2):
        ledger = pj.Ledger(store, LOOP)
        assert await ledger.run_tool("bash", BASH, tool, retry=True) == "fine"
    assert tool.runs == 1
    requests = [e for e in await tool_events(store) if isinstance(e, es.ToolRequested)]
    assert [request.attempt for request in requests] == [1, 2]
    assert len({request.call for request in requests}) == 1


async def test_a_cancelled_call_is_of_unknown_outcome_and_not_run_again(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """It may have run: nothing is recorded, and the same ledger and a new one both refuse."""
    ledger = pj.Ledger(store, LOOP)
    await lose(ledger)
    tool = Tool()
    for asking in (ledger, pj.Ledger(store, LOOP), ledger):
        with pytest.raises(pj.ToolOutcomeUnknownError, match="was not run again") as caught:
            await asking.run_tool("bash", BASH, tool)
        assert caught.value.tool.arguments == BASH
        assert caught.value.tool.position == 3
    assert tool.runs == 0
    assert await open_calls(store) == [caught.value.tool.call]


async def test_an_unknown_call_runs_again_when_told_to(store: es.EventStore[es.AgentEvent]) -> None:
    """`retry` is the explicit decision; the first attempt no longer counts as open."""
    await lose(pj.Ledger(store, LOOP))
    assert await pj.Ledger(store, LOOP).run_tool("bash", BASH, Tool("fine"), retry=True) == "fine"
    assert await open_calls(store) == []


async def test_a_late_outcome_of_an_earlier_attempt_changes_nothing(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """Somebody retried: what the first attempt came to is no longer the call's outcome."""
    await lose(pj.Ledger(store, LOOP))
    (call,) = await open_calls(store)
    with pytest.raises(KeyboardInterrupt):
        await pj.Ledger(store, LOOP).run_tool("bash", BASH, Tool(KeyboardInterrupt()), retry=True)
    await store.append(LOOP, [es.ToolSucceeded(call=call)], expected_version=es.ANY)
    (tool,) = (await pj.load(store, pj.OPEN_TOOLS, LOOP)).state.calls
    assert (tool.call, tool.attempt) == (call, 2)
    assert (await pj.resume_plan(store, LOOP)).open_tools == (tool,)
    with pytest.raises(pj.ToolOutcomeUnknownError, match="attempt 2"):
        await pj.Ledger(store, LOOP).run_tool("bash", BASH, Tool())


async def test_a_settled_call_has_the_outcome_it_was_given(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """Somebody found out: the call is done, and its result is what they said, None included."""
    for name, result in (("bash", {"exit": 0}), ("sh", None)):
        await lose(pj.Ledger(store, LOOP), name)
        (call,) = await open_calls(store)
        await pj.Ledger(store, LOOP).settle(call, succeeded=result)
        tool = Tool()
        assert await pj.Ledger(store, LOOP).run_tool(name, BASH, tool) == result
        assert tool.runs == 0


async def test_a_call_settled_as_failed_raises_the_reason(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """Without a result there is nothing to return."""
    ledger = pj.Ledger(store, LOOP)
    await lose(ledger)
    (call,) = await open_calls(store)
    await ledger.settle(call, failed="the machine was gone")
    with pytest.raises(pj.ToolFailedError, match="the machine was gone"):
        await ledger.run_tool("bash", BASH, Tool())


async def test_a_call_of_an_earlier_iteration_can_still_be_settled(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """It stays open, whatever the loop did since."""
    await lose(pj.Ledger(store, LOOP))
    await store.append(
        LOOP, [es.IterationCompleted(iteration=1, success=False)], expected_version=es.ANY
    )
    (call,) = await open_calls(store)
    await pj.Ledger(store, LOOP).settle(call, failed="never ran")
    assert await open_calls(store) == []


async def test_what_is_not_open_cannot_be_settled(store: es.EventStore[es.AgentEvent]) -> None:
    """One outcome per attempt: a second one, or one of nothing, is refused."""
    ledger = pj.Ledger(store, LOOP)
    await ledger.run_tool("bash", BASH, Tool())
    before = await tool_events(store)
    assert isinstance(before[0], es.ToolRequested)
    for call in (before[0].call, "nobody"):
        with pytest.raises(es.EventRefusedError, match="no open tool call"):
            await ledger.settle(call, succeeded=1)
    with pytest.raises(TypeError):
        await ledger.settle(before[0].call)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    assert await tool_events(store) == before


@pytest.mark.parametrize(
    "arguments",
    [{"x": "y" * 2**20}, {"x": (1, 2)}, {"x": b"bytes"}, {"x": float("nan")}, {"x": object()}],
    ids=["too large", "tuple", "bytes", "nan", "object"],
)
async def test_a_request_that_cannot_be_recorded_does_not_run(
    store: es.EventStore[es.AgentEvent], arguments: dict[str, Any]
) -> None:
    """The limits of an event are met before the tool is, and nothing is recorded."""
    tool = Tool()
    with pytest.raises(es.EventRefusedError):
        await pj.Ledger(store, LOOP).run_tool("bash", arguments, tool)
    assert tool.runs == 0
    assert await tool_events(store) == []


@pytest.mark.parametrize(
    "arguments",
    [None, (1,), 5, "make", [("cmd", "make")]],
    ids=["none", "tuple", "int", "text", "pairs"],
)
async def test_arguments_without_names_are_refused_by_a_sentence(
    store: es.EventStore[es.AgentEvent], arguments: Any
) -> None:
    """It says which tool and what was given; pairs too, which could be used up by a first look."""
    tool = Tool()
    with pytest.raises(es.EventRefusedError, match="arguments of tool 'bash' are no mapping, but "):
        await pj.Ledger(store, LOOP).run_tool("bash", arguments, tool)
    assert tool.runs == 0
    assert await tool_events(store) == []


@pytest.mark.parametrize("result", ["y" * 2**20, (1, 2), object()], ids=["large", "tuple", "other"])
async def test_a_result_that_cannot_be_recorded_is_a_recorded_failure(
    store: es.EventStore[es.AgentEvent], result: object
) -> None:
    """It is known that the tool ran: the call is not open, and says why it has no result."""
    tool = Tool(result)
    for _ in range(2):
        with pytest.raises(pj.ToolFailedError, match="it ran, but"):
            await pj.Ledger(store, LOOP).run_tool("bash", BASH, tool)
    assert tool.runs == 1
    assert await open_calls(store) == []


async def test_a_store_without_the_tool_kinds_runs_no_tool() -> None:
    """The request cannot be recorded there; the error says how to open the store."""
    tool = Tool()
    async with es.memory_store() as store:
        with pytest.raises(es.EventRefusedError, match="types="):
            await pj.Ledger(store, LOOP).run_tool("bash", {}, tool)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert tool.runs == 0


async def test_a_store_of_the_twelve_kinds_sees_open_calls_too() -> None:
    """There they are of unknown kinds, and found by name."""
    files = es.MemoryFiles()
    async with es.memory_store(types=es.AGENT_EVENTS, files=files) as store:
        await lose(pj.Ledger(store, LOOP))
        known = await pj.load(store, pj.OPEN_TOOLS, LOOP)
    async with es.memory_store(files=files) as plain:
        assert [r.kind async for r in plain.read(LOOP)] == ["tool_requested"]
        assert await pj.load(plain, pj.OPEN_TOOLS, LOOP) == known
    assert len(known.state.calls) == 1


async def test_an_event_of_the_same_name_and_other_fields_is_not_a_tool_call() -> None:
    """Somebody's own `tool_requested` is theirs."""

    class Mine(es.Event, tag="tool_requested"):
        what: str

    async with es.memory_store(types=es.EventTypes[Mine](Mine)) as store:
        await store.append(LOOP, [Mine(what="coffee")], expected_version=es.ANY)
        assert (await pj.load(store, pj.OPEN_TOOLS, LOOP)).state == pj.OpenTools()
    plain = es.Unknown(name="tool_requested", fields={"what": "coffee"})
    recorded = es.Recorded[es.Event](plain, datetime(2026, 11, 21, tzinfo=UTC), 1, 1)
    assert pj.OPEN_TOOLS.evolve(pj.OpenTools(), recorded) == pj.OpenTools()


async def test_one_of_two_ledgers_that_ask_at_once_runs_the_tool(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """Both have looked and found nothing; the log lets one of them request."""
    one, two = pj.Ledger(store, LOOP), pj.Ledger(store, LOOP)
    tool = Tool()
    refused: list[pj.ToolOutcomeUnknownError] = []
    both = anyio.Event()
    inside: list[int] = []

    async def body() -> str:
        inside.append(1)
        await both.wait()
        return str(await tool())

    async def run(ledger: pj.Ledger) -> None:
        try:
            await ledger.run_tool("bash", BASH, body)
        except pj.ToolOutcomeUnknownError as error:
            refused.append(error)
            both.set()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, one)
            tasks.start_soon(run, two)
    assert (len(inside), tool.runs, len(refused)) == (1, 1, 1)


async def test_equal_calls_of_one_ledger_at_once_are_two_calls(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """One ledger knows what it runs itself: the second is the second occurrence."""
    ledger = pj.Ledger(store, LOOP)
    both = anyio.Event()
    running: list[int] = []

    async def body() -> int:
        running.append(len(running))
        if len(running) == 2:
            both.set()
        await both.wait()
        return 0

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ledger.run_tool, "bash", BASH, body)
            tasks.start_soon(ledger.run_tool, "bash", BASH, body)
    assert await open_calls(store) == []


async def test_a_known_outcome_is_recorded_though_the_caller_is_cancelled(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """Behind the body a cancelled scope waits for the record."""

    async def body() -> str:
        scope.cancel()
        return "done"

    with anyio.CancelScope() as scope:
        await pj.Ledger(store, LOOP).run_tool("bash", BASH, body)
    assert await open_calls(store) == []
    assert len(await tool_events(store)) == 2


async def test_open_calls_are_told_in_the_order_of_their_requests(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """A second attempt stands where it was requested."""
    ledger = pj.Ledger(store, LOOP)
    for name in ("a", "b"):
        await lose(ledger, name)

    async def retry() -> Awaitable[Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await pj.Ledger(store, LOOP).run_tool("a", BASH, retry, retry=True)
    tools = (await pj.load(store, pj.OPEN_TOOLS, LOOP)).state.calls
    assert [(tool.name, tool.attempt) for tool in tools] == [("b", 1), ("a", 2)]
