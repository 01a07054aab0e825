"""`loopledger show`: the loops of a history, and what each one's events say."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import anyio
import msgspec

import eventstore as es
from projections._load import load_all
from projections._loop import SUMMARY, Summary
from projections._loop_entry import LoopEntry, resume_from
from projections._overlay import Overlay, overlay
from projections._projection import Loaded, Projection
from projections._registry import REGISTRY
from projections.cli._damage import damage_found, refuse_damage
from projections.cli._errors import ExitCode, refuse_missing
from projections.cli._owner import driver
from projections.cli._text import clean, count, shown_time

__all__ = ["show"]


class _View(NamedTuple):
    """All that is shown of one loop, folded in one pass, and who drives it."""

    entry: LoopEntry = REGISTRY.initial
    summary: Summary = SUMMARY.initial
    events: int = 0
    last_event_at: datetime = datetime.min.replace(tzinfo=UTC)
    ownership: es.Ownership | None = None
    overlay: Overlay | None = None
    unknown: int = 0


def _evolve(view: _View, recorded: es.Recorded[es.Event]) -> _View:
    return _fold(view, (recorded,))


def _fold(view: _View, page: Sequence[es.Recorded[es.Event]]) -> _View:
    return _View(
        REGISTRY.fold(view.entry, page),
        SUMMARY.fold(view.summary, page),
        view.events + len(page),
        page[-1].timestamp,
        unknown=view.unknown + sum(type(recorded.event) is es.Unknown for recorded in page),
    )


_VIEW = Projection[_View, es.Event](
    name="show", initial=_View(), evolve=_evolve, fold=_fold, data=False
)


def show(path: str, *, as_json: bool) -> ExitCode:
    """Print the history at a path; nothing is written to it.

    Raises:
        CliError: there is no history; or it is damaged, after what can be read was printed.
        EventStoreError: it cannot be read.
    """
    with damage_found() as damages:
        views = anyio.run(_load, path)
    if not views:
        refuse_missing(path)
    if as_json:
        _print_json(views)
    else:
        _print_tables(path, views)
    refuse_damage(damages, path)
    return ExitCode.OK


async def _load(path: str) -> Mapping[str, Loaded[_View]]:
    async with es.open_store(path, read_only=True) as store:
        views = await load_all(store, _VIEW)
        owners = await store.owners(
            loop for loop, loaded in views.items() if loaded.state.entry.state == "running"
        )
    now = datetime.now(UTC)
    return {
        loop: msgspec.structs.replace(loaded, state=_owned(loaded.state, owners.get(loop), now))
        for loop, loaded in views.items()
    }


def _owned(view: _View, ownership: es.Ownership | None, now: datetime) -> _View:
    found = overlay(view.entry, ownership, last_event_at=view.last_event_at, now=now)
    return view._replace(ownership=ownership, overlay=found)


def _print_json(views: Mapping[str, Loaded[_View]]) -> None:
    for loop, loaded in views.items():
        entry, summary = loaded.state.entry, loaded.state.summary
        line: dict[str, Any] = {
            "schema": "loopledger.loop/1",
            "loop": loop,
            "state": entry.state,
            "overlay": loaded.state.overlay,
            "ownership": msgspec.to_builtins(loaded.state.ownership),
            "outcome": entry.outcome,
            "last_iteration": entry.last_iteration,
            "failed": entry.iterations_failed,
            "events": loaded.state.events,
            "unknown": loaded.state.unknown,
            "prompt": entry.prompt,
            "version": loaded.version,
            "position": loaded.position,
            "resume_from": resume_from(entry) if entry.state == "running" else None,
            "summary": msgspec.to_builtins(summary),
            "anomalies": msgspec.to_builtins(entry.anomalies),
            "anomaly_count": entry.anomaly_count,
        }
        sys.stdout.write(json.dumps(line) + "\n")  # ASCII only: nothing in it drives a terminal


def _print_tables(path: str, views: Mapping[str, Loaded[_View]]) -> None:
    from rich.text import Text

    from projections.cli._console import open_console
    from projections.cli._table import LoopRow, hidden_cells, loop_table, summary_grid

    console = open_console()
    events = sum(loaded.state.events for loaded in views.values())
    title = f"{count(len(views), 'loop')}, {count(events, 'event')} in {clean(path)}"
    console.print(Text(title))
    if not views:
        return
    rows = [
        LoopRow(loop, loaded.state.entry, loaded.state.events, loaded.state.overlay)
        for loop, loaded in views.items()
    ]
    console.print()
    console.print(loop_table(rows, width=console.width))
    for row, loaded in zip(rows, views.values(), strict=True):
        hidden = hidden_cells(row, width=console.width)
        console.print()
        console.print(Text(clean(row.loop), style="bold"))
        console.print(summary_grid(_summary_lines(loaded.state, hidden), width=console.width))


def _summary_lines(view: _View, hidden: Mapping[str, str]) -> dict[str, str]:
    """What is known of one loop, also what the table hides; what is not known has no line."""
    entry, summary = view.entry, view.summary
    lines = {
        "prompt": summary.prompt,
        "outcome": entry.outcome if "outcome" in hidden else None,
        "events": hidden.get("events"),
        "started": shown_time(summary.started_at),
        "ended": shown_time(summary.ended_at),
        "iterations": (
            f"{summary.iterations_completed} completed, {summary.iterations_failed} failed, "
            f"{count(summary.events_published, 'event')} published"
        ),
        "completed": summary.completion_reason,
        "terminated": summary.termination_signal,
        "merged": summary.merge_commit,
        "merge failed": summary.merge_failure_reason,
        "discarded": entry.discard_reason,
        "driver": driver(view.ownership),
        "resume": f"at iteration {resume_from(entry)}" if entry.state == "running" else None,
    }
    if entry.anomaly_count:
        odd = count(entry.anomaly_count, "event")
        lines["odd"] = f"{odd} out of place, the last at {entry.anomalies[-1]}"
    if view.unknown:
        lines["unknown"] = f"{count(view.unknown, 'event')}; loopledger check-types says which"
    return {name: value for name, value in lines.items() if value is not None}
