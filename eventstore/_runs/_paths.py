"""The absolute paths of one run's files. Nothing here touches a file."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from eventstore._errors import RunContextError
from eventstore._runs._layout import RunLayout
from eventstore._runs._run_ids import run_started_at

__all__ = ["RunPaths"]


class RunPaths:
    """Where one run's files are: properties, and methods where a name has to be checked."""

    def __init__(self, root: Path, layout: RunLayout) -> None:
        self._root = root
        self._layout = layout

    @property
    def run_id(self) -> str:
        """The id `resume` takes: `2026-11-21_00-07-26.254Z`, perhaps with `-01` to `-99`."""
        return self._layout.run_id

    @property
    def started_at(self) -> datetime:
        """When the run was first started: the id's moment, to the millisecond, in UTC."""
        return run_started_at(self._layout.run_id)

    @property
    def run_dir(self) -> Path:
        """The run directory."""
        return self._path(self._layout.directory)

    @property
    def pipeline_log(self) -> Path:
        """The run's own log, `pipeline.log`."""
        return self._path(self._layout.pipeline_log)

    @property
    def event_loop_log(self) -> Path:
        """One line per turn of the event loop, `event_loop.log`."""
        return self._path(self._layout.event_loop_log)

    @property
    def event_loop_trace(self) -> Path:
        """The last turns before a crash, `event_loop_trace.jsonl`."""
        return self._path(self._layout.event_loop_trace)

    @property
    def run_metadata(self) -> Path:
        """How the run was started and resumed, `run.json`."""
        return self._path(self._layout.run_metadata)

    def agent_log(self, phase: str, iteration: int, attempt: int | None = None) -> Path:
        """The log of one agent, `agents/<phase>_<iteration>[_a<attempt>].log`.

        Raises:
            RunContextError: the phase cannot be part of a file name, or a number is no unsigned
                32-bit integer.
        """
        return self._path(self._layout.agent_log(phase, iteration, attempt))

    def provider_log(self, name: str) -> Path:
        """The log of one provider, `provider/<name>`.

        Raises:
            RunContextError: the name cannot be a file name.
        """
        return self._path(self._layout.provider_log(name))

    def _path(self, name: str) -> Path:
        return self._root / name

    def _log_name(self, path: str | os.PathLike[str]) -> str:
        try:
            within = (self.run_dir / path).relative_to(self.run_dir).as_posix()
        except ValueError:
            raise RunContextError(
                f"{os.fspath(path)!r} is not in {self.run_dir}; nothing was opened"
            ) from None
        return self._layout.log_name(within)
