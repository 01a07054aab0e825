"""Drivers of a loop as real processes: killed, stopped, forked."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import anyio
import pytest

import eventstore as es
import projections as pj
from eventstore._log._files import DiskFiles
from eventstore._log._log_store import _open_log
from tests._kills import DeadlyFiles, was_killed
from tests.contract._backends import NAMES
from tests.test_processes import Crew, ready, stopped

LOOP = "bright-otter"


@pytest.fixture
def crew() -> Iterator[Crew]:
    """Starts processes; none outlives the test."""
    opened = Crew()
    yield opened
    opened.close()


async def _drive(number: int, connection: Connection, path: str, last: es.LoopEvent | None) -> None:
    """Claim a loop and start it; when told to, record its end and leave."""
    del number
    async with es.open_store(path) as store, pj.claim(store, LOOP):
        await store.append(LOOP, [es.LoopStarted(prompt="p")], expected_version=es.ANY)
        ready(connection)
        if last is not None:
            await store.append(LOOP, [last], expected_version=es.ANY)


@pytest.mark.parametrize("number", range(3), ids=["asyncio", "asyncio+uvloop", "trio"])
def test_a_killed_driver_is_seen_at_once_and_another_can_take_over(
    tmp_path: Path, crew: Crew, number: int
) -> None:
    """While it lives it alone drives the loop; dead, the loop has crashed and is free."""
    path = tmp_path / "history.jsonl"
    driver = crew.start(number, _drive, str(path), None)

    async def main() -> None:
        async with es.open_store(path) as store:
            alive = (await pj.registry(store))[LOOP]
            assert alive.ownership is not None
            assert alive.ownership.owner is not None
            assert (alive.ownership.is_held, alive.ownership.owner.pid) == (True, driver.pid)
            assert alive.overlay is None
            with pytest.raises(es.LoopClaimedError, match=f"process {driver.pid} ") as caught:
                async with pj.claim(store, LOOP):
                    pytest.fail("two drivers")
            assert caught.value.pid == driver.pid
            driver.kill()
            dead = (await pj.registry(store))[LOOP]
            assert dead.overlay == "crashed"
            assert dead.entry == alive.entry
            async with pj.claim(store, LOOP) as claim:
                assert claim.before == dead.ownership
                assert claim.before is not None
                assert claim.before.owner == alive.ownership.owner
                assert (await pj.registry(store))[LOOP].overlay is None

    anyio.run(main)


def test_a_stopped_driver_stays_the_driver(tmp_path: Path, crew: Crew) -> None:
    """It may wake up: its claim is never broken; after a while its loop counts as stalled."""
    path = tmp_path / "history.jsonl"
    driver = crew.start(0, _drive, str(path), es.LoopCompleted(reason="completion_promise"))

    async def main() -> None:
        async with es.open_store(path) as store:
            with stopped(driver):
                with pytest.raises(es.LoopClaimedError):
                    async with pj.claim(store, LOOP):
                        pytest.fail("two drivers")
                assert (await pj.registry(store))[LOOP].overlay is None
                later = datetime.now(UTC) + timedelta(hours=1)
                assert (await pj.registry(store, now=later))[LOOP].overlay == "stalled"
            driver.send("go")
            driver.end()
            standing = (await pj.registry(store))[LOOP]
            assert (standing.entry.state, standing.overlay) == ("completed", None)
            async with pj.claim(store, LOOP) as claim:
                assert claim.before is not None
                assert claim.before.was_released

    anyio.run(main)


async def _drive_and_fork(number: int, connection: Connection, path: str) -> bool:
    del number
    async with es.open_store(path) as store:
        await store.append(LOOP, [es.LoopStarted(prompt="p")], expected_version=es.ANY)
        block = pj.claim(store, LOOP)
        await block.__aenter__()
        connection.send("ready")
        connection.send(_fork_children(block))
        assert connection.recv() == "go"
        await block.__aexit__(None, None, None)
    return True


def _fork_children(block: AbstractAsyncContextManager[pj.Claim]) -> tuple[int, int]:
    """Fork a child that leaves the block in its way, and then one that stays.

    Returns:
        The status of the first, and the pid of the second.
    """
    leaver = os.fork()
    if not leaver:
        try:  # there is no event loop here, and leaving waits for none
            block.__aexit__(None, None, None).__await__().__next__()
        except StopIteration:
            os._exit(0)
        os._exit(1)
    stayer = os.fork()
    if not stayer:
        signal.pause()
        os._exit(0)
    return os.waitpid(leaver, 0)[1], stayer


@pytest.mark.skipif(sys.platform != "linux", reason="a fork with threads")
@pytest.mark.parametrize("end", ["killed", "left"])
def test_a_forked_child_neither_frees_nor_keeps_the_claim(
    tmp_path: Path, crew: Crew, end: str
) -> None:
    """A child that leaves the block frees nothing; one that stays holds nothing."""
    path = tmp_path / "history.jsonl"
    driver = crew.start(0, _drive_and_fork, str(path))
    status, stayer = driver.receive()
    assert status == 0

    async def main() -> None:
        async with es.open_store(path) as store:
            owner = (await store.owners([LOOP]))[LOOP]
            assert (owner.is_held, owner.was_released) == (True, False)
            if end == "killed":
                driver.kill()
            else:
                driver.send("go")
                assert driver.receive()
            async with pj.claim(store, LOOP) as claim:
                assert claim.before is not None
                assert claim.before.was_released == (end == "left")

    try:
        anyio.run(main)
    finally:
        os.kill(stayer, signal.SIGKILL)


def _claim_once(directory: Path, at: int) -> None:
    """Claim the loop and give it back, and die at a call of the seam on the way."""

    async def main() -> None:
        files = DeadlyFiles(DiskFiles(str(directory)))
        async with _open_log(files, NAMES, es.LOOP_EVENTS) as store:
            await store.append(LOOP, [es.LoopStarted(prompt="p")], expected_version=es.ANY)
            files.left = at
            async with pj.claim(store, LOOP):
                pass
            files.left = None

    anyio.run(main)


def test_a_kill_at_any_call_of_the_seam_leaves_the_claim_free(tmp_path: Path) -> None:
    """Never claimed, crashed, or given back; in this order, and each of them is met."""
    met: list[str] = []

    async def look(directory: Path) -> str:
        async with es.open_store(directory / NAMES.active) as store:
            standing = (await pj.registry(store))[LOOP]
            async with pj.claim(store, LOOP):
                pass
        if standing.ownership is None:
            return "never claimed"
        assert not standing.ownership.is_held
        assert (standing.overlay == "crashed") is not standing.ownership.was_released
        return standing.overlay or "given back"

    while True:
        directory = tmp_path / str(len(met))
        directory.mkdir()
        if not was_killed(_claim_once, directory, len(met) + 1):
            break
        met.append(anyio.run(look, directory))
    order = ["never claimed", "crashed", "given back"]
    assert met == sorted(met, key=order.index)
    assert set(met) == set(order)
