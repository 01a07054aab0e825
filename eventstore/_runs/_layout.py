"""Where a run's files are, as names relative to the workspace. Pure.

Every part that a caller chooses is checked against an allow-list before it is joined: the check
is what stops `../x`, the system would open it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from eventstore._errors import RunContextError
from eventstore._runs._run_ids import is_run_id

__all__ = ["AGENT_DIRECTORY", "RunLayout", "check_file_name", "pruned_run", "run_of_directory"]

AGENT_DIRECTORY: Final = ".agent"
"""What holds the run directories of a workspace."""

_PREFIX: Final = "logs-"
_PRUNED_PREFIX: Final = ".pruned-"  # no run id begins with a dot
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_COUNT: Final = "(0|[1-9][0-9]{0,9})"
_AGENT_LOG: Final = re.compile(rf"(.+)_{_COUNT}(?:_a{_COUNT})?\.log")
# Windows opens these as devices, with any extension: a run directory must survive being copied.
_RESERVED: Final = frozenset(
    ["con", "prn", "aux", "nul"]
    + [f"{device}{number}" for device in ("com", "lpt") for number in range(1, 10)]
)


def check_file_name(name: str, *, what: str) -> str:
    """Return the name if it may become (part of) a file name.

    Raises:
        RunContextError: it is not 1 to 100 characters of [A-Za-z0-9._-] that begin with a letter
            or digit, holds `..`, ends in a dot, or is a name that Windows reserves.
    """
    if (
        _FILE_NAME.fullmatch(name) is None
        or ".." in name
        or name.endswith(".")
        or name.partition(".")[0].lower() in _RESERVED
    ):
        raise RunContextError(
            f"{what} {name!r} cannot be a file name: 1 to 100 characters of [A-Za-z0-9._-], "
            "beginning with a letter or digit, without '..', not ending in a dot, not reserved "
            "(CON, NUL, COM1, ...); nothing was touched"
        )
    return name


def run_of_directory(name: str) -> str | None:
    """The id of the run whose directory has this name, or None."""
    run_id = name.removeprefix(_PREFIX)
    return run_id if name.startswith(_PREFIX) and is_run_id(run_id) else None


def pruned_run(name: str) -> str | None:
    """The id of the run whose half-removed directory has this name, or None."""
    run_id = name.removeprefix(_PRUNED_PREFIX)
    return run_id if name.startswith(_PRUNED_PREFIX) and is_run_id(run_id) else None


class RunLayout(msgspec.Struct, frozen=True):
    """The names of one run's files and directories, `/` between the parts."""

    run_id: str

    @property
    def directory(self) -> str:
        """The run directory."""
        return f"{AGENT_DIRECTORY}/{_PREFIX}{self.run_id}"

    @property
    def pruned(self) -> str:
        """What the run directory is called while it is being removed."""
        return f"{AGENT_DIRECTORY}/{_PRUNED_PREFIX}{self.run_id}"

    @property
    def archive(self) -> str:
        """The run's archive, beside the run directory."""
        return f"{self.directory}.tar.gz"

    @property
    def agents(self) -> str:
        """The directory of agent logs."""
        return f"{self.directory}/agents"

    @property
    def subdirectories(self) -> tuple[str, ...]:
        """What a complete run directory holds; `agents` first, it marks the directory as a run."""
        return (self.agents, f"{self.directory}/provider", f"{self.directory}/debug")

    @property
    def pipeline_log(self) -> str:
        """The run's own log."""
        return f"{self.directory}/pipeline.log"

    @property
    def event_loop_log(self) -> str:
        """One line per effect of the event loop."""
        return f"{self.directory}/event_loop.log"

    @property
    def event_loop_trace(self) -> str:
        """The last entries before a crash."""
        return f"{self.directory}/event_loop_trace.jsonl"

    @property
    def run_metadata(self) -> str:
        """What was started, when, with which command."""
        return f"{self.directory}/run.json"

    def agent_log(self, phase: str, iteration: int, attempt: int | None) -> str:
        """The log of one agent; an attempt, 0 included, adds its suffix."""
        check_file_name(phase, what="phase")
        _check_count(iteration, what="iteration")
        if attempt is None:
            return f"{self.agents}/{phase}_{iteration}.log"
        _check_count(attempt, what="attempt")
        return f"{self.agents}/{phase}_{iteration}_a{attempt}.log"

    def provider_log(self, name: str) -> str:
        """The log of one provider."""
        return f"{self.directory}/provider/{check_file_name(name, what='provider log')}"

    def next_attempt(self, phase: str, iteration: int, *, existing: Iterable[str]) -> int:
        """The attempt after all those whose logs exist; 0 stands for the log without a suffix.

        Args:
            phase: of the agent.
            iteration: of the agent.
            existing: the file names in the directory of agent logs.
        """
        family = self.agent_log(phase, iteration, None).rpartition("/")[2].removesuffix(".log")
        pattern = re.compile(rf"{re.escape(family)}(?:_a{_COUNT})?\.log")
        attempts = [int(match[1] or 0) for name in existing if (match := pattern.fullmatch(name))]
        return max(attempts, default=-1) + 1

    def log_name(self, within: str) -> str:
        """The name of a log stream, given its path within the run directory.

        Raises:
            RunContextError: no pipeline, agent or provider log has that path.
        """
        directory, _, file = within.partition("/")
        if within == "pipeline.log":
            return self.pipeline_log
        if directory == "provider":
            return self.provider_log(file)
        match = _AGENT_LOG.fullmatch(file) if directory == "agents" else None
        if match is None:
            raise RunContextError(
                f"{within!r} is not a log of a run; pipeline_log, agent_log() and provider_log() "
                "give the paths of those that are; nothing was opened"
            )
        return self.agent_log(match[1], int(match[2]), int(match[3]) if match[3] else None)


def _check_count(number: int, *, what: str) -> None:
    if not 0 <= number < 2**32:
        raise RunContextError(f"{what} {number} is not between 0 and 2**32 - 1; nothing was named")
