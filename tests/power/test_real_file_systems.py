"""Power cuts on ext4 and XFS: image files, loop-mounted, and shut down while processes append.

With LOOPLEDGER_PROVE=1 there are 300 cuts on each, otherwise a handful; LOOPLEDGER_POWER_CUTS says
another number. They need root, Linux and loop devices, and say so where these are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests._mutants import planted
from tests.power._campaign import CREW_SIZE, CUTS, Campaign, LossError, Machine
from tests.power._crew import Crew, open_crew
from tests.power._loop_device import FileSystem, open_loop_machine, why_no_loop_machine
from tests.power._planted_bugs import NO_SYNC, only_in_campaigns

_CUTS_TO_NOTICE = 40


@pytest.fixture(params=["ext4", "xfs"])
def machine(request: pytest.FixtureRequest, probed: Path, tmp_path: Path) -> Iterator[Machine]:
    """A machine with a real file system; skips, with the reason, where there can be none."""
    kind: FileSystem = request.param
    reason = why_no_loop_machine(kind, probed)
    if reason is not None:
        pytest.skip(reason)
    with open_loop_machine(tmp_path, kind) as opened:
        yield opened


def test_a_power_cut_takes_nothing_that_was_acknowledged(
    machine: Machine, crew: Crew, record_property: Callable[[str, object], None]
) -> None:
    """Appends of several processes, synced or only written, sealing on the way, cut after cut."""
    totals = Campaign(machine, crew).run(CUTS)
    record_property("cases", totals.cuts)
    record_property("acknowledged", totals.acknowledged)
    assert totals.cuts == CUTS
    assert totals.acknowledged > 0


@only_in_campaigns
def test_a_commit_that_is_not_synced_is_missed(machine: Machine) -> None:
    """The cuts have teeth: with the sync of a commit left out, acknowledged events are lost."""
    with (
        planted(NO_SYNC) as root,
        open_crew(CREW_SIZE, root) as crew,
        pytest.raises(LossError, match="was acknowledged at position"),
    ):
        Campaign(machine, crew).run(_CUTS_TO_NOTICE)
