"""The checks have teeth: a bug that is planted in the engine is noticed.

With LOOPLEDGER_PROVE=1 all of them are planted, otherwise a sample.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import pytest

from tests._mutants import Mutant
from tests.crash._mutants import killer_of
from tests.crash._planted_bugs import MUTANTS

_SAMPLE: Final = 10
_STEP: Final = 1 if os.environ.get("LOOPLEDGER_PROVE") else len(MUTANTS) // _SAMPLE


@pytest.mark.parametrize("mutant", MUTANTS[::_STEP], ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_noticed(
    mutant: Mutant, record_property: Callable[[str, object], None]
) -> None:
    """A workload, a fault or a step of its own shows what the change breaks."""
    killer = killer_of(mutant)
    assert killer is not None
    record_property("planted", mutant.name)
    record_property("killer", killer.partition(":")[0])
