"""A second reader of the log, written from FORMAT.md alone with `json` and `zlib`.

It shares no line with the engine, so that the two can only agree if the manual is right. It is
short because it judges sound logs: a bad line, or a number or checksum that does not fit, is an
`UnsoundError`, unless nothing but unfinished lines follows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast
from zlib import crc32

__all__ = ["Line", "Log", "UnsoundError", "read_log"]

_SUFFIX: Final = re.compile(rb',"crc":"([0-9a-f]{8})([0-9a-f]{8})"\}')
_SUFFIX_BYTES: Final = 26
_OURS_ONLY: Final = {"version", "position", "commit", "crc"}


class UnsoundError(Exception):
    """The bytes are not what FORMAT.md says."""


class Line(NamedTuple):
    """One visible event: the decoded line, and its numbers."""

    value: dict[str, Any]
    stream: str
    version: int
    position: int
    is_ours: bool


class Log(NamedTuple):
    """What a log holds."""

    events: list[Line]
    lines: int
    noise: int
    void: int
    torn_bytes: int
    running: int


class _Reader:
    def __init__(self) -> None:
        self.events: list[Line] = []
        self.position = self.noise = self.void = self.running = 0
        self.versions: dict[str, int] = {}
        self.held: list[Line] = []  # lines of a commit that is not whole yet
        self.held_bytes = 0

    def take(self, line: bytes) -> None:
        """One line, without its LF."""
        self.position += 1
        suffix = _SUFFIX.fullmatch(line[-_SUFFIX_BYTES:])
        body = line[:-_SUFFIX_BYTES]
        before = self.running
        self.running = crc32(line + b"\n", before)
        if suffix is not None and int(suffix[1], 16) == crc32(body):
            if int(suffix[2], 16) != crc32(body, before):
                raise UnsoundError(f"position {self.position}: the running checksum is another")
            self.take_ours(json.loads(line), len(line) + 1)
            return
        self.drop_held()
        value = _record(line)
        self.versions["main"] = self.versions.get("main", 0) + 1
        if value is None:
            self.noise += 1
        else:
            self.show(Line(value, "main", self.versions["main"], self.position, is_ours=False))

    def take_ours(self, value: dict[str, Any], size: int) -> None:
        first, last = value["commit"]
        if value["position"] != self.position or not first <= self.position <= last:
            raise UnsoundError(f"position {self.position}: the line says {value['position']}")
        if self.position == first:
            self.drop_held()
        elif not self.held or self.held[-1].value["commit"] != value["commit"]:
            raise UnsoundError(f"position {self.position}: its commit has no beginning")
        if value.get("durable", first - 1) >= first:
            raise UnsoundError(f"position {self.position}: durable before it was written")
        line = Line(
            value, value.get("stream", "main"), value["version"], self.position, is_ours=True
        )
        self.held.append(line)
        self.held_bytes += size
        if self.position == last:
            for whole in self.held:
                version = self.versions[whole.stream] = self.versions.get(whole.stream, 0) + 1
                if whole.version != version:
                    raise UnsoundError(f"position {whole.position}: version {whole.version}")
                self.show(whole)
            self.held = []
            self.held_bytes = 0

    def drop_held(self) -> None:
        self.void += len(self.held)
        self.held = []
        self.held_bytes = 0

    def show(self, line: Line) -> None:
        self.events.append(line)


def read_log(segments: Sequence[bytes]) -> Log:
    """Read the segments of a log, oldest first, and verify every byte of it.

    Raises:
        UnsoundError: a number, a commit or a checksum is not what it must be.
    """
    reader = _Reader()
    torn = 0
    for number, segment in enumerate(segments):
        *lines, rest = segment.split(b"\n")
        for line in lines:
            reader.take(line)
        torn = reader.held_bytes + len(rest)
        if torn and number < len(segments) - 1:
            raise UnsoundError(f"segment {number} is sealed and not finished")
    return Log(reader.events, reader.position, reader.noise, reader.void, torn, reader.running)


def _record(line: bytes) -> dict[str, Any] | None:
    """A foreign record, or None for noise; strict where the tests' own foreign lines are plain."""
    try:
        value: Any = json.loads(line.decode("utf-8"))
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    record = cast("dict[str, Any]", value)
    if record.keys() & _OURS_ONLY:
        raise UnsoundError("a line claims to be ours and is not")
    event: Any = record.get("type")
    is_event = isinstance(event, dict) and "kind" in event
    return record if is_event and isinstance(record.get("ts"), str) else None
