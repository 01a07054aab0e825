"""What is attacked: functions that take any bytes, and raise only if a promise is broken.

`TARGETS` is the one table of them. Hypothesis (`test_hostile_input.py`) and atheris
(`atheris_fuzz.py`) both feed it; a new target is a function here and a line in the table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Final, NamedTuple

import msgspec

import eventstore as es
from eventstore._chrono import parse_chrono
from eventstore._codec import Codec
from eventstore._foreign import Envelope, ForeignLine, decode_exact, decode_foreign
from eventstore._log._lines import LF, decode_header, has_suffix, is_intact
from eventstore._log._lock_record import RECORD_BYTES, decode_record, encode_record
from eventstore._log._log_reader import LogReader
from eventstore._log._verification import Verification
from eventstore._log._verify import verify_files
from eventstore._runs import MemoryWorkspace
from eventstore._runs._event_loop_log import (
    LINE_BYTES_MAX,
    EventLoopEntry,
    format_line,
    last_number,
    parse_line,
    parse_log,
)
from eventstore._runs._layout import RunLayout
from eventstore._runs._metadata import Invocation, RunMetadata, parse_metadata
from eventstore._runs._moments import moment_of
from eventstore._runs._run_files import append_entry, read_metadata, write_metadata
from tests.fuzz._derived_files import index, snapshot
from tests.fuzz._parts import parted
from tests.recovery._logs import (
    ACTIVE,
    LOCK,
    NAMES,
    append,
    content,
    image_of,
    iterations,
    opened,
    overwrite,
    quarantined,
    read,
    read_backwards,
    request,
)
from tests.recovery._logs import segments as segments_of

__all__ = ["INPUT_BYTES_MAX", "SECONDS_PER_PASS", "TARGETS", "Target"]

INPUT_BYTES_MAX: Final = 64 * 1024
SECONDS_PER_PASS: Final = 0.05
"""CPU time of reading an input of 64 KiB once, whatever it holds."""

_Events = list[es.Recorded[es.LoopEvent]]
_CODEC: Final = Codec(es.LOOP_EVENTS)
_READER: Final = _CODEC.decoder(data=True).decode
_RUN_ID: Final = "2026-11-21_00-07-26.254Z"
_NOON_NS: Final = 1_795_219_646_254_876_167
_SEGMENT_FILES_MAX: Final = 6


class Target(NamedTuple):
    """A function to attack, and how often it reads its input."""

    run: Callable[[bytes], None]
    passes: int


# --- logs ---


def log(data: bytes) -> None:
    """An active file and, behind the separator, a lock record that may speak of it."""
    active, record = parted(data, 2)
    files = es.MemoryFiles()
    overwrite(files, active)
    if record:
        status = files.stat(ACTIVE)
        assert status is not None
        known = decode_record(record)
        if known is not None:
            record = encode_record(msgspec.structs.replace(known, inode=status.inode))
        overwrite(files, record, LOCK)
    _use(files)


def segments(data: bytes) -> None:
    """Several files, each `name LF content`: sealed segments, the active one, and anything else."""
    files = es.MemoryFiles()
    for part in parted(data, _SEGMENT_FILES_MAX):
        name, _, text = part.partition(b"\n")
        shown = name.decode("utf-8", "replace").replace("/", "_")
        if shown:
            overwrite(files, text, shown)
    _use(files)


def _use(files: es.MemoryFiles) -> None:
    """Read a log, check it, open it for writing, append, open it again; compare all the way."""
    verified = _verified(files)
    before = _observed(image_of(files), one_story=_is_whole(files, verified))
    if verified is not None and verified.is_sound:
        positions = [recorded.position for recorded in before]
        assert positions == sorted(set(positions))
    _check_verified(files, before)
    names = files.listdir("")
    bytes_before = {name: content(files, name) for name in names}
    active = bytes_before.get(ACTIVE, b"")
    try:
        with opened(files) as committer:
            recovered = content(files)
            _check_repair(files, active, recovered)
            readable = _observed(image_of(files), one_story=False)
            if not any(map(_is_ambiguous, active.split(LF))):
                assert readable == before, "opening for writing changed what is readable"
            before = readable
            version, other = committer.version("main"), committer.version("otter")
            position = committer.position
            results = append(
                committer,
                request("main", *iterations(1, 2), key="fuzz"),
                request("otter", *iterations(3)),
            )
    except es.CorruptLogError:
        after = {name: content(files, name) for name in names}
        after.pop(LOCK, None)
        bytes_before.pop(LOCK, None)
        assert after == bytes_before, "a damaged log was changed"
        assert verified is None or not verified.is_sound, "verify calls a log sound that is refused"
        return
    except es.EventRefusedError as error:
        assert "key 'fuzz' was used" in str(error)  # noqa: PT017 - the input may hold this key
        return
    assert results[-1].position - position in (1, 3)
    assert results[-1].version == other + 1
    assert results[0].version <= version + 2
    _check_second_opening(files, before, results)


def _check_verified(files: es.MemoryFiles, shown: _Events) -> None:
    """Every event of ours that is shown stands in a line whose own checksum holds.

    A line without one is left out: forged checksums behind it have it verified with its chunk.
    """
    there: dict[int, _Events] = {}
    for name in segments_of(files):
        for line in content(files, name).split(LF):
            if is_intact(line) or (b'"position"' in line and not has_suffix(line)):
                with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
                    recorded = _READER(line)
                    there.setdefault(recorded.position, []).append(recorded)
    for recorded in shown:
        if recorded.commit.first:
            assert recorded in there.get(recorded.position, ()), "shown, and not verified"


def _check_repair(files: es.MemoryFiles, active: bytes, recovered: bytes) -> None:
    """What recovery kept is the file's beginning; what it took away is in the quarantine."""
    kept = recovered
    if not active.startswith(recovered):
        assert recovered.endswith(b"\n")
        kept = recovered[:-1]  # a foreign record got its LF
    assert active.startswith(kept), "recovery wrote over bytes of the log"
    cut = active[len(kept) :]
    assert not cut or cut in quarantined(files).values(), "bytes were cut and not set aside"


