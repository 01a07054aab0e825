"""`loopledger show` and `loopledger verify`, as processes: what they print and how they end."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import anyio
import pytest
from rich.cells import cell_len

import eventstore as es
import projections as pj
from eventstore._log._lines import SUFFIX_BYTES
from projections.cli._errors import ExitCode
from projections.cli._text import clean

ROOT = Path(__file__).parent.parent
FOREIGN = ROOT / "tests" / "fixtures" / "foreign.jsonl"
HOSTILE = "\x1b]52;c;aGk=\x07 \x9b31m \u202eevil\u2028\u200b\ufeff\x00\x7f\n\r\tend"
DRIVES_A_TERMINAL = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)
STARTED = es.LoopStarted(prompt="implement auth")


def _run(
    *arguments: str | Path, columns: int = 100, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "projections.cli", *arguments],
        env=_environment(COLUMNS=str(columns), **environment),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _environment(**more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **more}


def _write(path: Path, streams: dict[str, Sequence[es.LoopEvent]]) -> Path:
    async def write() -> None:
        async with es.open_store(path) as store, anyio.create_task_group() as tasks:

            async def append(stream: str, events: Sequence[es.LoopEvent]) -> None:
                await store.append(stream, events, expected_version=es.ANY)

            for stream, events in streams.items():
                tasks.start_soon(append, stream, events)

    anyio.run(write)
    return path


def _iteration(number: int, *, success: bool = True) -> list[es.LoopEvent]:
    return [
        es.IterationStarted(iteration=number),
        es.IterationCompleted(iteration=number, success=success),
    ]


def _three_loops(path: Path) -> Path:
    done: list[es.LoopEvent] = [
        STARTED,
        *_iteration(1),
        *_iteration(2, success=False),
        es.LoopCompleted(reason="completion_promise"),
    ]
    return _write(
        path,
        {
            "bright-otter": [
                *done,
                es.MergeQueued(),
                es.MergeStarted(pid=7),
                es.MergeFailed(reason="conflict"),
            ],
            "calm-heron": [es.LoopStarted(prompt="long " * 100), *_iteration(1)],
            "quick-lynx": done,
        },
    )


# --- show ---


def test_show_prints_one_row_for_each_loop(tmp_path: Path) -> None:
    """The registry is a table: where each loop stands, how far it is, what it was asked."""
    done = _run("show", _three_loops(tmp_path / "history.jsonl"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 loops, 18 events" in done.stdout
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    begin = lines.index("loop state outcome last failed events prompt")
    otter, heron, lynx = lines[begin + 1 : begin + 4]
    assert otter == "bright-otter needs-review succeeded 2 1 9 implement auth"
    assert heron.startswith("calm-heron running running 1 0 3 long long")
    assert heron.endswith("…")
    assert lynx == "quick-lynx completed succeeded 2 1 6 implement auth"


def test_show_prints_the_summary_of_each_loop(tmp_path: Path) -> None:
    """Below the table each loop's summary stands, and where to resume a running one."""
    text = _run("show", _three_loops(tmp_path / "history.jsonl")).stdout
    otter, heron, _ = re.split(r"^(?=\w+-\w+ *$)", text, flags=re.MULTILINE)[1:]
    assert re.search(r"iterations +2 completed, 1 failed, 0 events published", otter)
    assert re.search(r"merge failed +conflict", otter)
    assert "resume" not in otter
    assert re.search(r"resume +at iteration 2", heron)


def test_show_json_is_one_object_per_loop_and_line(tmp_path: Path) -> None:
    """Programs get JSON Lines with the same facts, and the summary's thirteen fields."""
    done = _run("show", "--json", _three_loops(tmp_path / "history.jsonl"))
    loops: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [loop["loop"] for loop in loops] == ["bright-otter", "calm-heron", "quick-lynx"]
    otter, heron, _ = loops
    assert (otter["state"], otter["outcome"], otter["events"]) == ("needs-review", "succeeded", 9)
    assert set(otter["summary"]) == set(pj.Summary.__struct_fields__)
    assert otter["summary"]["merge_failure_reason"] == "conflict"
    assert (heron["prompt"], heron["resume_from"]) == ("long " * 100, 2)


