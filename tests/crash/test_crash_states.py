"""A machine that stops at any moment, in any way the disk allows, loses nothing promised.

Each seed is one workload (see `PROFILES`). What is checked of each state stands in `_checker.py`.
Two processes are at it. A failure prints the command that shows it again.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Final

import pytest

from tests.crash._checker import check_seed
from tests.crash._workloads import PROFILES

_STATES_PER_POINT: Final = 20
_STATES_MIN: Final = 200_000
_CORES: Final = 2
_SECONDS: Final = float(os.environ.get("LOOPLEDGER_PROVE_SECONDS", "0"))
_SEEDS: Final = (
    *range(3 * len(PROFILES)),
    # A directory that nobody synced: a store followed the active file to a new inode.
    514,
    718,
)


def _name(seed: int) -> str:
    return f"{PROFILES[seed % len(PROFILES)].name}-{seed}"


def test_no_crash_breaks_a_promise(record_property: Callable[[str, object], None]) -> None:
    """Whatever a crash leaves, acknowledged and shown events are there, in whole commits."""
    with ProcessPoolExecutor(_CORES, get_context("spawn"), initializer=_be_quiet) as pool:
        checks = {seed: _check(pool, seed) for seed in _SEEDS}
        failures = {_name(seed): check.exception() for seed, check in checks.items()}
    assert not any(failures.values()), "\n".join(
        f"{name}: {failure}" for name, failure in failures.items() if failure
    )
    counts = [check.result() for check in checks.values()]
    assert min(counts) > 0
    assert sum(counts) >= _STATES_MIN
    record_property("cases", sum(counts))


@pytest.mark.skipif(not _SECONDS, reason="LOOPLEDGER_PROVE_SECONDS is not set")
def test_no_crash_breaks_a_promise_of_fresh_seeds(
    record_property: Callable[[str, object], None],
) -> None:
    """As above, of seeds that nobody has seen before, for as long as there is time."""
    end = time.monotonic() + _SECONDS
    seeds = itertools.count(secrets.randbits(40))
    checked = 0
    with ProcessPoolExecutor(_CORES, get_context("spawn"), initializer=_be_quiet) as pool:
        waiting = {_check(pool, next(seeds)) for _ in range(2 * _CORES)}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            checked += sum(future.result() for future in done)
            if time.monotonic() < end:
                waiting |= {_check(pool, next(seeds)) for _ in done}
    record_property("cases", checked)


def _check(pool: ProcessPoolExecutor, seed: int) -> Future[int]:
    return pool.submit(check_seed, seed, states_per_point=_STATES_PER_POINT)


def _be_quiet() -> None:
    logging.getLogger("eventstore").disabled = True
