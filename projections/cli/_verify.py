"""`loopledger verify`: whether a log is sound, and where not."""

from __future__ import annotations

import collections
import json
from collections.abc import Sequence
from typing import Final

import msgspec

import eventstore as es
from projections.cli._errors import ExitCode
from projections.cli._progress import byte_progress
from projections.cli._text import clean, count

__all__ = ["print_findings", "verify"]

_NEXT: Final = {
    "damage": "`loopledger repair` says what can be salvaged; the file itself is never changed",
    "torn": "open it for writing, or `loopledger repair`: these bytes move to the quarantine",
    "malformed": "nothing has to be done: such lines are skipped and stay where they are",
}


def verify(path: str, *, checksums_only: bool, as_json: bool) -> ExitCode:
    """Check the log at a path and print what was found; nothing is written to it.

    Args:
        path: of the log.
        checksums_only: look at no line by itself; see `es.verify_checksums`.
        as_json: print one object for a program.

    Raises:
        EventStoreError: there is no log, or it cannot be read.
    """
    with byte_progress() as progress:
        check = es.verify_checksums if checksums_only else es.verify_log
        found = check(path, progress=progress)
    if as_json:
        kind = "checksums" if checksums_only else "verification"
        answer = {"schema": f"loopledger.{kind}/1", "path": path}
        print(json.dumps(answer | msgspec.to_builtins(found)))  # ASCII only, as `show`
    else:
        _print_report(path, found)
    return ExitCode.OK if found.is_sound else ExitCode.NOT_SOUND


def _print_report(path: str, found: es.ChecksumVerification) -> None:
    print(f"{clean(path)}: {'sound' if found.is_sound else 'NOT sound'}")
    if isinstance(found, es.Verification):
        print(f"  {count(found.events, 'event')} in {count(found.streams, 'stream')}")
    print(
        f"  {count(found.lines, 'line')} in {count(found.segments, 'segment')}, "
        f"{count(found.bytes, 'byte')}"
    )
    if isinstance(found, es.Verification):
        print(
            f"  {found.foreign} foreign, {found.noise} noise, {found.void} void, "
            f"{found.bad} bad lines"
        )
    else:
        print("  checksums only: events, streams and lines that are no records were not counted")
    print_findings(found.findings)
    unlisted = found.finding_count - len(found.findings)
    if unlisted:
        print(f"and {unlisted} more")
    severities = collections.Counter(finding.severity for finding in found.findings)
    for severity, step in _NEXT.items():
        if severity in severities:
            print(f"next ({severity}): {step}")


def print_findings(findings: Sequence[es.Finding]) -> None:
    """Print what is wrong, one per line: what, file, byte, position, reason."""
    for finding in findings:
        print(
            f"{finding.severity}: {clean(finding.file)}: byte {finding.offset}, "
            f"position {finding.position}: {clean(finding.reason)}"
        )
