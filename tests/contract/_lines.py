"""The log's bytes, judged by the format's words alone: nothing of the engine is used here."""

from __future__ import annotations

import json
from typing import Any, Final
from zlib import crc32

__all__ = ["check_lines"]

_SUFFIX_BYTES: Final = len(b',"crc":"5d1e07aa01f30cb2"}')


def check_lines(raw: bytes) -> list[dict[str, Any]]:
    """Check a log that only we wrote, from its first byte to its last.

    Each line is one JSON object; its position is its ordinal; versions count each stream without
    a gap; the lines of a commit follow one another; and both halves of `crc` are right: the CRC-32
    of the line's bytes before that member, and of all bytes of the log before it.

    Args:
        raw: all segments in order.

    Returns:
        The lines, decoded.
    """
    assert not raw or raw.endswith(b"\n")
    versions: dict[str, int] = {}
    lines: list[dict[str, Any]] = []
    running = 0
    for position, line in enumerate(raw.split(b"\n")[:-1], start=1):
        record: dict[str, Any] = json.loads(line)
        assert list(record)[-1] == "crc"
        body, suffix = line[:-_SUFFIX_BYTES], line[-_SUFFIX_BYTES:]
        running = crc32(body, running)
        assert suffix == b',"crc":"%08x%08x"}' % (crc32(body), running)
        running = crc32(suffix + b"\n", running)
        stream = record.get("stream", "main")
        versions[stream] = versions.get(stream, 0) + 1
        assert (record["position"], record["version"]) == (position, versions[stream])
        first, last = record["commit"]
        assert first <= position <= last
        assert record.get("durable", first - 1) < first
        assert position == first or lines[-1]["commit"] == [first, last]
        lines.append(record)
    assert not lines or lines[-1]["commit"][1] == len(lines)
    return lines
