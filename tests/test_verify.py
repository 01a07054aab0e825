"""`verify_log`: what it finds in sound, torn, damaged and foreign logs, and that it only looks."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from zlib import crc32

import anyio
import anyio.to_thread
import pytest

import eventstore as es
from eventstore._log import _verifier
from eventstore._log._lines import SUFFIX_BYTES

LF = b"\n"
FOREIGN = Path(__file__).parent / "fixtures" / "foreign.jsonl"


def _event(text: str = "x") -> es.EventPublished:
    return es.EventPublished(topic="t", payload=text)


def _write(path: Path, *commits: Sequence[es.LoopEvent], stream: str = "otter") -> list[int]:
    """Append commits with the real writer; return the file's size after each."""

    async def write() -> list[int]:
        async with es.open_store(path, segment_bytes_max=None) as store:
            sizes: list[int] = []
            for events in commits:
                await store.append(stream, events, expected_version=es.ANY)
                sizes.append(path.stat().st_size)
            return sizes

    return anyio.run(write)


def _without_lock_record(path: Path, content: bytes) -> Path:
    """A log with this content that no lock record vouches for."""
    path.mkdir()
    log = path / "history.jsonl"
    log.write_bytes(content)
    return log


def _foreign_lines() -> list[bytes]:
    """Records as the original writes them, kept by a script beside them."""
    return FOREIGN.read_bytes().splitlines(keepends=True)


def _places(found: es.Verification) -> list[tuple[str, int, int]]:
    return [(finding.severity, finding.offset, finding.position) for finding in found.findings]


def test_a_sound_log_is_counted(tmp_path: Path) -> None:
    """Events, lines, streams and bytes are counted, and nothing is found."""
    path = tmp_path / "history.jsonl"
    _write(path, [_event(), _event()], [_event()])
    _write(path, [_event()], stream="heron")
    found = es.verify_log(path)
    assert (found.events, found.lines, found.streams, found.segments) == (4, 4, 2, 1)
    assert found.bytes == path.stat().st_size
    assert found.is_sound
    assert found.findings == ()


def test_sealed_segments_are_part_of_the_log(tmp_path: Path) -> None:
    """All segments are verified as one chain, and counted."""
    path = tmp_path / "history.jsonl"
    _write_sealed(path)
    found = es.verify_log(path)
    assert (found.events, found.segments, found.is_sound) == (12, 4, True)


def _write_sealed(path: Path) -> list[Path]:
    async def write() -> None:
        async with es.open_store(path, segment_bytes_max=600) as store:
            for _ in range(12):
                await store.append("otter", [_event("x" * 50)], expected_version=es.ANY)

    anyio.run(write)
    return sorted(path.parent.glob("history-*.jsonl"))


def test_a_missing_segment_is_damage(tmp_path: Path) -> None:
    """Where a sealed segment is gone, the position that is missing is named."""
    path = tmp_path / "history.jsonl"
    sealed = _write_sealed(path)
    first_position = int(sealed[1].stem.removeprefix("history-"))
    sealed[1].unlink()
    found = es.verify_log(path)
    assert not found.is_sound
    assert (found.findings[0].severity, found.findings[0].position) == ("damage", first_position)
    assert found.findings[0].file == str(sealed[2])
    assert "missing" in found.findings[0].reason


def test_a_sealed_segment_that_lost_its_end_is_damage(tmp_path: Path) -> None:
    """Sealed bytes were acknowledged, so a cut in them is never called torn."""
    path = tmp_path / "history.jsonl"
    sealed = _write_sealed(path)
    os.truncate(sealed[0], sealed[0].stat().st_size - 1)
    found = es.verify_log(path)
    assert found.findings[0].severity == "damage"
    assert found.findings[0].file == str(sealed[0])


def test_a_commit_cut_at_any_byte_is_torn_where_it_begins(tmp_path: Path) -> None:
    """Of a commit that no record vouches for, every prefix is what recovery would cut."""
    path = tmp_path / "history.jsonl"
    before, end = _write(path, [_event()], [_event(), _event()])
    content = path.read_bytes()
    for cut in range(before + 1, end):
        log = _without_lock_record(tmp_path / str(cut), content[:cut])
        found = es.verify_log(log)
        assert _places(found) == [("torn", before, 2)], cut
        assert not found.is_sound


