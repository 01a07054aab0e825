"""The commands, and how each ending becomes an exit code."""

from __future__ import annotations

import contextlib
import logging
import math
import traceback
from collections.abc import Generator, Sequence
from functools import partial

import click

from eventstore import EventStoreError
from projections.cli._errors import CliError, ExitCode, explain, until_stopped
from projections.cli._streams import OutputError, complain
from projections.cli._text import clean

__all__ = ["run"]

_PATH = click.argument("path", type=click.Path())
_TYPES = click.argument("types", metavar="[TYPES]", required=False)
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="loopledger", prog_name="loopledger")
def _cli() -> None:
    """Look at loop histories. Nothing here writes to them but `repair --apply`.

    Exit codes: 0 all is well, 1 a bug of ours or output that could not be written, 2 usage, 3 no
    log there, 4 not sound, 5 locked, 7 extra missing, 130 Ctrl-C, 141 the reader went away.
    """


@_cli.command("show")
@_PATH
@_JSON
def _show(path: str, *, as_json: bool) -> ExitCode:
    """Print the loops of the history at PATH, and each one's summary.

    PATH is a history.jsonl, also one that ralph wrote. With --json, one object per loop and line.
    """
    from projections.cli._show import show

    with _explained(path):
        return show(path, as_json=as_json)


@_cli.command("resume")
@_PATH
@click.argument("loop")
@_JSON
def _resume(path: str, loop: str, *, as_json: bool) -> ExitCode:
    """Print where LOOP of the history at PATH was interrupted, and how to go on.

    LOOP is a stream of the log; a history that only ralph wrote has one, `main`. Tool calls of
    unknown outcome are listed: they may have run, and only you can find out. Nothing is written.
    """
    from projections.cli._resume import resume

    with _explained(path):
        return resume(path, loop, as_json=as_json)


@_cli.command("verify")
@_PATH
@click.option(
    "--checksums",
    is_flag=True,
    help="Compare checksums only: every byte, several times as fast; nothing is counted.",
)
@_JSON
def _verify(path: str, *, checksums: bool, as_json: bool) -> ExitCode:
    """Check every byte of the history at PATH; exit with 4 if it is not sound.

    Torn ends, lines nobody can read, changed or missing bytes are printed one per line: what, file,
    byte, position, reason. Void lines and a missing last LF are only noted.
    """
    from projections.cli._verify import verify

    with _explained(path):
        return verify(path, checksums_only=checksums, as_json=as_json)


@_cli.command("repair")
@_PATH
@click.option("--apply", is_flag=True, help="Do it; without this, only say what would be done.")
@click.option(
    "--into",
    type=click.Path(),
    metavar="DIR",
    help="Where the salvaged log goes: a new directory. Default: one beside PATH.",
)
@_JSON
def _repair(path: str, *, apply: bool, into: str | None, as_json: bool) -> ExitCode:
    """Say what a repair of the history at PATH would do; with --apply, do it.

    A torn end, which was never acknowledged, moves to the quarantine, as opening would do it. If
    acknowledged data is damaged, every undamaged event is copied into a new log, and PATH is not
    changed. Without --apply, exit with 4 if there is something to do.
    """
    from projections.cli._repair import repair

    with _explained(path):
        return repair(path, into=into, apply=apply, as_json=as_json)


def _finite(_context: click.Context, _option: click.Parameter, value: float) -> float:
    if math.isfinite(value):
        return value
    raise click.BadParameter(f"{value} is not a finite number.")


@_cli.command("prove")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    default=60.0,
    show_default=True,
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(),
    default=".",
    metavar="DIR",
    help="On which disk; a scratch directory is made there. Default: here.",
)
@_JSON
def _prove(seconds: float, directory: str, *, as_json: bool) -> ExitCode:
    """Kill writers on this machine for a while, and count what they lose: nothing.

    Three processes append to one log and are SIGKILLed again and again; whatever was acknowledged
    must be there when the log is opened again, also in copies cut as a power cut may cut it. Exit
    with 4 if anything is missing; the logs are then kept.
    """
    from projections.cli.prove._report import prove

    return prove(seconds=seconds, directory=directory, as_json=as_json)


@_cli.command("check-types")
@_PATH
@_TYPES
@_JSON
def _check_types(path: str, types: str | None, *, as_json: bool) -> ExitCode:
    """Read the history at PATH with today's event types; exit with 4 if an event does not fit.

    TYPES is module:NAME, the EventTypes your program gives to open_store; without it, the twelve
    kinds of a loop. Kinds nobody registered are counted, and are no failure.
    """
    from projections.cli._check_types import check_types
    from projections.cli._types import find_types

    with _explained(path):
        return check_types(path, find_types(types), as_json=as_json)


@_cli.command("schema")
@_TYPES
@click.option("--kind", help="Only this kind.")
def _schema(types: str | None, kind: str | None) -> ExitCode:
    """Print the JSON Schema of events, for programs in other languages.

    It describes the member `type` of a line. TYPES is module:NAME, an EventTypes; without it, the
    twelve kinds of a loop.
    """
    from projections.cli._schema import print_schema
    from projections.cli._types import find_types

    return print_schema(find_types(types), kind=kind)


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: without the program's name; none at all means `--help`.

    Returns:
        The exit code. Everything was said already.
    """
    # What the log has to say, uncleaned, is for programs: the commands print it themselves.
    logging.getLogger("eventstore").addHandler(logging.NullHandler())
    return until_stopped(partial(_run, list(arguments) or ["--help"]))


def _run(arguments: list[str]) -> int:
    try:
        return _invoke(arguments)
    except click.ClickException as error:
        message, next_step = error.format_message(), "loopledger --help"
        CliError("E-USAGE", message, exit_code=ExitCode.USAGE, next_step=next_step).show()
        return ExitCode.USAGE
    except CliError as error:
        error.show()
        return error.exit_code
    except (BrokenPipeError, OutputError):
        raise
    except Exception:  # noqa: BLE001 - a bug must not print what an agent wrote, uncleaned
        for line in traceback.format_exc().splitlines():
            complain(clean(line))
        complain("error[E-BUG] this is a bug in loopledger; please report it")
        return ExitCode.FAILED


def _invoke(arguments: list[str]) -> int:
    # Not `_cli.main`: it makes exit code 1 of a closed pipe.
    try:
        with _cli.make_context("loopledger", arguments) as context:
            code: int = _cli.invoke(context)
            return code
    except click.exceptions.Exit as exit_:
        return exit_.exit_code


@contextlib.contextmanager
def _explained(path: str) -> Generator[None]:
    """Say what an error of the store means for the file that was named."""
    try:
        yield
    except EventStoreError as error:
        raise explain(error, path) from error
