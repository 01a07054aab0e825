"""After an error in the middle of a commit: unknown, poisoned, and nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import errno
import logging
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final, cast
from zlib import crc32

import pytest

import eventstore as es
from eventstore._log._files import DiskFiles, Files
from eventstore._log._log_store import _open_log
from tests._files import Call, FaultyFiles
from tests.format._independent_reader import read_log
from tests.recovery._logs import (
    ACTIVE,
    LOCK,
    NAMES,
    append,
    append_raw,
    appended,
    content,
    foreign,
    iterations,
    opened,
    overwrite,
    quarantined,
    read,
    record,
    request,
    segments,
)

_BIG: Final = "x" * 9_000  # an event of several pages: where losing one shows


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="eventstore")


@pytest.fixture(params=["disk", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> FaultyFiles:
    """Files that fail when told to."""
    inner: Files = (
        DiskFiles(str(tmp_path)) if cast("str", request.param) == "disk" else es.MemoryFiles()
    )
    return FaultyFiles(inner)


def full_disk(files: FaultyFiles) -> None:
    """Room for 4,000 bytes."""
    files.write_only(4_000)
    files.fail(Call("write", ACTIVE), errno.ENOSPC, nth=2)


def no_room(files: FaultyFiles) -> None:
    """Not one byte is taken."""
    files.fail(Call("write", ACTIVE), errno.EDQUOT)


def accepts_nothing(files: FaultyFiles) -> None:
    """A write that returns 0."""
    files.write_only(0)


def write_error(files: FaultyFiles) -> None:
    """The disk refuses the second part of a short write."""
    files.write_only(5_000)
    files.fail(Call("write", ACTIVE), errno.EIO, nth=2)


def sync_error(files: FaultyFiles) -> None:
    """The write went well and the sync did not."""
    files.fail(Call("fdatasync", ACTIVE), errno.EIO)


FAULTS: Final[list[Callable[[FaultyFiles], None]]] = [
    full_disk,
    no_room,
    accepts_nothing,
    write_error,
    sync_error,
]
EACH = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)


def published(payload: str) -> es.LoopEvent:
    """One large event."""
    return es.EventPublished(topic="t", payload=payload)


@EACH
def test_a_commit_that_failed_is_unknown_and_poisons_the_store(
    files: FaultyFiles, fault: Callable[[FaultyFiles], None]
) -> None:
    """I5, I9: from the first byte on an error leaves the outcome unknown, and the store is done."""
    with opened(files) as committer:
        append(committer, request("otter", *iterations(1)))
        fault(files)
        with pytest.raises(es.CommitUnknownError):
            append(committer, request("otter", published(_BIG)))
        left = content(files)
        for _ in range(2):
            with pytest.raises(es.StorePoisonedError):
                append(committer, request("otter", *iterations(3)))
        with pytest.raises(es.StorePoisonedError):
            committer.version("otter")
        assert content(files) == left
    kept = record(files)
    assert kept is not None
    assert (kept.state, kept.position) == ("failed", 1)


@EACH
def test_every_append_of_the_failed_commit_learns_that_it_is_unknown(
    files: FaultyFiles, fault: Callable[[FaultyFiles], None]
) -> None:
    """I5: appends that share a commit share its outcome; a conflict among them stays a conflict."""
    with opened(files) as committer:
        fault(files)
        requests = [
            request("otter", published(_BIG)),
            request("heron", *iterations(1), expected_version=5),
            request("main", *iterations(2)),
        ]
        committer.commit(requests)
    failures = [one.failure() for one in requests if one.failure is not None]
    assert [type(error) for error in failures] == [
        es.CommitUnknownError,
        es.VersionConflictError,
        es.CommitUnknownError,
    ]


@EACH
def test_reopening_goes_on_in_a_new_file_and_loses_nothing_acknowledged(
    files: FaultyFiles, fault: Callable[[FaultyFiles], None]
) -> None:
    """I1, I9: the verified bytes move to a new inode; the old file is kept in the quarantine."""
    with opened(files) as committer:
        append(committer, request("otter", *iterations(1, 2)))
        acknowledged = content(files)
        fault(files)
        with pytest.raises(es.CommitUnknownError):
            append(committer, request("otter", published(_BIG), key="big"))
    failed = content(files)
    old = files.stat(ACTIVE)
    with opened(files) as committer:
        assert committer.recovery.renewed == 1
        survived = committer.position == 3
        (result,) = append(committer, request("otter", published(_BIG), key="big"))
    new = files.stat(ACTIVE)
    assert old is not None
    assert new is not None
    assert new.inode != old.inode
    assert files.stat(NAMES.temporary) is None
    assert result == es.Appended(version=3, position=3)  # once, whether it had survived or not
    assert survived == (fault is sync_error)
    assert content(files).startswith(acknowledged)
    assert [r.version for r in read(files)] == [1, 2, 3]
    kept = quarantined(files)
    inode_name = f"{ACTIVE}-inode-{old.inode}.jsonl"
    assert kept.pop(inode_name).startswith(acknowledged)
    if survived:
        assert kept == {}
    else:
        assert acknowledged + b"".join(kept.values()) == failed
    assert len(read_log([content(files)]).events) == 3


def test_bytes_that_a_failed_sync_lost_were_never_acknowledged(files: FaultyFiles) -> None:
    """I1, I9: what the disk did not keep of a failed commit is cut; a retry records it once."""
    with opened(files) as committer:
        append(committer, request("otter", *iterations(1)))
        start = len(content(files))
        sync_error(files)
        with pytest.raises(es.CommitUnknownError):
            append(committer, request("otter", published(_BIG), key="big"))
    data = bytearray(content(files))
    data[start + 4_096 : start + 8_192] = bytes(4_096)  # one page never reached the disk
    overwrite(files, bytes(data))
    with opened(files) as committer:
        assert (committer.position, committer.recovery.renewed) == (1, 1)
        (result,) = append(committer, request("otter", published(_BIG), key="big"))
    assert result == es.Appended(version=2, position=2)
    assert [r.version for r in read(files)] == [1, 2]
    assert bytes(data[start:]) in quarantined(files).values()


def test_another_open_store_notices_the_failure_and_goes_on(files: FaultyFiles) -> None:
    """I7, I9: the record `failed` makes the next holder distrust the file, whoever it is."""
    with opened(files) as other, opened(files) as committer:
        append(other, request("heron", *iterations(1)))
        full_disk(files)
        with pytest.raises(es.CommitUnknownError):
            append(committer, request("otter", published(_BIG)))
        (result,) = append(other, request("heron", *iterations(2)))
        assert result == es.Appended(version=2, position=2)
        assert other.recovery.renewed == 1
    assert [(r.stream, r.version) for r in read(files)] == [("heron", 1), ("heron", 2)]


@pytest.mark.parametrize("method", ["write", "fsync", "rename", "link", "fsync_directory"])
def test_recovery_that_fails_changes_nothing_and_can_be_done_again(
    files: FaultyFiles, method: str
) -> None:
    """I6, I14: no room or no sync for the quarantine copy: nothing is cut; later it is."""
    with opened(files) as committer:
        append(committer, request("otter", *iterations(1)))
        before = content(files)
        full_disk(files)
        with pytest.raises(es.CommitUnknownError):
            append(committer, request("otter", published(_BIG)))
    failed = content(files)
    torn = failed[len(before) :]
    kept = NAMES.quarantined(len(before), len(torn), crc32(torn))
    for name in (
        ACTIVE,
        NAMES.temporary,
        f"{kept}.tmp",
        NAMES.quarantine,
        NAMES.directory,
        "",
    ):
        files.fail(Call(method, name), errno.ENOSPC, times=10**6)
    with pytest.raises(es.StoreUnavailableError), opened(files):
        pass
    assert content(files).startswith(before)
    if content(files) != failed:
        assert torn in quarantined(files).values()
    mended = FaultyFiles(files.inner)
    assert [r.version for r in read(mended)] == [1]
    with opened(mended) as committer:
        assert committer.recovery.renewed == 1
        (result,) = append(committer, request("otter", *iterations(2)))
    assert result == es.Appended(version=2, position=2)
    assert torn in quarantined(mended).values()


def test_an_error_before_the_first_byte_rejects_and_poisons_nothing(files: FaultyFiles) -> None:
    """I5: when not even the lock record could be written, nothing was recorded for sure."""
    with opened(files) as committer:
        append(committer, request("otter", *iterations(1)))
        before = content(files)
        files.fail(Call("pwrite", LOCK), errno.ENOSPC)
        with pytest.raises(es.StoreUnavailableError, match="nothing was recorded"):
            append(committer, request("otter", *iterations(2)))
        assert content(files) == before
        (result,) = append(committer, request("otter", *iterations(2)))
        assert result == es.Appended(version=2, position=2)


def test_a_lock_record_that_cannot_say_idle_does_not_undo_the_commit(files: FaultyFiles) -> None:
    """I5, I10: once synced, a commit is acknowledged; the next holder looks for itself."""
    with opened(files) as committer:
        append(committer, request("otter", *iterations(1)))
        files.fail(Call("pwrite", LOCK), errno.EIO, nth=2)
        (result,) = append(committer, request("otter", *iterations(2)))
        assert result == es.Appended(version=2, position=2)
    kept = record(files)
    assert kept is not None
    assert kept.state == "writing"
    with opened(files) as committer:
        assert committer.position == 2
        assert committer.recovery.is_clean


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("fsync", ACTIVE),
        ("rename", ACTIVE),
        ("fsync_directory", ""),
        ("open", ACTIVE),
        ("pwrite", LOCK),
    ],
)
@pytest.mark.parametrize("times", [1, 2, 3])
def test_an_error_while_sealing_rejects_the_append_and_is_made_good(
    files: FaultyFiles, method: str, name: str, times: int
) -> None:
    """I5, I15: a seal that failed at any step, several times, is finished by the next commit."""
    with opened(files, segment_bytes_max=300) as committer:
        append(committer, request("otter", *iterations(1)))
        append(committer, request("otter", *iterations(2)))
        files.fail(Call(method, name), errno.ENOSPC, times=times)
        refused = 0
        while True:
            try:
                (result,) = append(committer, request("otter", *iterations(3)))
            except es.StoreUnavailableError:
                refused += 1
                assert refused <= times
                continue
            break
        assert result == es.Appended(version=3, position=3)
    assert len(segments(files)) == 2
    assert [r.version for r in read(files)] == [1, 2, 3]
    with opened(files) as committer:
        assert committer.position == 3
        assert committer.recovery.is_clean


def test_a_store_that_failed_while_sealing_can_be_opened_again(files: FaultyFiles) -> None:
    """I15: sealed and no active file: the next writer makes it; readers miss nothing meanwhile."""
    with opened(files, segment_bytes_max=300) as committer:
        append(committer, request("otter", *iterations(1, 2)))
        files.fail(Call("open", ACTIVE), errno.EMFILE)
        with pytest.raises(es.StoreUnavailableError):
            append(committer, request("otter", *iterations(3)))
    assert files.stat(ACTIVE) is None
    assert [r.version for r in read(files)] == [1, 2]
    (result,) = appended(files, request("otter", *iterations(3)))
    assert result == es.Appended(version=3, position=3)


def test_a_foreign_record_that_cannot_get_its_lf_is_left_alone(files: FaultyFiles) -> None:
    """I6, I14: ending a record fails, the store does not open, the record is still there."""
    append_raw(files, foreign(1))
    files.fail(Call("write", ACTIVE), errno.ENOSPC)
    with pytest.raises(es.StoreUnavailableError), opened(files):
        pass
    assert content(files) == foreign(1)
    with opened(files) as committer:
        assert committer.recovery.terminated == 1


@pytest.mark.anyio
@EACH
async def test_tasks_that_wait_learn_how_it_ended(
    tmp_path: Path, fault: Callable[[FaultyFiles], None]
) -> None:
    """I5, I9: through `append`: unknown, then poisoned; a new store on the same path goes on."""
    files = FaultyFiles(DiskFiles(str(tmp_path)))
    async with _open_log(files, NAMES, es.LOOP_EVENTS) as store:
        await store.append("otter", iterations(1), expected_version=es.NO_STREAM)
        fault(files)
        with pytest.raises(es.CommitUnknownError):
            await store.append("otter", [published(_BIG)], expected_version=1, key="big")
        with pytest.raises(es.StorePoisonedError):
            await store.append("otter", iterations(3), expected_version=es.ANY)
    async with es.open_store(tmp_path / ACTIVE) as store:
        await store.append("otter", [published(_BIG)], expected_version=1, key="big")
        assert [r.version async for r in store.read("otter")] == [1, 2]


@contextlib.contextmanager
def small_file_system(directory: Path, *, size: str) -> Generator[None]:
    """A tmpfs of its own; needs root."""
    directory.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"no small file system: {error}")
    if done.returncode:
        pytest.skip(f"no small file system: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.anyio
async def test_a_disk_that_is_really_full_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """I1, I5, I9: appended to until the disk is full, the log keeps what it acknowledged."""
    small = tmp_path / "small"
    with small_file_system(small, size="512k"):
        acknowledged = 0
        with contextlib.suppress(es.CommitUnknownError):
            async with es.open_store(small / ACTIVE) as store:
                while True:
                    done = await store.append(
                        "otter", [published(_BIG)], expected_version=acknowledged
                    )
                    acknowledged = done.version
        assert acknowledged > 20
        with pytest.raises(es.StoreUnavailableError, match="No space left"):
            async with es.open_store(small / ACTIVE):
                pass  # there is no room for the copy, so nothing is cut
        async with es.open_store(small / ACTIVE, read_only=True) as reader:
            assert await reader.version("otter") == acknowledged
        subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
        async with es.open_store(small / ACTIVE) as store:
            assert store.recovery.renewed == 1
            done = await store.append("otter", iterations(1), expected_version=acknowledged)
            assert done.position == acknowledged + 1