def test_show_json_does_not_import_rich(tmp_path: Path) -> None:
    """Who wants JSON does not wait for tables."""
    path = _three_loops(tmp_path / "history.jsonl")
    program = (
        "import sys; from projections.cli._app import run; "
        f"code = run(['show', '--json', {str(path)!r}]); sys.exit(code or 'rich' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, env=_environment(), check=False).returncode == 0


def test_show_reads_what_the_original_wrote() -> None:
    """A file without any envelope is one loop, `main`; nothing beside it is made."""
    before = sorted(os.listdir(FOREIGN.parent))  # noqa: PTH208
    done = _run("show", FOREIGN, "--json")
    (loop,) = map(json.loads, done.stdout.splitlines())
    assert (loop["loop"], loop["events"]) == ("main", len(FOREIGN.read_bytes().splitlines()))
    assert loop["summary"]["prompt"] == 'implement auth\nsay "done" \\ and a tab\there'
    assert sorted(os.listdir(FOREIGN.parent)) == before  # noqa: PTH208


def test_show_says_what_does_not_fit_the_history(tmp_path: Path) -> None:
    """Events out of place are counted, and the last one is named."""
    path = _write(tmp_path / "history.jsonl", {"otter": [STARTED, es.MergeCompleted(commit="c")]})
    text = _run("show", path).stdout
    assert "1 event out of place, the last at position 2, version 2: merge_completed" in text


@pytest.mark.parametrize("columns", [28, 40, 50, 64, 80, 200])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, columns: int) -> None:
    """Columns are dropped and texts are wrapped, but one loop is one row, with its state."""
    streams: dict[str, Sequence[es.LoopEvent]] = {
        "bright-otter": [es.LoopStarted(prompt="日本語のプロンプト " * 20), *_iteration(1)],
        "x" * 200: [es.LoopStarted(prompt="short"), es.LoopTerminated(signal="SIGTERM")],
    }
    done = _run("show", _write(tmp_path / "history.jsonl", streams), columns=columns)
    lines = done.stdout.splitlines()
    assert max(map(cell_len, lines)) <= columns
    (header,) = (number for number, line in enumerate(lines) if line.startswith("loop  "))
    assert "running" in lines[header + 1]
    assert "terminated" in lines[header + 2]
    assert lines[header + 3].strip() == ""


@pytest.mark.parametrize("columns", [28, 40, 50, 64, 80, 200])
def test_no_fact_is_lost_in_a_narrow_terminal(tmp_path: Path, columns: int) -> None:
    """What the table has no room for stands in the summary, whose lines are wrapped, not cut."""
    path = _three_loops(tmp_path / "history.jsonl")
    _write(path, {"quick-lynx": [es.MergeQueued(), es.LoopDiscarded(reason="it's no use " * 10)]})
    text = _run("show", path, columns=columns).stdout
    shown = re.sub(r"\s", "", text)
    for fact in (
        f"3 loops, 20 events in {path}",
        "2 completed, 1 failed, 0 events published",
        "merge failed conflict",
        "prompt implement auth",
        "it's no use " * 10,
    ):
        assert fact.replace(" ", "") in shown, fact
    assert text.count("succeeded") == 1
    assert re.search(r"^quick-lynx .* 8\b|^  events +8 *$", text, flags=re.MULTILINE)
    assert re.search(r"^bright-otter .* 9\b|^  events +9 *$", text, flags=re.MULTILINE)


def test_a_text_of_any_length_is_shown_in_a_few_lines(tmp_path: Path) -> None:
    """A prompt may be a book; its beginning is shown, and `--json` has all of it."""
    path = _write(tmp_path / "history.jsonl", {"otter": [es.LoopStarted(prompt="word " * 9_000)]})
    lines = _run("show", path, columns=80).stdout.splitlines()
    assert len(lines) < 20
    assert any(line.rstrip().endswith("…") for line in lines)


