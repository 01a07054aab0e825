"""`loopledger resume`: where a loop was interrupted, and the exact next step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import anyio
import msgspec

import eventstore as es
from projections._resume import ResumePlan, resume_plan
from projections._tools import OpenTool
from projections.cli._damage import damage_found, refuse_damage
from projections.cli._errors import CliError, ExitCode, refuse_missing
from projections.cli._owner import driver
from projections.cli._text import clean, command_line, count, shown_time

__all__ = ["resume"]

_CHARACTERS_MAX: Final = 200  # of a prompt or of arguments; --json has all of it
_TOPICS_MAX: Final = 5
_RESUMABLE: Final = frozenset({"running", "completed", "terminated", "needs-review"})


def resume(path: str, loop: str, *, as_json: bool) -> ExitCode:
    """Print the plan for going on with a loop; nothing is written to its history.

    Raises:
        CliError: there is no such loop; or the log is damaged, after the plan was printed.
        EventStoreError: it cannot be read.
    """
    with damage_found() as damages:
        plan, ownership = anyio.run(_load, path, loop)
    if plan.last_event_at is None:
        refuse_missing(path)
        message = f"{path}: there is no loop {loop!r:.300}"
        next_step = command_line("show", path)
        raise CliError("E-LOOP", message, exit_code=ExitCode.NOT_FOUND, next_step=next_step)
    # Where reading went around damage, opening for writing refuses: no step of the plan would work.
    steps = [command_line("verify", path)] if damages else _next_steps(plan, ownership)
    if as_json:
        answer: dict[str, Any] = {
            "schema": "loopledger.resume/1",
            **msgspec.to_builtins(plan),
            "ownership": msgspec.to_builtins(ownership),
            "next": steps,
        }
        print(json.dumps(answer))  # ASCII only, as `show`
    else:
        _print_plan(plan, ownership, steps)
    refuse_damage(damages, path)
    return ExitCode.OK


async def _load(path: str, loop: str) -> tuple[ResumePlan, es.Ownership | None]:
    async with es.open_store(path, read_only=True) as store:
        plan = await resume_plan(store, loop)
        return plan, (await store.owners([loop])).get(loop)


def _print_plan(plan: ResumePlan, ownership: es.Ownership | None, steps: Sequence[str]) -> None:
    print(f"{clean(plan.loop)}: {_where(plan)}")
    lines = {
        "prompt": None if plan.prompt is None else _short(plan.prompt),
        "driver": driver(ownership),
        "run": None if plan.run_id is None else f"{plan.run_id}, logs in .agent/logs-{plan.run_id}",
        "last": _last(plan),
        "published": _published(plan),
    }
    for name, value in lines.items():
        if value is not None:
            print(f"  {name:<10} {clean(value)}")
    for tool in plan.open_tools:
        print(f"  {'unknown':<10} {clean(_unknown(tool))}")
    for step in steps:
        print(f"next   {clean(step)}")


def _where(plan: ResumePlan) -> str:
    completed = "none" if plan.last_iteration is None else str(plan.last_iteration)
    ended = "" if plan.outcome in (None, "running") else f" ({plan.outcome})"
    where = f"{plan.state}{ended}, completed {completed}"
    if not _can_resume(plan):
        return f"{where}, nothing to resume"
    return f"{where}, continue at {plan.resume_from} (attempt {plan.attempt})"


def _can_resume(plan: ResumePlan) -> bool:
    return plan.state in _RESUMABLE and plan.outcome != "succeeded"


def _last(plan: ResumePlan) -> str:
    place = f", version {plan.version}, position {plan.position}" if plan.version else ""
    return f"event at {shown_time(plan.last_event_at)}{place}"


def _published(plan: ResumePlan) -> str | None:
    if not plan.published_count:
        return None
    topics = ", ".join(published.topic for published in plan.published[-_TOPICS_MAX:])
    before = "..., " if plan.published_count > _TOPICS_MAX else ""
    return f"{count(plan.published_count, 'event')} since the last iteration: {before}{topics}"


def _unknown(tool: OpenTool) -> str:
    arguments = _short(json.dumps(tool.arguments, ensure_ascii=False))
    return (
        f"{tool.name} {arguments}: requested at position {tool.position} "
        f"(attempt {tool.attempt}), may have run; call {tool.call}"
    )


def _next_steps(plan: ResumePlan, ownership: es.Ownership | None) -> list[str]:
    """What to do, as lines of a program where it is one."""
    if ownership is not None and ownership.is_held:
        return [f"nothing: the loop is driven by {driver(ownership)}"]
    steps = [
        f"find out what became of {tool.name} {tool.call}, then: await pj.Ledger(store, "
        f"{plan.loop!r}).settle({tool.call!r}, succeeded=...)  # or failed='...'"
        for tool in plan.open_tools
    ]
    if not _can_resume(plan):
        return steps
    expected = plan.version + len(steps) if plan.version else "es.STREAM_EXISTS"
    resumed = f"es.LoopResumed(from_iteration={plan.resume_from})"
    step = f"await store.append({plan.loop!r}, [{resumed}], expected_version={expected})"
    return [*steps, step]


def _short(text: str) -> str:
    return text if len(text) <= _CHARACTERS_MAX else f"{text[:_CHARACTERS_MAX]}..."
