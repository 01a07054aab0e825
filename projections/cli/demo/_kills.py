"""Starting writers, listening to what they acknowledge, and killing them at the worst moment."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Final

import msgspec

import eventstore as es
from projections.cli.demo._loops import Acknowledged
from projections.cli.demo._writers import READY

__all__ = ["DemoError", "kill_after", "tear"]

_TRIES_MAX: Final = 20

_decode: Final = msgspec.json.Decoder(Acknowledged).decode


class DemoError(Exception):
    """The demo cannot show what it wants to show; says why."""


def kill_after(path: Path, acknowledgements: int) -> list[Acknowledged]:
    """Run the orchestrator and SIGKILL it once it has told of so many durable events.

    Returns:
        Everything it told, also what was in the pipe when it died.
    """
    heard: list[Acknowledged] = []
    with _start("orchestrate", path) as process:
        for line in _output(process):
            if not line.endswith(b"\n"):
                break  # it died while saying it
            heard.append(_decode(line))
            if len(heard) == acknowledgements:
                process.kill()
    if process.returncode != -signal.SIGKILL:
        raise DemoError(f"the orchestrator ended by itself, with {process.returncode}")
    return heard


def tear(path: Path) -> tuple[es.Finding, list[Acknowledged]]:
    """SIGKILL a writer in the middle of one large append, until the log really has a torn end.

    A kill may come too late: then the append is in the log as a whole, which is as good, and the
    next writer gets its turn.

    Returns:
        The torn end, and what was acknowledged by writers that were too quick.
    """
    heard: list[Acknowledged] = []
    for _ in range(_TRIES_MAX):
        with _start("import", path) as process:
            output = _output(process)
            if output.readline() != READY:
                raise DemoError("the importing writer could not open the log")
            size = path.stat().st_size
            while path.stat().st_size == size and process.poll() is None:
                pass  # no sleep: the whole write takes a few milliseconds
            process.kill()
            heard += [_decode(line) for line in output if line.endswith(b"\n")]
        for finding in es.verify_log(path).findings:
            if finding.severity == "torn":
                return finding, heard
    raise DemoError(f"no torn end after {_TRIES_MAX} kills; this disk is too fast for the demo")


def _start(role: str, path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "projections.cli.demo", role, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - this program itself


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout
