"""The index on the disk saves reading the log, and never tells anything else than the log."""

from __future__ import annotations

import errno
import logging
import os
import re
from pathlib import Path

import pytest

import eventstore as es
from eventstore._log._commit import Committer
from eventstore._log._files import DiskFiles, Files
from eventstore._log._index_run import LOG_START, encode_run, hash_key
from tests._files import Call, FilesAround
from tests.fuzz._parts import mended_run, parted_run
from tests.recovery._logs import (
    ACTIVE,
    NAMES,
    append,
    append_raw,
    content,
    foreign,
    opened,
    request,
)

_STREAMS = [f"loop-{number}" for number in range(5)]


class Counted(FilesAround):
    """Counts the bytes of the log that are read."""

    bytes_read = 0

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        """Read, and count."""
        data = super().pread(handle, size, offset)
        if self._opened[handle] == ACTIVE:
            self.bytes_read += len(data)
        return data


class NoRoomForIndex(FilesAround):
    """Nothing can be written into the index's directory."""

    def before(self, call: Call) -> None:
        """Fail to write there."""
        if call.method == "write" and call.name.startswith(NAMES.cache):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), call.name)


def fill(
    files: Files, *, commits: int = 30, segment_bytes_max: int | None = None, index_bytes: int = 1
) -> None:
    """Append to five streams in turn, each append with a key."""
    with opened(files, segment_bytes_max=segment_bytes_max, index_bytes=index_bytes) as committer:
        for number in range(commits):
            stream = _STREAMS[number % 5]
            append(committer, request(stream, event(number), event(number), key=f"key-{number}"))
            committer.save_index()


def event(number: int) -> es.LoopEvent:
    """An event that can be told apart."""
    return es.IterationStarted(iteration=number)


def index_files(files: Files) -> list[str]:
    """The names of the index files."""
    return [f"{NAMES.cache}/{name}" for name in files.listdir(NAMES.cache)]


def remove_index(files: Files) -> None:
    """Delete what may be deleted at any time."""
    for name in index_files(files):
        files.unlink(name)


def overwrite(files: Files, name: str, data: bytes, offset: int) -> None:
    """Change bytes of a file."""
    handle = files.open(name, "update")
    files.pwrite(handle, data, offset)
    files.close(handle)