def _check_second_opening(
    files: es.MemoryFiles, before: _Events, results: list[es.Appended]
) -> None:
    grown = _observed(image_of(files), one_story=False)
    assert grown[: len(before)] == before, "an append changed what was readable before"
    assert grown[-1].position == results[-1].position
    whole = content(files)
    with opened(files) as committer:
        assert committer.recovery.is_clean, "the second opening repairs again"
        assert committer.position == results[-1].position
        assert committer.version("otter") == results[-1].version
    assert content(files) == whole
    assert _observed(image_of(files), one_story=False) == grown


def _is_whole(files: es.MemoryFiles, verified: Verification | None) -> bool:
    """Whether nothing is damaged, and no line is an event to one decoder only."""
    if verified is None or any(found.severity == "damage" for found in verified.findings):
        return False
    lines = content(files).split(LF) if files.stat(ACTIVE) is not None else []
    return not any(map(_is_ambiguous, lines))


def _observed(files: es.MemoryFiles, *, one_story: bool) -> _Events:
    """What readers show; of a log without damage the same from both ends."""
    events = read(files)
    backwards = read_backwards(files)
    if not one_story:
        return events
    assert backwards == events, "backwards shows another log than forwards"
    reader = LogReader(files, NAMES, _CODEC, lock_timeout_seconds=1.0)
    try:
        snapshot = reader._taker.take()
        for stream in ("main", "otter"):
            for newest_first in (False, True):
                pages = reader._pages(
                    snapshot, stream, 0, backwards=newest_first, data=False, numbers=True
                )
                shown = [recorded.position for page in pages for recorded in page]
                wanted = [recorded.position for recorded in events if recorded.stream == stream]
                assert (shown[::-1] if newest_first else shown) == wanted
    finally:
        reader._taker.close()
    return events


def _is_ambiguous(line: bytes) -> bool:
    """Whether a line is an event to one way of reading only: none that a writer makes is.

    An intact one may decode for one of the two decoders; one that is not may still decode, and
    whoever forges the checksums behind it has it verified with all the others of its chunk.
    """
    reads, heads = _decodes(_READER, line), _decodes(decode_header, line)
    return reads != heads if is_intact(line) else reads and heads


def _decodes(decode: Callable[[bytes], object], line: bytes) -> bool:
    try:
        decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True


