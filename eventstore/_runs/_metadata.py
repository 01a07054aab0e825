"""`run.json`: how a run was started, and each time it was resumed. Pure.

The original overwrites the file on a resume, so the start's time and command are lost. Here the
first start stays, `resume` becomes true, and each resume is added to `resumes`. Members that
somebody else wrote stay as they are.
"""

from __future__ import annotations

import json
import zlib
from datetime import datetime
from typing import Any, Final

import msgspec

from eventstore._errors import RunContextError
from eventstore._runs._moments import format_utc
from eventstore._runs._run_ids import run_started_at

__all__ = [
    "METADATA_BYTES_MAX",
    "ConfigSummary",
    "Invocation",
    "MetadataPlan",
    "Resume",
    "RunMetadata",
    "parse_metadata",
    "plan_metadata",
]

METADATA_BYTES_MAX: Final = 1_048_576  # a thousand resumes fit; a planted giant is not read


class ConfigSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the run was configured to do."""

    developer_agent: str | None = None
    reviewer_agent: str | None = None
    total_iterations: int | None = None
    total_reviewer_passes: int | None = None


class Resume(msgspec.Struct, frozen=True, omit_defaults=True):
    """One later start of the same run."""

    resumed_at_utc: str
    command: str
    pid: int | None = None


class RunMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `run.json` says, in the original's names."""

    run_id: str
    started_at_utc: str
    command: str
    resume: bool
    repo_root: str
    ralph_version: str
    pid: int | None = None
    config_summary: ConfigSummary | None = None
    resumes: tuple[Resume, ...] = ()


class Invocation(msgspec.Struct, frozen=True):
    """One start of an orchestrator, as it goes into `run.json`."""

    at: datetime
    resumed: bool
    command: str
    repo_root: str
    ralph_version: str
    pid: int
    config_summary: ConfigSummary | None


class MetadataPlan(msgspec.Struct, frozen=True):
    """What to write, and under which suffix to keep what could not be understood."""

    content: bytes
    damaged_suffix: str | None = None


def parse_metadata(content: bytes, *, path: str) -> RunMetadata:
    """Parse `run.json`, the original's or ours.

    Raises:
        RunContextError: it is damaged.
    """
    try:
        json.loads(content)  # msgspec takes anything for the value of a member that it skips
        return msgspec.json.decode(content, type=RunMetadata)
    except (ValueError, RecursionError) as error:  # all that msgspec says is a ValueError
        raise RunContextError(
            f"{path}: damaged ({error}); it was left as it is; write_metadata() keeps it aside"
        ) from error


def plan_metadata(existing: bytes | None, run_id: str, invocation: Invocation) -> MetadataPlan:
    """Decide what `run.json` says after one more start.

    Args:
        existing: what it holds now, None if there is no such file.
        run_id: the run's; its time stands in for a start that nobody wrote down.
        invocation: the start to add. The same one again replaces what it said before.

    Raises:
        RunContextError: a string holds a lone surrogate.
    """
    members = None if existing is None else _members(existing)
    damaged = existing is not None and members is None
    if members is None:
        started_at = run_started_at(run_id) if invocation.resumed else invocation.at
        members = _started(run_id, started_at, invocation)
    elif not invocation.resumed:
        resume = bool(members.get("resumes"))
        members = {**members, **_started(run_id, None, invocation), "resume": resume}
    if invocation.resumed:
        members = _resumed(members, invocation)
    try:
        content = json.dumps(members, ensure_ascii=False, indent=2, allow_nan=False).encode()
    except ValueError as error:
        raise RunContextError(
            f"the metadata of run {run_id} is not JSON ({error}); nothing was written"
        ) from error
    suffix = None if existing is None or not damaged else f".damaged-{zlib.crc32(existing):08x}"
    return MetadataPlan(content=content, damaged_suffix=suffix)


def _members(existing: bytes) -> dict[str, Any] | None:
    try:
        msgspec.json.decode(existing, type=RunMetadata)
        members: dict[str, Any] = json.loads(existing)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return members


def _started(run_id: str, started_at: datetime | None, invocation: Invocation) -> dict[str, object]:
    """The original's members in the original's order; no start time leaves the one there is."""
    started = {} if started_at is None else {"started_at_utc": format_utc(started_at)}
    members: dict[str, object] = {
        "run_id": run_id,
        **started,
        "command": invocation.command,
        "resume": False,
        "repo_root": invocation.repo_root,
        "ralph_version": invocation.ralph_version,
        "pid": invocation.pid,
    }
    if invocation.config_summary is not None:
        members["config_summary"] = msgspec.to_builtins(invocation.config_summary)
    return members


def _resumed(members: dict[str, Any], invocation: Invocation) -> dict[str, Any]:
    resume = msgspec.to_builtins(
        Resume(
            resumed_at_utc=format_utc(invocation.at),
            command=invocation.command,
            pid=invocation.pid,
        )
    )
    earlier: list[dict[str, Any]] = members.get("resumes", [])
    mine = ("resumed_at_utc", "pid")
    others = [entry for entry in earlier if any(entry.get(key) != resume[key] for key in mine)]
    return {**members, "resume": True, "resumes": [*others, resume]}