def check_everything(committer: Committer, *, commits: int = 30) -> None:
    """Versions are right, and every key is known: a repetition records nothing."""
    position = committer.position
    for stream in _STREAMS:
        assert committer.version(stream) == 2 * commits // 5
    assert committer.version("unheard-of") == 0
    for number in range(commits):
        stream = _STREAMS[number % 5]
        again = request(
            stream, event(number), event(number), key=f"key-{number}", expected_version=7_777
        )
        (found,) = append(committer, again)
        assert found == es.Appended(2 * (number // 5) + 2, 2 * number + 2)
    assert committer.position == position


@pytest.mark.parametrize("segment_bytes_max", [None, 2_000])
def test_the_index_tells_what_the_log_tells(segment_bytes_max: int | None) -> None:
    """With and without it: the same versions, the same appends for the same keys."""
    files = es.MemoryFiles()
    fill(files, segment_bytes_max=segment_bytes_max)
    assert index_files(files)
    with opened(files) as committer:
        check_everything(committer)
    remove_index(files)
    with opened(files) as committer:
        check_everything(committer)


def test_opening_reads_the_end_of_the_log_only() -> None:
    """What the index covers is not read again."""
    files = es.MemoryFiles()
    fill(files, commits=1_000, index_bytes=1_000)
    counted = Counted(files)
    with opened(counted) as committer:
        assert committer.position == 2_000
    assert len(content(files)) > 300_000
    assert counted.bytes_read < 2_000


def test_the_index_of_another_log_is_not_believed() -> None:
    """A copied `cache/` directory changes nothing."""
    files, other = es.MemoryFiles(), es.MemoryFiles()
    fill(files)
    with opened(other) as committer:
        for number in range(40):
            append(committer, request("calm-heron", event(number + 7), key=f"key-{number}"))
    files.mkdir(NAMES.cache)
    other.mkdir(NAMES.cache)
    for name in index_files(files):
        copy = other.open(name, "append", create=True)
        other.write(copy, content(files, name))
        other.close(copy)
    with opened(other) as committer:
        assert committer.version("calm-heron") == 40
        assert committer.version("loop-0") == 0


def test_a_log_that_was_rolled_back_does_not_keep_its_index() -> None:
    """An older copy of the log is put back: keys and versions are those of the copy."""
    files = es.MemoryFiles()
    fill(files, commits=15)
    older = content(files)
    fill(files, commits=30)
    handle = files.open(ACTIVE, "append")
    files.truncate(handle, 0)
    files.write(handle, older)
    files.close(handle)
    files.unlink(NAMES.lock)
    with opened(files) as committer:
        check_everything(committer, commits=15)


def test_a_run_of_another_log_does_not_continue_this_one() -> None:
    """Only a run that begins just where the one before it ends is believed."""
    files, other = es.MemoryFiles(), es.MemoryFiles()
    fill(files, commits=10)
    with opened(other, index_bytes=1) as committer:
        append(committer, request("loop-9", event(8), event(9), key="key-77"))
        committer.save_index()
    first = min(index_files(files))
    files.unlink(first)
    (foreign_run,) = index_files(other)
    copy = files.open(foreign_run, "append", create=True)
    files.write(copy, content(other, foreign_run))
    files.close(copy)
    with opened(files) as committer:
        check_everything(committer, commits=10)
        assert committer.version("loop-9") == 0


def test_a_damaged_page_of_streams_is_read_from_the_log() -> None:
    """It is noticed when the page is needed; the damaged file is gone then."""
    _damage_and_check(4_100)


def test_a_damaged_page_of_keys_is_read_from_the_log() -> None:
    """The same, where a key is looked up."""
    _damage_and_check(8_200)


def _damage_and_check(offset: int) -> None:
    files = es.MemoryFiles()
    fill(files, commits=30)
    with opened(files) as committer:
        committer.tidy_index()
    (name,) = index_files(files)
    overwrite(files, name, b"\xff\xff", offset)
    with opened(files) as committer:
        check_everything(committer)
    assert name not in index_files(files)


@pytest.mark.parametrize("offset", [4_096, 8_192, 12_288], ids=["streams", "keys", "fences"])
def test_a_page_of_another_file_is_not_believed(offset: int) -> None:
    """A run is never synced: a power cut may leave an old block of another run in its place."""
    files = es.MemoryFiles()
    fill(files, index_bytes=2_500)
    first, *_, last = sorted(index_files(files))
    page = content(files, first)[offset : offset + 4_096]
    overwrite(files, last, page, offset)
    with opened(files) as committer:
        check_everything(committer)


@pytest.mark.parametrize("count", [-(2**20), 2**40, 2**63, 2**64, 10**30])
@pytest.mark.parametrize("member", ["streams", "keys", "events"])
def test_a_count_that_cannot_be_is_no_reason_to_fail(
    member: str, count: int, tmp_path: Path
) -> None:
    """A head whose checksum holds may say anything: the system is asked for what the file has."""
    files = DiskFiles(str(tmp_path))
    fill(files, commits=10)
    for name in index_files(files):
        parts = parted_run(content(files, name))
        forged = re.sub(f'"{member}":[0-9]+'.encode(), f'"{member}":{count}'.encode(), parts)
        overwrite(files, name, mended_run(forged), 0)
    with opened(files) as committer:
        check_everything(committer, commits=10)


def test_a_key_of_another_append_with_the_same_hash_is_not_taken_for_it() -> None:
    """The line decides, not the hash."""
    files = es.MemoryFiles()
    with opened(files) as committer:
        append(committer, request("loop-0", event(1), key="mine"))
        mark = committer._tail.mark()
    assert mark is not None
    lie = [(hash_key("loop-0", "yours"), 0), (hash_key("loop-0", "mine"), 0)]
    streams = {"loop-0": (1, [0])}
    name = f"{NAMES.cache}/index-{0:020}-{mark.place.position:020}-{mark.place.running:08x}.run"
    files.mkdir(NAMES.cache)
    handle = files.open(name, "append", create=True)
    for chunk in encode_run(LOG_START.identity, mark, streams, lie, main_is_ours=True):
        files.write(handle, chunk)
    files.close(handle)
    with opened(files) as committer:
        (mine,) = append(committer, request("loop-0", event(1), key="mine"))
        (yours,) = append(committer, request("loop-0", event(2), key="yours"))
    assert (mine.version, yours.version) == (1, 2)


def test_no_room_for_the_index_fails_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Appends go on, a warning says so, and the next open reads the log."""
    files = es.MemoryFiles()
    full = NoRoomForIndex(files)
    with caplog.at_level(logging.WARNING, "eventstore"):
        fill(full)
    assert "the index was not written" in caplog.text
    with opened(files) as committer:
        check_everything(committer)


def test_many_small_files_become_few() -> None:
    """Eight are joined to one, and nothing of what they told is lost."""
    files = es.MemoryFiles()
    fill(files, commits=30)
    assert len(index_files(files)) == 30
    with opened(files, index_bytes=1) as committer:
        assert not committer.is_untidy  # only what this store has written is its business
        append(committer, request("loop-0", event(1), event(2)))
        committer.save_index()
        assert committer.is_untidy
        committer.tidy_index()
        assert not committer.is_untidy
        assert len(index_files(files)) == 1
        assert committer.version("loop-0") == 14
    with opened(files, index_bytes=1) as committer:
        assert committer.version("loop-0") == 14
        assert committer.version("loop-1") == 12


def test_foreign_lines_are_counted_behind_the_index_too() -> None:
    """A mark stands behind a line of ours; what the original wrote after it is found."""
    files = es.MemoryFiles()
    with opened(files, index_bytes=1) as committer:
        append_raw(files, foreign(1) + b"\n")
        append(committer, request("main", event(2)))
        committer.save_index()
        append_raw(files, foreign(3) + b"\nnoise\n")
    assert len(index_files(files)) == 1
    with opened(files, index_bytes=1) as committer:
        assert committer.version("main") == 4
        assert (committer.recovery.foreign, committer.recovery.noise) == (2, 1)
        append(committer, request("main", event(4)))
        committer.save_index()
        assert committer.version("main") == 5
    with opened(files, index_bytes=1) as committer:
        assert committer.version("main") == 5
        assert (committer.recovery.foreign, committer.recovery.noise) == (2, 1)


def test_a_missing_segment_is_noticed_with_an_index_too() -> None:
    """The index covers it, and still its absence is damage."""
    files = es.MemoryFiles()
    fill(files, segment_bytes_max=2_000)
    first = NAMES.sealed(1)
    files.unlink(first)
    with pytest.raises(es.CorruptLogError, match="missing"), opened(files):
        pass
