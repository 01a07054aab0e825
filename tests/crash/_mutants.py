"""Whether workloads, faults and single steps notice the planted bugs.

Run it to see the whole list: `python -m tests.crash._mutants`; with numbers, only those. It runs
the checks in this process, on whatever `eventstore` is imported, if it is called with `--check`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from typing import Final

import pytest

from eventstore import EventStoreError
from tests import _mutants
from tests._mutants import SURVIVED, Mutant
from tests.crash import test_single_steps
from tests.crash._checker import ViolationError, check_seed
from tests.crash._faults import FAULTS, Fault, FaultError, sweep
from tests.crash._planted_bugs import MUTANTS
from tests.crash._workloads import PROFILES
from tests.recovery import test_index_files

__all__ = ["killer_of"]

_MODULE: Final = "tests.crash._mutants"
_STATES_PER_POINT: Final = 20
_SEEDS: Final = 36


def killer_of(mutant: Mutant) -> str | None:
    """The first check that notices a planted bug, or None."""
    return _mutants.killer_of(mutant, module=_MODULE)


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
        or SURVIVED
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
    return _mutants.run(arguments, mutants=MUTANTS, check=_check, module=_MODULE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
