"""Whatever stands in a file, there is an answer: an event, noise, or one of our own errors.

The inputs begin as bytes the engine wrote and are changed from there; half of them get their
checksums made right again, so that the rules behind the checksums are reached.
"""

from __future__ import annotations

import logging
import re
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventstore as es
from tests.fuzz._bounds import run_bounded
from tests.fuzz._derived_files import FORGED, PLAIN
from tests.fuzz._parts import joined, mended, mended_record
from tests.fuzz._seeds import (
    FOREIGN,
    LOG,
    LOOP_LOG,
    OTHER_LOG,
    RECORD,
    RUN,
    SAVED,
    SAVED_BODIES,
    SEEDS,
    SEGMENTS,
    TIMESTAMP,
)
from tests.recovery._logs import ACTIVE, opened, overwrite, read

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
                data = data[:at] + draw(st.sampled_from((LOG, OTHER_LOG)))[at:]
            case _:
                if found := list(_NUMBER.finditer(data)):
                    number = draw(st.sampled_from(found))
                    put = draw(st.sampled_from(_NUMBERS))
                    data = data[: number.start()] + put + data[number.end() :]
    return data


def _maybe_mended(log: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return log | log.map(mended)


_LOGS: Final = _maybe_mended(_changed(LOG) | _changed(OTHER_LOG))
_RECORDS: Final = st.just(RECORD) | _changed(RECORD) | _changed(RECORD).map(mended_record)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(_LOGS, st.none() | _RECORDS)
def test_a_changed_log_is_read_recovered_and_appended_to(log: bytes, record: bytes | None) -> None:
    """I6, I12, I13, I14: what was readable stays so, cut bytes are kept, or it is refused."""
    run_bounded("log", log if record is None else joined(log, record))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_changed_segments_under_odd_names_are_read_or_refused(data: st.DataObject) -> None:
    """I15: a missing, renamed or changed segment is damage, and a stranger's file is none."""
    parts: list[bytes] = []
    for name, text in SEGMENTS[-3:]:
        if draw_name := data.draw(st.just(name) | _changed(name)):
            parts.append(
                draw_name + b"\n" + data.draw(st.just(text) | _maybe_mended(_changed(text)))
            )
    run_bounded("segments", joined(*parts))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_RECORDS)
def test_a_changed_lock_record_is_a_record_or_none(record: bytes) -> None:
    """I10: what is taken for a record is one, byte for byte."""
    run_bounded("lock_record", record)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_changed(FOREIGN))
def test_a_changed_foreign_line_gets_one_verdict(line: bytes) -> None:
    """The quick path and the exact one agree on it."""
    run_bounded("foreign_line", line)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_changed(TIMESTAMP) | st.text().map(str.encode))
def test_a_changed_timestamp_is_a_moment_or_none(text: bytes) -> None:
    """Nothing raises."""
    run_bounded("timestamp", text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.just(RUN) | _changed(RUN), _changed(LOOP_LOG))
def test_changed_run_files_are_read_and_added_to(metadata: bytes, event_loop: bytes) -> None:
    """Damaged metadata is kept aside, and the event-loop log goes on behind whatever it holds."""
    run_bounded("run_files", joined(metadata, event_loop))


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


_PLAIN_INDEX, _FORGED_INDEX = SEEDS["index"]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    _rotten(_PLAIN_INDEX[1:]).map(PLAIN.__add__) | _changed(_FORGED_INDEX[1:]).map(FORGED.__add__)
)
def test_a_changed_index_changes_no_answer(data: bytes) -> None:
    """I10: and one whose checksums were forged shows nothing that is not in the log."""
    run_bounded("index", data)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_a_changed_saved_state_is_refused_or_leads_to_a_place_of_the_log(
    data: st.DataObject,
) -> None:
    """It is never believed while its checksum stands, and what is forged is judged by the log."""
    if data.draw(st.booleans()):
        parts = [data.draw(_changed(body)) for body in SAVED_BODIES]
        run_bounded("snapshot", FORGED + joined(*parts))
    else:
        parts = [data.draw(st.just(part) | _rotten(part)) for part in SAVED]
        run_bounded("snapshot", PLAIN + joined(*parts))


def test_a_line_without_its_commit_is_bad_whatever_its_checksum_says() -> None:
    """I12: it takes no reader down, and no writer."""
    files = es.MemoryFiles()
    lines = OTHER_LOG.splitlines(keepends=True)
    strange = mended(lines[6].replace(b'"commit"', b'"commht"'))
    overwrite(files, lines[0] + lines[1] + strange + lines[2], ACTIVE)
    assert [recorded.position for recorded in read(files)] == [1, 2]
    with opened(files) as committer:
        assert committer.position == 2
