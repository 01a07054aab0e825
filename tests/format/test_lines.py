"""Lines and checksums, as an independent reader made from FORMAT.md sees them."""

from __future__ import annotations

import json
import re
from zlib import crc32

import pytest

import eventstore as es
from tests.format._independent_reader import UnsoundError, read_log
from tests.recovery._logs import (
    ACTIVE,
    append,
    append_raw,
    appended,
    content,
    foreign,
    image_of,
    iterations,
    opened,
    overwrite,
    read,
    request,
    segments,
)


def mixed_log(*, segment_bytes_max: int | None = None, others: bool = True) -> es.MemoryFiles:
    """A log with every sort of commit, and lines of others between them."""
    files = es.MemoryFiles()
    with opened(files, segment_bytes_max=segment_bytes_max) as committer:
        for number in range(12):
            append(committer, request("otter", *iterations(number)))
            append(
                committer,
                request("main", *iterations(number, number)),
                request(
                    "heron",
                    es.HistoryEvent(es.LoopStarted(prompt="é\u2028\U0001f980"), data={"a": [1]}),
                    key=f"k{number}",
                    meta={"actor": "me"},
                    synced=number % 2 == 0,
                ),
            )
            append(committer, request("crane", *iterations(number), synced=False))
            if others and number % 3 == 0:
                append_raw(files, foreign(number) + b"\n" + b"noise\n")
    return files


def contents(files: es.MemoryFiles) -> list[bytes]:
    """The segments, in order."""
    return [content(files, name) for name in segments(files)]


def test_an_independent_reader_agrees_on_every_event() -> None:
    """I3, I11, I12: numbers, ranges and both checksums are what FORMAT.md says they are."""
    files = mixed_log()
    log = read_log(contents(files))
    assert (log.lines, log.noise, log.void, log.torn_bytes) == (68, 4, 0, 0)
    assert [(e.stream, e.version, e.position) for e in log.events] == [
        (r.stream, r.version, r.position) for r in read(files)
    ]
    kinds = [e.value["type"]["kind"] for e in log.events]
    assert kinds == [r.kind for r in read(files)]


def test_the_running_checksum_goes_on_over_segments() -> None:
    """I12, I15: the sealed segments and the active one, one after the other, are one log."""
    files = mixed_log(segment_bytes_max=1_000, others=False)
    assert len(segments(files)) > 5
    log = read_log(contents(files))
    assert log.lines == len(log.events) == 60
    assert log == read_log([b"".join(contents(files))])
    with pytest.raises(UnsoundError):
        read_log(contents(files)[1:])


def test_a_sealed_segment_is_named_by_its_first_position() -> None:
    """I15: 20 digits, so that the order of the names is the order of the log."""
    files = mixed_log(segment_bytes_max=1_000, others=False)
    *sealed, _ = segments(files)
    assert sealed == sorted(sealed)
    for name in sealed:
        first = json.loads(content(files, name).split(b"\n")[0])
        assert name == f"history-{first['position']:020d}.jsonl"


def test_the_suffix_is_the_last_member_with_both_checksums() -> None:
    """I12: own CRC over the body, running CRC over all bytes of the log up to the body's end."""
    files = mixed_log()
    data = content(files)
    ours = 0
    for match in re.finditer(rb'[^\n]*(,"crc":"([0-9a-f]{8})([0-9a-f]{8})"\}\n)', data):
        body = data[match.start() : match.start(1)]
        assert int(match[2], 16) == crc32(body)
        assert int(match[3], 16) == crc32(data[: match.start(1)])
        ours += 1
    assert ours == 60


def test_members_stand_in_order_and_empty_ones_are_absent() -> None:
    """I16: what is not given takes no room; what is there has its place."""
    order = [
        *("ts", "type", "data", "stream", "key", "meta"),
        *("version", "position", "commit", "durable", "crc"),
    ]
    seen: set[str] = set()
    for line in contents(mixed_log())[0].split(b"\n"):
        if b'"crc"' in line:
            names = list(json.loads(line))
            assert names == [name for name in order if name in names]
            assert not {"ts", "type", "version", "position", "commit", "crc"} - set(names)
            seen.update(names)
    assert seen == set(order)


def test_a_line_is_compact() -> None:
    """I16: no blanks, raw UTF-8, as the original writes."""
    for line in contents(mixed_log())[0].split(b"\n"):
        if b'"crc"' in line:
            value = json.loads(line)
            assert json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() == line


def test_timestamps_have_six_digits_and_z() -> None:
    """I16: one width, so that no tool guesses the format wrong."""
    for line in contents(mixed_log(others=False))[0].splitlines():
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", json.loads(line)["ts"])


def test_a_commit_names_its_first_and_last_position() -> None:
    """I2: the appends that shared one sync carry one range, which they fill."""
    lines = [json.loads(line) for line in contents(mixed_log(others=False))[0].splitlines()]
    ranges = {tuple(line["commit"]) for line in lines}
    assert len(ranges) == 36
    for first, last in ranges:
        inside = [line["position"] for line in lines if line["commit"] == [first, last]]
        assert inside == list(range(first, last + 1))


