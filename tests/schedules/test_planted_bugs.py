"""The schedules have teeth: a bug that is planted in the engine is noticed.

With LOOPLEDGER_PROVE=1 all of them are planted, otherwise a few.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests._mutants import Mutant
from tests.real._effort import PROVES
from tests.schedules._planted_bugs import MUTANTS, killer_of

_FEW: Final = 3


@pytest.mark.parametrize(
    "mutant", MUTANTS if PROVES else MUTANTS[:_FEW], ids=lambda mutant: mutant.name
)
def test_a_planted_bug_is_noticed(mutant: Mutant) -> None:
    """Some order of tasks shows what the change breaks."""
    assert killer_of(mutant) is not None
