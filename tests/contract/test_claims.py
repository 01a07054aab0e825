"""One driver per stream, in one process: held for the life of a block, told to whoever asks."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from os import getpid
from typing import assert_type

import anyio
import pytest

import eventstore as es
import projections as pj
from eventstore._log._files import Files
from tests._files import Call, FaultyFiles, FilesAround, GatedFiles
from tests.contract._backends import NAMES, Backend, DiskBackend, until

pytestmark = pytest.mark.anyio

ASYNCIO = pytest.mark.parametrize(
    "anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)
LOOP = "bright-otter"
STARTED = es.LoopStarted(prompt="p")


async def test_a_claim_is_held_for_the_life_of_its_block(backend: Backend) -> None:
    """A second claimer is refused and told who holds it; afterwards the next one gets it."""
    async with backend.open() as store:
        async with pj.claim(store, LOOP) as claim:
            assert (claim.loop, claim.before) == (LOOP, None)
            with pytest.raises(es.LoopClaimedError, match=f"process {getpid()} on") as caught:
                async with pj.claim(store, LOOP):
                    pytest.fail("two drivers")
            error = caught.value
            assert (error.stream, error.pid, error.host) == (LOOP, getpid(), platform.node())
            assert error.since == claim.owner.since
        async with pj.claim(store, LOOP) as again:
            assert again.before == es.Ownership(is_held=False, owner=claim.owner, was_released=True)


async def test_a_claim_excludes_other_stores_of_the_log(backend: Backend) -> None:
    """The lock is the log's, not the store's."""
    async with backend.open() as one, backend.open() as two, pj.claim(one, LOOP):
        with pytest.raises(es.LoopClaimedError):
            async with pj.claim(two, LOOP):
                pytest.fail("two drivers")


@pytest.mark.parametrize(
    ("one", "other"),
    [("otter", "heron"), ("otter", "Otter"), ("a:b", "a+b"), ("x" * 200, "x" * 199 + "y")],
)
async def test_claims_of_different_streams_do_not_meet(
    store: es.LogStore[es.LoopEvent], one: str, other: str
) -> None:
    """Not by case, not by characters a file name cannot have, not by length."""
    async with pj.claim(store, one), pj.claim(store, other):
        owners = await store.owners([one, other, "nobody"])
        assert [owners[stream].is_held for stream in (one, other)] == [True, True]
        assert "nobody" not in owners
    assert NAMES.owner(one).lower() != NAMES.owner(other).lower()
    assert all(len(NAMES.owner(stream).rpartition("/")[2]) <= 255 for stream in (one, other))


async def test_no_stream_name_leads_out_of_the_logs_directory(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """What is no stream name is refused; to ask for it is harmless."""
    for stream in ("../../evil", "", "/etc/passwd", "a/b"):
        with pytest.raises(es.EventRefusedError):
            async with pj.claim(store, stream):
                pytest.fail("it was claimed")
        assert await store.owners([stream]) == {}


async def test_a_closed_store_claims_nothing(backend: Backend) -> None:
    """Who drives a loop has to record it, and cannot there; nobody else is kept away."""
    async with backend.open() as store:
        pass
    with pytest.raises(es.StoreClosedError):
        async with pj.claim(store, LOOP):
            pytest.fail("it was claimed")
    async with backend.open() as store:
        assert await store.owners([LOOP]) == {}


async def test_a_block_left_by_an_error_did_not_give_the_claim_back(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """It is free at once, and counts as crashed if the loop still runs by its events."""
    await store.append(LOOP, [STARTED], expected_version=es.ANY)
    with pytest.raises(ZeroDivisionError):
        async with pj.claim(store, LOOP):
            raise ZeroDivisionError
    standing = (await pj.registry(store))[LOOP]
    assert standing.ownership is not None
    assert (standing.ownership.is_held, standing.ownership.was_released) == (False, False)
    assert standing.overlay == "crashed"
    async with pj.claim(store, LOOP) as claim:
        assert claim.before == standing.ownership


async def test_a_cancelled_block_frees_the_claim(store: es.LogStore[es.LoopEvent]) -> None:
    """As an error does."""
    with anyio.CancelScope() as scope:
        async with pj.claim(store, LOOP):
            scope.cancel()
            await anyio.sleep_forever()
    async with pj.claim(store, LOOP) as claim:
        assert claim.before is not None
        assert not claim.before.was_released


async def test_a_claim_cancelled_while_it_is_taken_holds_nothing(backend: Backend) -> None:
    """The thread is waited for; then the handle is closed and the claim free."""
    files = GatedFiles(backend.files, Call("try_lock", NAMES.owner(LOOP)))
    async with backend.open_over(files) as store:
        handles = backend.open_handles()
        with files.shut():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_hold, store)
                await files.reached()
                tasks.cancel_scope.cancel()
                files.let_go()
        assert backend.open_handles() == handles
        async with pj.claim(store, LOOP):
            pass


@ASYNCIO
async def test_a_claim_cancelled_natively_is_freed_by_its_thread(backend: Backend) -> None:
    """`task.cancel()` leaves the thread behind; it closes what it took."""
    files = GatedFiles(backend.files, Call("try_lock", NAMES.owner(LOOP)))
    async with backend.open_over(files) as store:
        handles = backend.open_handles()
        with files.shut():
            task = asyncio.create_task(_hold(store))
            await files.reached()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: backend.open_handles() == handles)
        async with pj.claim(store, LOOP):
            pass


async def _hold(store: es.LogStore[es.LoopEvent]) -> None:
    async with pj.claim(store, LOOP):
        await anyio.sleep_forever()


async def test_a_claim_that_cannot_be_written_is_not_held(backend: Backend) -> None:
    """The error says where; nothing stays open."""
    files = FaultyFiles(backend.files)
    async with backend.open_over(files) as store:
        handles = backend.open_handles()
        for method in ("open", "pwrite", "pread"):
            files.fail(Call(method, NAMES.owner(LOOP)))
            with pytest.raises(es.StoreUnavailableError, match="cannot be claimed"):
                async with pj.claim(store, LOOP):
                    pytest.fail("it was claimed")
            assert backend.open_handles() == handles
        async with pj.claim(store, LOOP):
            pass


class _WhenPausing(FilesAround):
    """Lets a gate go when somebody waits for a lock."""

    def __init__(self, inner: Files, gate: GatedFiles) -> None:
        super().__init__(inner)
        self._gate = gate

    def before(self, call: Call) -> None:
        """Open the gate."""
        if call.method == "pause":
            self._gate.let_go()


async def test_looking_never_makes_a_claimer_fail(backend: Backend) -> None:
    """Who looks holds the lock for a moment; a claimer tries again after that."""
    gate = GatedFiles(backend.files, Call("pread", NAMES.owner(LOOP)))
    patient = _WhenPausing(backend.files, gate)
    async with backend.open_over(gate) as looking, backend.open_over(patient) as store:
        async with pj.claim(store, LOOP):
            pass
        with gate.shut():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(looking.owners, [LOOP])
                await gate.reached()
                async with pj.claim(store, LOOP) as claim:
                    assert claim.before is not None


async def test_a_deleted_file_is_made_anew(backend: Backend) -> None:
    """Free and deleted, it says nothing of the past, and claims as ever."""
    async with backend.open() as store:
        async with pj.claim(store, LOOP):
            pass
        backend.files.unlink(NAMES.owner(LOOP))
        assert await store.owners([LOOP]) == {}
        async with pj.claim(store, LOOP) as claim:
            assert claim.before is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff" * 2_000, b'{"stream":"x","pid":1}', b"[" * 5_000]
)
async def test_whatever_stands_in_the_file_its_lock_counts(
    backend: Backend, content: bytes
) -> None:
    """Who held it is unknown then; that somebody does, or not, is not."""
    async with backend.open() as store:
        backend.files.mkdir(NAMES.owners)
        handle = backend.files.open(NAMES.owner(LOOP), "update", create=True)
        backend.files.pwrite(handle, content, 0)
        free = es.Ownership(is_held=False, owner=None)
        assert await store.owners([LOOP]) == {LOOP: free}
        assert backend.files.try_lock(handle, exclusive=True)
        assert await store.owners([LOOP]) == {LOOP: es.Ownership(is_held=True, owner=None)}
        with pytest.raises(es.LoopClaimedError):
            async with pj.claim(store, LOOP):
                pytest.fail("two drivers")
        backend.files.close(handle)
        async with pj.claim(store, LOOP) as claim:
            assert claim.before == (free if content else None)


async def test_a_reader_sees_owners_and_creates_nothing(backend: Backend) -> None:
    """Nothing is written by asking."""
    async with backend.open() as store, backend.open_reader() as reader:
        before = backend.files.listdir("")
        assert await reader.owners([LOOP]) == {}
        assert backend.files.listdir("") == before
        async with pj.claim(store, LOOP) as claim:
            held = es.Ownership(is_held=True, owner=claim.owner)
            assert await reader.owners([LOOP]) == {LOOP: held}


async def test_something_else_at_the_files_place_is_refused(backend: Backend) -> None:
    """A directory is no lock; it hides no other loop."""
    if not isinstance(backend, DiskBackend):
        pytest.skip("memory files know no directories there")
    async with backend.open() as store, pj.claim(store, "heron"):
        backend.files.mkdir(NAMES.owner(LOOP))
        with pytest.raises(es.StoreUnavailableError, match="cannot be claimed"):
            async with pj.claim(store, LOOP):
                pytest.fail("it was claimed")
        assert list(await store.owners([LOOP, "heron"])) == ["heron"]


# --- what the registry makes of it ---


async def test_a_loop_that_never_was_claimed_has_no_overlay(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """Nobody said who drives it, so nobody can say that it crashed."""
    await store.append(LOOP, [STARTED], expected_version=es.ANY)
    standing = (await pj.registry(store, now=datetime.now(UTC) + timedelta(days=9)))[LOOP]
    assert (standing.ownership, standing.overlay) == (None, None)
    assert standing.entry == (await pj.load(store, pj.REGISTRY, LOOP)).state
    assert (standing.version, standing.position) == (1, 1)


async def test_a_held_loop_that_records_nothing_for_long_is_stalled(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """From the last event on; whatever the loop's other facts say, they stay."""
    await store.append(LOOP, [STARTED], expected_version=es.ANY)
    async with pj.claim(store, LOOP):
        last = (await pj.registry(store))[LOOP].last_event_at
        for seconds, expected in ((-60, None), (59, None), (61, "stalled")):
            now = last + timedelta(seconds=seconds)
            found = await pj.registry(store, now=now, stalled_after_seconds=60)
            assert (found[LOOP].overlay, found[LOOP].entry.state) == (expected, "running")


async def test_a_loop_that_ended_or_was_given_back_has_no_overlay(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """Crashed is who runs by its events and left nobody to run it."""
    for loop, event in ((LOOP, es.LoopCompleted(reason="x")), ("heron", es.MergeQueued())):
        await store.append(loop, [STARTED], expected_version=es.ANY)
        async with pj.claim(store, loop):
            await store.append(loop, [event], expected_version=es.ANY)
    standings = await pj.registry(store)
    assert [standing.overlay for standing in standings.values()] == [None, None]
    assert standings["heron"].ownership is not None


async def test_the_types_are_inferred(store: es.LogStore[es.LoopEvent]) -> None:
    """Both type checkers know what the registry, a claim and a plan are, for any union of kinds."""
    async with pj.claim(store, LOOP) as claim:
        assert_type(claim.before, es.Ownership | None)
    assert_type(await pj.registry(store), Mapping[str, pj.LoopStanding])
    assert_type((await pj.resume_plan(store, LOOP)).open_tools, tuple[pj.OpenTool, ...])
    assert_type((await pj.load(store, pj.OPEN_TOOLS, LOOP)).state, pj.OpenTools)


async def test_nothing_of_a_claim_is_recorded(store: es.LogStore[es.LoopEvent]) -> None:
    """It is the present, and the log is the past."""
    async with pj.claim(store, LOOP):
        assert store.position == 0
    assert [r async for r in store.read_all()] == []