def test_what_is_called_torn_is_what_recovery_cuts(tmp_path: Path) -> None:
    """The next writer cuts at the offset that was named, and the log is sound then."""
    path = tmp_path / "history.jsonl"
    before, end = _write(path, [_event()], [_event()])
    log = _without_lock_record(tmp_path / "copy", path.read_bytes()[: end - 1])
    assert _places(es.verify_log(log)) == [("torn", before, 2)]
    _write(log)
    assert log.stat().st_size == before
    assert es.verify_log(log).is_sound


def test_a_lost_end_that_the_lock_record_vouches_for_is_damage(tmp_path: Path) -> None:
    """The same cut is damage when the record says that those bytes were durable."""
    path = tmp_path / "history.jsonl"
    before, end = _write(path, [_event()], [_event()])
    os.truncate(path, end - 1)
    found = es.verify_log(path)
    assert _places(found) == [("damage", before, 2)]
    assert f"byte {end}" in found.findings[0].reason


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    """No byte can change without the log being called unsound."""
    path = tmp_path / "history.jsonl"
    _write(path, [_event()], [_event(), _event()], [_event()])
    content = path.read_bytes()
    log = _without_lock_record(tmp_path / "copy", b"")
    for offset in range(len(content)):
        changed = bytearray(content)
        changed[offset] ^= 1 << offset % 8
        log.write_bytes(changed)
        assert not es.verify_log(log).is_sound, offset


def test_damage_names_the_line_and_the_proof(tmp_path: Path) -> None:
    """A changed line is named itself, and the next one proves that it had been durable."""
    path = tmp_path / "history.jsonl"
    first, _, _ = _write(path, [_event()], [_event("a")], [_event()])
    log = _without_lock_record(
        tmp_path / "copy", path.read_bytes().replace(b'"payload":"a"', b'"payload":"b"')
    )
    found = es.verify_log(log)
    assert _places(found)[:2] == [("damage", first, 2)] * 2
    assert (found.events, found.bad) == (2, 1)


def test_records_of_the_original_are_sound(tmp_path: Path) -> None:
    """A file that only the original wrote is a sound log of one stream."""
    lines = _foreign_lines()
    log = _without_lock_record(tmp_path / "copy", b"".join(lines))
    found = es.verify_log(log)
    assert (found.events, found.foreign, found.streams) == (len(lines), len(lines), 1)
    assert found.is_sound


def test_two_records_on_one_line_are_malformed(tmp_path: Path) -> None:
    """A glued line is named by byte and position, and what follows it still counts."""
    first, second, third, *_ = _foreign_lines()
    log = _without_lock_record(tmp_path / "copy", first + second.rstrip() + third + first)
    found = es.verify_log(log)
    assert _places(found) == [("malformed", len(first), 2)]
    assert (found.events, found.noise, found.is_sound) == (2, 1, False)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\0" * 16 + LF, "NUL"),
        (b'{"ts":"\xff"}' + LF, "UTF-8"),
        (b"[1]" + LF, "another form"),
        (b'{"ts":' + LF, "not JSON"),
    ],
)
def test_a_line_of_nobody_says_why(tmp_path: Path, line: bytes, reason: str) -> None:
    """Noise is named with what can be told of it."""
    log = _without_lock_record(tmp_path / "copy", line + _foreign_lines()[0])
    found = es.verify_log(log)
    assert _places(found) == [("malformed", 0, 1)]
    assert reason in found.findings[0].reason


def test_a_last_record_without_its_lf_is_only_noted(tmp_path: Path) -> None:
    """Nothing is lost of it: it counts as an event, and the next writer ends its line."""
    first, second, *_ = _foreign_lines()
    log = _without_lock_record(tmp_path / "copy", first + second.rstrip())
    found = es.verify_log(log)
    assert _places(found) == [("notice", len(first), 2)]
    assert (found.events, found.is_sound) == (2, True)


