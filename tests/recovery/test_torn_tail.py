"""A commit that was cut short is no commit: the log goes on as if it had never begun."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import pytest

import eventstore as es
from eventstore._log._request import Request
from tests._files import Call, FilesAround, RecordingFiles
from tests.format._independent_reader import read_log
from tests.recovery._logs import (
    ACTIVE,
    LOCK,
    append,
    append_raw,
    appended,
    content,
    foreign,
    image_of,
    iterations,
    opened,
    overwrite,
    quarantined,
    read,
    read_backwards,
    record,
    request,
    set_record,
)

LAST_COMMITS: Final[dict[str, Callable[[], list[Request]]]] = {
    "one event": lambda: [request("otter", *iterations(7), key="seven")],
    "three events": lambda: [request("otter", *iterations(7, 8, 9))],
    "three appends": lambda: [
        request("main", *iterations(7), key="é"),
        request("otter", *iterations(8, 9)),
        request("heron", es.EventPublished(topic="t", payload="ünï\u2028cödé")),
    ],
}
RECORDS: Final = ("writing", "idle before", "none", "torn")


class Torn(NamedTuple):
    """A log with its last commit, and where that begins."""

    files: es.MemoryFiles
    whole: bytes
    start: int
    events: list[es.Recorded[es.LoopEvent]]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="eventstore")  # thousands of cuts, each reported


def torn_log(last_commit: str, lock_record: str) -> Torn:
    """A log whose last commit may be cut anywhere; what stands before it is durable."""
    files = es.MemoryFiles()
    with opened(files) as committer:
        append(committer, request("otter", *iterations(1, 2)))
        append(committer, request("main", *iterations(3)))
        events = read(files)
        start = len(content(files))
        before = record(files)
        append(committer, *LAST_COMMITS[last_commit]())
    assert before is not None
    match lock_record:
        case "writing":  # as a writer leaves it that dies between its write and its sync
            set_record(files, msgspec.structs.replace(before, state="writing"))
        case "idle before":  # the lock record is never synced: after a power loss it may be old
            set_record(files, before)
        case "torn":
            overwrite(files, content(files, LOCK)[:60], LOCK)
        case _:
            files.unlink(LOCK)
    return Torn(files, content(files), start, events)


@pytest.mark.parametrize("lock_record", RECORDS)
@pytest.mark.parametrize("last_commit", LAST_COMMITS)
def test_a_commit_cut_at_any_byte_is_set_aside_and_the_rest_survives(
    last_commit: str, lock_record: str
) -> None:
    """I2, I6: wherever the last commit is cut, all before it stays and its bytes are kept."""
    torn = torn_log(last_commit, lock_record)
    for end in range(torn.start, len(torn.whole)):
        files = image_of(torn.files)
        overwrite(files, torn.whole[:end])
        assert read(files) == torn.events
        assert read_backwards(files) == torn.events
        with opened(files) as committer:
            recovery = committer.recovery
        assert content(files) == torn.whole[: torn.start]
        assert b"".join(quarantined(files).values()) == torn.whole[torn.start : end]
        assert recovery.cut_bytes == end - torn.start
        assert len(recovery.quarantine) == (end > torn.start)
        assert recovery.is_clean == (end == torn.start)
        assert read(files) == torn.events


@pytest.mark.parametrize("lock_record", RECORDS)
@pytest.mark.parametrize("last_commit", LAST_COMMITS)
def test_after_a_cut_the_log_is_appended_to_and_opens_twice_the_same(
    last_commit: str, lock_record: str
) -> None:
    """I14: a recovered log takes the next append, and opening it again changes no byte."""
    torn = torn_log(last_commit, lock_record)
    for end in range(torn.start, len(torn.whole), 3):
        files = image_of(torn.files)
        overwrite(files, torn.whole[:end])
        (result,) = appended(files, request("otter", *iterations(100)))
        assert result == es.Appended(version=3, position=4)
        left = content(files), content(files, LOCK), quarantined(files)
        for _ in range(2):
            with opened(files) as committer:
                assert committer.recovery.is_clean
            assert (content(files), content(files, LOCK), quarantined(files)) == left
        log = read_log([content(files)])
        assert [line.position for line in log.events] == [1, 2, 3, 4]
        assert (log.noise, log.void, log.torn_bytes) == (0, 0, 0)


def test_a_whole_last_commit_is_kept_whatever_the_lock_record_says() -> None:
    """I10: a commit that stands whole in the file is visible, even if no record vouches for it."""
    for lock_record in RECORDS:
        torn = torn_log("three appends", lock_record)
        with opened(torn.files) as committer:
            assert committer.position == 7
            assert committer.recovery.is_clean
        assert content(torn.files) == torn.whole
        assert len(read(torn.files)) == 7


def test_a_cut_the_lock_record_contradicts_is_damage() -> None:
    """I13: a valid lock record proves what was acknowledged; a file that ends before is damaged."""
    torn = torn_log("three events", "writing")
    files = es.MemoryFiles()
    with opened(files) as committer:
        append(committer, request("otter", *iterations(1, 2)))
        append(committer, request("main", *iterations(3)))
        append(committer, *LAST_COMMITS["three events"]())
    assert content(files) == torn.whole
    for end in range(torn.start, len(torn.whole)):
        damaged = image_of(files)
        overwrite(damaged, torn.whole[:end])
        with pytest.raises(es.CorruptLogError) as caught, opened(damaged):
            pass
        assert (caught.value.offset, caught.value.position) == (torn.start, 4)
        assert content(damaged) == torn.whole[:end]
        assert read(damaged) == torn.events


def test_recovery_that_died_at_any_call_is_finished_by_the_next() -> None:
    """I14: a recovery that is interrupted is done again, to the same end."""
    torn = torn_log("three events", "writing")
    end = len(torn.whole) - 5
    overwrite(torn.files, torn.whole[:end])
    for calls in itertools.count():
        dying = _DyingFiles(image_of(torn.files), calls)
        with contextlib.suppress(_DiedError), opened(dying):
            assert calls > 20  # each of recovery's calls was the last one once
            return
        left = image_of(dying.memory)
        assert content(left).startswith(torn.whole[: torn.start])
        with opened(left) as committer:
            assert committer.position == 3
        assert content(left) == torn.whole[: torn.start]
        kept = [kept for name, kept in quarantined(left).items() if not name.endswith(".tmp")]
        assert kept == [torn.whole[torn.start : end]]


@pytest.mark.parametrize("lock_record", RECORDS)
def test_nothing_is_cut_before_its_copy_is_synced(lock_record: str) -> None:
    """I6: the quarantine file and its directories are synced before the log is cut."""
    torn = torn_log("one event", lock_record)
    overwrite(torn.files, torn.whole[:-3])
    files = RecordingFiles(torn.files)
    with opened(files):
        pass
    names = [f"{call.method} {call.name}" for call in files.calls]
    cut = names.index(f"truncate {ACTIVE}")
    kept = names.index("fsync_directory history.jsonl.d")
    (temporary,) = {call.name for call in files.calls if call.name.endswith(".tmp")}
    order = [
        names.index(f"fsync {temporary}"),
        names.index(f"rename {temporary}"),
        names.index("fsync_directory history.jsonl.d/quarantine"),
        kept,
        names.index("fsync_directory ", kept),
        cut,
        names.index(f"fsync {ACTIVE}", cut),
    ]
    assert order == sorted(order)


def test_a_torn_line_followed_by_other_lines_is_never_cut() -> None:
    """I6: when another writer appended behind a torn line, the line stays and costs itself only."""
    torn = torn_log("one event", "writing")
    glued = torn.whole[: torn.start + 40] + foreign(1) + b"\n" + foreign(2) + b"\n"
    overwrite(torn.files, glued)
    (result,) = appended(torn.files, request("otter", *iterations(9)))
    assert result == es.Appended(version=3, position=6)  # the glued line is the fourth
    assert content(torn.files).startswith(glued)
    assert quarantined(torn.files) == {}
    assert [recorded.position for recorded in read(torn.files)] == [1, 2, 3, 5, 6]


@pytest.mark.parametrize("behind", [foreign(1), b"noise", b"", foreign(1) + foreign(2)])
def test_an_incomplete_commit_followed_by_foreign_lines_is_void(behind: bytes) -> None:
    """I2, I3: lines of a commit that never became whole keep their positions and are no events."""
    torn = torn_log("three events", "writing")
    ends = [at + 1 for at in range(torn.start, len(torn.whole)) if torn.whole[at : at + 1] == b"\n"]
    for count, end in enumerate(ends[:-1], start=1):
        files = image_of(torn.files)
        overwrite(files, torn.whole[:end])
        append_raw(files, behind + b"\n")
        before = content(files)
        with opened(files) as committer:
            assert committer.recovery.void == count
            (result,) = append(committer, request("otter", *iterations(9)))
        assert result == es.Appended(version=3, position=3 + count + 2)
        assert content(files).startswith(before)
        events = [*range(1, 4), 4 + count, 5 + count]
        if behind != foreign(1):
            events.remove(4 + count)
        assert [r.position for r in read(files)] == events
        assert read_backwards(files) == read(files)
        assert read_log([content(files)]).void == count


def test_lines_of_a_void_commit_stay_where_they_are_when_the_log_opens_again() -> None:
    """I3: what was void once is void for ever; numbers behind it do not move."""
    torn = torn_log("three events", "none")
    overwrite(torn.files, torn.whole[: torn.whole.index(b"\n", torn.start) + 1])
    append_raw(torn.files, foreign(1) + b"\n")
    shown: list[list[tuple[int, int]]] = []
    for _ in range(3):
        with opened(torn.files) as committer:
            assert committer.recovery.void == 1
        shown.append([(r.version, r.position) for r in read(torn.files)])
    assert shown[0] == shown[1] == shown[2]


def test_a_torn_commit_of_many_lines_is_cut_whole() -> None:
    """I2: of an append of a thousand events, 999 in the file are none."""
    files = es.MemoryFiles()
    appended(files, request("otter", *iterations(0)))
    before = content(files)
    appended(files, request("otter", *iterations(*range(1_000))))
    whole = content(files)
    files.unlink(LOCK)
    overwrite(files, whole[: whole[:-1].rindex(b"\n") + 1])
    with opened(files) as committer:
        assert committer.position == 1
    assert content(files) == before
    (kept,) = quarantined(files).values()
    assert before + kept == whole[: whole[:-1].rindex(b"\n") + 1]


def test_the_same_torn_bytes_twice_are_kept_under_one_name() -> None:
    """I14: quarantine names come from place, size and checksum, so a repeated cut adds nothing."""
    torn = torn_log("one event", "none")
    for _ in range(2):
        overwrite(torn.files, torn.whole[:-3])
        with opened(torn.files):
            pass
    assert list(quarantined(torn.files).values()) == [torn.whole[torn.start : -3]]


def test_two_different_tails_cut_at_one_place_are_both_kept() -> None:
    """I6: another tail at the same offset has another name."""
    torn = torn_log("one event", "none")
    for end in (-3, -4):
        overwrite(torn.files, torn.whole[:end])
        with opened(torn.files):
            pass
    assert sorted(quarantined(torn.files).values()) == sorted(
        torn.whole[torn.start : end] for end in (-3, -4)
    )


def test_a_prefix_of_our_line_is_never_taken_for_a_foreign_record() -> None:
    """I13: a line of ours without its LF is torn, complete as it may look."""
    torn = torn_log("one event", "none")
    overwrite(torn.files, torn.whole[:-1])
    assert json.loads(torn.whole[torn.start : -1])["position"] == 4
    with opened(torn.files) as committer:
        assert committer.recovery.terminated == 0
        assert committer.recovery.cut_bytes == len(torn.whole) - 1 - torn.start


class _DiedError(BaseException):
    """The process ends here: no handler of the engine may do anything about it."""


class _DyingFiles(FilesAround):
    """Passes on so many calls; then the process is dead."""

    def __init__(self, memory: es.MemoryFiles, calls: int) -> None:
        super().__init__(memory)
        self.memory = memory
        self._left = calls

    def before(self, call: Call) -> None:
        del call
        if not self._left:
            raise _DiedError
        self._left -= 1
