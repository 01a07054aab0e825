"""What an open store meets when others seal, renew, extend, replace or remove its files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, cast

import pytest

import eventstore as es
from eventstore._codec import Codec
from eventstore._log._commit import Committer
from eventstore._log._files import DiskFiles, Files
from eventstore._log._log_files import LogFiles
from eventstore._log._reading import ForwardCursor
from eventstore._log._snapshot import SnapshotTaker
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
    read_backwards,
    request,
    segments,
)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="eventstore")


@pytest.fixture(params=["disk", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """A directory for one log."""
    on_disk = cast("str", request.param) == "disk"
    return DiskFiles(str(tmp_path)) if on_disk else es.MemoryFiles()


@pytest.fixture
def store(files: Files) -> Iterator[Committer]:
    """A store that has appended twice and stays open."""
    with opened(files, segment_bytes_max=800) as committer:
        append(committer, request("otter", *iterations(1)))
        append(committer, request("heron", *iterations(2)))
        yield committer


def test_two_stores_take_turns(files: Files, store: Committer) -> None:
    """I4, I7: each store sees what the other appended, and compares versions with all of it."""
    with opened(files, segment_bytes_max=800) as other:
        for number in range(3, 40):
            committer = store if number % 3 else other
            (result,) = append(
                committer, request("otter", *iterations(number), expected_version=number - 2)
            )
            assert result == es.Appended(version=number - 1, position=number)
        with pytest.raises(es.VersionConflictError):
            append(other, request("otter", *iterations(1), expected_version=3))
    assert len(segments(files)) > 3
    assert [r.position for r in read(files)] == list(range(1, 40))
    assert read_backwards(files) == read(files)


def test_foreign_records_between_our_commits_get_the_next_numbers(
    files: Files, store: Committer
) -> None:
    """I3, I7: another writer's lines are adopted by the next commit, whichever store makes it."""
    with opened(files) as other:
        for number in range(20):
            append_raw(files, foreign(number) + b"\n")
            if number % 3 == 0:
                append_raw(files, foreign(number)[:-4] + b"\n")  # noise
            committer = other if number % 2 else store
            append(committer, request("main", *iterations(100 + number), key=f"k{number}"))
    log = read_log([content(files)])
    assert (log.lines, log.noise) == (2 + 40 + 7, 7)
    assert [(r.version, r.position) for r in read(files)] == [
        (line.version, line.position) for line in log.events
    ]
    main = [line for line in log.events if line.stream == "main"]
    assert main[-1].version == 47  # noise uses one up


def test_a_file_with_foreign_lines_is_never_sealed(files: Files, store: Committer) -> None:
    """I15: the original knows one file only."""
    append_raw(files, foreign(1) + b"\n")
    for number in range(10):
        append(store, request("otter", *iterations(number)))
    assert segments(files) == [ACTIVE]


@pytest.mark.parametrize("tail", ["complete", "torn"])
def test_a_foreign_writer_that_dies_between_our_commits_is_recovered_from(
    files: Files, store: Committer, tail: str
) -> None:
    """I6, I7: an open store ends, or sets aside, what another writer left without its LF."""
    append_raw(files, foreign(1) if tail == "complete" else foreign(1)[:-7])
    (result,) = append(store, request("main", *iterations(3)))
    if tail == "complete":
        assert result == es.Appended(version=2, position=4)
        assert store.recovery.terminated == 1
    else:
        assert result == es.Appended(version=1, position=3)
        assert list(quarantined(files).values()) == [foreign(1)[:-7]]


def test_the_lock_file_deleted_while_stores_are_open_excludes_again(
    files: Files, store: Committer
) -> None:
    """I4, I7: whoever holds a lock on a deleted file lets go of it and takes the new one."""
    with opened(files) as other:
        for number in range(3, 9):
            files.unlink(LOCK)
            append(store, request("otter", *iterations(number)))
            append(other, request("heron", *iterations(number), expected_version=number - 2))
    assert [r.position for r in read(files)] == list(range(1, 15))
    with opened(files) as committer:
        assert committer.recovery.is_clean


def test_a_reader_follows_a_lock_file_that_was_deleted(files: Files, store: Committer) -> None:
    """I8: what a reader shows does not depend on the lock file it first saw."""
    taker = SnapshotTaker(files, NAMES, lock_timeout_seconds=1.0)
    try:
        taker.take()
        files.unlink(LOCK)
        append(store, request("otter", *iterations(3)))
        assert taker.take().position == 3
    finally:
        taker.close()


