"""Whatever stands in a file, there is an answer: an event, noise, or one of our own errors.

The inputs begin as bytes the engine wrote and are changed from there; half of them get their
checksums made right again, so that the rules behind the checksums are reached.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventstore as es
from tests.fuzz._derived_files import FORGED, PLAIN, index_seeds, snapshot_files
from tests.fuzz._parts import joined, mended, mended_record
from tests.fuzz._targets import INPUT_BYTES_MAX, SECONDS_PER_PASS, TARGETS
from tests.recovery._logs import (
    ACTIVE,
    LOCK,
    append,
    append_raw,
    appended,
    content,
    foreign,
    iterations,
    opened,
    overwrite,
    read,
    request,
    segments,
)

_NUMBER: Final = re.compile(rb"[0-9]+")
_NUMBERS: Final = (b"0", b"1", b"2", b"7", b"13", b"99", b"-1", b"1e3", b"18446744073709551615")
_PIECES: Final = (
    b"\n",
    b"\r",
    b"\0",
    b"\\",
    b'"',
    b"{",
    b"]",
    b"\xff",
    b"\xef\xbb\xbf",
    b"[" * 200,
)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("eventstore"), "disabled", True)


def _written(*, segment_bytes_max: int | None = None, others: bool = True) -> es.MemoryFiles:
    """A log of synced and unsynced commits, keys, and lines of another writer."""
    files = es.MemoryFiles()
    with opened(files, segment_bytes_max=segment_bytes_max) as committer:
        append(committer, request("main", *iterations(1, 2), key="k"))
        append(committer, request("otter", *iterations(3, 4, 5)), request("main", *iterations(6)))
        append(committer, request("main", *iterations(7), synced=False))
        append(committer, request("otter", *iterations(8, 9), synced=False))
        append(committer, request("otter", *iterations(10)))
    if others:
        append_raw(files, foreign(11) + b"\nnoise\n" + foreign(12) + b"\n")
        appended(files, request("main", *iterations(13)), request("heron", *iterations(14)))
    return files


_FILES: Final = _written()
_LOG: Final = content(_FILES)
_RECORD: Final = content(_FILES, LOCK)
_OTHER_LOG: Final = content(_written(others=False))
_SEALED: Final = _written(segment_bytes_max=400, others=False)
_SEGMENTS: Final = [(name.encode(), content(_SEALED, name)) for name in segments(_SEALED)]


@st.composite
def _changed(draw: st.DrawFn, begin: bytes) -> bytes:
    """Bytes with one to three changes: flip, cut, repeat, swap lines, insert, splice, renumber."""
    data = begin
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 400)))
        match draw(st.integers(0, 7)):
            case 0 if at < len(data):
                flipped = data[at] ^ 1 << draw(st.integers(0, 7))
                data = data[:at] + bytes([flipped]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:end] + data[at:]
            case 3:
                data = data[:at]
            case 4:
                lines = data.split(b"\n")
                data = b"\n".join(draw(st.permutations(lines)) if len(lines) < 40 else lines[1:])
            case 5:
                data = (
                    data[:at] + draw(st.sampled_from(_PIECES) | st.binary(max_size=8)) + data[at:]
                )
            case 6:
                data = data[:at] + draw(st.sampled_from((_LOG, _OTHER_LOG)))[at:]
            case _:
                if found := list(_NUMBER.finditer(data)):
                    number = draw(st.sampled_from(found))
                    put = draw(st.sampled_from(_NUMBERS))
                    data = data[: number.start()] + put + data[number.end() :]
    return data


def _maybe_mended(log: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return log | log.map(mended)


_LOGS: Final = _maybe_mended(_changed(_LOG) | _changed(_OTHER_LOG))
_RECORDS: Final = st.just(_RECORD) | _changed(_RECORD) | _changed(_RECORD).map(mended_record)


def _bounded(name: str, data: bytes) -> None:
    """Run a target within its bound.

    CPU time of this thread, the best of three, and ten times what an input costs at its worst
    here: it notices what grows with the square, not a slow machine.
    """
    target = TARGETS[name]
    bound = target.passes * SECONDS_PER_PASS * 10 * max(1 / 8, len(data) / INPUT_BYTES_MAX)
    seconds = 0.0
    for _ in range(3):
        start = time.thread_time()
        target.run(data)
        seconds = time.thread_time() - start
        if seconds <= bound:
            return
    pytest.fail(f"{name}: {seconds:.2f} s of CPU for {len(data)} bytes, the bound is {bound:.2f}")


@settings(max_examples=400, deadline=None, derandomize=True)
@given(_LOGS, st.none() | _RECORDS)
def test_a_changed_log_is_read_recovered_and_appended_to(log: bytes, record: bytes | None) -> None:
    """I6, I12, I13, I14: what was readable stays so, cut bytes are kept, or it is refused."""
    _bounded("log", log if record is None else joined(log, record))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_changed_segments_under_odd_names_are_read_or_refused(data: st.DataObject) -> None:
    """I15: a missing, renamed or changed segment is damage, and a stranger's file is none."""
    parts: list[bytes] = []
    for name, text in _SEGMENTS[-3:]:
        if draw_name := data.draw(st.just(name) | _changed(name)):
            parts.append(
                draw_name + b"\n" + data.draw(st.just(text) | _maybe_mended(_changed(text)))
            )
    _bounded("segments", joined(*parts))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_RECORDS)
