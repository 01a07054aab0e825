"""`loopledger schema` and `loopledger check-types`: today's events and yesterday's log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

import eventstore as es

ROOT = Path(__file__).parent.parent
EVENTS = '''
import eventstore as es

class Paid(es.Event):
    """Money came in."""
    amount: int
    currency: str = "EUR"

class Refunded(es.Event):
    amount: int

def cents(fields):
    return {"amount": fields["cents"] // 100}

EVENTS = es.EventTypes[Paid | Refunded](Paid, Refunded, upcasts={"paid": cents})
LESS = es.EventTypes[Paid | Refunded](Paid)
CUSTOM = 3
'''


class Paid(es.Event):
    """As it was written once."""

    cents: int | str


class Hostile(es.Event, tag="evil\x1b[2J\u202e"):
    """A kind whose name drives a terminal."""


def _run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "projections.cli", *arguments],
        env={**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with a program's events, and a log of earlier days."""
    (tmp_path / "mine.py").write_text(EVENTS, encoding="utf-8")
    return tmp_path


def _write(directory: Path, *events: Paid | Hostile | es.MergeQueued) -> Path:
    path = directory / "history.jsonl"
    types = es.EventTypes[Paid | Hostile | es.MergeQueued](Paid, Hostile, es.MergeQueued)

    async def write() -> None:
        async with es.open_store(path, types=types) as store:
            await store.append("till", events, expected_version=es.ANY)

    anyio.run(write)
    return path


# --- check-types ---


def test_a_log_that_todays_code_reads_is_all_right(directory: Path) -> None:
    """Upcasts count as reading; what nobody registered is told, and is no failure."""
    log = _write(directory, Paid(cents=100), Hostile(), Paid(cents=200))
    done = _run("check-types", log, "mine:EVENTS", cwd=directory)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines == [
        (
            f"{log}: 3 events of 2 kinds; 2 of registered kinds fit, "
            "1 of kinds nobody registered, read as Unknown"
        ),
        "events unknown kind",
        "2 0 paid",
        r"1 1 evil\x1b[2J\u202e (not registered)",
    ]


def test_a_log_of_kinds_that_nobody_registered_does_not_fit_all(directory: Path) -> None:
    """Nothing was checked, so nothing is said to fit."""
    log = _write(directory, Hostile(), Hostile())
    done = _run("check-types", log, "mine:EVENTS", cwd=directory)
    assert (done.returncode, done.stderr) == (0, "")
    first = done.stdout.splitlines()[0]
    assert first == f"{log}: 2 events of 1 kind; 2 of kinds nobody registered, read as Unknown"