def test_nuls_behind_a_last_record_are_torn_and_it_is_not(tmp_path: Path) -> None:
    """What a crash left behind a complete record is cut; the record stays."""
    record = _foreign_lines()[0].rstrip()
    log = _without_lock_record(tmp_path / "copy", record + b"\0" * 9)
    found = es.verify_log(log)
    assert _places(found) == [("notice", 0, 1), ("torn", len(record), 2)]
    assert found.events == 1


def test_an_empty_line_is_only_noted(tmp_path: Path) -> None:
    """An empty line takes a position and hurts nobody."""
    log = _without_lock_record(tmp_path / "copy", LF + _foreign_lines()[0])
    found = es.verify_log(log)
    assert _places(found) == [("notice", 0, 1)]
    assert found.is_sound


def test_a_void_commit_is_only_noted(tmp_path: Path) -> None:
    """Whole lines of an append that was never finished lose nobody anything."""
    path = tmp_path / "history.jsonl"
    before, _ = _write(path, [_event()], [_event(), _event(), _event()])
    lines = path.read_bytes().splitlines(keepends=True)
    log = _without_lock_record(tmp_path / "copy", b"".join(lines[:3]) + _foreign_lines()[0])
    found = es.verify_log(log)
    assert _places(found) == [("notice", before, 2)]
    assert (found.events, found.void, found.is_sound) == (2, 2, True)


def test_a_line_over_the_limit_is_malformed(tmp_path: Path) -> None:
    """A line too long to be anybody's is passed over, and named."""
    record = _foreign_lines()[0]
    log = _without_lock_record(tmp_path / "copy", record + b"x" * (17 * 2**20) + LF + record)
    found = es.verify_log(log)
    assert _places(found) == [("malformed", len(record), 2)]
    assert (found.events, found.lines) == (2, 3)


def test_findings_are_bounded_and_counted(tmp_path: Path) -> None:
    """Of many findings the first hundred are listed, and all are counted."""
    log = _without_lock_record(tmp_path / "copy", b"no\n" * 150)
    found = es.verify_log(log)
    assert (len(found.findings), found.finding_count, found.noise) == (100, 150, 150)


def test_a_gap_in_a_streams_versions_is_damage(tmp_path: Path) -> None:
    """Right checksums do not excuse a writer that skipped a version."""
    path = tmp_path / "history.jsonl"
    _write(path, [_event()], [_event()])
    first, second = path.read_bytes().splitlines(keepends=True)
    body = second[: -SUFFIX_BYTES - 1].replace(b'"version":2', b'"version":3')
    sealed = b'%b,"crc":"%08x%08x"}\n' % (body, crc32(body), crc32(first + body))
    log = _without_lock_record(tmp_path / "copy", first + sealed)
    found = es.verify_log(log)
    assert _places(found) == [("damage", len(first), 2)]
    assert "version 3 of stream 'otter' follows 1" in found.findings[0].reason


def test_a_lock_record_of_another_file_does_not_count(tmp_path: Path) -> None:
    """A log that was replaced in place is judged by its own bytes, and that is noted."""
    path = tmp_path / "history.jsonl"
    _write(path, [_event("a")], [_event("a")], [_event("a")])
    other = tmp_path / "other" / "history.jsonl"
    _write(other, [_event("b")], [_event("b")], [_event("b" * 100)], [_event("b")])
    shutil.copyfile(other, path)  # keeps the inode
    found = es.verify_log(path)
    assert _places(found) == [("notice", 0, 1)]
    assert found.is_sound


@pytest.mark.parametrize("chunk_bytes", [64, 300, 701, 1_500, 4_096])
def test_what_is_found_does_not_depend_on_where_chunks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    """Runs of sound chunks are passed over and the rest is read line by line, with one result.

    Whole commits, commits over many chunks, foreign lines, and bytes changed, lost or doubled.
    """
    path = tmp_path / "history.jsonl"
    sizes = (1, 1, 3, 12, 1, 40, 1, 1, 2)
    _write(path, *([_event("x" * number)] * number for number in sizes))
    _write(path, *([_event("y" * number)] * number for number in sizes), stream="main")
    lines = path.read_bytes().splitlines(keepends=True)
    foreign = _foreign_lines()[0]
    content = b"".join([*lines, foreign, b"no record\n", foreign])
    dice = random.Random(chunk_bytes)
    log = _without_lock_record(tmp_path / "copy", content)
    _write(log, [_event()] * 3, [_event()], stream="main")
    content = log.read_bytes()
    for broken in [content, *(_broken(content, dice) for _ in range(60))]:
        log.write_bytes(broken)
        whole = es.verify_log(log)
        with monkeypatch.context() as patched:
            patched.setattr(_verifier, "CHUNK_BYTES", chunk_bytes)
            assert es.verify_log(log) == whole


