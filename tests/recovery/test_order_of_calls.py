"""What has to reach the disk before what: the order of the calls through the seam."""

from __future__ import annotations

import logging

import msgspec
import pytest

import eventstore as es
from tests._files import Call, FaultyFiles, RecordingFiles
from tests.recovery._logs import (
    ACTIVE,
    LOCK,
    NAMES,
    append,
    append_raw,
    foreign,
    iterations,
    opened,
    read,
    record,
    request,
    set_record,
)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="eventstore")


@pytest.fixture
def memory() -> es.MemoryFiles:
    """A log of two commits."""
    files = es.MemoryFiles()
    with opened(files) as committer:
        append(committer, request("otter", *iterations(1)))
        append(committer, request("otter", *iterations(2)))
    return files


def in_order(files: RecordingFiles, *wanted: tuple[str, str]) -> None:
    """Check that these calls were made, each after the one before it."""
    at = 0
    for method, name in wanted:
        assert Call(method, name) in files.calls[at:], (method, name)
        at = files.calls.index(Call(method, name), at) + 1


def test_a_commit_is_written_synced_looked_at_and_only_then_said_to_be_idle(
    memory: es.MemoryFiles,
) -> None:
    """I1: `writing`, the bytes, the sync, the size, `idle`, and the lock is held all the while."""
    files = RecordingFiles(memory)
    with opened(files) as committer:
        files.calls.clear()
        append(committer, request("otter", *iterations(3)))
        in_order(
            files,
            ("try_lock", LOCK),
            ("pwrite", LOCK),
            ("write", ACTIVE),
            ("fdatasync", ACTIVE),
            ("stat", ACTIVE),
            ("pwrite", LOCK),
            ("unlock", LOCK),
        )
        assert files.count("write", ACTIVE) == files.count("fdatasync", ACTIVE) == 1
        assert files.count("pwrite", LOCK) == 2
        assert files.calls[-1] == Call("unlock", LOCK)


@pytest.mark.parametrize("why", ["writing", "failed", "none", "more bytes"])
def test_what_this_store_did_not_see_synced_is_read_from_the_medium(
    memory: es.MemoryFiles, why: str
) -> None:
    """I9: sync, drop the cache, and only then read; a warm cache shows what the disk has lost."""
    before = record(memory)
    assert before is not None
    if why in ("writing", "failed"):
        set_record(memory, msgspec.structs.replace(before, state=why))
    elif why == "none":
        memory.unlink(LOCK)
    else:
        append_raw(memory, foreign(1) + b"\n")
    files = RecordingFiles(memory)
    with opened(files):
        first_read = files.calls.index(Call("pread", ACTIVE))
        assert files.calls.index(Call("fsync", ACTIVE)) < first_read
        assert files.calls.index(Call("drop_cache", ACTIVE)) < first_read
        in_order(files, ("fsync", ACTIVE), ("drop_cache", ACTIVE), ("pwrite", LOCK))


def test_an_open_store_distrusts_what_another_one_left(memory: es.MemoryFiles) -> None:
    """I9: lines it did not write are synced and read anew before anything is written behind."""
    files = RecordingFiles(memory)
    with opened(files) as committer:
        append_raw(memory, foreign(1) + b"\n")
        files.calls.clear()
        append(committer, request("otter", *iterations(3)))
    in_order(
        files,
        ("fsync", ACTIVE),
        ("drop_cache", ACTIVE),
        ("pread", ACTIVE),
        ("write", ACTIVE),
        ("fdatasync", ACTIVE),
    )


def test_a_log_that_is_known_to_be_durable_is_not_synced_again(memory: es.MemoryFiles) -> None:
    """I10: that is what the lock record is for."""
    files = RecordingFiles(memory)
    with opened(files):
        assert not files.count("fsync", ACTIVE) + files.count("fdatasync", ACTIVE)


@pytest.mark.parametrize("exists", [False, True])
def test_opening_syncs_the_directory(memory: es.MemoryFiles, *, exists: bool) -> None:
    """I1: whoever made the file may have died before its name was durable."""
    files = RecordingFiles(memory if exists else es.MemoryFiles())
    with opened(files):
        in_order(files, ("open", ACTIVE), ("fsync_directory", ""))
        if not exists:
            in_order(files, ("fsync", ACTIVE), ("fsync_directory", ""), ("pwrite", LOCK))


def test_sealing_syncs_each_step(memory: es.MemoryFiles) -> None:
    """I1, I15: the file, its new name, the new file, its name; only then the commit."""
    files = RecordingFiles(memory)
    with opened(files, segment_bytes_max=300) as committer:
        files.calls.clear()
        append(committer, request("otter", *iterations(3)))
    in_order(
        files,
        ("fsync", ACTIVE),
        ("rename", ACTIVE),
        ("fsync_directory", ""),
        ("open", ACTIVE),
        ("fsync", ACTIVE),
        ("fsync_directory", ""),
        ("pwrite", LOCK),
        ("write", ACTIVE),
        ("fdatasync", ACTIVE),
    )


def test_the_copy_is_durable_before_it_takes_the_name(memory: es.MemoryFiles) -> None:
    """I9: after an error: copy, sync, keep the old file, rename, sync the directory, go on."""
    files = RecordingFiles(memory)
    with opened(files) as committer:
        faulty = FaultyFiles(memory)
        with opened(faulty) as failing:
            faulty.fail(Call("fdatasync", ACTIVE))
            with pytest.raises(es.CommitUnknownError):
                append(failing, request("otter", *iterations(3)))
        files.calls.clear()
        append(committer, request("otter", *iterations(4)))
    in_order(
        files,
        ("fsync", ACTIVE),
        ("drop_cache", ACTIVE),
        ("pread", ACTIVE),
        ("write", NAMES.temporary),
        ("fsync", NAMES.temporary),
        ("link", ACTIVE),
        ("fsync_directory", NAMES.quarantine),
        ("fsync_directory", ""),
        ("rename", NAMES.temporary),
        ("fsync_directory", ""),
        ("pwrite", LOCK),
        ("write", ACTIVE),
        ("fdatasync", ACTIVE),
    )


def test_a_reader_syncs_what_no_record_vouches_for_and_nothing_else(
    memory: es.MemoryFiles,
) -> None:
    """I8: behind the durable end a reader does what recovery does, under the shared lock."""
    files = RecordingFiles(memory)
    read(files)
    assert not {call.method for call in files.calls} & {"fsync", "drop_cache", "try_lock"}
    append_raw(memory, foreign(1) + b"\n")
    files = RecordingFiles(memory)
    read(files)
    in_order(
        files,
        ("try_lock", LOCK),
        ("fsync", ACTIVE),
        ("drop_cache", ACTIVE),
        ("unlock", LOCK),
        ("pread", ACTIVE),
    )
    assert not {call.method for call in files.calls} & {
        *("write", "pwrite", "truncate", "rename", "link", "unlink", "mkdir"),
    }
