"""Damage to what was acknowledged: refused for writing, read around, never accepted, never lost."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from typing import Final, NamedTuple
from zlib import crc32

import msgspec
import pytest

import eventstore as es
from eventstore._log._lines import SUFFIX_BYTES
from tests.recovery._logs import (
    ACTIVE,
    LOCK,
    NAMES,
    append,
    append_raw,
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
    segments,
    set_record,
)


class Commit(NamedTuple):
    """One commit of a corpus: where its bytes are, and the positions of its lines."""

    segment: str
    start: int
    end: int
    positions: tuple[int, ...]


class Corpus(NamedTuple):
    """A sound log, and its commits in order."""

    files: es.MemoryFiles
    commits: list[Commit]

    def size(self, segment: str) -> int:
        """How long a segment is."""
        return max(commit.end for commit in self.commits if commit.segment == segment)


def _single() -> es.MemoryFiles:
    files = es.MemoryFiles()
    with opened(files) as committer:
        for number in range(5):
            append(committer, request("main" if number % 2 else "otter", *iterations(number)))
    return files


def _grouped() -> es.MemoryFiles:
    files = es.MemoryFiles()
    with opened(files) as committer:
        append(committer, request("otter", *iterations(1, 2, 3)))
        append(committer, request("main", *iterations(4)), request("heron", *iterations(5, 6)))
        append(committer, request("otter", *iterations(7, 8), key="k"))
    return files


def _tiny_segments() -> es.MemoryFiles:
    files = es.MemoryFiles()
    with opened(files, segment_bytes_max=300) as committer:
        for number in range(7):
            append(committer, request("otter", *iterations(number)))
    return files


def _written() -> es.MemoryFiles:
    files = es.MemoryFiles()
    with opened(files) as committer:
        for number in range(6):
            append(committer, request("otter", *iterations(number), synced=number % 3 == 0))
        committer.sync()
    return files


CORPORA: Final[dict[str, Callable[[], es.MemoryFiles]]] = {
    "single": _single,
    "grouped": _grouped,
    "tiny segments": _tiny_segments,
}


@functools.cache
def corpus(name: str) -> Corpus:
    """A corpus by its name; copy its files before breaking them."""
    files = CORPORA[name]()
    commits: list[Commit] = []
    for segment in segments(files):
        offset = 0
        for line in content(files, segment).splitlines(keepends=True):
            first, last = json.loads(line)["commit"]
            numbers = tuple(range(first, last + 1))
            if commits and commits[-1].positions == numbers:
                commits[-1] = commits[-1]._replace(end=offset + len(line))
            else:
                commits.append(Commit(segment, offset, offset + len(line), numbers))
            offset += len(line)
    return Corpus(files, commits)


def flipped(files: es.MemoryFiles, segment: str, offset: int, *, to_lf: bool) -> es.MemoryFiles:
    """A copy with one byte changed."""
    twin = image_of(files)
    data = bytearray(content(files, segment))
    data[offset] = 0x0A if to_lf else data[offset] ^ (1 << offset % 8)
    overwrite(twin, bytes(data), segment)
    return twin


def places(sound: Corpus, *, to_lf: bool) -> list[tuple[str, int]]:
    """Every byte of a corpus that the change makes another."""
    return [
        (segment, offset)
        for segment in segments(sound.files)
        for offset, byte in enumerate(content(sound.files, segment))
        if not (to_lf and byte == 0x0A)
    ]


def hit(sound: Corpus, segment: str, offset: int) -> list[Commit]:
    """The commits that a changed byte takes part in: a lost LF joins two."""
    return [
        commit
        for commit in sound.commits
        if commit.segment == segment
        and (commit.start <= offset < commit.end or commit.start == offset + 1)
    ]


def check_place(error: es.CorruptLogError, damaged: Commit, offset: int) -> None:
    """An error must name the commit, and no byte behind the one that changed."""
    assert error.path == f"memory:{damaged.segment}", str(error)
    assert damaged.start <= error.offset <= offset, (offset, str(error))
    assert error.position in damaged.positions, (offset, str(error))


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="eventstore")  # thousands of cases, each reported


BOTH = pytest.mark.parametrize("to_lf", [False, True], ids=["bit flipped", "became an LF"])
EACH = pytest.mark.parametrize("name", CORPORA)


@EACH
@BOTH
def test_no_changed_byte_under_a_valid_lock_record_is_accepted(name: str, *, to_lf: bool) -> None:
    """I12, I13: any byte changed, the log is refused for writing, with the place, and untouched."""
    sound = corpus(name)
    for segment, offset in places(sound, to_lf=to_lf):
        files = flipped(sound.files, segment, offset, to_lf=to_lf)
        before = content(files, segment)
        with pytest.raises(es.CorruptLogError) as caught, opened(files):
            pass
        check_place(caught.value, hit(sound, segment, offset)[0], offset)
        assert content(files, segment) == before
        assert quarantined(files) == {}


_RUN: Final = 24  # bytes; less than a line, so that its ends are hit too

FORMS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "a byte 0xff": lambda data, at: data[:at] + b"\xff" + data[at + 1 :],
    "a run of NULs": lambda data, at: data[:at] + bytes(_RUN) + data[at + _RUN :],
    "garbage": lambda data, at: data[:at] + b"\x9f{\n\x00}\xc3" * 4 + data[at + _RUN :],
    "a block of another place": lambda data, at: (
        data[:at] + data[len(data) // 2 :][:_RUN] + data[at + _RUN :]
    ),
    "bytes that stand twice": lambda data, at: data[: at + _RUN] + data[at:],
    "bytes that are missing": lambda data, at: data[:at] + data[at + _RUN :],
    "a cut": lambda data, at: data[:at],
}


@EACH
@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_damage_is_accepted_anywhere(
    name: str, form: str, record_property: Callable[[str, object], None]
) -> None:
    """I6, I12, I13: the log is refused and untouched, or what cannot be decided is set aside.

    That is the very last commit with what hangs over its beginning (FORMAT.md, "What cannot be
    decided"), and of course bytes that stand behind it.
    """
    sound = corpus(name)
    everything = read(sound.files)
    cases = 0
    for segment in segments(sound.files):
        data = content(sound.files, segment)
        for offset in range(len(data)):
            damaged = FORMS[form](data, offset)
            if damaged == data:
                continue
            files = image_of(sound.files)
            overwrite(files, damaged, segment)
            cases += 1
            try:
                with opened(files):
                    pass
            except es.CorruptLogError:
                assert content(files, segment) == damaged, offset
                assert quarantined(files) == {}
                continue
            assert segment == ACTIVE
            assert content(files) + b"".join(quarantined(files).values()) == damaged
            before, last = sound.commits[-2:]
            if form == "a cut":
                assert offset < max(last.start, 1)
            elif form == "bytes that stand twice" and offset + _RUN >= len(data):
                assert read(files) == everything
            else:
                assert offset < last.start <= offset + _RUN
                assert read(files) == everything[: before.positions[0] - 1]
    record_property("cases", cases)


@EACH
@BOTH
def test_without_a_lock_record_only_the_very_last_commit_can_be_taken_for_torn(
    name: str, *, to_lf: bool
) -> None:
    """I6, I13: a change is proved by what follows; in the last commit it is cut, and kept."""
    sound = corpus(name)
    for segment, offset in places(sound, to_lf=to_lf):
        files = flipped(sound.files, segment, offset, to_lf=to_lf)
        files.unlink(LOCK)
        before = content(files, segment)
        touched = hit(sound, segment, offset)
        try:
            with opened(files):
                pass
        except es.CorruptLogError as error:
            check_place(error, touched[0], offset)
            assert content(files, segment) == before
            continue
        assert sound.commits[-1] in touched, (segment, offset)
        assert content(files) + b"".join(quarantined(files).values()) == before
        kept = [r.position for r in read(files)]
        assert kept == list(range(1, touched[0].positions[0]))


@EACH
@BOTH
def test_reading_goes_on_around_a_changed_byte(name: str, *, to_lf: bool) -> None:
    """I8, I12: everything but the damaged commit is shown, as it was, from either end."""
    sound = corpus(name)
    everything = read(sound.files)
    for segment, offset in places(sound, to_lf=to_lf):
        files = flipped(sound.files, segment, offset, to_lf=to_lf)
        commits = hit(sound, segment, offset)
        touched = {position for commit in commits for position in commit.positions}
        expected = [recorded for recorded in everything if recorded.position not in touched]
        assert read(files) == expected, (segment, offset)
        assert read_backwards(files) == expected, (segment, offset)


@EACH
def test_a_changed_byte_in_the_lock_record_changes_nothing(name: str) -> None:
    """I10: a lock record that is not intact is none."""
    sound = corpus(name)
    everything = read(sound.files)
    before = {segment: content(sound.files, segment) for segment in segments(sound.files)}
    for offset in range(len(content(sound.files, LOCK))):
        files = flipped(sound.files, LOCK, offset, to_lf=False)
        assert read(files) == everything
        with opened(files) as committer:
            assert committer.recovery.is_clean
        assert {segment: content(files, segment) for segment in segments(files)} == before
        renewed, original = record(files), record(sound.files)
        assert renewed is not None
        assert original is not None
        assert (renewed.state, renewed.end, renewed.crc) == ("idle", original.end, original.crc)


def test_a_changed_byte_behind_what_was_synced_is_torn_not_damaged() -> None:
    """I1, I13: a `written` commit says what was durable; a hole behind that is no damage."""
    files = _written()
    files.unlink(LOCK)
    data = content(files)
    ends = [at + 1 for at, byte in enumerate(data) if byte == 0x0A]
    lines = [json.loads(line) for line in data.splitlines()]
    durable = max(line.get("durable", line["commit"][0] - 1) for line in lines)
    assert durable == 4  # the fifth and the sixth were only written when they were written
    for offset in range(ends[3], len(data)):
        damaged = flipped(files, ACTIVE, offset, to_lf=False)
        with opened(damaged) as committer:
            assert committer.position >= 4
        assert content(damaged) + b"".join(quarantined(damaged).values()) == content(
            flipped(files, ACTIVE, offset, to_lf=False)
        )
    for offset in range(ends[3] - 1):
        damaged = flipped(files, ACTIVE, offset, to_lf=False)
        with pytest.raises(es.CorruptLogError), opened(damaged):
            pass


def lines_of(files: es.MemoryFiles, segment: str = ACTIVE) -> list[bytes]:
    """The lines of a segment, each with its LF."""
    return content(files, segment).splitlines(keepends=True)


@pytest.mark.parametrize("with_record", [True, False])
def test_a_missing_line_is_damage(*, with_record: bool) -> None:
    """I12: each line but the last can be missed by the next one alone."""
    files = _single()
    lines = lines_of(files)
    for missing in range(len(lines) - (not with_record)):
        damaged = image_of(files)
        overwrite(damaged, b"".join(lines[:missing] + lines[missing + 1 :]))
        if not with_record:
            damaged.unlink(LOCK)
        with pytest.raises(es.CorruptLogError) as caught, opened(damaged):
            pass
        assert caught.value.position == missing + 1
        assert [r.position for r in read(damaged)] == [
            number for number in range(1, 6) if number != missing + 1
        ]


@pytest.mark.parametrize("with_record", [True, False])
def test_a_line_that_stands_twice_is_never_two_events(*, with_record: bool) -> None:
    """I3, I12: a repeated line is damage once what follows proves it, and shown once at most."""
    files = _single()
    lines = lines_of(files)
    for twice in range(len(lines)):
        damaged = image_of(files)
        overwrite(damaged, b"".join([*lines[: twice + 1], *lines[twice:]]))
        if not with_record:
            damaged.unlink(LOCK)
        assert [r.position for r in read(damaged)][: twice + 1] == list(range(1, twice + 2))
        try:
            with opened(damaged) as committer:
                assert committer.position == twice + 1
        except es.CorruptLogError:
            assert twice < len(lines) - 1
            assert with_record or twice < len(lines) - 2
            continue
        assert content(damaged) + b"".join(quarantined(damaged).values()) == b"".join(
            [*lines[: twice + 1], *lines[twice:]]
        )


def test_two_lines_in_the_wrong_order_are_damage() -> None:
    """I3, I12: lines that changed places do not fit the running checksum."""
    files = _single()
    lines = lines_of(files)
    for first in range(len(lines) - 1):
        swapped = list(lines)
        swapped[first : first + 2] = swapped[first : first + 2][::-1]
        damaged = image_of(files)
        overwrite(damaged, b"".join(swapped))
        with pytest.raises(es.CorruptLogError), opened(damaged):
            pass


def test_a_line_of_another_log_is_damage_or_torn_but_no_event() -> None:
    """I12: a sound line from elsewhere does not fit the running checksum."""
    other = es.MemoryFiles()
    with opened(other) as committer:
        for number in range(5):
            append(committer, request("crane", *iterations(100 + number)))
    files = _single()
    for place in range(1, 5):  # the first line of a log has nothing before it to fit
        lines = lines_of(files)
        lines[place] = lines_of(other)[place]
        damaged = image_of(files)
        overwrite(damaged, b"".join(lines))
        assert all(r.stream != "crane" for r in read(damaged))
        with pytest.raises(es.CorruptLogError), opened(damaged):
            pass


@pytest.mark.parametrize(
    ("position", "commit"), [(5, (5, 5)), (6, (7, 7)), (6, (5, 6)), (6, (5, 5))]
)
def test_a_line_whose_numbers_do_not_fit_is_no_event(
    position: int, commit: tuple[int, int]
) -> None:
    """I3, I12: checksums that hold make no event of a line that says it stands elsewhere."""
    files = _single()
    data = content(files)
    numbers = b'"position":5,"commit":[5,5]'
    forged = lines_of(files)[-1][: -SUFFIX_BYTES - 1].replace(
        numbers, b'"position":%d,"commit":[%d,%d]' % (position, *commit)
    )
    line = forged + b',"crc":"%08x%08x"}\n' % (crc32(forged), crc32(forged, crc32(data)))
    overwrite(files, data + line)
    assert [r.position for r in read(files)] == [1, 2, 3, 4, 5]
    with opened(files) as committer:
        assert committer.position == 5
    assert list(quarantined(files).values()) == [line]


def test_a_missing_segment_is_damage() -> None:
    """I15: what a sealed segment held was acknowledged; without it nothing is appended."""
    sound = corpus("tiny segments")
    names = segments(sound.files)
    assert len(names) == 4
    for number, name in enumerate(names[:-1]):
        files = image_of(sound.files)
        files.unlink(name)
        with pytest.raises(es.CorruptLogError) as caught, opened(files):
            pass
        assert caught.value.position == 1 + 2 * number


def test_a_segment_that_is_said_to_begin_at_position_0_is_damage() -> None:
    """I15: none does; if nobody appends behind it, nobody's appends are hidden by it."""
    sound = corpus("tiny segments")
    for rest in (False, True):
        files = image_of(sound.files)
        first, *others = segments(files)
        files.rename(first, NAMES.sealed(0))
        for name in () if rest else others:
            files.unlink(name)
        with pytest.raises(es.CorruptLogError, match="position 1 is missing"), opened(files):
            pass


def test_a_sealed_segment_cut_at_any_byte_is_damage() -> None:
    """I15: a sealed segment has no torn tail."""
    sound = corpus("tiny segments")
    for name in segments(sound.files)[:-1]:
        whole = content(sound.files, name)
        for end in range(len(whole)):
            files = image_of(sound.files)
            overwrite(files, whole[:end], name)
            with pytest.raises(es.CorruptLogError), opened(files):
                pass
            assert content(files, name) == whole[:end]


def test_a_shortened_last_segment_is_seen_by_an_empty_active_one() -> None:
    """I13: the record of an empty active segment says what stood before it."""
    files = _tiny_segments()
    overwrite(files, b"")  # as sealing leaves it: the fourth segment is active, and empty
    with opened(files):
        pass
    sealed = NAMES.sealed(5)
    lines = lines_of(files, sealed)
    assert len(lines) == 2
    overwrite(files, lines[0], sealed)
    with pytest.raises(es.CorruptLogError), opened(files):
        pass


def test_adopted_foreign_lines_are_acknowledged_data_too() -> None:
    """I12, I13: a foreign line that a line of ours or a valid record covers may not change."""
    files = _single()
    append_raw(files, foreign(1) + b"\n" + foreign(2) + b"\n")
    with opened(files) as committer:
        append(committer, request("otter", *iterations(9)))
    data = content(files)
    start = data.index(foreign(1))
    for offset in range(start, start + len(foreign(1)) + 1 + len(foreign(2))):
        damaged = flipped(files, ACTIVE, offset, to_lf=False)
        damaged.unlink(LOCK)
        with pytest.raises(es.CorruptLogError) as caught, opened(damaged):
            pass
        assert caught.value.position in (6, 7)


def test_a_file_restored_in_place_is_not_judged_by_a_stale_record() -> None:
    """I10: a record that speaks of bytes the file never had since proves nothing."""
    files = _single()
    stale = record(files)
    assert stale is not None
    lines = lines_of(files)
    overwrite(files, b"".join(lines[:2]))
    with opened(files) as committer:
        assert (committer.position, committer.recovery.is_clean) == (2, True)
        append(committer, request("otter", *iterations(9)))
    assert [r.position for r in read(files)] == [1, 2, 3]


def test_a_log_that_ends_before_its_lock_record_is_taken_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Cut or replaced, nobody can tell; but nobody should have to find out by missing events."""
    caplog.set_level(logging.WARNING, logger="eventstore")
    files = _single()
    stale = record(files)
    assert stale is not None
    overwrite(files, lines_of(files)[0])
    with opened(files) as committer:
        assert committer.position == 1
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert f"calls {stale.end} bytes durable, up to position {stale.position}" in message
    caplog.clear()
    with opened(files):
        pass
    assert not caplog.records  # the record is now that of this file


def test_a_record_of_another_segment_proves_nothing() -> None:
    """I10: a record counts for the segment it names only."""
    files = _tiny_segments()
    stale = record(files)
    assert stale is not None
    set_record(files, msgspec.structs.replace(stale, segment=1, end=10**6))
    with opened(files) as committer:
        assert (committer.position, committer.recovery.is_clean) == (7, True)


def test_a_file_of_foreign_records_may_be_edited_by_hand() -> None:
    """I10, I11: where nothing is ours nobody was promised anything."""
    files = es.MemoryFiles()
    append_raw(files, b"".join(foreign(number) + b"\n" for number in range(4)))
    with opened(files):
        pass
    edited = content(files).replace(b'"iteration":2', b'"iteration":7')
    overwrite(files, edited)
    with opened(files) as committer:
        assert (committer.position, committer.recovery.is_clean) == (4, True)
    assert content(files) == edited


def test_damage_names_the_file_the_byte_and_the_position() -> None:
    """I13: the error says where to look, and that nothing was changed."""
    sound = corpus("single")
    target = sound.commits[2]
    files = flipped(sound.files, ACTIVE, target.start + 10, to_lf=False)
    with pytest.raises(es.CorruptLogError) as caught, opened(files):
        pass
    assert caught.value.path == f"memory:{ACTIVE}"
    assert (caught.value.offset, caught.value.position) == (target.start, 3)
    assert "nothing was changed" in str(caught.value)


def test_reading_reports_the_damage_it_goes_around(caplog: pytest.LogCaptureFixture) -> None:
    """I12: what is not shown is said, with its place."""
    caplog.set_level(logging.ERROR, logger="eventstore")
    sound = corpus("single")
    target = sound.commits[1]
    files = flipped(sound.files, ACTIVE, target.start + 10, to_lf=False)
    read(files)
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert f"byte {target.start}, position 2" in message


@pytest.mark.parametrize("lines", [b"\n", b"\n\n\n", b"noise\n" + foreign(9) + b"\n"], ids=repr)
def test_lines_put_in_before_a_foreign_record_hide_no_event_of_ours(lines: bytes) -> None:
    """Positions never go backwards: what stands at those of undamaged lines of ours gives way."""
    files = es.MemoryFiles()
    with opened(files) as committer:
        append(committer, request("main", *iterations(1)))
        append(committer, request("otter", *iterations(2)))
    append_raw(files, foreign(3) + b"\n")
    with opened(files) as committer:
        append(committer, request("main", *iterations(4)))
        append(committer, request("otter", *iterations(5)))
    ours = {recorded.position: recorded for recorded in read(files) if recorded.commit.first}
    before = content(files)
    at = before.index(foreign(3))
    overwrite(files, before[:at] + lines + before[at:])
    shown = read(files)
    positions = [recorded.position for recorded in shown]
    assert positions == sorted(set(positions))
    assert {recorded.position: recorded for recorded in shown if recorded.commit.first} == ours
    assert read_backwards(files) == shown


def _shared() -> es.MemoryFiles:
    """A log shared with the original: long commits of ours between its records."""
    files = es.MemoryFiles()
    with opened(files) as committer:
        append(committer, request("otter", *iterations(*range(1, 8))))
        append(committer, request("heron", *iterations(*range(11, 20))))
        append_raw(files, foreign(31) + b"\n")
        append(committer, request("otter", *iterations(8)))
    append_raw(files, foreign(32) + b"\n")
    return files


@pytest.mark.parametrize("to_lf", [False, True])
@pytest.mark.parametrize("chunk_bytes", [300, 512, 1_111, 1_600])
def test_a_changed_byte_hides_the_same_events_from_both_ends(
    monkeypatch: pytest.MonkeyPatch, chunk_bytes: int, *, to_lf: bool
) -> None:
    """Also where what proves the damage is a commit that goes on in the next chunk."""
    for name in ("_reading.CHUNK_BYTES", "_reading_backwards.CHUNK_BYTES"):
        monkeypatch.setattr(f"eventstore._log.{name}", chunk_bytes)
    monkeypatch.setattr("eventstore._log._reading_backwards._TAIL_BLOCK_BYTES", 200)
    sound = _shared()
    whole = len(read(sound))
    for offset in range(0, len(content(sound)), 7):
        files = flipped(sound, ACTIVE, offset, to_lf=to_lf)
        forwards = [(recorded.position, recorded.event) for recorded in read(files)]
        backwards = [(recorded.position, recorded.event) for recorded in read_backwards(files)]
        assert backwards == forwards, offset
        assert len(forwards) >= whole - 10, offset  # the longest commit, and a foreign record
