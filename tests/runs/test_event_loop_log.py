"""The event-loop log: its lines, its numbers, and what a crash leaves of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore._errors import RunContextError
from eventstore._runs import EventLoopEntry, MemoryWorkspace, RunContext, Workspace
from eventstore._runs._event_loop_log import (
    LINE_BYTES_MAX,
    format_line,
    last_number,
    parse_line,
    parse_log,
)
from eventstore._runs._run_files import append_entry
from tests.runs.conftest import NOON_NS, ManualClock

TEXTS = st.text(max_size=20) | st.sampled_from(
    [" effect=", " event=x ms=1", " extra=[", "]", " ctx=a=b", "%41", "%", "\n900 ts=", "a,b=c", ""]
)
ENTRIES = st.builds(
    EventLoopEntry,
    phase=TEXTS,
    effect=TEXTS,
    event=TEXTS,
    extra=st.lists(TEXTS, max_size=3).map(tuple),
    context=st.lists(st.tuples(TEXTS, TEXTS), max_size=3).map(tuple),
    duration_ms=st.integers(0, 2**64 - 1),
)
SIMPLE = EventLoopEntry(phase="Review", effect="Call", event="Done", duration_ms=57)


def put(workspace: Workspace, name: str, content: bytes) -> None:
    """Write a whole file."""
    with workspace.replacing(name) as file:
        file.write(content)


def get(workspace: Workspace, name: str) -> bytes:
    """Read a whole file."""
    with workspace.open_read(name) as file:
        return file.read()


def test_ordinary_values_are_written_as_the_original_writes_them() -> None:
    """The line's parts, their order, the offset and the blanks of a phase are the original's."""
    entry = EventLoopEntry(
        phase="Commit Message",
        effect="InvokeAgent{role:Developer}",
        event="Done(ok)",
        extra=("A", "B/b-c_d:é"),
        context=(("iteration", "2"), ("reviewer_pass", "1")),
        duration_ms=41,
    )
    assert format_line(entry, number=12, unix_ns=NOON_NS).decode() == (
        "12 ts=2026-11-21T00:07:26.254876167+00:00 phase=Commit Message "
        "effect=InvokeAgent{role:Developer} event=Done(ok) extra=[A,B/b-c_d:é] "
        "ctx=iteration=2,reviewer_pass=1 ms=41\n"
    )


def test_what_is_empty_is_left_out() -> None:
    """Without further events and context the line has neither part."""
    line = format_line(SIMPLE, number=1, unix_ns=0)
    assert line == b"1 ts=1970-01-01T00:00:00+00:00 phase=Review effect=Call event=Done ms=57\n"


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        (" ", "%20"),
        ("%", "%25"),
        (",", "%2C"),
        ("=", "%3D"),
        ("\x00\t\n\r\x1f", "%00%09%0A%0D%1F"),
        ("\x7f\x85\x9f", "%7F%C2%85%C2%9F"),
        ("\u2028\u2029", "%E2%80%A8%E2%80%A9"),
        ('"\\/:;[]{}()é\U0001f600', '"\\/:;[]{}()é\U0001f600'),
    ],
)
def test_what_could_break_a_line_is_escaped(value: str, escaped: str) -> None:
    """Blank, `%`, `,`, `=`, control characters and line separators are escaped, nothing else."""
    entry = EventLoopEntry(phase="P", effect="A", event=value)
    line = format_line(entry, number=1, unix_ns=0).decode()
    assert line == f"1 ts=1970-01-01T00:00:00+00:00 phase=P effect=A event={escaped} ms=0\n"


@pytest.mark.parametrize(
    ("nanoseconds", "fraction"),
    [(0, ""), (1_000_000, ".001"), (120_000_000, ".120"), (1_000, ".000001"), (1, ".000000001")],
)
def test_the_fraction_is_as_short_as_it_can_be(nanoseconds: int, fraction: str) -> None:
    """Fractions have 0, 3, 6 or 9 digits, the fewest that lose nothing."""
    line = format_line(SIMPLE, number=1, unix_ns=nanoseconds)
    assert f" ts=1970-01-01T00:00:00{fraction}+00:00 ".encode() in line


@given(ENTRIES, st.integers(1, 10**18 - 1), st.integers(0, 2**62))
def test_every_entry_reads_back_equal(entry: EventLoopEntry, number: int, unix_ns: int) -> None:
    """Whatever the values hold, an entry is one line, and that line gives it back."""
    line = format_line(entry, number=number, unix_ns=unix_ns)
    assert line.count(b"\n") == 1
    assert len(line.decode().splitlines()) == 1
    record = parse_line(line[:-1])
    assert record is not None
    assert (record.number, record.entry) == (number, entry)


@given(ENTRIES)
def test_only_a_phase_holds_blanks(entry: EventLoopEntry) -> None:
    """Outside the phase the line splits at blanks; each value is one word without `,` or `=`."""
    text = format_line(entry, number=1, unix_ns=0).decode().rstrip("\n")
    assert re.fullmatch(
        r"1 ts=[^ ]+ phase=[^=,]* effect=[^ =,]* event=[^ =,]*"
        r"(?: extra=\[[^ =]*\])?(?: ctx=[^ ]+)? ms=[0-9]+",
        text,
    )


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(content: bytes) -> None:
    """Any bytes are a log, and a record among them is found."""
    content = format_line(SIMPLE, number=1, unix_ns=0) + content
    log = parse_log(content)
    assert log.records[0].entry == SIMPLE
    assert len(log.records) + log.bad_lines == sum(1 for line in content.split(b"\n") if line)


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (b"7 ts=2026-01-02T03:04:05.678Z phase=Planning effect=A event=B ms=0", 7),
        (b"8 ts=2026-01-02T03:04:05+00:00 phase=Final Validation effect=A{b: 1} event=B C ms=3", 8),
        (b"9 ts=2026-01-02T03:04:05Z phase=P effect=A event=B(x=1) extra=[C, D] ctx=i=1 ms=3", 9),
        (b"9 ts=2026-01-02T03:04:05Z phase=P effect=100% event=%zz%ff ms=3", 9),
    ],
)
def test_lines_of_the_original_are_records(line: bytes, number: int) -> None:
    """Lines with nothing escaped are read: their numbers count."""
    record = parse_line(line)
    assert record is not None
    assert record.number == number


def test_percent_signs_of_the_original_stay() -> None:
    """What is not an escape of UTF-8 is read as it stands."""
    record = parse_line(b"9 ts=2026-01-02T03:04:05Z phase=100% effect=%zz%2 event=%FF%20 ms=3")
    assert record is not None
    assert record.entry == EventLoopEntry("100%", "%zz%2", "%FF%20", duration_ms=3)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"1",
        b"900 ts=",
        b"0 ts=2026-01-02T03:04:05Z phase=P effect=A event=B ms=3",
        b"01 ts=2026-01-02T03:04:05Z phase=P effect=A event=B ms=3",
        b"\xd9\xa1 ts=2026-01-02T03:04:05Z phase=P effect=A event=B ms=3",
        b"1 ts=yesterday phase=P effect=A event=B ms=3",
        b"1 ts=2026-01-02T03:04:05Z phase=P effect=A ms=3",
        b"1 ts=2026-01-02T03:04:05Z phase=P effect=A event=B ms=",
        b"1 ts=2026-01-02T03:04:05Z phase=P effect=A event=B ms=3 ",
        b"1 ts=2026-01-02T03:04:05Z phase=P effect=A event=B extra=[ ms=3",
        b"1 ts=2026-01-02T03:04:05Z phase=\xff effect=A event=B ms=3",
        b"\x00\x001 ts=2026-01-02T03:04:05Z phase=P effect=A event=B ms=3",
        b"1 ts=2026-01-02T03:04:05Z phase=" + b"P" * LINE_BYTES_MAX + b" effect=A event=B ms=3",
    ],
)
def test_other_lines_are_no_records(line: bytes) -> None:
    """A line that is not whole, and exactly of the form, gives no number."""
    assert parse_line(line) is None


def test_a_cut_record_never_shows_another_number() -> None:
    """A record cut anywhere is no record, or one of the same number and event."""
    line = format_line(SIMPLE, number=12, unix_ns=NOON_NS)[:-1]
    for end in range(len(line)):
        record = parse_line(line[:end])
        assert record is None or (record.number, record.entry.event) == (12, "Done")


def test_a_short_tail_says_that_it_does_not_know() -> None:
    """The first line of a tail is a piece of one, and never read as a record."""
    line = format_line(SIMPLE, number=12, unix_ns=0)
    assert last_number(line[:-1], from_start=True) == 12
    assert last_number(b"1" + line, from_start=False) is None
    assert last_number(b"\n" + line, from_start=False) == 12
    assert last_number(b"", from_start=True) == 0


@pytest.mark.parametrize(
    "entry",
    [
        EventLoopEntry(phase="\ud800", effect="A", event="B"),
        EventLoopEntry(phase="P", effect="A", event="B", duration_ms=-1),
        EventLoopEntry(phase="P", effect="A", event="B", duration_ms=2**64),
        EventLoopEntry(phase="P", effect="A", event="x" * LINE_BYTES_MAX),
    ],
)
def test_what_cannot_be_a_line_is_refused(entry: EventLoopEntry) -> None:
    """A lone surrogate, an impossible duration and contents instead of names make no file."""
    workspace = MemoryWorkspace()
    with pytest.raises(RunContextError, match="nothing was recorded"):
        append_entry(workspace, "log", entry, unix_ns=0)
    assert workspace.stat("log") is None


def test_a_torn_end_cut_at_every_byte_loses_nothing(workspace: Workspace) -> None:
    """After any cut the next entry stands alone, follows the last whole one, removes no byte."""
    for _ in range(12):
        append_entry(workspace, "log", SIMPLE, unix_ns=NOON_NS)
    whole = get(workspace, "log")
    last_line = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(last_line, len(whole)):
        put(workspace, "log", whole[:end])
        # A record that only lost its LF, or digits of its duration, is visible and counts.
        expected = 13 if parse_line(whole[last_line:end]) else 12
        assert append_entry(workspace, "log", SIMPLE, unix_ns=NOON_NS) == expected
        content = get(workspace, "log")
        assert content.startswith(whole[:end])
        records = parse_log(content).records
        assert [record.number for record in records] == list(range(1, expected + 1))
        assert content.endswith(b"\n")


@pytest.mark.parametrize(
    ("tail", "number"),
    [
        (b"garbage\n", 4),
        (b"garbage", 4),
        (b"900 ts=", 4),
        (b"900 \n\n  \n", 4),
        (b"\x00" * 5000, 4),
        (b"\xff\xfe\n", 4),
        (b"\r\n" * 3, 4),
        ((b"x" * 1000 + b"\n") * 700, 4),
        (b"x" * 700_000, 4),
    ],
)
def test_numbering_goes_on_behind_garbage(workspace: Workspace, tail: bytes, number: int) -> None:
    """Whatever stands behind it, the last whole record decides, and the garbage stays."""
    for _ in range(3):
        append_entry(workspace, "log", SIMPLE, unix_ns=0)
    before = get(workspace, "log") + tail
    put(workspace, "log", before)
    assert append_entry(workspace, "log", SIMPLE, unix_ns=0) == number
    assert get(workspace, "log").startswith(before)
    assert append_entry(workspace, "log", SIMPLE, unix_ns=0) == number + 1
    assert [r.number for r in parse_log(get(workspace, "log")).records] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("content", [b"", b"\n", b"garbage\n", b"12"])
def test_a_log_without_records_begins_at_1(workspace: Workspace, content: bytes) -> None:
    """An empty log, and one that holds no record, count from 1."""
    put(workspace, "log", content)
    assert append_entry(workspace, "log", SIMPLE, unix_ns=0) == 1


@pytest.mark.anyio
async def test_a_resumed_run_goes_on_counting(workspace: Workspace, clock: ManualClock) -> None:
    """Entries count from 1, and a resume counts on."""
    run = await RunContext.create(workspace, clock=clock)
    for number in (1, 2, 3):
        phase = "Final Validation"
        assert await run.append_event_loop(phase=phase, effect="A", event="B") == number
    again = await RunContext.resume(workspace, run.run_id, clock=clock)
    context = {"iteration": 2, "reviewer_pass": 0}
    number = await again.append_event_loop(
        phase="P", effect="A", event="B=\n", extra=["C"], context=context, duration_ms=5
    )
    assert number == 4
    log = await again.read_event_loop()
    assert [record.number for record in log.records] == [1, 2, 3, 4]
    assert log.bad_lines == 0
    assert log.records[0].entry.phase == "Final Validation"
    assert log.records[3].entry == EventLoopEntry(
        phase="P",
        effect="A",
        event="B=\n",
        extra=("C",),
        context=(("iteration", "2"), ("reviewer_pass", "0")),
        duration_ms=5,
    )


@pytest.mark.anyio
async def test_an_absent_log_is_empty(workspace: Workspace) -> None:
    """A run that logged nothing has an empty event-loop log."""
    run = await RunContext.create(workspace)
    log = await run.read_event_loop()
    assert (log.records, log.bad_lines) == ((), 0)