def test_a_commit_behind_unsynced_ones_says_what_was_synced() -> None:
    """I1, I13: `durable` stands where it is not the position before the commit."""
    files = es.MemoryFiles()
    with opened(files) as committer:
        append(committer, request("otter", *iterations(1)))
        append(committer, request("otter", *iterations(2), synced=False))
        append(committer, request("otter", *iterations(3), synced=False))
        append(committer, request("otter", *iterations(4)))
        append(committer, request("otter", *iterations(5)))
    lines = [json.loads(line) for line in content(files).splitlines()]
    assert [line.get("durable") for line in lines] == [None, None, 1, 1, None]


def test_one_synced_append_makes_its_commit_synced() -> None:
    """I1: what shares a commit shares its sync."""
    files = es.MemoryFiles()
    with opened(files) as committer:
        append(
            committer,
            request("otter", *iterations(1), synced=False),
            request("heron", *iterations(1)),
        )
        assert not committer.lags
        append(committer, request("otter", *iterations(2), synced=False))
        assert committer.lags
        committer.sync()
        assert not committer.lags


def test_framing_knows_no_line_end_but_lf() -> None:
    """I3: separators of other alphabets inside a string end no line."""
    files = es.MemoryFiles()
    text = "a\u2028b\u2029c\u0085d\x0b\x0c\x1c\x1d\x1e\re"
    appended(files, request("otter", es.LoopStarted(prompt=text)))
    assert content(files).count(b"\n") == 1
    (recorded,) = read(files)
    assert recorded.event == es.LoopStarted(prompt=text)


def test_a_key_is_on_every_line_of_its_append_and_is_found_after_reopening() -> None:
    """I19: the same key with the same events is one append, with the first one's numbers."""
    files = es.MemoryFiles()
    (first,) = appended(files, request("otter", *iterations(1, 2), key="k"))
    appended(files, request("otter", *iterations(3)), request("heron", *iterations(4), key="k"))
    lines = [json.loads(line) for line in content(files).splitlines()]
    assert [line.get("key") for line in lines] == ["k", "k", None, "k"]
    before = content(files)
    (again,) = appended(files, request("otter", *iterations(1, 2), key="k", expected_version=99))
    assert again == first
    for other in (iterations(1, 3), iterations(1), iterations(1, 2, 3)):
        with pytest.raises(es.EventRefusedError):
            appended(files, request("otter", *other, key="k"))
    assert content(files) == before


def test_two_appends_of_one_commit_with_one_key_are_one() -> None:
    """I19: a retry that meets its first try in the queue records nothing."""
    files = es.MemoryFiles()
    results = appended(
        files,
        request("otter", *iterations(1), key="k"),
        request("otter", *iterations(2)),
        request("otter", *iterations(1), key="k"),
    )
    assert results == [es.Appended(1, 1), es.Appended(2, 2), es.Appended(1, 1)]
    assert len(read(files)) == 2


def test_expected_versions_of_one_commit_are_compared_with_each_other() -> None:
    """I4: of two appends that believe the same, the second is a conflict and the rest goes on."""
    files = es.MemoryFiles()
    requests = [
        request("otter", *iterations(1), expected_version=es.NO_STREAM),
        request("otter", *iterations(2), expected_version=es.NO_STREAM),
        request("otter", *iterations(3), expected_version=1),
    ]
    with opened(files) as committer:
        committer.commit(requests)
    assert [one.appended for one in requests] == [es.Appended(1, 1), None, es.Appended(2, 2)]
    assert requests[1].failure is not None
    assert isinstance(requests[1].failure(), es.VersionConflictError)


def test_the_log_reads_the_same_without_its_lock_record() -> None:
    """I10: the lock file may be deleted or hold anything; nothing is cut and no number moves."""
    files = mixed_log()
    everything = read(files)
    before = content(files)
    for lock in (None, b"", b"idle", b"\0" * 140, b"garbage\n" * 100):
        twin = image_of(files)
        twin.unlink("history.jsonl.lock")
        if lock is not None:
            overwrite(twin, lock, "history.jsonl.lock")
        assert read(twin) == everything
        with opened(twin) as committer:
            assert committer.recovery.is_clean
        assert content(twin, ACTIVE) == before


def test_the_independent_reader_notices_any_changed_byte_but_in_the_last_line() -> None:
    """I12: the reader that tests this page is not blind."""
    files = mixed_log()
    data = content(files)
    sound = read_log([data])
    for offset in range(0, data[:-1].rindex(b"\n") - 1, 13):
        changed = bytearray(data)
        changed[offset] ^= 4
        try:
            assert read_log([bytes(changed)]).events != sound.events
        except UnsoundError:
            continue
