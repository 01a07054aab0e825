"""Lines nobody meant to write: kept byte for byte, skipped, counted, and never in the way."""

from __future__ import annotations

import json
import logging
import tracemalloc
from pathlib import Path
from typing import Final

import pytest

import eventstore as es
from eventstore._log._files import DiskFiles
from eventstore._log._lines import LINE_BYTES_READ_MAX
from tests.format._independent_reader import read_log
from tests.recovery._logs import (
    ACTIVE,
    LOCK,
    NAMES,
    append,
    append_raw,
    appended,
    backward_pages,
    content,
    foreign,
    forward_pages,
    iterations,
    opened,
    overwrite,
    quarantined,
    read,
    read_backwards,
    request,
)

_RECORD: Final = foreign(5)
NOISE: Final[dict[str, bytes]] = {
    "an empty line": b"",
    "blanks": b" \t\r",
    "garbage": b"garbage",
    "half a record": _RECORD[:-9],
    "two records on one line": _RECORD + _RECORD,
    "NULs": bytes(300),
    "a record behind NULs": bytes(8) + _RECORD,
    "a record before NULs": _RECORD + bytes(8),
    "a byte order mark": b"\xef\xbb\xbf" + _RECORD,
    "invalid UTF-8": _RECORD.replace(b"iteration_started", b"iteration\xff_started"),
    "cut inside a character": _RECORD[:-2] + "é".encode()[:1],
    "a known member twice": _RECORD.replace(b'{"ts":', b'{"ts":"2026-01-01T00:00:00Z","ts":'),
    "a lone surrogate": _RECORD.replace(b"iteration_started", b"\\ud800"),
    "not an object": b"[1,2,3]",
    "no type": json.dumps({"ts": "2026-01-01T00:00:00Z"}).encode(),
    "a number out of range": _RECORD.replace(b":5}", b":4294967296}"),
    "NaN": _RECORD[:-1] + b',"data":NaN}',
    "nested too deep": _RECORD[:-1] + b',"data":' + b"[" * 200 + b"]" * 200 + b"}",
    "nested absurdly deep": b"[" * 100_000,
}
RECORDS: Final[dict[str, bytes]] = {
    "as the original writes it": _RECORD,
    "with a CR at its end": _RECORD + b"\r",
    "with U+2028, U+0085, VT and FF in it": json.dumps(
        {
            "ts": "2026-11-21T00:00:00Z",
            "type": {"kind": "loop_started", "prompt": "a\u2028b\u0085c\x0bd\x0ce\x1cf"},
        },
        ensure_ascii=False,
    ).encode(),
    "with members nobody knows": _RECORD[:-1] + b',"seq":7,"run":{"a":[1]}}',
    "of a kind nobody registered": _RECORD.replace(b"iteration_started", b"teleported"),
    "in the original's sequence form": b'["2026-11-21T00:00:00Z",["loop_started","x"],null]',
    "with stream, key and meta of its own": _RECORD[:-1]
    + b',"stream":"heron","key":"k","meta":{"a":"b"}}',
    "with blanks": json.dumps(json.loads(_RECORD), indent=1).replace("\n", " ").encode(),
}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="eventstore")


@pytest.mark.parametrize("what", NOISE)
def test_noise_between_our_commits_is_kept_and_skipped(what: str) -> None:
    """I3, I11: noise uses one position and one version of `main`, and costs nobody anything."""
    files = es.MemoryFiles()
    appended(files, request("main", *iterations(1)), request("otter", *iterations(2)))
    append_raw(files, NOISE[what] + b"\n")
    before = content(files)
    with opened(files) as committer:
        assert (committer.recovery.noise, committer.recovery.foreign) == (1, 0)
        assert committer.recovery.is_clean
        results = append(
            committer, request("main", *iterations(3)), request("otter", *iterations(4))
        )
    assert results == [es.Appended(version=3, position=4), es.Appended(version=2, position=5)]
    assert content(files).startswith(before)
    assert [recorded.position for recorded in read(files)] == [1, 2, 4, 5]
    assert read_backwards(files) == read(files)


@pytest.mark.parametrize("what", NOISE)
def test_noise_at_the_head_of_a_file_is_kept_and_skipped(what: str) -> None:
    """I11: a file that begins with noise takes events like any other."""
    files = es.MemoryFiles()
    append_raw(files, NOISE[what] + b"\n" + _RECORD + b"\n")
    (result,) = appended(files, request("main", *iterations(3)))
    assert result == es.Appended(version=3, position=3)
    assert [(r.version, r.position) for r in read(files)] == [(2, 2), (3, 3)]


