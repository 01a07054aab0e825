"""One line of ours: a JSON object that ends with its own checksum. Pure.

The last member is `crc`: eight hex digits of the CRC-32 of the line's bytes before that member,
then eight of the *running* CRC-32 of all bytes of the log before it. The first names the culprit,
the second lets one call verify everything up to here. The checksums are over raw bytes, so no
canonical JSON is needed.
"""

from __future__ import annotations

from typing import Final

import msgspec

from eventstore._events import MAIN_STREAM, Commit
from eventstore._log._crc import crc32

__all__ = [
    "ENVELOPE_BYTES_MAX",
    "LF",
    "LINE_BYTES_READ_MAX",
    "SUFFIX_BYTES",
    "SUFFIX_HEAD",
    "Header",
    "decode_header",
    "has_suffix",
    "header_decoder",
    "is_intact",
    "running_after",
    "start_of_last",
]

LF: Final = b"\n"
SUFFIX_HEAD: Final = b',"crc":"'
_SUFFIX_TAIL: Final = b'"}'
SUFFIX_BYTES: Final = len(SUFFIX_HEAD) + 16 + len(_SUFFIX_TAIL)
"""Bytes from the comma before `crc` to the closing brace, without the LF."""
ENVELOPE_BYTES_MAX: Final = 160
"""Room for version, position, commit, durable (20 digits each), crc and the LF."""
LINE_BYTES_READ_MAX: Final = 16 * 2**20 + ENVELOPE_BYTES_MAX
"""A longer line is noise: it is skipped without being buffered."""


class Header(msgspec.Struct, frozen=True, gc=False):
    """What the engine needs of a line of ours; the event itself stays bytes."""

    version: int
    position: int
    commit: Commit
    stream: str = MAIN_STREAM
    key: str | None = None
    durable: int | None = None

    @property
    def durable_position(self) -> int:
        """What was known to be synced when this line was written."""
        return self.commit.first - 1 if self.durable is None else self.durable


header_decoder: Final = msgspec.json.Decoder(Header)
decode_header: Final = header_decoder.decode


def has_suffix(line: bytes) -> bool:
    """Whether a line (without its LF) ends in the form of ours; says nothing of the values."""
    return (
        len(line) > SUFFIX_BYTES
        and line[-SUFFIX_BYTES : -SUFFIX_BYTES + len(SUFFIX_HEAD)] == SUFFIX_HEAD
        and line.endswith(_SUFFIX_TAIL)
    )


def is_intact(line: bytes) -> bool:
    """Whether a line (without its LF) is one of ours: the suffix is there and its own CRC holds."""
    return has_suffix(line) and line[-18:-10] == b"%08x" % crc32(line[:-SUFFIX_BYTES])


def running_after(line_end: bytes) -> int | None:
    """The running CRC after a line of ours, taken from its last bytes (LF included).

    Returns:
        What the line claims, or None if the bytes do not end a line of ours. Nothing is verified.
    """
    suffix = line_end[-SUFFIX_BYTES - 1 :]
    if (
        not (suffix.startswith(SUFFIX_HEAD) and suffix.endswith(_SUFFIX_TAIL + LF))
        or len(suffix) != SUFFIX_BYTES + 1
    ):
        return None
    try:
        return crc32(suffix, int(suffix[-11:-3], 16))
    except ValueError:
        return None


def start_of_last(data: bytes, end: int, lines: int) -> int:
    """Where the last few lines before an end begin; the end itself is behind an LF."""
    at = end - 1
    for _ in range(lines):
        at = data.rfind(LF, 0, at)
    return at + 1
