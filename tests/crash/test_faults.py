"""Every call of the seam fails once, then for ever, in every way a system has."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.crash._faults import FAULTS, Fault, sweep


@pytest.mark.parametrize("after_failure", [False, True], ids=["fresh", "after-a-failed-sync"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_append_ends_in_one_of_three_ways(
    fault: Fault, after_failure: bool, record_property: Callable[[str, object], None]
) -> None:
    """Acknowledged is there after a power cut, rejected is not, unknown is whole or absent."""
    calls = sweep(fault, after_failure=after_failure)
    assert calls >= 10
    record_property("cases", calls)