def test_a_damaged_log_is_shown_around_the_damage(tmp_path: Path) -> None:
    """What can be read is printed; then the damage is named, and the exit code is 4."""
    path = _three_loops(tmp_path / "history.jsonl")
    _write(path, {"quick-lynx": [es.MergeQueued()]})
    path.write_bytes(path.read_bytes().replace(b"implement", b"impliment", 1))
    done = _run("show", path)
    assert done.returncode == 4
    assert "quick-lynx" in done.stdout
    assert "error[E-DAMAGE]" in done.stderr
    assert f"loopledger verify {path}" in done.stderr


def test_the_command_that_is_advised_is_one_a_shell_understands(tmp_path: Path) -> None:
    """Blanks and quotes in a path are quoted, and a leading dash makes no option of it."""
    path = _write(tmp_path / "it's; a log.jsonl", {"otter": [STARTED]})
    content = _write(path, {"otter": [es.MergeQueued()]}).read_bytes()
    for name in (path.name, "-h"):
        (tmp_path / name).write_bytes(content.replace(b"implement", b"impliment", 1))
        for arguments in (("show", "--", name), ("resume", "--", name, "nobody")):
            advised = _run(*arguments, cwd=tmp_path).stderr.rpartition("loopledger ")[2]
            done = subprocess.run(
                ["/bin/sh", "-c", f'"$0" -m projections.cli {advised}', sys.executable],
                env=_environment(),
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stderr.count("E-PATH")) == (4, 0)


def test_an_empty_log_holds_no_loop(tmp_path: Path) -> None:
    """An empty file is a log of nothing, and no error."""
    path = tmp_path / "history.jsonl"
    path.touch()
    done = _run("show", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 loops, 0 events" in done.stdout
    assert _run("show", "--json", path).stdout == ""


# --- verify ---


def test_verify_says_sound_and_counts(tmp_path: Path) -> None:
    """Of a sound log the counts are printed, and the exit code is 0."""
    path = _three_loops(tmp_path / "history.jsonl")
    done = _run("verify", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}: sound\n  18 events in 3 streams\n  18 lines in 1 seg")


def test_verify_names_file_byte_position_and_reason(tmp_path: Path) -> None:
    """Of a torn log each finding is one line on stdout, and the exit code is 4."""
    path = _write(tmp_path / "history.jsonl", {"otter": [STARTED]})
    size = path.stat().st_size
    _write(path, {"otter": [es.MergeQueued()]})
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes()[:-1])
    done = _run("verify", copy)
    cut = path.stat().st_size - 1 - size
    assert done.returncode == 4
    assert (
        f"torn: {copy}: byte {size}, position 2: an unfinished write of {cut} bytes" in done.stdout
    )
    assert "next (torn): " in done.stdout


def test_verify_json_is_one_object(tmp_path: Path) -> None:
    """Programs get the same counts and findings as one object."""
    path = _write(tmp_path / "history.jsonl", {"otter": [STARTED]})
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes() + b"{")
    done = _run("verify", "--json", copy)
    found = json.loads(done.stdout)
    assert done.returncode == 4
    assert (found["is_sound"], found["events"], found["streams"]) == (False, 1, 1)
    assert [(finding["severity"], finding["offset"]) for finding in found["findings"]] == [
        ("torn", path.stat().st_size)
    ]


def test_verify_can_look_at_checksums_only(tmp_path: Path) -> None:
    """It says so, counts no events, and finds a changed byte all the same."""
    path = _three_loops(tmp_path / "history.jsonl")
    done = _run("verify", "--checksums", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}: sound\n  18 lines in 1 segment, ")
    assert done.stdout.endswith(
        "\n  checksums only: events, streams and lines that are no records were not counted\n"
    )
    found = json.loads(_run("verify", "--checksums", "--json", path).stdout)
    assert (found["schema"], found["is_sound"], found["lines"]) == (
        "loopledger.checksums/1",
        True,
        18,
    )
    assert "events" not in found
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert _run("verify", "--checksums", path).returncode == 4


