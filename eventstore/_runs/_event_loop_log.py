"""The event-loop log: one line per effect, in the original's format. Pure.

    12 ts=2026-11-21T00:07:26.254+00:00 phase=Commit Message effect=Push event=Pushed ms=41
    13 ts=... phase=Review effect=Call event=Done extra=[A,B] ctx=iteration=2,reviewer_pass=1 ms=7

The original writes values as they are, so a blank, comma, `=` or newline in one breaks its line.
Here such a character becomes `%` and two upper-case hex digits for each of its UTF-8 bytes. What
is escaped: `%` itself, blank, `,`, `=`, control characters (C0, DEL, C1) and the line separators
U+2028 and U+2029. A phase keeps its blanks, as phases of the original have them: nothing but the
next ` effect=` can end it, because `=` is escaped. All other values stay byte for byte what the
original writes.

Log names and numbers, never prompts, model output, diffs or secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from eventstore._errors import RunContextError
from eventstore._runs._moments import format_offset

__all__ = [
    "LINE_BYTES_MAX",
    "EventLoopEntry",
    "EventLoopLog",
    "EventLoopRecord",
    "format_line",
    "last_number",
    "parse_line",
    "parse_log",
]

LINE_BYTES_MAX: Final = 65_536  # names and numbers need far less; it bounds what a reader looks at

_DURATION_MS_MAX: Final = 2**64 - 1  # the original's integer
_ESCAPED: Final = re.compile("[\x00-\x20%,=\x7f-\x9f\u2028\u2029]")
_ESCAPED_IN_PHASE: Final = re.compile("[\x00-\x1f%,=\x7f-\x9f\u2028\u2029]")
_ESCAPE: Final = re.compile("(?:%[0-9A-F]{2})+")
_NUMBER: Final = re.compile("[1-9][0-9]{0,17}")
_DURATION: Final = re.compile("[0-9]{1,20}")
_TIMESTAMP: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)


class EventLoopEntry(msgspec.Struct, frozen=True):
    """What one turn of the event loop did."""

    phase: str
    effect: str
    event: str
    extra: tuple[str, ...] = ()
    context: tuple[tuple[str, str], ...] = ()
    duration_ms: int = 0


class EventLoopRecord(msgspec.Struct, frozen=True):
    """An entry with its place in the log and the time it was written."""

    number: int
    timestamp_text: str
    entry: EventLoopEntry


class EventLoopLog(msgspec.Struct, frozen=True):
    """What a log holds: its records in file order, and how many lines are none."""

    records: tuple[EventLoopRecord, ...]
    bad_lines: int


def format_line(entry: EventLoopEntry, *, number: int, unix_ns: int) -> bytes:
    """Format one line, its LF included.

    Raises:
        RunContextError: a string holds a lone surrogate, the duration is no unsigned 64-bit
            integer, or the line is over `LINE_BYTES_MAX`.
    """
    if not 0 <= entry.duration_ms <= _DURATION_MS_MAX:
        raise RunContextError(
            f"duration_ms {entry.duration_ms} is not between 0 and 2**64 - 1; nothing was recorded"
        )
    parts = [
        str(number),
        f"ts={format_offset(unix_ns)}",
        f"phase={_escape(entry.phase, _ESCAPED_IN_PHASE)}",
        f"effect={_escape(entry.effect)}",
        f"event={_escape(entry.event)}",
    ]
    if entry.extra:
        parts.append(f"extra=[{','.join(map(_escape, entry.extra))}]")
    if entry.context:
        pairs = (f"{_escape(key)}={_escape(value)}" for key, value in entry.context)
        parts.append(f"ctx={','.join(pairs)}")
    parts.append(f"ms={entry.duration_ms}\n")
    try:
        line = " ".join(parts).encode()
    except UnicodeEncodeError as error:
        raise RunContextError(
            "an event-loop entry holds a lone surrogate, which no UTF-8 file can; "
            "nothing was recorded"
        ) from error
    if len(line) > LINE_BYTES_MAX:
        raise RunContextError(
            f"an event-loop entry takes {len(line)} bytes, more than {LINE_BYTES_MAX}; log names "
            "and numbers, not contents; nothing was recorded"
        )
    return line


def parse_line(line: bytes) -> EventLoopRecord | None:
    """Parse one line without its LF; None if it is not a whole record.

    Lines of the original, with nothing escaped, are read as far as they are unambiguous.
    """
    if len(line) > LINE_BYTES_MAX:
        return None
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None
    # Only str.partition: linear in the line, whatever it holds.
    text, _, duration = text.rpartition(" ms=")
    number, _, text = text.partition(" ts=")
    timestamp, _, text = text.partition(" phase=")
    phase, phase_end, text = text.partition(" effect=")
    effect, effect_end, text = text.partition(" event=")
    text, context_start, context = text.partition(" ctx=")
    event, extra_start, extra = text.partition(" extra=[")
    if (
        not _NUMBER.fullmatch(number)
        or not _TIMESTAMP.fullmatch(timestamp)
        or not _DURATION.fullmatch(duration)
        or not (phase_end and effect_end)
        or (extra_start and not extra.endswith("]"))
    ):
        return None
    return EventLoopRecord(
        number=int(number),
        timestamp_text=timestamp,
        entry=EventLoopEntry(
            phase=_unescape(phase),
            effect=_unescape(effect),
            event=_unescape(event),
            extra=tuple(map(_unescape, extra[:-1].split(","))) if extra_start else (),
            context=tuple(_pairs(context)) if context_start else (),
            duration_ms=int(duration),
        ),
    )


def parse_log(content: bytes) -> EventLoopLog:
    """Parse a whole log. A bad line costs one line; a last one without LF counts if it is whole."""
    lines = [line for line in content.split(b"\n") if line]
    records = tuple(record for line in lines if (record := parse_line(line)) is not None)
    return EventLoopLog(records=records, bad_lines=len(lines) - len(records))


def last_number(tail: bytes, *, from_start: bool) -> int | None:
    """The number of the last whole record in the end of a log.

    Args:
        tail: the log's last bytes. A torn last line is skipped like any other bad line.
        from_start: the tail is the whole log; otherwise its first line is a piece of one.

    Returns:
        The number; 0 for a whole log without any record, None if the tail is too short to know.
    """
    end = len(tail)
    while end >= 0:
        start = tail.rfind(b"\n", 0, end) + 1
        if start == 0 and not from_start:
            return None
        record = parse_line(tail[start:end])
        if record is not None:
            return record.number
        end = start - 1
    return 0


def _escape(text: str, pattern: re.Pattern[str] = _ESCAPED) -> str:
    return pattern.sub(
        lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()),
        text,
    )


def _unescape(text: str) -> str:
    return _ESCAPE.sub(_unescape_run, text)


def _unescape_run(match: re.Match[str]) -> str:
    try:
        return bytes.fromhex(match[0].replace("%", "")).decode()
    except UnicodeDecodeError:
        return match[0]  # the original escapes nothing, so these are its own percent signs


def _pairs(context: str) -> Iterator[tuple[str, str]]:
    for pair in context.split(","):
        key, _, value = pair.partition("=")
        yield _unescape(key), _unescape(value)
