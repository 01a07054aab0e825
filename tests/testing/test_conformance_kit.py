"""The conformance suite over a backend of somebody else: it passes, and it finds each fault."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import anyio
import pytest

from projections.testing import OpenLog, StoreConformance
from tests.testing._toy_store import ToyLog

CONTRACT: Final = [name for name in dir(StoreConformance) if name.startswith("test_")]

FOUND_BY: Final = {
    "accepts any expected version": {
        "an_exact_version_is_compared",
        "of_many_writers_with_one_belief_one_wins",
        "the_named_expectations_are_kept",
    },
    "checks before it waits": {
        "an_append_with_a_known_key_gives_its_first_result",
        "of_many_writers_with_one_belief_one_wins",
    },
    "counts conflicts one too high": {"an_exact_version_is_compared"},
    "forgets data": {"every_event_reads_back_as_it_was_appended"},
    "forgets keys": {
        "a_key_with_other_events_is_refused",
        "an_append_with_a_known_key_gives_its_first_result",
        "of_many_retries_at_once_one_is_recorded",
    },
    "forgets to compare a key's events": {"a_key_with_other_events_is_refused"},
    "shares keys between streams": {"a_key_is_a_streams_own"},
    "records one by one": {"a_cancelled_append_is_recorded_whole_or_not_at_all"},
    "refuses nothing": {"what_cannot_be_recorded_is_refused_whole"},
    "reads one too many": {
        "a_scan_gives_the_pages_of_what_reading_gives",
        "reading_a_stream_is_slicing_its_events",
        "reading_the_log_is_slicing_its_events",
    },
    "scans forwards only": {
        "a_scan_gives_the_pages_of_what_reading_gives",
        "a_scan_may_stop_early_and_what_it_raises_is_the_callers",
    },
    "gives naive timestamps": {"an_event_without_a_timestamp_gets_one"},
    "loses the newest event on closing": {
        "many_subscribers_see_the_same_while_others_write",
        "of_many_writers_with_one_belief_one_wins",
        "what_was_acknowledged_is_there_after_reopening",
    },
    "sends what comes twice": {
        "a_subscriber_goes_on_from_its_checkpoint",
        "a_subscriber_sees_the_past_and_then_what_comes",
        "many_subscribers_see_the_same_while_others_write",
    },
    "misses what came while it read": {
        "a_subscriber_sees_the_past_and_then_what_comes",
        "many_subscribers_see_the_same_while_others_write",
    },
}
"""Mistakes that somebody has made, and the promises they break."""


@pytest.mark.anyio
class TestToyStore(StoreConformance):
    """A backend that shares nothing with ours but the protocol."""

    @pytest.fixture
    def open_log(self) -> OpenLog:
        """Open one log of lists."""
        return ToyLog().open


class _Impatient(StoreConformance):
    stuck_seconds = 0.2  # nothing in the toy store takes time


def _failed(fault: str) -> set[str]:
    failed: set[str] = set()
    for name in CONTRACT:
        test: Callable[..., Any] = getattr(_Impatient(), name)
        try:
            anyio.run(functools.partial(test, ToyLog(fault).open))
        except Exception:  # noqa: BLE001 - however it fails, it is found
            failed.add(name.removeprefix("test_"))
    return failed


@pytest.mark.parametrize("fault", FOUND_BY)
def test_each_fault_of_a_backend_is_found_by_what_it_breaks(fault: str) -> None:
    """A planted fault fails the tests that promise the opposite, and no others."""
    assert _failed(fault) == FOUND_BY[fault]