def test_progress_is_shown_on_a_terminal_and_only_if_it_takes_long(tmp_path: Path) -> None:
    """The bar stands on stderr and is taken away; a short run, or a pipe, sees none of it."""
    path = _three_loops(tmp_path / "history.jsonl")
    for patience, columns in ((0.0, "100"), (0.0, "40"), (60.0, "100")):
        code, output, bar = _verify_with_terminal_for_errors(path, patience, COLUMNS=columns)
        assert (code, output.count("\n")) == (0, 4)
        assert "\x1b" not in output
        assert ("kB" in bar) is (patience == 0), bar
        assert bar.endswith("\x1b[2K") is (patience == 0)  # the line is empty again
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
    assert colour.search(_verify_with_terminal_for_errors(path, 0.0)[2])
    assert not colour.search(_verify_with_terminal_for_errors(path, 0.0, NO_COLOR="1")[2])


def _verify_with_terminal_for_errors(
    path: Path, patience_seconds: float, **environment: str
) -> tuple[int, str, str]:
    program = (
        "import sys; from projections.cli import _app, _progress; "
        f"_progress._PATIENCE_SECONDS = {patience_seconds}; "
        f"sys.exit(_app.run(['verify', {str(path)!r}]))"
    )
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=_environment(**{"COLUMNS": "100", "TERM": "xterm", **environment}),
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as process:
        os.close(theirs)
        output, _ = process.communicate(timeout=60)
    bar = b""
    try:
        while chunk := os.read(ours, 65536):
            bar += chunk
    except OSError:  # the end of a terminal is an error on Linux
        pass
    os.close(ours)
    return process.returncode, output, bar.decode()


# --- text of others ---


def test_clean_leaves_text_alone_and_escapes_the_rest() -> None:
    """Letters of all scripts stay; what a terminal acts upon becomes an escape."""
    assert clean("plain, café 🦀 日本語 \\n") == "plain, café 🦀 日本語 \\n"
    assert clean("\x1b[31m\n\x9b\u202e\udc80") == r"\x1b[31m\n\x9b\u202e\udc80"
    assert not DRIVES_A_TERMINAL.search(clean("".join(map(chr, range(0x3000)))))


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_nothing_an_agent_wrote_reaches_the_terminal_raw(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """Prompts, reasons, stream names and file names are printed with escapes."""
    directory = tmp_path / "di\x1b[31mr\u202e"
    directory.mkdir()
    events: list[es.LoopEvent] = [
        es.LoopStarted(prompt=HOSTILE),
        es.LoopTerminated(signal=HOSTILE),
        es.MergeQueued(),
        es.MergeStarted(pid=1),
        es.MergeFailed(reason=HOSTILE),
        es.LoopDiscarded(reason=HOSTILE),
    ]
    path = _write(directory / "history.jsonl", {"otter": events})
    done = _run("show", path, *flags, columns=400)
    _assert_harmless(done)
    assert "evil" in done.stdout
    copy = directory / "copy.jsonl"
    copy.write_bytes(_with_stream_name(_write(directory / "one.jsonl", {"otter": [STARTED]})))
    for command in ("show", "verify", "repair"):
        _assert_harmless(_run(command, copy, *flags, columns=400))
        _assert_harmless(_run(command, directory / "no\x1b]0;such.jsonl", *flags, columns=400))


def _with_stream_name(path: Path) -> bytes:
    """Seal the only line of a log anew, with a name that `append` would have refused."""
    name = json.dumps(HOSTILE).encode()
    body = path.read_bytes()[: -SUFFIX_BYTES - 1].replace(b'"otter"', name)
    crc = b"%08x" % crc32(body.replace(b'"version":1', b'"version":2'))
    return b'%b,"crc":"%b%b"}\n' % (body.replace(b'"version":1', b'"version":2'), crc, crc)


def _assert_harmless(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode in (0, 3, 4)
    assert not DRIVES_A_TERMINAL.search(done.stdout + done.stderr)
    assert done.stdout + done.stderr


def test_colours_are_for_terminals_only(tmp_path: Path) -> None:
    """A terminal gets colours unless NO_COLOR says otherwise; a pipe never does."""
    path = _three_loops(tmp_path / "history.jsonl")
    assert "\x1b" not in _run("show", path).stdout
    coloured = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
    assert coloured.search(_run_on_terminal("show", path))
    assert not coloured.search(_run_on_terminal("show", path, NO_COLOR="1"))


def _run_on_terminal(*arguments: str | Path, **environment: str) -> str:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "projections.cli", *arguments],
        env=_environment(COLUMNS="100", TERM="xterm", **environment),
        stdin=theirs,
        stdout=theirs,
    ):
        os.close(theirs)
        output = b""
        try:
            while chunk := os.read(ours, 65536):
                output += chunk
        except OSError:  # the end of a terminal is an error on Linux
            pass
    os.close(ours)
    return output.decode()