@pytest.mark.parametrize("chunk_bytes", [64, 701, 4_096, 2**18])
def test_checksums_alone_find_the_same_changed_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    """Damage and torn ends are the same wherever chunks end; only gaps in numbers are not seen."""
    path = tmp_path / "history.jsonl"
    sizes = (1, 1, 3, 12, 1, 40, 1, 1, 2)
    _write(path, *([_event("x" * number)] * number for number in sizes))
    foreign = _foreign_lines()[0]
    log = _without_lock_record(tmp_path / "copy", path.read_bytes() + foreign + b"no record\n")
    _write(log, *([_event("y" * number)] * number for number in sizes), stream="main")
    content = log.read_bytes()
    monkeypatch.setattr(_verifier, "CHUNK_BYTES", chunk_bytes)
    dice = random.Random(chunk_bytes)
    for broken in [content, *(_broken(content, dice) for _ in range(150))]:
        log.write_bytes(broken)
        whole, checksums = es.verify_log(log), es.verify_checksums(log)
        assert _serious(checksums) == _serious(whole)
        assert (checksums.lines, checksums.bytes) == (whole.lines, whole.bytes)
        assert (checksums.cut_bytes, checksums.lacks_lf) == (whole.cut_bytes, whole.lacks_lf)


def _serious(found: es.ChecksumVerification) -> list[es.Finding]:
    return [
        finding
        for finding in found.findings
        if finding.severity in ("damage", "torn") and not finding.reason.startswith("version ")
    ]


def test_checksums_alone_decode_the_last_line_of_a_chunk_only(tmp_path: Path) -> None:
    """What stood there when a later line was written is as it was: no record of anybody."""
    path = tmp_path / "history.jsonl"
    _write(path, [_event()])
    path.write_bytes(path.read_bytes() + b"no record\n")
    _write(path, [_event()])
    assert [finding.severity for finding in es.verify_log(path).findings] == ["malformed"]
    found = es.verify_checksums(path)
    assert (found.is_sound, found.findings, found.lines) == (True, (), 3)


def _broken(content: bytes, dice: random.Random) -> bytes:
    """Change, lose or double a few bytes somewhere, or cut the end off."""
    at = dice.randrange(len(content))
    end = min(len(content), at + dice.choice([1, 30, 400]))
    match dice.randrange(4):
        case 0:
            return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        case 1:
            return content[:at] + content[end:]
        case 2:
            return content[:end] + content[at:]
        case _:
            return content[:at]


def test_a_gap_behind_many_sound_lines_is_named_by_its_byte(tmp_path: Path) -> None:
    """The numbers of every line are compared, not only those at the end of a chunk."""
    path = tmp_path / "history.jsonl"
    *_, before, _ = _write(path, *([_event()] for _ in range(200)))
    content = path.read_bytes()
    body = content[before : -SUFFIX_BYTES - 1].replace(b'"version":200', b'"version":202')
    running = crc32(content[:before] + body)
    sealed = b'%b,"crc":"%08x%08x"}\n' % (body, crc32(body), running)
    log = _without_lock_record(tmp_path / "copy", content[:before] + sealed)
    assert _places(es.verify_log(log)) == [("damage", before, 200)]


def test_progress_is_told_up_to_the_last_byte(tmp_path: Path) -> None:
    """Bytes checked never go back, over all segments, and end at the bytes there are."""
    path = tmp_path / "history.jsonl"
    _write_sealed(path)
    told: list[tuple[int, int]] = []
    found = es.verify_log(path, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) >= found.segments
    assert {total for _, total in told} == {found.bytes}
    assert told[-1] == (found.bytes, found.bytes)


