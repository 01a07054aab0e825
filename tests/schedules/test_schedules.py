"""Whatever order tasks run in, wherever they are cancelled and whichever call fails: no harm.

A failure prints the command that shows it again, step by step. How many seeds: see
`tests/real/_effort.py`.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

import pytest

from tests.real._effort import SCHEDULE_SECONDS
from tests.schedules._scenario import Schedule, check_seeds

_SEEDS_MIN: Final = 5_000
_BATCH: Final = 100
_CORES: Final = 2


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Two processes, without the engine's warnings."""
    with ProcessPoolExecutor(_CORES, get_context("spawn"), initializer=_be_quiet) as pool:
        yield pool


def test_no_order_of_tasks_breaks_a_promise(
    pool: ProcessPoolExecutor, record_property: Callable[[str, object], None]
) -> None:
    """At least 5,000 seeds: nothing acknowledged is lost, nothing withdrawn or refused is there."""
    until = time.monotonic() + SCHEDULE_SECONDS
    checked = 0
    firsts = itertools.count(0, _BATCH)
    while checked < _SEEDS_MIN or time.monotonic() < until:
        batches = [range(first, first + _BATCH) for first in itertools.islice(firsts, 10 * _CORES)]
        checked += sum(pool.map(check_seeds, batches))
    assert checked >= _SEEDS_MIN
    record_property("cases", checked)


def test_a_seed_takes_the_same_steps_in_every_process(pool: ProcessPoolExecutor) -> None:
    """A schedule depends on nothing but its seed: no clock, no hash, no address, no thread."""
    seeds = range(40)
    here = [_digest(seed) for seed in seeds]
    assert list(pool.map(_digest, seeds)) == here


def _digest(seed: int) -> str:
    schedule = Schedule(seed, shows_steps=True)
    schedule.check()
    assert len(schedule.trace) > 100
    return hashlib.sha256("\n".join(schedule.trace).encode()).hexdigest()


def _be_quiet() -> None:
    logging.getLogger("eventstore").disabled = True
