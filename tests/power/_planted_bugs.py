"""Bugs that only a power cut shows, to see that these do."""

from __future__ import annotations

from typing import Final

import pytest

from tests._mutants import Mutant
from tests.crash._planted_bugs import MUTANTS
from tests.power._campaign import PROVES

__all__ = ["NO_DIRECTORY_SYNC", "NO_SYNC", "SYNC_AGAIN", "only_in_campaigns"]

only_in_campaigns: Final = pytest.mark.skipif(
    not PROVES, reason="this bug is planted with LOOPLEDGER_PROVE=1 only"
)

_KNOWN: Final = {mutant.name: mutant for mutant in MUTANTS}
_OPENED_TO_SYNC: Final = (
    "        handle = os.open(self.path(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)\n"
)

NO_SYNC: Final = _KNOWN["a commit is acknowledged without its sync"]
SYNC_AGAIN: Final = _KNOWN["a failed sync is tried again"]
NO_DIRECTORY_SYNC: Final = Mutant(
    "the log's directory is never synced",
    "_files.py",
    _OPENED_TO_SYNC,
    f"        return\n{_OPENED_TO_SYNC}",
)
