"""Run ids and the names that become file names."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore._errors import RunContextError
from eventstore._runs._layout import RunLayout, check_file_name, run_of_directory
from eventstore._runs._run_ids import (
    check_run_id,
    is_run_id,
    run_id_candidates,
    run_started_at,
)
from tests.runs.conftest import NOON_ID, NOON_NS

HOSTILE_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "../../evil",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a..b",
    "a.",
    ".hidden",
    "-rf",
    "_x",
    "a b",
    "a\n",
    "a\x00",
    "a:b",
    "a%2fb",
    "CON",
    "nul.log",
    "Com1.txt",
    "\u0430bc",
    "\uff41",
    "a\u202e",
    "x" * 101,
]


def test_the_original_s_format_is_kept() -> None:
    """An id is the start's UTC time to the millisecond, cut, not rounded."""
    assert next(run_id_candidates(NOON_NS)) == NOON_ID
    assert next(run_id_candidates(0)) == "1970-01-01_00-00-00.000Z"
    assert next(run_id_candidates(-1)) == "1969-12-31_23-59-59.999Z"


def test_a_millisecond_has_a_hundred_ids() -> None:
    """The id without a suffix comes first, then -01 to -99, and then none."""
    ids = list(run_id_candidates(NOON_NS))
    assert ids == [NOON_ID, *(f"{NOON_ID}-{suffix:02}" for suffix in range(1, 100))]


@given(st.lists(st.integers(0, 4_102_444_800_000), min_size=2, max_size=2, unique=True))
def test_text_order_is_time_order(milliseconds: list[int]) -> None:
    """Ids sort as their times do, every suffix before the next millisecond."""
    earlier, later = sorted(milliseconds)
    early = list(run_id_candidates(earlier * 1_000_000))
    assert early == sorted(early)
    assert early[-1] < next(run_id_candidates(later * 1_000_000))


@given(st.integers(0, 4_102_444_800_000), st.integers(0, 99))
def test_an_id_names_its_moment(milliseconds: int, suffix: int) -> None:
    """Every id that is made is valid and gives its millisecond back."""
    run_id = next(itertools.islice(run_id_candidates(milliseconds * 1_000_000), suffix, None))
    assert check_run_id(run_id) == run_id
    moment = run_started_at(run_id)
    assert round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000) == milliseconds


@pytest.mark.parametrize(
    "text",
    [
        *HOSTILE_NAMES,
        f"{NOON_ID}\n",
        f" {NOON_ID}",
        f"{NOON_ID}-00",
        f"{NOON_ID}-1",
        f"{NOON_ID}-100",
        f"{NOON_ID}-01-01",
        f"{NOON_ID}/..",
        NOON_ID.lower(),
        NOON_ID.replace("2026", "\u0662026"),
        NOON_ID.replace("2026", "\u0662\u0660\u0662\u0666"),
        NOON_ID.replace("-11-", "-13-"),
        NOON_ID.replace("11-21", "02-29"),
        NOON_ID.replace("_00-", "_24-"),
        NOON_ID.replace(".254", ""),
        NOON_ID.replace(".254", ".254876"),
        NOON_ID.replace("_", "T"),
    ],
)
def test_anything_else_is_no_run_id(text: str) -> None:
    """A text that is not exactly an id of a moment the calendar knows is refused."""
    assert not is_run_id(text)
    with pytest.raises(RunContextError, match="not a run id"):
        check_run_id(text)
    assert run_of_directory(f"logs-{text}") is None


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_is_refused(name: str) -> None:
    """What could leave the directory, hide, or become a device is no phase and no provider log."""
    layout = RunLayout(NOON_ID)
    with pytest.raises(RunContextError, match="cannot be a file name"):
        layout.agent_log(name, 1, None)
    with pytest.raises(RunContextError, match="cannot be a file name"):
        layout.provider_log(name)


@given(st.text(max_size=12))
def test_an_allowed_name_stays_in_its_directory(name: str) -> None:
    """Whatever passes the check is one plain ASCII path part."""
    try:
        check_file_name(name, what="name")
    except RunContextError:
        return
    assert re.fullmatch(r"[A-Za-z0-9._-]+", name, re.ASCII)
    assert not name.startswith(".")


@pytest.mark.parametrize(
    ("phase", "iteration", "attempt", "file"),
    [
        ("planning", 1, None, "planning_1.log"),
        ("reviewer_fix", 2, 0, "reviewer_fix_2_a0.log"),
        ("commit", 4_294_967_295, 3, "commit_4294967295_a3.log"),
    ],
)
def test_agent_logs_are_named_as_the_original_s(
    phase: str, iteration: int, attempt: int | None, file: str
) -> None:
    """Phase, iteration and attempt make the name; attempt 0 has a suffix, no attempt has none."""
    layout = RunLayout(NOON_ID)
    name = layout.agent_log(phase, iteration, attempt)
    assert name == f".agent/logs-{NOON_ID}/agents/{file}"
    assert layout.log_name(f"agents/{file}") == name


@pytest.mark.parametrize(("iteration", "attempt"), [(-1, None), (2**32, None), (1, -1)])
def test_a_number_out_of_range_names_no_log(iteration: int, attempt: int | None) -> None:
    """Iterations and attempts are unsigned 32-bit integers."""
    with pytest.raises(RunContextError, match="not between"):
        RunLayout(NOON_ID).agent_log("dev", iteration, attempt)


@pytest.mark.parametrize(
    ("existing", "attempt"),
    [
        ([], 0),
        (["dev_1.log"], 1),
        (["dev_1_a0.log"], 1),
        (["dev_1.log", "dev_1_a1.log", "dev_1_a7.log"], 8),
        (["dev_1_a2.log"], 3),
        (["dev_11.log", "dev_1_1.log", "xdev_1.log", "dev_1.log.bak", "dev_1_a01.log"], 0),
        (["dev_1_a2.txt", "dev_1_a.log", "dev_1_a-3.log", "dev_1_ax.log"], 0),
    ],
)
def test_the_next_attempt_comes_after_all_that_exist(existing: list[str], attempt: int) -> None:
    """Only the same phase and iteration count, and no attempt is ever taken twice."""
    assert RunLayout(NOON_ID).next_attempt("dev", 1, existing=existing) == attempt


@pytest.mark.parametrize(
    "within",
    [
        "",
        ".",
        "run.json",
        "event_loop.log",
        "agents",
        "agents/",
        "agents/../pipeline.log",
        "agents/dev.log",
        "agents/dev_01.log",
        "agents/sub/dev_1.log",
        "provider/../run.json",
        "provider/a/b",
        "debug/x.log",
        "pipeline.log/x",
        "pipeline.log\n",
    ],
)
def test_only_logs_are_opened_as_logs(within: str) -> None:
    """A path that no method gives is refused, metadata and the event-loop log included."""
    with pytest.raises(RunContextError, match="nothing"):
        RunLayout(NOON_ID).log_name(within)