def test_verifying_changes_nothing(tmp_path: Path) -> None:
    """Not even a lock file is made; a torn log stays as it is."""
    path = tmp_path / "history.jsonl"
    _write(path, [_event()])
    log = _without_lock_record(tmp_path / "copy", path.read_bytes()[:-1])
    before = log.stat()
    es.verify_log(log)
    assert os.listdir(log.parent) == [log.name]  # noqa: PTH208
    assert log.read_bytes() == path.read_bytes()[:-1]
    assert log.stat().st_mtime_ns == before.st_mtime_ns


def test_a_log_that_is_written_to_is_sound_all_the_time(tmp_path: Path) -> None:
    """Verifying beside a busy writer never mistakes its work for damage."""
    path = tmp_path / "history.jsonl"

    async def run() -> None:
        async with es.open_store(path) as store, anyio.create_task_group() as tasks:
            await store.append("otter", [_event()], expected_version=es.ANY)

            async def write() -> None:
                while True:
                    await store.append("otter", [_event()] * 50, expected_version=es.ANY)

            tasks.start_soon(write)
            seen = 0
            for _ in range(40):
                found = await anyio.to_thread.run_sync(partial(es.verify_log, path))
                assert found.findings == ()
                assert found.events >= seen
                seen = found.events
            tasks.cancel_scope.cancel()

    anyio.run(run)


def test_no_log_is_no_sound_log(tmp_path: Path) -> None:
    """A mistyped path raises, and so does everything that is no regular file."""
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(FOREIGN)
    for name in ("missing.jsonl", "no/such/directory.jsonl", "directory", "fifo", "link"):
        with pytest.raises(es.StoreUnavailableError, match=name):
            es.verify_log(tmp_path / name)
    assert es.verify_log(_without_lock_record(tmp_path / "empty", b"")).is_sound


@pytest.mark.parametrize("byte", [b"\n", b"#"], ids=repr)
def test_damage_at_the_end_of_a_segment_does_not_make_the_next_one_torn(
    tmp_path: Path, byte: bytes
) -> None:
    """What is intact behind it is counted as a reader shows it, and nothing is to be cut."""
    path = tmp_path / "history.jsonl"
    _write_sealed(path)
    last = max(tmp_path.glob("history-*.jsonl"))
    content = bytearray(last.read_bytes())
    content[-60:-59] = byte
    last.write_bytes(content)

    async def count() -> int:
        async with es.open_store(path, read_only=True) as store:
            return len([recorded async for recorded in store.read_all()])

    found, checksums = es.verify_log(path), es.verify_checksums(path)
    assert found.events == anyio.run(count) > 0
    assert (found.cut_bytes, checksums.cut_bytes) == (0, 0)
    for one in (found, checksums):
        assert "torn" not in {finding.severity for finding in one.findings}
        assert "damage" in {finding.severity for finding in one.findings}


def test_lines_beside_damage_are_of_a_commit_that_was_whole(tmp_path: Path) -> None:
    """The damage, the line that was changed, and that readers leave out the rest of its commit."""
    path = tmp_path / "history.jsonl"
    first, second, _ = _write(path, [_event()], [_event(), _event(), _event()], [_event()])
    content = bytearray(path.read_bytes())
    content[first + 30] ^= 1
    path.write_bytes(content)
    found = es.verify_log(path)
    assert _places(found)[:2] == [("damage", first, 2), ("damage", first, 2)]
    *_, rest = found.findings
    assert (rest.severity, rest.position) == ("notice", 3)
    assert first < rest.offset < second
    assert rest.reason == ("2 lines of a commit that is no longer whole; they are not shown")


def test_a_log_cut_at_the_end_of_a_commit_is_not_sound(tmp_path: Path) -> None:
    """The lock record remembers more than there is; whoever verifies wants to know."""
    path = tmp_path / "history.jsonl"
    first, _, end = _write(path, [_event()], [_event()], [_event()])
    with path.open("r+b") as file:
        file.truncate(first)
    for found in (es.verify_log(path), es.verify_checksums(path)):
        assert not found.is_sound
        (finding,) = found.findings
        assert (finding.severity, finding.offset, finding.position) == ("damage", first, 2)
        assert f"{end} bytes durable, up to position 3, and the file has {first}" in finding.reason
