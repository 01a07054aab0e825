"""`loopledger repair`: what the next writer would set aside, or what a salvage would keep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

import eventstore as es
from projections.cli._errors import ExitCode
from projections.cli._progress import byte_progress
from projections.cli._text import clean, count
from projections.cli._verify import print_findings

__all__ = ["repair"]

_LOST_SHOWN: Final = 20


def repair(path: str, *, into: str | None, apply: bool, as_json: bool) -> ExitCode:
    """Say what a repair of the log at a path would do; do it if asked to.

    A torn end is what recovery sets aside. Damaged logs are never written to: what is undamaged is
    copied to a new one.

    Args:
        path: the log.
        into: the directory of the new log; asks for a copy even if nothing is damaged.
        apply: do it.
        as_json: print one object.

    Raises:
        EventStoreError: there is no log, it cannot be read, or the new one cannot be written.
    """
    with byte_progress() as progress:
        found = es.verify_log(path, progress=progress)
    severities = {finding.severity for finding in found.findings}
    if into is not None or "damage" in severities:
        return _salvage(path, into or _beside(path), apply=apply, as_json=as_json)
    return _recover(path, found, apply=apply, as_json=as_json)


def _beside(path: str) -> str:
    log = Path(path)
    now = datetime.now(UTC)
    return str(log.parent / f"{log.stem}.salvaged-{now:%Y%m%dT%H%M%SZ}")


# --- a torn end ---


def _recover(path: str, found: es.Verification, *, apply: bool, as_json: bool) -> ExitCode:
    has_work = bool(found.cut_bytes) or found.lacks_lf or found.is_failed
    applied = apply and has_work
    recovery = anyio.run(_open_and_close, path) if applied else None
    if as_json:
        _print_json(
            path,
            action="recover" if has_work else "none",
            applied=applied,
            found=msgspec.to_builtins(found),
            recovery=msgspec.to_builtins(recovery),
        )
    elif recovery is not None:
        _print_recovery(path, recovery)
    elif has_work:
        _print_plan(path, found)
    else:
        print(f"{clean(path)}: nothing to repair")
        if found.noise or found.bad:
            lines = count(found.noise + found.bad, "line")
            print(f"  {lines} nobody can read stay where they are, and are skipped")
            print("  next   --into DIR copies the log without them")
    return ExitCode.NOT_SOUND if has_work and not apply else ExitCode.OK


def _print_plan(path: str, found: es.Verification) -> None:
    print(f"{clean(path)}: opening it for writing changes its end, and nothing else")
    print_findings(found.findings)
    if found.cut_bytes:
        print(f"  would move {count(found.cut_bytes, 'byte')} from its end to the quarantine:")
        print(f"    {clean(path)}.d/quarantine/")
        print("  none of them was acknowledged; the rest and they make up the original")
    if found.lacks_lf:
        print("  would end the last record with the LF it lacks")
    if found.is_failed:
        print("  would copy the file to a new inode, and keep the old one in the quarantine")
    print("  next   the same with --apply, or open it for writing")


def _print_recovery(path: str, recovery: es.Recovery) -> None:
    print(f"{clean(path)}: recovered, up to position {recovery.position}")
    if recovery.cut_bytes:
        print(f"  moved {count(recovery.cut_bytes, 'byte')} from its end to the quarantine:")
        for name in recovery.quarantine:
            print(f"    {clean(name)}")
    if recovery.terminated:
        print("  ended the last record with the LF it lacked")
    if recovery.renewed:
        print("  copied the file to a new inode; the old one is in the quarantine")


async def _open_and_close(path: str) -> es.Recovery:
    async with es.open_store(path) as store:
        return store.recovery


# --- damage ---


def _salvage(path: str, into: str, *, apply: bool, as_json: bool) -> ExitCode:
    with byte_progress() as progress:
        salvage = es.salvage_log(path, into if apply else None, progress=progress)
    if as_json:
        _print_json(
            path,
            action="salvage",
            applied=apply,
            into=into,
            salvage=msgspec.to_builtins(salvage),
        )
    else:
        _print_salvage(path, into, salvage)
    return ExitCode.OK if apply else ExitCode.NOT_SOUND


def _print_salvage(path: str, into: str, salvage: es.Salvage) -> None:
    print(f"{clean(path)}: {'NOT ' if not salvage.found.is_sound else ''}sound")
    print_findings(salvage.found.findings)
    unlisted = salvage.found.finding_count - len(salvage.found.findings)
    if unlisted:
        print(f"and {unlisted} more")
    print(f"  {'kept' if salvage.log else 'would keep'} {count(salvage.events, 'event')}")
    for number, what in (
        (salvage.foreign, "of them from a foreign writer"),
        (salvage.partial, "of them from commits that are no longer whole"),
    ):
        if number:
            print(f"    {number} {what}")
    lost = list(_lost(salvage))
    if lost:
        more = (
            ", ..." if len(lost) > _LOST_SHOWN or salvage.range_count > len(salvage.ranges) else ""
        )
        print(f"  positions without an event: {', '.join(lost[:_LOST_SHOWN])}{more}")
    print(
        f"  not kept: {salvage.bad} bad lines, {salvage.noise} noise, "
        f"{salvage.unfinished} of commits that never were whole, {salvage.repeated} repeated"
    )
    if salvage.log is None:
        print(f"  would write {clean(str(Path(into, Path(path).name)))}")
        print("  next   the same with --apply; the log itself is never changed")
    else:
        print(f"  wrote {clean(salvage.log)}, which is sound")
        print("  its last event, in the stream loopledger.salvage, says where it comes from")


def _lost(salvage: es.Salvage) -> Iterator[str]:
    """The positions that have no event in the new log."""
    behind = 1
    for kept in sorted(salvage.ranges, key=lambda kept: kept.first):
        if kept.first > behind:
            yield _span(behind, kept.first - 1)
        behind = max(behind, kept.last + 1)
    if behind <= salvage.last_position and salvage.range_count == len(salvage.ranges):
        yield _span(behind, salvage.last_position)


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _print_json(path: str, **members: Any) -> None:
    print(json.dumps({"schema": "loopledger.repair/1", "path": path} | members))