@pytest.mark.parametrize("what", RECORDS)
def test_a_foreign_record_is_an_event_of_main(what: str) -> None:
    """I7, I11: whatever the original's reader takes is an event, in the order of its line."""
    files = es.MemoryFiles()
    appended(files, request("main", *iterations(1)), request("heron", *iterations(2)))
    append_raw(files, RECORDS[what] + b"\n")
    (result,) = appended(files, request("main", *iterations(3)))
    assert result == es.Appended(version=3, position=4)
    events = read(files)
    assert [(r.stream, r.version, r.position) for r in events] == [
        ("main", 1, 1),
        ("heron", 1, 2),
        ("main", 2, 3),
        ("main", 3, 4),
    ]
    assert (events[2].key, dict(events[2].meta)) == (None, {})
    assert RECORDS[what] + b"\n" in content(files)


@pytest.mark.parametrize("what", RECORDS)
def test_a_complete_foreign_record_without_its_lf_gets_it(what: str) -> None:
    """I6, I11: a record another writer could not end is ended, and counts."""
    files = es.MemoryFiles()
    appended(files, request("otter", *iterations(1)))
    append_raw(files, RECORDS[what])
    assert [recorded.position for recorded in read(files)] == [1, 2]
    before = content(files)
    with opened(files) as committer:
        assert (committer.recovery.terminated, committer.recovery.foreign) == (1, 1)
        assert committer.recovery.cut_bytes == 0
        assert content(files) == before + b"\n"
        append(committer, request("main", *iterations(2)))
    assert [(r.version, r.position) for r in read(files)] == [(1, 1), (1, 2), (2, 3)]
    log = content(files)
    with opened(files) as committer:
        assert committer.recovery.is_clean
    assert content(files) == log


@pytest.mark.parametrize("nuls", [1, 8, 4_096])
def test_nuls_behind_a_complete_foreign_record_are_cut_and_the_record_stays(nuls: int) -> None:
    """I6, I11: a size that grew before its bytes came leaves NULs; the record before them stays."""
    files = es.MemoryFiles()
    appended(files, request("otter", *iterations(1)))
    append_raw(files, _RECORD + bytes(nuls))
    before = content(files)
    assert [recorded.position for recorded in read(files)] == [1, 2]
    assert [recorded.position for recorded in read_backwards(files)] == [1, 2]
    with opened(files) as committer:
        assert (committer.recovery.terminated, committer.recovery.cut_bytes) == (1, nuls)
        assert committer.recovery.foreign == 1
        (result,) = append(committer, request("main", *iterations(2)))
    assert result == es.Appended(version=2, position=3)
    assert content(files).startswith(before[:-nuls] + b"\n")
    assert list(quarantined(files).values()) == [bytes(nuls)]
    assert [recorded.position for recorded in read(files)] == [1, 2, 3]
    assert len(read_log([content(files)]).events) == 3


@pytest.mark.parametrize(
    "tail", [_RECORD[:20], _RECORD[:-1], bytes(100), b"\xff", "é".encode()[:1], b"garbage"]
)
def test_a_torn_foreign_line_is_set_aside(tail: bytes) -> None:
    """I6: where the original would glue its next record onto half a line and lose both."""
    files = es.MemoryFiles()
    append_raw(files, _RECORD + b"\n" + tail)
    (result,) = appended(files, request("main", *iterations(2)))
    assert result == es.Appended(version=2, position=2)
    assert list(quarantined(files).values()) == [tail]
    assert [recorded.position for recorded in read(files)] == [1, 2]


def test_a_line_with_a_number_of_ours_and_no_checksum_is_no_event() -> None:
    """I12: a line that claims to be ours and proves nothing is bad: kept, skipped, reported."""
    for member in ("version", "position", "commit", "crc"):
        files = es.MemoryFiles()
        claimed = _RECORD[:-1] + f',"{member}":1}}'.encode()
        append_raw(files, claimed + b"\n" + _RECORD + b"\n")
        before = content(files)
        with opened(files) as committer:
            assert committer.recovery.bad == 1
            (result,) = append(committer, request("main", *iterations(2)))
        assert result == es.Appended(version=2, position=3)  # a bad line uses no version
        assert content(files).startswith(before)
        assert [recorded.position for recorded in read(files)] == [2, 3]


def test_a_garbage_file_takes_events_and_keeps_its_bytes() -> None:
    """I11: a file of anything at all is a log of noise."""
    garbage = bytes(range(256)) * 40
    files = es.MemoryFiles()
    append_raw(files, garbage)
    end = garbage.rindex(b"\n") + 1
    (result,) = appended(files, request("otter", *iterations(2)))
    assert result == es.Appended(version=1, position=41)
    assert content(files).startswith(garbage[:end])
    assert list(quarantined(files).values()) == [garbage[end:]]
    assert [recorded.position for recorded in read(files)] == [41]