# --- how it ends ---


@pytest.mark.parametrize("command", ["show", "verify", "repair"])
def test_what_is_no_log_is_exit_code_3(tmp_path: Path, command: str) -> None:
    """Each error says what is wrong with which path, and what to do; no traceback."""
    path = _write(tmp_path / "logs" / "history.jsonl", {"otter": [STARTED]})
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(path)
    for name, next_step in (
        ("missing.jsonl", "name the .jsonl file that is written to"),
        ("logs", str(path)),
        ("link", str(path)),
        ("fifo", "name the .jsonl file that is written to"),
        ("no/such/directory.jsonl", "name the .jsonl file that is written to"),
        ("logs/history.jsonl/below", "name the .jsonl file that is written to"),
    ):
        done = _run(command, tmp_path / name)
        assert (done.returncode, done.stdout) == (3, ""), name
        what, what_next = done.stderr.splitlines()
        assert what.startswith("error[E-PATH] ")
        assert name.split("/")[0] in what
        assert what_next.startswith("  next   ")
        assert next_step in what_next


@pytest.mark.parametrize("command", ["show", "resume", "verify", "repair", "check-types"])
def test_a_path_that_no_file_can_have_is_exit_code_3(tmp_path: Path, command: str) -> None:
    """A name of 256 bytes and a link to itself cannot be looked at; the system's reason is told."""
    (tmp_path / "circle").symlink_to("circle")
    loop = ["main"] if command == "resume" else []
    for name in ("x" * 256, "circle"):
        done = _run(command, tmp_path / name, *loop)
        assert (done.returncode, done.stdout) == (3, ""), name
        what, what_next = done.stderr.splitlines()
        assert what.startswith(f"error[E-PATH] {tmp_path / name}")
        assert "no such file" not in what
        assert what_next == "  next   name the .jsonl file that is written to"


@pytest.mark.parametrize(
    "arguments",
    [("shwo", "x"), ("show",), ("show", "--no-such"), ("verify", "a", "b"), ("prove", "x")],
)
def test_a_wrong_command_line_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    """The mistake is named, and where help is."""
    done = _run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error[E-USAGE] ")
    assert "loopledger --help" in done.stderr