def test_a_changed_lock_record_is_a_record_or_none(record: bytes) -> None:
    """I10: what is taken for a record is one, byte for byte."""
    _bounded("lock_record", record)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_changed(foreign(5)[:-1] + b',"data":{"a":[1,"\\u00e9",-0]},"x":[{}]}'))
def test_a_changed_foreign_line_gets_one_verdict(line: bytes) -> None:
    """The quick path and the exact one agree on it."""
    _bounded("foreign_line", line)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_changed(b"2026-11-21T00:00:03.255970Z") | st.text().map(str.encode))
def test_a_changed_timestamp_is_a_moment_or_none(text: bytes) -> None:
    """Nothing raises."""
    _bounded("timestamp", text)


_RUN: Final = (
    b'{"run_id":"2026-11-21_00-07-26.254Z","started_at_utc":"2026-11-21T00:07:26Z","command":"c",'
    b'"resume":false,"repo_root":"/","ralph_version":"1","pid":3,"resumes":[]}'
)
_LOOP_LOG: Final = (
    b"1 ts=2026-11-21T00:07:26.254+00:00 phase=Commit Message effect=Push event=Pushed ms=41\n"
    b"2 ts=2026-11-21T00:07:27.254+00:00 phase=R effect=C event=D extra=[A,B] ctx=i=2,r=1 ms=7\n"
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.just(_RUN) | _changed(_RUN), _changed(_LOOP_LOG))
def test_changed_run_files_are_read_and_added_to(metadata: bytes, event_loop: bytes) -> None:
    """Damaged metadata is kept aside, and the event-loop log goes on behind whatever it holds."""
    _bounded("run_files", joined(metadata, event_loop))


_BLOCK_BYTES: Final = 4_096


@st.composite
def _rotten(draw: st.DrawFn, begin: bytes) -> bytes:
    """Bytes with one to three changes that a disk makes: bits, blocks, and what is missing."""
    data = begin
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        if draw(st.booleans()):
            at -= at % _BLOCK_BYTES
        end = min(len(data), at + draw(st.sampled_from((1, 8, 64, _BLOCK_BYTES, 2**16))))
        match draw(st.integers(0, 3)):
            case 0 if at < len(data):
                flipped = data[at] ^ 1 << draw(st.integers(0, 7))
                data = data[:at] + bytes([flipped]) + data[at + 1 :]
            case 1:
                data = data[:at] + draw(st.sampled_from((b"\0", b"\xff"))) * (end - at) + data[end:]
            case 2:
                data = data[:at] + draw(st.binary(max_size=64)) + data[end:]
            case _:
                data = data[:at]
    return data


_PLAIN_INDEX, _FORGED_INDEX = index_seeds()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    _rotten(_PLAIN_INDEX[1:]).map(PLAIN.__add__) | _changed(_FORGED_INDEX[1:]).map(FORGED.__add__)
)
def test_a_changed_index_changes_no_answer(data: bytes) -> None:
    """I10: and one whose checksums were forged shows nothing that is not in the log."""
    _bounded("index", data)


_SAVED: Final = [content for _, content in sorted(snapshot_files().items())]
_DIGEST_BYTES: Final = 32


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_a_changed_saved_state_is_refused_or_leads_to_a_place_of_the_log(
    data: st.DataObject,
) -> None:
    """It is never believed while its checksum stands, and what is forged is judged by the log."""
    if data.draw(st.booleans()):
        begin = [saved[:-_DIGEST_BYTES] for saved in _SAVED]
        _bounded("snapshot", FORGED + joined(*(data.draw(_changed(part)) for part in begin)))
    else:
        parts = [data.draw(st.just(part) | _rotten(part)) for part in _SAVED]
        _bounded("snapshot", PLAIN + joined(*parts))


_RUN_BYTES: Final = 8 * 1024  # of each; a square shows, and the whole table takes seconds
_HOSTILE: Final = {
    "NULs": b"\0",
    "CRs": b"\r",
    "LFs": b"\n",
    "backslashes": b"\\",
    "digits": b"9",
    "open brackets": b"[",
    "objects": b'{"":',
    "empty arrays": b"[],",
    "repeated members": b'"a":0,',
    "byte order marks": b"\xef\xbb\xbf",
    "U+2028": b"\xe2\x80\xa8",
    "half suffixes": b',"crc":"',
    "tiny lines": b"{}\n",
    "records": foreign(1) + b"\n",
    "blanks": b" ",
    "milliseconds": b" ms=",
    "percents": b"%41",
    "quotes": b'"',
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("what", _HOSTILE)
def test_many_of_one_thing_cost_little(what: str, name: str) -> None:
    """I17: alone, as data, and behind a log; nothing grows with the square of its length."""
    piece = _HOSTILE[what]
    run = piece * (_RUN_BYTES // len(piece))
    _bounded(name, run)
    _bounded(name, foreign(1)[:-1] + b',"data": [' + run + b"0]}\n")


def test_a_line_without_its_commit_is_bad_whatever_its_checksum_says() -> None:
    """I12: it takes no reader down, and no writer."""
    files = es.MemoryFiles()
    lines = _OTHER_LOG.splitlines(keepends=True)
    strange = mended(lines[6].replace(b'"commit"', b'"commht"'))
    overwrite(files, lines[0] + lines[1] + strange + lines[2], ACTIVE)
    assert [recorded.position for recorded in read(files)] == [1, 2]
    with opened(files) as committer:
        assert committer.position == 2
