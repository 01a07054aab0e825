"""Planted bugs: one change at a time in a copy of the engine, and whether a check notices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import tests

__all__ = ["ROOT", "SURVIVED", "Mutant", "killer_of", "planted", "run"]

SURVIVED: Final = "survived"
"""What a check returns that noticed nothing."""
ROOT: Final = Path(tests.__file__).resolve().parent.parent
"""Where the engine without planted bugs is imported from."""
_TIMEOUT_SECONDS: Final = 900


class Mutant(NamedTuple):
    """A planted bug: a text that stands once in a file of the log engine, and what replaces it."""

    name: str
    file: str
    old: str
    new: str


@contextmanager
def planted(mutant: Mutant) -> Generator[Path]:
    """A directory with the mutated `eventstore` and these `tests`, to be put on PYTHONPATH."""
    with tempfile.TemporaryDirectory(prefix="loopledger-mutant-") as name:
        directory = Path(name)
        shutil.copytree(ROOT / "eventstore", directory / "eventstore")
        (directory / "tests").symlink_to(ROOT / "tests")
        path = directory / "eventstore" / "_log" / mutant.file
        source = path.read_text(encoding="utf-8")
        assert source.count(mutant.old) == 1, f"{mutant.name}: not once in {mutant.file}"
        path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
        yield directory


def killer_of(mutant: Mutant, *, module: str) -> str | None:
    """The first check that notices a planted bug, or None.

    Args:
        mutant: the bug.
        module: run with `--check` where the copy is what is imported; see `run`.
    """
    with planted(mutant) as directory:
        done = subprocess.run(
            [sys.executable, "-m", module, "--check"],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )
    verdict = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]
    return None if verdict == SURVIVED else verdict


def run(
    arguments: Sequence[str],
    *,
    mutants: Sequence[Mutant],
    check: Callable[[], str],
    module: str,
) -> int:
    """The command of a module of planted bugs.

    Args:
        arguments: `--check` to run the checks on the `eventstore` that is imported; otherwise the
            numbers of the bugs to plant, or none for all.
        mutants: the bugs.
        check: runs the checks until one fails; returns its name, or `SURVIVED`.
        module: how the command is called.

    Returns:
        How many bugs nobody noticed.
    """
    if list(arguments) == ["--check"]:
        sys.stdout.write(f"{check()}\n")
        return 0
    survivors = 0
    for number, mutant in enumerate(mutants):
        if arguments and str(number) not in arguments:
            continue
        started = time.monotonic()
        killer = killer_of(mutant, module=module)
        survivors += killer is None
        seconds = time.monotonic() - started
        verdict = killer or "SURVIVED"
        sys.stdout.write(f"{number:3} {seconds:5.1f} s  {mutant.file}: {mutant.name}: {verdict}\n")
        sys.stdout.flush()
    return survivors