def test_help_is_for_those_who_ask_and_those_who_say_nothing() -> None:
    """Without a command the commands are listed."""
    for arguments in ((), ("-h",), ("--help",)):
        done = _run(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        for command in ("show", "verify", "repair", "prove"):
            assert command in done.stdout


def test_help_lists_every_exit_code() -> None:
    """A script's author finds each number a command can end with."""
    text = _run("--help").stdout
    listed = re.search(r"Exit codes: ([^.]*)\.", text)
    assert listed is not None
    assert {int(number) for number in re.findall(r"\d+", listed[1])} == set(ExitCode)


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path) -> None:
    """`| head -1` gets its line; the exit code is 141, and there is no traceback."""
    streams: dict[str, Sequence[es.LoopEvent]] = {
        f"loop-{number}": [es.LoopStarted(prompt="x" * 200)] for number in range(1_000)
    }
    path = _write(tmp_path / "history.jsonl", streams)
    for flags in ((), ("--json",)):
        with subprocess.Popen(
            [sys.executable, "-m", "projections.cli", "show", path, *flags],
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 141


@pytest.mark.parametrize("arguments", [("show",), ("show", "--json"), ("schema",), ("--help",)])
@pytest.mark.parametrize(
    ("redirection", "reason"),
    [("> /dev/full", "No space left on device"), (">&-", "Bad file descriptor")],
)
def test_output_that_cannot_be_written_is_exit_code_1(
    tmp_path: Path, arguments: tuple[str, ...], redirection: str, reason: str
) -> None:
    """On a full disk and where stdout is closed, one line on stderr says why, as of `cat`."""
    path = [_three_loops(tmp_path / "history.jsonl")] if arguments[0] == "show" else []
    done = _run_redirected(redirection, *arguments, *path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error[E-OUTPUT] the output could not be written: {reason}\n"


@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&-", "2>&- <&-"])
def test_errors_that_cannot_be_written_keep_their_exit_code(
    tmp_path: Path, redirection: str
) -> None:
    """Nobody hears them then, and they do not go to stdout instead."""
    done = _run_redirected(redirection, "show", tmp_path / "missing.jsonl")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    path = _three_loops(tmp_path / "history.jsonl")
    assert _run_redirected(redirection, "show", path).stdout == _run("show", path).stdout
    assert _run_redirected(f"> /dev/full {redirection}", "show", path).returncode == 1


def test_a_log_never_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """With all three closed a torn end is still repaired, and nothing is printed into the log."""
    path = _write(tmp_path / "history.jsonl", {"otter": [STARTED]})
    content = path.read_bytes()
    path.write_bytes(content + b"{")
    done = _run_redirected("<&- >&- 2>&-", "repair", "--apply", path)
    assert done.returncode == 1
    assert path.read_bytes() == content
    assert _run("verify", path).returncode == 0


def test_an_unbuffered_interpreter_prints_each_line_at_once() -> None:
    """What `PYTHONUNBUFFERED` asks for holds: no printed line is lost when the process dies."""
    program = (
        "import os; from projections.cli._errors import until_stopped; "
        "until_stopped(lambda: print('told') or os._exit(0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=_environment(PYTHONUNBUFFERED="1"),
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"told\n"


def _run_redirected(redirection: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = f'exec "$0" -m projections.cli "$@" {redirection}'
    return subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, *arguments],
        env=_environment(COLUMNS="100"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    """While it waits for a writer, Ctrl-C ends it with 130 and without a traceback."""
    path = _write(tmp_path / "history.jsonl", {"otter": [STARTED]})
    os.truncate(path, path.stat().st_size - 1)  # so that the record alone does not answer
    with (
        Path(f"{path}.lock").open("rb") as lock,
        subprocess.Popen(
            [sys.executable, "-m", "projections.cli", "verify", path],
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        _wait_until_open(process, f"{path}.lock")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (130, b"", b"")


def _wait_until_open(process: subprocess.Popen[bytes], path: str) -> None:
    handles = Path("/proc", str(process.pid), "fd")
    if not handles.exists():
        pytest.skip("needs /proc to see what a process has open")
    while process.poll() is None:
        for handle in list(handles.iterdir()):
            try:
                if str(handle.readlink()) == path:
                    return
            except FileNotFoundError:
                continue  # closed meanwhile


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    """With the core dependencies alone, `loopledger` and the demo name the extra and exit 7."""
    for name in ("aiofiles", "anyio", "idna", "msgspec", "sniffio", "typing_extensions"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (tmp_path / source.name).symlink_to(source)
    for module in ("projections.cli", "projections.cli.demo"):
        done = subprocess.run(
            [sys.executable, "-S", "-m", module],
            env=_environment(PYTHONPATH=f"{ROOT}:{tmp_path}"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 7
        assert done.stderr.startswith("error[E-EXTRA] ")
        assert "pip install 'loopledger[cli]'" in done.stderr
