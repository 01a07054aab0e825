"""How long the proofs by chance take: the one place to make a campaign of them.

`make test` takes the small figures. `LOOPLEDGER_PROVE=1` takes the large ones, and
`LOOPLEDGER_PROVE_SECONDS=3600` lets processes be killed, and race, and tasks be
ordered, for that long each.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["KILLS_MIN", "KILL_SECONDS", "PROVES", "RACE_SECONDS", "SCHEDULE_SECONDS"]

PROVES: Final = bool(os.environ.get("LOOPLEDGER_PROVE"))
_SECONDS: Final = os.environ.get("LOOPLEDGER_PROVE_SECONDS")

KILLS_MIN: Final = 300
"""This many kills, however long they take."""
KILL_SECONDS: Final = float(_SECONDS or (60 if PROVES else 0))
"""Rounds of kills go on until this many seconds are over."""
RACE_SECONDS: Final = float(_SECONDS or (30 if PROVES else 6))
"""How long sixteen processes race on one log."""
SCHEDULE_SECONDS: Final = float(_SECONDS or (60 if PROVES else 0))
"""Seeds of task orders go on until this many seconds are over; there are 5,000 at least."""
