"""What verifying a log tells. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from eventstore._log._findings import Finding

__all__ = ["ChecksumVerification", "Progress", "Verification"]

Progress: TypeAlias = Callable[[int, int], None]
"""Told now and then how many bytes were done, and how many there are. May begin again."""


class ChecksumVerification(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the bytes of a log are those that were written, and where not.

    Attributes:
        segments: files of the log.
        bytes: in all segments.
        lines: how many there are; the log's position.
        findings: the first 100, in the order of the log; damage and a torn end are always among
            them.
        finding_count: how many there were.
        is_sound: whether there was none but notices.
        cut_bytes: at the end, that the next writer moves to the quarantine.
        lacks_lf: whether the last record is whole but for its LF, which the next writer adds.
        is_failed: whether the last writer met an I/O error, so that the next one copies the file.
    """

    segments: int
    bytes: int
    lines: int
    findings: tuple[Finding, ...]
    finding_count: int
    is_sound: bool
    cut_bytes: int = 0
    lacks_lf: bool = False
    is_failed: bool = False


class Verification(ChecksumVerification, frozen=True, kw_only=True):
    """What a log holds, and everything that is wrong with it.

    Attributes:
        events: lines that are events: ours in whole commits, and foreign records.
        streams: how many streams these events belong to.
        foreign: records of a foreign writer.
        noise: lines that are no record of anybody.
        void: lines of commits that never became whole.
        bad: lines that claim to be ours and are not.
    """

    events: int
    streams: int
    foreign: int
    noise: int
    void: int
    bad: int
