"""Power cuts on a file system that forgets what was not synced, directory entries too.

Real processes and threads and real system calls, on a file system in user space (FUSE) that leaves
after a cut whatever the format's assumptions allow. With LOOPLEDGER_PROVE=1 there are 300 cuts,
otherwise a handful; LOOPLEDGER_POWER_CUTS says another number. It needs root, Linux and /dev/fuse,
and no library.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests._mutants import Mutant, planted
from tests.power._campaign import CREW_SIZE, CUTS, Campaign, LossError
from tests.power._crew import Crew, open_crew
from tests.power._fuse_machine import open_fuse_machine, why_no_fuse_machine
from tests.power._planted_bugs import NO_DIRECTORY_SYNC, NO_SYNC, SYNC_AGAIN, only_in_campaigns

_CUTS_TO_NOTICE = 60


@pytest.fixture
def directory(probed: Path, tmp_path: Path) -> Path:
    """Where to mount; skips, with the reason, where nothing can be mounted."""
    reason = why_no_fuse_machine(probed)
    if reason is not None:
        pytest.skip(reason)
    return tmp_path / "mounted"


@pytest.mark.parametrize("syncs_fail", [False, True], ids=["sound disk", "failing syncs"])
def test_a_power_cut_takes_nothing_that_was_acknowledged(
    directory: Path,
    crew: Crew,
    syncs_fail: bool,
    record_property: Callable[[str, object], None],
) -> None:
    """Whatever subset of the unsynced bytes and entries is left, and after failed syncs too."""
    with open_fuse_machine(directory, syncs_fail=syncs_fail) as machine:
        totals = Campaign(machine, crew, is_faulty=syncs_fail).run(CUTS)
    record_property("cases", totals.cuts)
    record_property("acknowledged", totals.acknowledged)
    assert totals.cuts == CUTS
    assert totals.acknowledged > 0


@pytest.mark.parametrize(
    "bug",
    [pytest.param(NO_SYNC, marks=only_in_campaigns), NO_DIRECTORY_SYNC, SYNC_AGAIN],
    ids=lambda mutant: mutant.name,
)
def test_a_planted_bug_is_noticed(directory: Path, bug: Mutant) -> None:
    """The cuts have teeth: each of these bugs loses something that was acknowledged."""
    syncs_fail = bug is SYNC_AGAIN
    with (
        planted(bug) as root,
        open_fuse_machine(directory, syncs_fail=syncs_fail) as machine,
        open_crew(CREW_SIZE, root) as crew,
        pytest.raises(LossError),
    ):
        Campaign(machine, crew, is_faulty=syncs_fail, new_log_share=0.5).run(_CUTS_TO_NOTICE)
