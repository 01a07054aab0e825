"""`loopledger check-types`: whether today's code reads the events of an old log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import anyio
import msgspec

import eventstore as es
from projections.cli._damage import damage_found, refuse_damage
from projections.cli._errors import ExitCode, refuse_missing
from projections.cli._text import clean, count

__all__ = ["check_types"]

_KINDS_MAX: Final = 1_000  # a log may hold any names; what is beyond is counted together
_REASONS_MAX: Final = 5
_OTHERS: Final = "(other kinds)"


class _Reason(msgspec.Struct):
    """Why some events of a kind do not fit: how many, and where the first is."""

    reason: str
    position: int
    events: int = 0


class _Kind(msgspec.Struct):
    """The events of one kind."""

    kind: str
    known: bool
    events: int = 0
    unknown: int = 0
    reasons: list[_Reason] = []

    def count(self, recorded: es.Recorded[Any], why: str | None) -> None:
        """Count an event; `why` it is unknown, if it is."""
        self.events += 1
        if why is None:
            return
        self.unknown += 1
        found = next((reason for reason in self.reasons if reason.reason == why), None)
        if found is None:
            if len(self.reasons) == _REASONS_MAX:
                return
            found = _Reason(why, recorded.position)
            self.reasons.append(found)
        found.events += 1


def check_types(path: str, types: es.EventTypes[Any], *, as_json: bool) -> ExitCode:
    """Read the log at a path with some event types; nothing is written to it.

    Raises:
        CliError: the log is damaged, after the report was printed.
        EventStoreError: there is no log, or it cannot be read.
    """
    refuse_missing(path)
    with damage_found() as found:
        kinds = anyio.run(_read, path, types)
    misfits = sum(kind.unknown for kind in kinds if kind.known)
    if as_json:
        report = {
            "schema": "loopledger.check-types/1",
            "path": path,
            "fits": misfits == 0,
            "kinds": msgspec.to_builtins(kinds),
        }
        print(json.dumps(report))  # ASCII only, as `show`
    else:
        _print_report(path, kinds, misfits)
    refuse_damage(found, path)
    return ExitCode.NOT_SOUND if misfits else ExitCode.OK


async def _read(path: str, types: es.EventTypes[Any]) -> list[_Kind]:
    kinds: dict[str, _Kind] = {}

    def work(pages: Iterator[es.Page[Any]]) -> None:
        for page in pages:
            for recorded in page:
                name = recorded.kind
                if name not in kinds and len(kinds) >= _KINDS_MAX:
                    name = _OTHERS
                kind = kinds.get(name)
                if kind is None:
                    known = name in types.by_kind or name in types.upcasts
                    kind = kinds[name] = _Kind(name, known)
                event = recorded.event
                kind.count(recorded, types.why_unknown(event) if _is_unknown(event) else None)

    async with es.open_store(path, types=types, read_only=True) as store:
        await store.scan(work, data=False)
    return sorted(kinds.values(), key=lambda kind: (not kind.known, kind.kind))


def _is_unknown(event: object) -> bool:
    return isinstance(event, es.Unknown)


def _print_report(path: str, kinds: list[_Kind], misfits: int) -> None:
    if not kinds:
        print(f"{clean(path)}: no events, so there is nothing to check")
        return
    events = sum(kind.events for kind in kinds)
    verdict = _verdict(events, sum(kind.events for kind in kinds if not kind.known), misfits)
    print(f"{clean(path)}: {count(events, 'event')} of {count(len(kinds), 'kind')}; {verdict}")
    print(f"{'events':>9} {'unknown':>9}  kind")
    for kind in kinds:
        note = "" if kind.known else " (not registered)"
        print(f"{kind.events:>9} {kind.unknown:>9}  {clean(kind.kind)}{note}")
        if kind.known:
            for reason in kind.reasons:
                print(
                    f"{'':>21}{count(reason.events, 'event')}, the first at position "
                    f"{reason.position}: {clean(reason.reason)}"
                )


def _verdict(events: int, unregistered: int, misfits: int) -> str:
    rest = f"{unregistered} of kinds nobody registered, read as Unknown"
    if misfits:
        verdict = f"{count(misfits, 'event')} of known kinds cannot be read"
        return f"{verdict}, {rest}" if unregistered else verdict
    if not unregistered:
        return "all fit"
    registered = events - unregistered
    return f"{registered} of registered kinds fit, {rest}" if registered else rest
