"""Planted bugs: one change at a time in a copy of the engine, and whether a check notices.

Run it to see the whole list: `python -m tests.crash._mutants`; with numbers, only those. It runs
the checks in this process, on whatever `eventstore` is imported, if it is called with `--check`.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from typing import Final

import pytest

from eventstore import EventStoreError
from tests.crash import test_single_steps
from tests.crash._checker import ViolationError, check_seed
from tests.crash._faults import FAULTS, Fault, FaultError, sweep
from tests.crash._planted_bugs import MUTANTS, Mutant
from tests.crash._planting import planted
from tests.crash._workloads import PROFILES
from tests.recovery import test_index_files

__all__ = ["killer_of"]

_STATES_PER_POINT: Final = 20
_SEEDS: Final = 36
_SURVIVED: Final = "survived"


def killer_of(mutant: Mutant) -> str | None:
    """The first check that notices a planted bug, or None."""
    with planted(mutant) as directory:
        done = subprocess.run(
            [sys.executable, "-m", "tests.crash._mutants", "--check"],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
    verdict = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]
    return None if verdict == _SURVIVED else verdict


def _check() -> str:
    """Run the checks until one fails; return its name."""
    logging.getLogger("eventstore").disabled = True
    for name, test in _plain_tests():
        try:
            test()
        except (AssertionError, EventStoreError, OSError, pytest.fail.Exception) as error:
            return f"{name}: {str(error).splitlines()[:1]}"
    # What notices most, soonest, first.
    return (
        _sweep(FAULTS[:1])
        or _seeds(range(len(PROFILES)))
        or _sweep(FAULTS[1:])
        or _seeds(range(len(PROFILES), _SEEDS))
        or _SURVIVED
    )


def _plain_tests() -> Iterator[tuple[str, Callable[[], None]]]:
    """Tests that need nothing of pytest."""
    for module in (test_single_steps, test_index_files):
        for name, test in vars(module).items():
            if name.startswith("test_") and not signature(test).parameters:
                yield name, test


def _sweep(faults: Sequence[Fault]) -> str | None:
    for fault in faults:
        for after_failure in (False, True):
            try:
                sweep(fault, after_failure=after_failure)
            except FaultError as error:
                return f"test_faults: {str(error).splitlines()[0]:.110}"
    return None


def _seeds(seeds: range) -> str | None:
    for seed in seeds:
        try:
            check_seed(seed, states_per_point=_STATES_PER_POINT)
        except ViolationError as error:
            return f"test_crash_states, seed {seed}: {str(error).splitlines()[0]:.110}"
    return None


def main(arguments: list[str]) -> int:
    """Print each planted bug and its killer; return how many survived."""
    if arguments == ["--check"]:
        sys.stdout.write(f"{_check()}\n")
        return 0
    survivors = 0
    for number, mutant in enumerate(MUTANTS):
        if arguments and str(number) not in arguments:
            continue
        started = time.monotonic()
        killer = killer_of(mutant)
        survivors += killer is None
        seconds = time.monotonic() - started
        verdict = killer or "SURVIVED"
        sys.stdout.write(f"{number:3} {seconds:5.1f} s  {mutant.file}: {mutant.name}: {verdict}\n")
        sys.stdout.flush()
    return survivors


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
