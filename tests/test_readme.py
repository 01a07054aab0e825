"""The README keeps its word: its code runs, its commands work, its names exist."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

import eventstore as es
import projections as pj

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def _example_under(heading: str) -> dict[str, Any]:
    """What the block of code under a heading of the read side defines."""
    section = README.split(f"### {heading}\n")[1]
    found = re.search(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found
    names: dict[str, Any] = {"es": es, "pj": pj}
    exec(compile(found[1], f"README.md, {heading}", "exec"), names)  # noqa: S102 - it is ours
    return names


def _run_example(directory: Path) -> str:
    script = directory / "example.py"
    script.write_text(_blocks("python")[0], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def test_the_complete_example_prints_what_the_readme_says(tmp_path: Path) -> None:
    """The first block of code runs as it stands, and its output is the block after it."""
    assert _run_example(tmp_path) == _blocks("text")[0]


def test_the_second_example_defines_a_store_of_its_own_events(tmp_path: Path) -> None:
    """The block with a user's own event is valid and registers both classes."""
    script = f"import eventstore as es\n{_blocks('python')[1]}\nprint(*MINE.by_kind)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "loop_started paid\n"


def test_the_example_of_a_read_model_prints_what_the_readme_says(tmp_path: Path) -> None:
    """A projector follows into a view and a database, and rebuilds both."""
    part = README.split("### Into SQLite")[1]
    script, said = re.findall(r"^```(?:python|text)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)[
        :2
    ]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == (said, "")


def test_the_example_of_a_driver_prints_what_the_readme_says(tmp_path: Path) -> None:
    """Run twice, as after a crash, the driver resumes and does not run its tool again."""
    part = README.split("### Tools run once")[1]
    script, said = re.findall(r"^```(?:python|text)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)[
        :2
    ]
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == (said, "")


def test_the_line_on_the_format_screen_has_the_members_of_a_real_one(tmp_path: Path) -> None:
    """The sample line's members and their order are those of the line the example wrote."""
    _run_example(tmp_path)
    lines = (tmp_path / "example-log" / "history.jsonl").read_bytes().splitlines()
    sample = json.loads(_blocks("json")[0])
    assert list(sample) == list(json.loads(lines[2]))
    assert list(sample["type"]) == ["kind", "iteration", "success"]


def test_the_example_of_deciding_starts_a_loop_and_then_resumes_it() -> None:
    """One call, twice: the first records a start, the second a resume."""

    async def run() -> list[str]:
        start_or_resume = _example_under("Decide")["start_or_resume"]
        async with es.memory_store() as store:
            assert await start_or_resume(store, "bright-otter") == 1
            assert await start_or_resume(store, "bright-otter") == 1
            return [recorded.kind async for recorded in store.read("bright-otter")]

    assert anyio.run(run) == ["loop_started", "loop_resumed"]


def test_the_example_of_travelling_finds_what_went_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It prints the event that failed first, and what changed since the first iteration."""
    events = [es.IterationCompleted(iteration=n, success=n != 2) for n in (1, 2, 3)]

    async def run() -> None:
        async with es.memory_store() as store:
            await store.append("bright-otter", events, expected_version=es.ANY)
            await _example_under("Travel")["what_went_wrong"](store, "bright-otter")

    anyio.run(run)
    assert capsys.readouterr().out.splitlines() == [
        "at position 2: IterationCompleted(iteration=2, success=False)",
        "iterations_completed: 1 -> 2",
        "iterations_failed: 0 -> 1",
    ]


def test_the_examples_of_tests_pass() -> None:
    """Each is run as a test; what they use is defined by the sections before."""

    class Paid(es.Event):
        amount: int

    names = _example_under("Test your own")
    names |= _example_under("Decide")
    names |= {"Paid": Paid}
    tests = [name for name in names if name.startswith("test_")]
    assert len(tests) == 4
    for name in tests:
        if inspect.iscoroutinefunction(names[name]):
            anyio.run(names[name])
        else:
            names[name]()


@pytest.mark.parametrize(
    ("payload", "currency"),
    [
        (b'{"kind":"paid","cents":150}', "EUR"),
        (b'{"kind":"paid","amount":1.5}', "EUR"),
        (b'{"kind":"payment","amount":1.5,"currency":"CHF"}', "CHF"),
    ],
)
def test_the_example_of_changed_events_reads_every_form(payload: bytes, currency: str) -> None:
    """Cents, an amount without a currency, and today's payload give the same event."""
    names = _example_under("Change your events")
    assert names["EVENTS"].decode(payload) == names["Payment"](amount=1.5, currency=currency)


COMMANDS = re.findall(r"^\$ ((?:jq|sed|sqlite3|duckdb) (?:.*\\\n)*.*)$", README, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command).split(maxsplit=1)[0])
def test_the_commands_on_the_format_screen_work(command: str, tmp_path: Path) -> None:
    """Each one runs on the example's log and finds something, if its tool is there."""
    tool = command.split(maxsplit=1)[0]
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    _run_example(tmp_path)
    command = command.replace("success == false", "success == true").replace("1236", "3")
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path / "example-log",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "bright-otter" in done.stdout or "iteration_started" in done.stdout


def test_every_name_the_readme_uses_exists() -> None:
    """Each `es.` and `pj.` name in the README is public."""
    names = set(re.findall(r"\b(es|pj)\.([A-Za-z_]+)", README))
    assert names
    for module, name in names:
        assert name in (es if module == "es" else pj).__all__, f"{module}.{name}"


def test_every_method_of_the_original_is_mapped_to_one_that_exists() -> None:
    """Each method named in the mapping table is one of `LoopHistory`."""
    table = README.split("## Coming from ralph")[1].split("## Limits")[0]
    names = set(
        re.findall(r"`(record_\w+|read_all|last_iteration|is_completed|get_prompt|summary)`", table)
    )
    assert len(names) == 12 + 5
    assert all(hasattr(pj.LoopHistory, name) for name in names)


def test_every_file_the_readme_links_to_exists() -> None:
    """No relative link leads nowhere."""
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)]+)\)", prose) if "://" not in link]
    assert links
    assert all((ROOT / link).exists() for link in links)