def test_an_empty_file_is_an_empty_log() -> None:
    """I10: nothing in the file, nothing in the log, whatever the lock file says."""
    files = es.MemoryFiles()
    append_raw(files, b"")
    overwrite(files, b"not a lock record\n", LOCK)
    assert read(files) == []
    (result,) = appended(files, request("otter", *iterations(1)))
    assert result == es.Appended(version=1, position=1)


def test_events_of_a_kind_nobody_registered_are_unknown_and_survive() -> None:
    """I11: a later writer's kinds are read as `Unknown`, with their fields, numbers and bytes."""
    files = es.MemoryFiles()
    appended(files, request("otter", *iterations(1)))
    append_raw(
        files, _RECORD.replace(b'"kind":"iteration_started"', b'"kind":"teleported"') + b"\n"
    )
    appended(files, request("otter", *iterations(2)))
    events = read(files)
    assert events[1].event == es.Unknown(name="teleported", fields={"iteration": 5})
    assert events[1].kind == "teleported"
    assert [r.position for r in events] == [1, 2, 3]


def test_the_clock_may_go_backwards() -> None:
    """I3: order is position; a timestamp is information."""
    files = es.MemoryFiles()
    for second in (59, 1, 30):
        append_raw(files, foreign(second) + b"\n")
        appended(files, request("otter", *iterations(second)))
    events = read(files)
    assert [r.position for r in events] == [1, 2, 3, 4, 5, 6]
    assert [r.timestamp.second for r in events] == [59, 3, 1, 3, 30, 3]


@pytest.mark.parametrize("ended", [True, False], ids=["with LF", "without LF"])
def test_a_line_over_the_limit_is_skipped_without_being_buffered(
    tmp_path: Path, *, ended: bool
) -> None:
    """I17: a line of 256 MiB costs its place in the log, and no such memory."""
    files = DiskFiles(str(tmp_path))
    appended(files, request("otter", *iterations(1)))
    append_raw(files, b"")
    size = 256 * 2**20
    before = len(content(files))
    with (tmp_path / ACTIVE).open("r+b") as file:  # sparse: it costs no disk either
        file.truncate(before + size)
        if ended:
            file.seek(0, 2)
            file.write(b"\n" + _RECORD + b"\n")
    tracemalloc.start()
    try:
        shown = [recorded.position for recorded in read(files)]
        with opened(files) as committer:
            position, recovery = committer.position, committer.recovery
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * LINE_BYTES_READ_MAX
    if ended:
        assert shown == [1, 3]
        assert (position, recovery.noise, recovery.foreign) == (3, 1, 1)
    else:
        assert shown == [1]
        assert (position, recovery.cut_bytes) == (1, size)
        (kept,) = (tmp_path / NAMES.quarantine).iterdir()
        assert kept.stat().st_size == size


def test_reading_backwards_over_a_line_over_the_limit_does_not_buffer_it(tmp_path: Path) -> None:
    """I17: the newest event is found behind a line of 128 MiB, and the oldest before it."""
    files = DiskFiles(str(tmp_path))
    appended(files, request("otter", *iterations(1)))
    with (tmp_path / ACTIVE).open("r+b") as file:
        file.seek(0, 2)
        file.truncate(file.tell() + 128 * 2**20)
        file.seek(0, 2)
        file.write(b"\n" + _RECORD + b"\n")
    tracemalloc.start()
    try:
        shown = [recorded.position for recorded in read_backwards(files)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert shown == [1, 3]
    assert peak < 5 * LINE_BYTES_READ_MAX


@pytest.mark.parametrize("size", [30_000, 70_000, 300_000, 600_000, 1_000_000])
def test_large_lines_are_read_backwards(size: int) -> None:
    """I8: lines larger than the blocks a reader begins with come back, each once."""
    files = es.MemoryFiles()
    with opened(files) as committer:
        for number in range(5):
            text = str(number) * size
            append(committer, request("otter", es.LoopStarted(prompt=text)))
    assert [recorded.position for recorded in read_backwards(files)] == [1, 2, 3, 4, 5]


def test_reading_a_long_foreign_file_keeps_memory_flat() -> None:
    """I17: what only the original wrote comes in pages, from either end, however much it is."""
    files = es.MemoryFiles()
    line = foreign(7)[:-1] + b',"data":"' + b"x" * 12_000 + b'"}\n'
    append_raw(files, line * 8_000)
    for pages in (forward_pages, backward_pages):
        tracemalloc.start()
        try:
            count = sum(map(len, pages(files)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert count == 8_000
        assert peak < 8_000 * len(line) // 3
