"""Files the Rust original wrote, whole, cut and damaged: read as it reads them, or better."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import eventstore as es
from tests.recovery._logs import (
    append,
    append_raw,
    content,
    foreign,
    iterations,
    opened,
    quarantined,
    read,
    read_backwards,
    request,
)

_HISTORY = Path(__file__).parents[3] / "shared" / "golden" / "history"
_NAMES = (
    "all-kinds",
    "empty",
    "glued",
    "no-final-newline",
    "nul-hole",
    "scripted",
    "torn-tail",
    "torn-utf8",
    "unicode",
)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="eventstore")


@pytest.fixture(params=_NAMES)
def golden(request: pytest.FixtureRequest) -> tuple[bytes, list[dict[str, Any]]]:
    """A file of the original's and the records it accepted of it."""
    if not _HISTORY.is_dir():
        pytest.skip(f"the original's files are not here: {_HISTORY}")
    data = (_HISTORY / f"{request.param}.jsonl").read_bytes()
    accepted = (_HISTORY / f"{request.param}.accepted.jsonl").read_bytes()
    return data, [json.loads(line) for line in accepted.split(b"\n") if line]


def plain(recorded: es.Recorded[Any]) -> dict[str, Any]:
    """An event as the original writes it; the timestamp to the microsecond."""
    event = recorded.event
    assert not isinstance(event, es.Unknown)
    record = {"ts": recorded.timestamp, "type": msgspec.to_builtins(event)}
    return record if recorded.data is None else {**record, "data": recorded.data}


def to_microseconds(record: dict[str, Any]) -> dict[str, Any]:
    """The same record, its timestamp cut."""
    text = record["ts"].removesuffix("Z")
    seconds, _, fraction = text.partition(".")
    moment = datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}+00:00")
    return {**record, "ts": moment}


def test_every_record_the_original_accepts_is_read(
    golden: tuple[bytes, list[dict[str, Any]]],
) -> None:
    """I11: in its order, equal to the microsecond, from either end, before anything is repaired."""
    data, accepted = golden
    files = es.MemoryFiles()
    append_raw(files, data)
    shown = [plain(recorded) for recorded in read(files)]
    wanted = [to_microseconds(record) for record in accepted]
    assert [record for record in shown if record in wanted] == wanted
    if wanted:
        assert shown == wanted
    assert [plain(recorded) for recorded in read_backwards(files)] == shown


def test_appending_loses_nothing(golden: tuple[bytes, list[dict[str, Any]]]) -> None:
    """I6, I7: where the original glues its next record to a torn line, both stay here."""
    data, _ = golden
    files = es.MemoryFiles()
    append_raw(files, data)
    before = read(files)
    with opened(files) as committer:
        append(committer, request("main", *iterations(77)))
    append_raw(files, foreign(78) + b"\n")
    with opened(files) as committer:
        append(committer, request("main", *iterations(79)))
    events = read(files)
    assert events[: len(before)] == before
    assert [recorded.event for recorded in events[len(before) :]] == iterations(77, 78, 79)
    kept = b"".join(quarantined(files).values())
    assert data in (content(files)[: len(data)], content(files)[: len(data) - len(kept)] + kept)


def test_lines_of_ours_are_records_for_the_original() -> None:
    """I16: `ts`, `type` and `data` come first, as it writes them; the rest it ignores."""
    files = es.MemoryFiles()
    with opened(files) as committer:
        event = es.HistoryEvent(es.LoopStarted(prompt="é\u2028"), data={"b": 1, "a": [None, 1.5]})
        append(committer, request("otter", event, key="k", meta={"actor": "me"}))
        append(committer, request("main", *iterations(4)))
    first, second = content(files).splitlines()
    assert list(json.loads(first)) == [
        *("ts", "type", "data", "stream", "key", "meta", "version", "position", "commit", "crc")
    ]
    assert list(json.loads(second)) == ["ts", "type", "version", "position", "commit", "crc"]
    record = '"type":{"kind":"loop_started","prompt":"é\u2028"},"data":{"b":1,"a":[null,1.5]}'
    assert record.encode() in first
    assert b'"type":{"kind":"iteration_started","iteration":4},"version"' in second