@pytest.mark.parametrize("content", [b"", b"\0\xff garbage\n", b"[1]\n{}\n"])
def test_a_file_without_events_is_said_to_have_none(directory: Path, content: bytes) -> None:
    """One line, and no table of nothing."""
    log = directory / "history.jsonl"
    log.write_bytes(content)
    done = _run("check-types", log, "mine:EVENTS", cwd=directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{log}: no events, so there is nothing to check\n"


def test_events_that_do_not_fit_fail_the_check_and_are_explained(directory: Path) -> None:
    """For CI: exit code 4, and per kind how many, where the first is, and why."""
    log = _write(directory, Paid(cents=100), Paid(cents="many"), Paid(cents="more"))
    done = _run("check-types", log, "mine:EVENTS", cwd=directory)
    assert (done.returncode, done.stderr) == (4, "")
    assert "3 events of 1 kind; 2 events of known kinds cannot be read" in done.stdout
    assert "2 events, the first at position 2: it does not fit Paid: Object missing" in done.stdout
    assert "after 1 upcasts: TypeError" in done.stdout


def test_the_report_for_programs_holds_the_same(directory: Path) -> None:
    """One JSON object on one line."""
    log = _write(directory, Paid(cents="many"), Hostile())
    done = _run("check-types", log, "mine:EVENTS", "--json", cwd=directory)
    assert done.returncode == 4
    report = json.loads(done.stdout)
    assert (report["schema"], report["fits"]) == ("loopledger.check-types/1", False)
    paid, hostile = report["kinds"]
    assert (paid["kind"], paid["known"], paid["events"], paid["unknown"]) == ("paid", True, 1, 1)
    assert [(reason["position"], reason["events"]) for reason in paid["reasons"]] == [(1, 1)]
    assert (hostile["known"], hostile["unknown"]) == (False, 1)


def test_without_types_the_twelve_kinds_are_checked(directory: Path) -> None:
    """So it works on a log of ralph's as it stands."""
    log = _write(directory, es.MergeQueued())
    done = _run("check-types", log, cwd=directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 event of 1 kind; all fit" in done.stdout


def test_a_log_that_is_not_there_is_an_error_of_its_own(directory: Path) -> None:
    """It has its own exit code, and nothing is created."""
    done = _run("check-types", "missing.jsonl", "mine:EVENTS", cwd=directory)
    assert done.returncode == 3
    assert "no such file" in done.stderr
    assert not (directory / "missing.jsonl").exists()


def test_damage_in_the_log_is_told_behind_the_report(directory: Path) -> None:
    """What can be read is checked, and the exit code is that of a log that is not sound."""
    log = _write(directory, Paid(cents=100))
    _write(directory, Paid(cents=200), Paid(cents=300))
    log.write_bytes(log.read_bytes().replace(b"100", b"700", 1))
    done = _run("check-types", log, "mine:EVENTS", cwd=directory)
    assert done.returncode == 4
    assert "2 events of 1 kind; all fit" in done.stdout
    assert "error[E-DAMAGE]" in done.stderr


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("mine", "'mine' is not of the form module:NAME"),
        (":EVENTS", "is not of the form"),
        ("nowhere:EVENTS", "ModuleNotFoundError: No module named 'nowhere'"),
        ("mine:NOTHING", "AttributeError"),
        ("mine:CUSTOM", "is of type int, not EventTypes"),
        ("mine:LESS", "EventTypesError: EventTypes and its union differ: Refunded missing"),
        ("evil\x1b[2J:X", r"evil\x1b[2J"),
    ],
)
def test_types_that_cannot_be_found_are_an_error_of_the_command_line(
    directory: Path, reference: str, message: str
) -> None:
    """It says what was wrong with the name and what a right one looks like."""
    done = _run("schema", reference, cwd=directory)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error[E-TYPES]" in done.stderr
    assert message in done.stderr
    assert "my_program.events:EVENTS" in done.stderr


# --- schema ---


def test_the_schema_describes_every_kind(directory: Path) -> None:
    """One definition per class, told apart by `kind`; docstrings and defaults are in it."""
    done = _run("schema", "mine:EVENTS", cwd=directory)
    assert (done.returncode, done.stderr) == (0, "")
    schema = json.loads(done.stdout)
    assert schema["discriminator"]["propertyName"] == "kind"
    assert set(schema["$defs"]) == {"Paid", "Refunded"}
    paid = schema["$defs"]["Paid"]
    assert paid["properties"]["kind"] == {"enum": ["paid"]}
    assert paid["properties"]["currency"] == {"type": "string", "default": "EUR"}
    assert (paid["required"], paid["description"]) == (["kind", "amount"], "Money came in.")


def test_the_schema_of_one_kind_is_that_class(directory: Path) -> None:
    """Without types it is one of the twelve; an unknown one is refused with those there are."""
    done = _run("schema", "--kind", "iteration_completed", cwd=directory)
    assert json.loads(done.stdout)["$ref"] == "#/$defs/IterationCompleted"
    done = _run("schema", "mine:EVENTS", "--kind", "bill", cwd=directory)
    assert done.returncode == 2
    assert "'bill' is not registered" in done.stderr
    assert "paid, refunded" in done.stderr


def test_show_counts_events_of_unknown_kinds(directory: Path) -> None:
    """An operator sees that there is more in the log than `show` understands."""
    log = _write(directory, Paid(cents=100), es.MergeQueued(), Hostile())
    done = _run("show", log, cwd=directory)
    assert "unknown" in done.stdout
    assert "2 events; loopledger check-types says which" in done.stdout
    assert json.loads(_run("show", log, "--json", cwd=directory).stdout)["unknown"] == 2
