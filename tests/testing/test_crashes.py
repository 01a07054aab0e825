"""Crashing a program at every change it makes to its log."""

from __future__ import annotations

import contextlib
from typing import assert_type

import anyio
import pytest

import eventstore as es
import projections as pj
from projections.testing import CrashFiles, TmpLog, survive_crashes

pytestmark = pytest.mark.anyio

OTTER = "bright-otter"
LAST = 3


class Paid(es.Event):
    """A kind of a user's own."""

    amount: int


PAID = es.EventTypes[Paid](Paid)


def next_step(loop: pj.LoopEntry) -> list[es.LoopEvent]:
    """What a loop of three iterations does next."""
    if loop.state == "absent":
        return [es.LoopStarted(prompt="auth")]
    if loop.state != "running":
        return []
    if loop.last_iteration == LAST:
        return [es.LoopCompleted(reason="completion_promise")]
    if loop.open_iteration is None:
        return [es.IterationStarted(iteration=pj.resume_from(loop))]
    return [es.IterationCompleted(iteration=loop.open_iteration, success=True)]


async def careful(store: es.EventStore[es.LoopEvent]) -> None:
    """A loop that looks before each step."""
    done = await pj.transact(store, pj.REGISTRY, OTTER, next_step)
    while done.appended is not None:
        done = await pj.transact(store, pj.REGISTRY, OTTER, next_step, since=done)


async def careless(store: es.EventStore[es.LoopEvent]) -> None:
    """A loop that begins again where it was started."""
    for iteration in range(1, LAST + 1):
        event = es.IterationCompleted(iteration=iteration, success=True)
        await store.append(OTTER, [event], expected_version=es.ANY)


async def completed_in_order(store: es.EventStore[es.LoopEvent]) -> None:
    """Each iteration ended once."""
    events = [recorded.event async for recorded in store.read(OTTER)]
    ended = [event.iteration for event in events if isinstance(event, es.IterationCompleted)]
    assert ended == [1, 2, 3]


async def test_a_careful_program_survives_a_crash_between_any_two_steps() -> None:
    """Eight appends, and each of them more than one change to crash at."""
    crashes = await survive_crashes(careful, completed_in_order)
    assert crashes > 2 * 8


async def test_a_careless_program_is_found() -> None:
    """It records an iteration twice when it is started again; the note says after which crash."""
    with pytest.raises(AssertionError) as raised:
        await survive_crashes(careless, completed_in_order)
    assert raised.value.__notes__[0].startswith("after a crash at call ")


async def test_a_program_that_fails_by_itself_is_not_taken_for_crashed() -> None:
    """What it raises where nothing crashed is raised."""

    async def broken(store: es.EventStore[es.LoopEvent]) -> None:
        await careful(store)
        msg = "my own mistake"
        raise LookupError(msg)

    with pytest.raises(LookupError, match="my own mistake"):
        await survive_crashes(broken)


async def test_a_program_may_have_events_of_its_own() -> None:
    """Both type checkers know the store's events from `types`."""

    async def pay(store: es.EventStore[Paid]) -> None:
        await store.append("till", [Paid(amount=1)], expected_version=es.ANY, key="once")

    async def judge(store: es.EventStore[Paid]) -> None:
        found = [recorded.event async for recorded in store.read("till")]
        assert_type(found, list[Paid | es.Unknown])
        assert found == [Paid(amount=1)]

    assert await survive_crashes(pay, judge, types=PAID) > 2


async def test_nothing_works_between_the_crash_and_the_restart() -> None:
    """The first call fails as the system would, all others too; what was written stays."""
    files = CrashFiles()
    log = TmpLog(files=files)
    started = es.LoopStarted(prompt="auth")
    async with log.open() as store:
        await store.append(OTTER, [started], expected_version=es.ANY)
        files.crash_after(0)
        with pytest.raises(es.EventStoreError, match="crashed"):
            await store.append(OTTER, [started], expected_version=es.ANY)
        assert files.crashed
        with pytest.raises(es.EventStoreError, match="crashed"):
            await store.append(OTTER, [started], expected_version=es.ANY)
        with pytest.raises(OSError, match="crashed"):
            files.open("history.jsonl", "read")
    with pytest.raises(es.EventStoreError):
        async with log.open():
            pytest.fail("it opened")
    files.restart()
    async with log.open() as store:
        assert await store.version(OTTER) == 1


async def test_the_write_that_crashes_leaves_half_of_its_bytes() -> None:
    """So a torn line is what the next start finds, after one of the crashes at least."""
    torn: list[int] = []
    whole = 0
    for calls in range(6):
        files = CrashFiles()
        async with TmpLog(files=files).open() as store:
            await store.append(OTTER, [es.MergeQueued()], expected_version=es.ANY)
            whole = _size(files)
            files.crash_after(calls)
            with contextlib.suppress(es.EventStoreError):
                await store.append(OTTER, [es.MergeQueued()], expected_version=es.ANY)
        torn.append(_size(files) - whole)
        assert torn[-1] <= whole
    assert any(0 < more < whole - 9 for more in torn)


def _size(files: CrashFiles) -> int:
    status = files.stat("history.jsonl")
    assert status is not None
    return status.size


async def test_a_crash_while_many_tasks_append_loses_no_acknowledged_event() -> None:
    """A program with tasks is crashed and restarted like any other."""

    async def crowd(store: es.EventStore[es.LoopEvent]) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(8):

                async def publish(number: int = number) -> None:
                    event = es.EventPublished(topic="t", payload=f"{number}")
                    await store.append(OTTER, [event], expected_version=es.ANY, key=f"{number}")

                tasks.start_soon(publish)

    async def each_once(store: es.EventStore[es.LoopEvent]) -> None:
        keys = [recorded.key async for recorded in store.read(OTTER)]
        assert sorted(map(str, keys)) == [f"{number}" for number in range(8)]

    assert await survive_crashes(crowd, each_once) > 1