def replaced(files: Files) -> None:
    """Another log stands at the path."""
    other = es.MemoryFiles()
    appended(other, request("crane", *iterations(1)), request("crane", *iterations(2)))
    overwrite(files, content(other), "other.jsonl")
    files.rename("other.jsonl", ACTIVE)


def truncated(files: Files) -> None:
    """The last line is gone."""
    overwrite(files, content(files)[: content(files).index(b"\n") + 1])


def emptied(files: Files) -> None:
    """Every line is gone."""
    overwrite(files, b"")


def removed(files: Files) -> None:
    """The file is gone."""
    files.unlink(ACTIVE)


def rolled_back(files: Files) -> None:
    """An older copy stands at the path."""
    overwrite(files, content(files)[: content(files).index(b"\n") + 1], "older.jsonl")
    files.rename("older.jsonl", ACTIVE)


CHANGES: Final[list[Callable[[Files], None]]] = [
    replaced,
    truncated,
    emptied,
    removed,
    rolled_back,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_that_is_no_longer_the_one_is_not_appended_to(
    files: Files, store: Committer, change: Callable[[Files], None]
) -> None:
    """I12: a store goes on only behind the bytes it knows; else nothing is recorded or changed."""
    change(files)
    before = {name: content(files, name) for name in segments(files)}
    for _ in range(2):
        with pytest.raises(es.CorruptLogError) as caught:
            append(store, request("otter", *iterations(3)))
        assert caught.value.path == files.path(ACTIVE)
    assert {name: content(files, name) for name in segments(files)} == before


def test_a_copy_with_the_same_bytes_is_a_legal_successor(files: Files, store: Committer) -> None:
    """I12: a file that was copied and renamed over the old one, whole, is the same log."""
    overwrite(files, content(files), "copy.jsonl")
    files.rename("copy.jsonl", ACTIVE)
    append_raw(files, foreign(1) + b"\n")
    (result,) = append(store, request("main", *iterations(3)))
    assert result == es.Appended(version=2, position=4)


@pytest.mark.parametrize("seals", [1, 2, 3])
def test_a_store_follows_a_segment_that_another_store_sealed(
    files: Files, store: Committer, seals: int
) -> None:
    """I7, I15: sealed once or several times meanwhile, the log goes on at its end."""
    position = 2
    with opened(files, segment_bytes_max=300) as other:
        while len(segments(files)) <= seals:
            append(other, request("heron", *iterations(position)))
            position += 1
    (result,) = append(store, request("otter", *iterations(3), expected_version=1))
    assert result == es.Appended(version=2, position=position + 1)
    assert [r.position for r in read(files)] == list(range(1, position + 2))


def renew(files: Files) -> None:
    """Another store fails in a commit, and a third one moves the log to a new inode."""
    faulty = FaultyFiles(files)
    with opened(faulty) as failing:
        faulty.fail(Call("fdatasync", ACTIVE))
        with pytest.raises(es.CommitUnknownError):
            append(failing, request("crane", *iterations(1)))
    with opened(files) as recovered:
        assert recovered.recovery.renewed == 1


def test_a_store_follows_a_log_that_another_store_renewed(files: Files, store: Committer) -> None:
    """I7, I9: after another store's I/O error the log stands in a new file; it is the same log."""
    for number in (2, 3):
        renew(files)
        (result,) = append(store, request("otter", *iterations(3)))
        assert result == es.Appended(version=number, position=2 * number)


@pytest.mark.parametrize("seals", [1, 2])
def test_a_store_follows_a_log_that_was_renewed_and_then_sealed(
    files: Files, store: Committer, seals: int
) -> None:
    """I7, I9, I15: both at once, seen late, are legal too."""
    renew(files)
    position = 3
    with opened(files, segment_bytes_max=300) as other:
        while len(segments(files)) <= seals:
            append(other, request("heron", *iterations(position)))
            position += 1
    (result,) = append(store, request("otter", *iterations(3)))
    assert result == es.Appended(version=2, position=position + 1)


# --- readers meanwhile ---


class Subscriber:
    """A cursor that goes on from snapshot to snapshot, as `subscribe` does."""

    def __init__(self, files: Files) -> None:
        self._taker = SnapshotTaker(files, NAMES, lock_timeout_seconds=1.0)
        self._cursor = ForwardCursor(
            LogFiles(files, NAMES, Codec(es.LOOP_EVENTS)), tail_record=False
        )

    def look(self) -> list[int]:
        """The positions that are new."""
        pages = self._cursor.pages(self._taker.take())
        return [recorded.position for page in pages for recorded in page]

    def close(self) -> None:
        """Close the lock handle."""
        self._taker.close()


@pytest.fixture
def subscriber(files: Files, store: Committer) -> Iterator[Subscriber]:
    """Someone who has seen the first two events."""
    del store
    one = Subscriber(files)
    assert one.look() == [1, 2]
    yield one
    one.close()


@pytest.mark.parametrize("size", [1, 40, 200, 330, 480])
@pytest.mark.parametrize("later", [1, 5])
def test_a_subscriber_that_saw_a_torn_tail_misses_nothing_after_it_was_cut(
    files: Files, subscriber: Subscriber, size: int, later: int
) -> None:
    """I8: what a reader takes from behind the last whole commit is not held against the next."""
    other = es.MemoryFiles()
    overwrite(other, content(files))
    appended(other, request("heron", *iterations(91, 92, 93)))
    append_raw(files, content(other)[len(content(files)) :][:size])
    files.unlink(LOCK)
    assert subscriber.look() == []
    with opened(files) as committer:
        assert committer.recovery.cut_bytes == size
        for number in range(later):
            append(committer, request("otter", *iterations(number)))
            if later == 1:
                assert subscriber.look() == [3]
    if later > 1:
        assert subscriber.look() == [3, 4, 5, 6, 7]


def test_a_subscriber_waits_for_the_lf_of_a_foreign_record(
    files: Files, store: Committer, subscriber: Subscriber
) -> None:
    """I8: a one-shot read shows a complete record without LF; a subscriber sees it once ended."""
    append_raw(files, foreign(1))
    assert [r.position for r in read(files)] == [1, 2, 3]
    assert subscriber.look() == []
    append(store, request("otter", *iterations(4)))
    assert subscriber.look() == [3, 4]


def test_a_subscriber_follows_sealing_and_renewal(
    files: Files, store: Committer, subscriber: Subscriber
) -> None:
    """I8, I15: whatever becomes of the files, each event comes once, in order."""
    seen: list[int] = []
    for number in range(3, 20):
        append(store, request("otter", *iterations(number)))
        if number % 6 == 0:
            renew(files)
        seen += subscriber.look()
    assert seen == [r.position for r in read(files)][2:]


def test_a_snapshot_stays_readable_when_its_segment_is_sealed(
    files: Files, store: Committer
) -> None:
    """I8, I15: a segment that was renamed since, with or without a new active one, is found."""
    taker = SnapshotTaker(files, NAMES, lock_timeout_seconds=1.0)
    snapshot = taker.take()
    taker.close()

    def positions() -> list[int]:
        cursor = ForwardCursor(LogFiles(files, NAMES, Codec(es.LOOP_EVENTS)))
        return [recorded.position for page in cursor.pages(snapshot) for recorded in page]

    assert positions() == [1, 2]
    files.rename(ACTIVE, NAMES.sealed(1))
    assert positions() == [1, 2]
    append(store, request("otter", *iterations(3)))
    assert positions() == [1, 2]


def test_a_reader_shows_nothing_of_a_commit_that_is_not_whole(files: Files) -> None:
    """I2, I8: at every byte of a commit that is being written, a reader sees it whole or not."""
    with opened(files) as committer:
        append(committer, request("otter", *iterations(1)))
        start = len(content(files))
        append(committer, request("otter", *iterations(2, 3, 4)))
    whole = content(files)
    files.unlink(LOCK)
    for end in range(start, len(whole), 7):
        overwrite(files, whole[:end])
        assert [r.position for r in read(files)] == [1]
    overwrite(files, whole)
    assert [r.position for r in read(files)] == [1, 2, 3, 4]


def test_a_reader_outlives_a_torn_tail_that_is_cut_before_it_reads_it(files: Files) -> None:
    """It had looked how far the log goes, and then there is less: it goes on with what comes."""
    appended(files, request("otter", *iterations(1)))
    cursor = ForwardCursor(LogFiles(files, NAMES, Codec(es.LOOP_EVENTS)), tail_record=False)
    taker = SnapshotTaker(files, NAMES, lock_timeout_seconds=1.0)
    assert [len(page) for page in cursor.pages(taker.take())] == [1]
    append_raw(files, content(files)[:60])
    before_the_cut = taker.take()
    appended(files)
    assert list(cursor.pages(before_the_cut)) == []
    appended(files, request("otter", *iterations(2)))
    assert [page[0].position for page in cursor.pages(taker.take())] == [2]
    taker.close()
