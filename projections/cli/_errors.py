"""What went wrong, said in three lines (what and where, why, what next), and the exit codes."""

from __future__ import annotations

import contextlib
import enum
import os
import sys
from collections.abc import Callable
from pathlib import Path

from eventstore import (
    CorruptLogError,
    EventStoreError,
    StoreBusyError,
    StoreUnavailableError,
)
from projections.cli._streams import OutputError, complain, discard, guard_streams
from projections.cli._text import clean, command_line

__all__ = ["CliError", "ExitCode", "explain", "refuse_missing", "until_stopped"]


class ExitCode(enum.IntEnum):
    """How a command ended. The meanings are stable."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_SOUND = 4
    BUSY = 5
    EXTRA_MISSING = 7
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class CliError(Exception):
    """An end that is not a bug.

    Attributes:
        code: stable name of the error, `E-…`.
        exit_code: what the process exits with.
        next_step: what to do about it.
    """

    def __init__(self, code: str, message: str, *, exit_code: ExitCode, next_step: str) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = exit_code
        self.next_step = next_step

    def show(self) -> None:
        """Print it on stderr."""
        complain(f"error[{self.code}] {clean(str(self))}")
        if self.next_step:
            complain(f"  next   {clean(self.next_step)}")


def until_stopped(work: Callable[[], int]) -> int:
    """Do something that prints, and make an exit code of Ctrl-C and of output that is lost."""
    guard_streams()
    try:
        code = work()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        discard(sys.stdout)
        return ExitCode.PIPE_CLOSED
    except OutputError as error:
        discard(sys.stdout)
        complain(f"error[E-OUTPUT] {error}")
        return ExitCode.FAILED
    return code


def explain(error: EventStoreError, path: str) -> CliError:
    """Turn an error of the store into what a person at a terminal needs."""
    match error:
        case StoreUnavailableError():
            next_step = _what_to_name(path)
            return CliError("E-PATH", str(error), exit_code=ExitCode.NOT_FOUND, next_step=next_step)
        case StoreBusyError():
            next_step = "try again; if that process is stuck, end it: its lock ends with it"
            return CliError("E-LOCK", str(error), exit_code=ExitCode.BUSY, next_step=next_step)
        case CorruptLogError():
            next_step = command_line("verify", path)
            return CliError(
                "E-DAMAGE", str(error), exit_code=ExitCode.NOT_SOUND, next_step=next_step
            )
        case _:
            return CliError("E-STORE", str(error), exit_code=ExitCode.FAILED, next_step="")


def refuse_missing(path: str) -> None:
    """Refuse a log that is not there; a reader takes it for an empty one.

    Raises:
        StoreUnavailableError: it is not there, or the system does not say whether it is.
    """
    try:
        Path(path).stat()
    except FileNotFoundError as error:
        raise StoreUnavailableError(path=path, reason="there is no such file") from error
    except OSError as error:
        raise StoreUnavailableError(path=path, reason=f"{error.strerror}") from error


def _what_to_name(path: str) -> str:
    there = Path(path)
    with contextlib.suppress(OSError):  # no advice is worth an error of its own
        if there.is_symlink():
            target = os.path.realpath(path)
            if not Path(target).is_symlink():  # else it leads to itself
                return f"name the file it leads to: {target}"
        elif there.is_dir():
            logs = sorted(entry.name for entry in there.glob("*.jsonl"))
            return f"name the file in it: {there / logs[0]}" if logs else "name a .jsonl file"
    return "name the .jsonl file that is written to"
