"""Durability: when `append` returns, its events survive; when it cannot say so, it says that."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

import eventstore as es
from tests._files import Call, FaultyFiles, FilesAround, GatedFiles, RecordingFiles
from tests.contract._backends import ACTIVE, NAMES, Backend, line, until

pytestmark = pytest.mark.anyio

ONE: Final = es.IterationStarted(iteration=1)
TWO: Final = es.IterationStarted(iteration=2)
THREE: Final = es.IterationStarted(iteration=3)
WRITE: Final = Call("write", ACTIVE)
SYNC: Final = Call("fdatasync", ACTIVE)


async def append(
    store: es.LogStore[es.LoopEvent],
    event: es.LoopEvent,
    durability: es.Durability | None = None,
) -> es.Appended:
    """Append one event to `otter`."""
    return await store.append("otter", [event], expected_version=es.ANY, durability=durability)


async def events(store: es.LogReader[es.LoopEvent]) -> list[object]:
    """What is in the log."""
    return [r.event async for r in store.read_all()]


async def test_an_append_is_synced_before_it_is_acknowledged(backend: Backend) -> None:
    """The write and its sync are done, in this order, when `append` returns."""
    files = RecordingFiles(backend.files)
    async with backend.open_over(files) as store:
        files.calls.clear()
        await append(store, ONE)
        assert [call for call in files.calls if call in (WRITE, SYNC)] == [WRITE, SYNC]


async def test_an_append_is_not_acknowledged_while_its_sync_is_at_work(backend: Backend) -> None:
    """The caller waits as long as the disk does."""
    files = GatedFiles(backend.files, SYNC)
    acknowledged: list[es.Appended] = []

    async def append_one(store: es.LogStore[es.LoopEvent]) -> None:
        acknowledged.append(await append(store, ONE))

    async with backend.open_over(files) as store, anyio.create_task_group() as tasks:
        with files.shut():
            tasks.start_soon(append_one, store)
            await files.reached()
            await anyio.wait_all_tasks_blocked()
            assert acknowledged == []
    assert acknowledged == [es.Appended(version=1, position=1)]


async def test_everything_acknowledged_is_there_after_reopening(backend: Backend) -> None:
    """Over many openings nothing is lost, nothing changes, nothing comes twice."""
    expected: list[es.LoopEvent] = []
    for number in range(8):
        async with backend.open() as store:
            assert await events(store) == expected
            assert store.recovery.is_clean
            for _ in range(5):
                event = es.IterationStarted(iteration=number)
                await append(store, event)
                expected.append(event)


# --- written, not synced ---


async def test_a_written_append_is_acknowledged_without_a_sync(backend: Backend) -> None:
    """`durability="written"` waits for the write only."""
    files = GatedFiles(backend.files, SYNC)
    async with backend.open_over(files, durability="written") as store:
        with files.shut():
            assert await append(store, ONE) == es.Appended(version=1, position=1)


async def test_one_append_may_ask_for_less_than_its_store(backend: Backend) -> None:
    """`durability` of an append wins over that of the store, in both directions."""
    files = RecordingFiles(backend.files)
    async with backend.open_over(files, durability="synced") as store:
        await append(store, ONE, "written")
        assert files.count(*SYNC) == 0
        await append(store, TWO, "synced")
        assert files.count(*SYNC) == 1


async def test_one_synced_append_makes_its_whole_commit_synced(backend: Backend) -> None:
    """Written and synced appends that wait together are made durable by one sync."""
    files = GatedFiles(backend.files, SYNC)
    recording = RecordingFiles(files)
    async with backend.open_over(recording) as store:
        async with anyio.create_task_group() as tasks:
            with files.shut():
                tasks.start_soon(append, store, ONE)
                await files.reached()
                for durability in ("written", "synced", "written"):
                    tasks.start_soon(append, store, TWO, durability)
                await anyio.wait_all_tasks_blocked()
        assert recording.count(*SYNC) == 2
    assert line(backend.raw(), 4)["commit"] == [2, 4]


async def test_written_events_are_synced_when_nothing_comes(backend: Backend) -> None:
    """An idle store makes durable what was only written."""
    files = RecordingFiles(backend.files)
    async with backend.open_over(files, durability="written") as store:
        await append(store, ONE)
        await until(lambda: files.count(*SYNC) == 1)


async def test_written_events_are_synced_on_leaving(backend: Backend) -> None:
    """A closed log is durable to its end."""
    files = RecordingFiles(backend.files)
    async with backend.open_over(files, durability="written") as store:
        await append(store, ONE)
    assert files.count(*SYNC) == 1


async def test_a_commit_behind_an_unsynced_one_says_so(backend: Backend) -> None:
    """Its lines carry `durable`: the position that was synced when they were written."""
    async with backend.open() as store:
        await append(store, ONE)
        await append(store, TWO, "written")
        await append(store, THREE)
    raw = backend.raw()
    assert ["durable" in line(raw, position) for position in (1, 2, 3)] == [False, False, True]
    assert line(raw, 3)["durable"] == 1


async def test_written_events_are_read_back(backend: Backend) -> None:
    """They are in the log for every reader of this machine."""
    async with backend.open(durability="written") as store, backend.open_reader() as reader:
        for event in (ONE, TWO, THREE):
            await append(store, event)
        assert await events(store) == [ONE, TWO, THREE]
        assert await events(reader) == [ONE, TWO, THREE]


# --- the disk fails ---


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", [WRITE, SYNC], ids=["write", "sync"])
async def test_a_failed_commit_is_of_unknown_outcome(
    backend: Backend, call: Call, error: int
) -> None:
    """Write or sync failed: the events may or may not survive, and the error says just that."""
    files = FaultyFiles(backend.files)
    async with backend.open_over(files) as store:
        await append(store, ONE)
        files.fail(call, error)
        with pytest.raises(es.CommitUnknownError, match="may or may not be on disk"):
            await append(store, TWO)
    async with backend.open() as store:
        assert await events(store) in ([ONE], [ONE, TWO])


async def test_after_a_failed_commit_the_store_appends_no_more(backend: Backend) -> None:
    """Every later append is refused with the cause; nothing of it is recorded; reading goes on."""
    files = FaultyFiles(backend.files)
    async with backend.open_over(files) as store:
        await append(store, ONE)
        files.fail(SYNC)
        with pytest.raises(es.CommitUnknownError):
            await append(store, TWO)
        for _ in range(2):
            with pytest.raises(es.StorePoisonedError, match="Input/output error"):
                await append(store, THREE)
        assert (await events(store))[:1] == [ONE]
    async with backend.open() as store:
        assert THREE not in await events(store)


@pytest.mark.parametrize("before", ["synced", "written"])
async def test_a_failed_commit_is_told_once(backend: Backend, before: es.Durability) -> None:
    """Its caller got the error; leaving the store says nothing more."""
    files = FaultyFiles(backend.files)
    async with backend.open_over(files) as store:
        await append(store, ONE, before)
        files.fail(SYNC)
        with pytest.raises(es.CommitUnknownError):
            await append(store, TWO)


async def test_everyone_in_a_failed_commit_is_told(backend: Backend) -> None:
    """Each caller gets an error of its own, with a traceback of its own."""
    gate = GatedFiles(backend.files, SYNC)
    files = FaultyFiles(gate)
    told: list[es.CommitUnknownError] = []

    async def append_one(store: es.LogStore[es.LoopEvent]) -> None:
        with pytest.raises(es.CommitUnknownError) as caught:
            await append(store, TWO)
        told.append(caught.value)

    async with backend.open_over(files) as store, anyio.create_task_group() as tasks:
        with gate.shut():
            tasks.start_soon(append, store, ONE)
            await gate.reached()
            for _ in range(3):
                tasks.start_soon(append_one, store)
            await anyio.wait_all_tasks_blocked()
            files.fail(SYNC)
    assert len({id(error) for error in told}) == 3
    assert len({str(error) for error in told}) == 1


async def test_a_reopened_log_goes_on_after_a_failure(backend: Backend) -> None:
    """Nothing acknowledged is lost, and appending works again."""
    files = FaultyFiles(backend.files)
    acknowledged: list[object] = []
    for number in range(1, 13):
        async with backend.open_over(files) as store:
            event = es.IterationStarted(iteration=number)
            if number % 3:
                await append(store, event)
                acknowledged.append(event)
            else:
                files.fail(WRITE if number % 2 else SYNC)
                with pytest.raises(es.CommitUnknownError):
                    await append(store, event)
    async with backend.open() as store:
        found = await events(store)
        assert [event for event in found if event in acknowledged] == acknowledged
        assert [r.version async for r in store.read("otter")] == list(range(1, len(found) + 1))


@pytest.mark.parametrize("sizes", [(1,), (100,), (1, 1, 1), (250, 7)])
async def test_a_short_write_is_continued(backend: Backend, sizes: tuple[int, ...]) -> None:
    """The system may take only a part of what it is given; the rest follows."""
    files = FaultyFiles(backend.files)
    async with backend.open_over(files) as store:
        files.write_only(*sizes)
        await store.append("otter", [ONE, TWO, THREE], expected_version=es.ANY)
        assert await events(store) == [ONE, TWO, THREE]
    async with backend.open() as store:
        assert store.recovery.is_clean


@pytest.mark.parametrize("size", [1, 60, 190, 300, 400])
async def test_a_full_disk_in_the_middle_of_a_commit_loses_nothing(
    backend: Backend, size: int
) -> None:
    """The torn part is set aside on reopening; what stood before it is all there."""
    files = FaultyFiles(backend.files)
    async with backend.open_over(files) as store:
        await append(store, ONE)
        files.write_only(size)
        files.fail(WRITE, errno.ENOSPC, nth=2)
        with pytest.raises(es.CommitUnknownError, match="No space left"):
            await store.append("otter", [TWO, TWO, TWO], expected_version=es.ANY)
    async with backend.open() as store:
        assert store.recovery.cut_bytes == size
        assert len(store.recovery.quarantine) == 1
        assert await append(store, THREE) == es.Appended(version=2, position=2)
        assert await events(store) == [ONE, THREE]


async def test_an_error_before_the_first_byte_rejects_only_this_append(backend: Backend) -> None:
    """Nothing was written, so nothing is in doubt: the next append works."""
    files = FaultyFiles(backend.files)
    async with backend.open_over(files) as store:
        await append(store, ONE)
        files.fail(Call("pwrite", NAMES.lock), errno.ENOSPC)
        with pytest.raises(es.StoreUnavailableError, match="nothing was recorded"):
            await append(store, TWO)
        assert await append(store, THREE) == es.Appended(version=2, position=2)
        assert await events(store) == [ONE, THREE]


async def test_a_lock_record_that_cannot_be_written_costs_no_event(backend: Backend) -> None:
    """The commit is durable without it; the next holder looks for itself."""
    files = FaultyFiles(backend.files)
    async with backend.open_over(files) as store:
        files.fail(Call("pwrite", NAMES.lock), nth=2)
        assert await append(store, ONE) == es.Appended(version=1, position=1)
        assert await append(store, TWO) == es.Appended(version=2, position=2)
    async with backend.open() as store:
        assert await events(store) == [ONE, TWO]


async def test_written_events_that_cannot_be_synced_are_told_on_leaving(backend: Backend) -> None:
    """Their appends were acknowledged as written; leaving raises, because they may be lost."""
    files = FaultyFiles(backend.files)
    files.fail(SYNC, times=9)
    with pytest.raises(es.CommitUnknownError):
        async with backend.open_over(files, durability="written") as store:
            await append(store, ONE)


class _BuggyFiles(FilesAround):
    """Stands for a mistake in our own code: something else than an `OSError`."""

    is_buggy = False

    def before(self, call: Call) -> None:
        if self.is_buggy and call == Call("pwrite", NAMES.lock):
            raise ZeroDivisionError


async def test_a_mistake_of_ours_is_never_an_acknowledgement(backend: Backend) -> None:
    """Whatever goes wrong inside a commit, no caller is told that its events are recorded."""
    files = _BuggyFiles(backend.files)
    acknowledged: list[es.Appended] = []
    with pytest.raises(BaseException):  # noqa: B017, PT011, PT012 - that it is told, not how
        async with backend.open_over(files) as store:
            files.is_buggy = True
            acknowledged.append(await append(store, ONE))
    assert acknowledged == []
    assert backend.open_handles() == 0


async def test_an_uninvited_writer_is_noticed(backend: Backend) -> None:
    """Bytes that appear between a write and its check, without the lock, poison the store."""
    gate = GatedFiles(backend.files, SYNC)
    outcomes: list[str] = []

    async def append_one(store: es.LogStore[es.LoopEvent]) -> None:
        with pytest.raises(es.CommitUnknownError):
            await append(store, ONE)
        outcomes.append("unknown")

    async with backend.open_over(gate) as store, anyio.create_task_group() as tasks:
        with gate.shut():
            tasks.start_soon(append_one, store)
            await gate.reached()
            backend.append_raw(b"who am I?\n")
    assert outcomes == ["unknown"]
    async with backend.open() as store:
        assert await events(store) == [ONE]
        assert store.recovery.noise == 1


@pytest.mark.parametrize("durability", ["sync", "SYNCED", "", None, True])
async def test_a_store_opens_with_a_durability_that_exists(tmp_path: Path, durability: Any) -> None:
    """A mistyped one would weaken every append, and nobody would notice before the power cut."""
    path = tmp_path / "log" / "history.jsonl"
    with pytest.raises(ValueError, match="durability is 'synced' or 'written', not "):
        async with es.open_store(path, durability=durability):
            pass
    assert not path.parent.exists()