def _verified(files: es.MemoryFiles) -> Verification | None:
    try:
        return verify_files(image_of(files), NAMES, lock_timeout_seconds=1.0)
    except es.StoreUnavailableError:
        return None  # there is no such log


# --- pieces ---


def lock_record(data: bytes) -> None:
    """A lock record is itself when written again, or it is none."""
    found = decode_record(data)
    if found is not None:
        assert encode_record(found) == data[:RECORD_BYTES]


def foreign_line(data: bytes) -> None:
    """The quick and the exact path give one verdict, and a record's payload is an event."""
    found = decode_foreign(data)
    assert repr(found) == repr(_exactly(data))
    if isinstance(found, ForeignLine):
        es.LOOP_EVENTS.decode(found.payload)


def _exactly(line: bytes) -> ForeignLine | Envelope | None:
    try:
        return decode_exact(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def timestamp(data: bytes) -> None:
    """Any text is a moment in UTC, or none."""
    found = parse_chrono(data.decode("utf-8", "surrogatepass" if data.isascii() else "replace"))
    assert found is None or found.tzinfo is UTC


def run_files(data: bytes) -> None:
    """`run.json` and, behind the separator, `event_loop.log`: read, added to, read again."""
    metadata, event_loop = parted(data, 2)
    workspace, layout = MemoryWorkspace(), RunLayout(_RUN_ID)
    for name in (".agent", layout.directory):
        workspace.mkdir(name)
    for name, text in ((layout.run_metadata, metadata), (layout.event_loop_log, event_loop)):
        with workspace.replacing(name) as file:
            file.write(text)
    _use_metadata(workspace, layout, metadata)
    _use_event_loop(workspace, layout, event_loop)


def _use_metadata(workspace: MemoryWorkspace, layout: RunLayout, before: bytes) -> None:
    known: RunMetadata | None = None
    with contextlib.suppress(es.RunContextError):
        known = parse_metadata(before, path="run.json")
    resume = Invocation(
        at=moment_of(_NOON_NS),
        resumed=True,
        command="fuzz",
        repo_root="/",
        ralph_version="",
        pid=7,
        config_summary=None,
    )
    try:
        write_metadata(workspace, layout, resume)
    except es.RunContextError:
        assert read_metadata(workspace, layout.run_metadata) == before
        return
    after = parse_metadata(read_metadata(workspace, layout.run_metadata) or b"", path="run.json")
    assert after.resume
    assert after.resumes[-1].command == "fuzz"
    if known is not None:
        assert (after.run_id, after.command) == (known.run_id, known.command)
        return
    kept = [name for name in workspace.listdir(layout.directory) if "damaged" in name]
    with workspace.open_read(f"{layout.directory}/{kept[0]}") as file:
        assert file.read() == before, "damaged metadata was not kept"


def _use_event_loop(workspace: MemoryWorkspace, layout: RunLayout, before: bytes) -> None:
    log_before = parse_log(before)
    newest = log_before.records[-1].number if log_before.records else 0
    assert last_number(before, from_start=True) == newest
    entry = EventLoopEntry(phase="a b", effect="e", event="v", extra=("x",), context=(("k", "1"),))
    number = append_entry(workspace, layout.event_loop_log, entry, unix_ns=_NOON_NS)
    assert number == newest + 1
    with workspace.open_read(layout.event_loop_log) as file:
        after = file.read()
    assert after.startswith(before)
    log_after = parse_log(after)
    assert log_after.records[: len(log_before.records)] == log_before.records
    assert log_after.records[-1].entry == entry
    for record in log_before.records:
        if record.number > 0 and len(before) < LINE_BYTES_MAX:
            again = parse_line(format_line(record.entry, number=record.number, unix_ns=0)[:-1])
            assert again is not None
            assert again.entry == record.entry


TARGETS: Final[Mapping[str, Target]] = {
    "log": Target(log, passes=15),
    "segments": Target(segments, passes=15),
    "lock_record": Target(lock_record, passes=1),
    "foreign_line": Target(foreign_line, passes=3),
    "run_files": Target(run_files, passes=10),
    "timestamp": Target(timestamp, passes=1),
    "index": Target(index, passes=3),
    "snapshot": Target(snapshot, passes=1),
}
"""By name."""
