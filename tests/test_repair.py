"""`salvage_log` and `loopledger repair`: the undamaged is kept, the old log is not touched."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import anyio
import pytest

import eventstore as es
from eventstore._log._files import DiskFiles
from eventstore._log._lines import SUFFIX_BYTES

ROOT = Path(__file__).parent.parent
FOREIGN = ROOT / "tests" / "fixtures" / "foreign.jsonl"
NUMBERS = re.compile(rb',"version":[^{}"]*"position":[^{}"]*"commit":[^{}"]*(?:"durable":\d+)?$')
LF = b"\n"


def _event(text: str = "x") -> es.EventPublished:
    return es.EventPublished(topic="t", payload=text)


def _write(path: Path, *commits: Sequence[es.LoopEvent], stream: str = "otter") -> list[int]:
    """Append commits with the real writer; return the file's size after each."""

    async def write() -> list[int]:
        async with es.open_store(path, segment_bytes_max=None) as store:
            sizes: list[int] = []
            for number, events in enumerate(commits):
                await store.append(
                    stream,
                    [es.HistoryEvent(event, data={"n": number}) for event in events],
                    expected_version=es.ANY,
                    key=f"key-{stream}-{number}-{path.stat().st_size}",
                    meta={"actor": "me"},
                )
                sizes.append(path.stat().st_size)
            return sizes

    return anyio.run(write)


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def _content(line: bytes) -> bytes:
    """All a line says but its numbers and checksums."""
    return NUMBERS.sub(b"", line[: -SUFFIX_BYTES - 1])


def _salvaged(log: Path, into: Path) -> list[bytes]:
    """Salvage a log; return the lines of the new one but the last, which tells of it."""
    salvage = es.salvage_log(log, into)
    assert salvage.log is not None
    assert salvage.log == str(into / log.name)
    found = es.verify_log(salvage.log)
    assert found.findings == ()
    assert found.events == salvage.events + 1
    return _lines(Path(salvage.log))[:-1]


def _record(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(_lines(path)[-1])
    assert record["stream"] == "loopledger.salvage"
    assert record["type"]["kind"] == "log_salvaged"
    return record


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 100,000 events: appends of 1 to 400 events to twenty streams."""
    path = tmp_path_factory.mktemp("large") / "history.jsonl"
    dice = random.Random(29)

    async def write() -> None:
        async with es.open_store(path) as store:
            left = 100_000
            while left:
                size = min(left, dice.choice([1, 3, 20, 400]))
                stream = dice.choice(["main", *(f"loop-{number}" for number in range(19))])
                events = [_event(f"{left - number}") for number in range(size)]
                await store.append(stream, events, expected_version=es.ANY)
                left -= size

    anyio.run(write)
    return path


@pytest.mark.parametrize("damages", [1, 5, 50])
@pytest.mark.parametrize("with_record", [True, False])
def test_every_undamaged_event_of_100000_is_kept(
    large: Path, tmp_path: Path, damages: int, *, with_record: bool
) -> None:
    """Whatever random damages hit, each line they did not hit is in the new log, in order.

    Bytes are changed, zeroed, overwritten with other bytes, LFs too. The old log is not touched.
    """
    dice = random.Random(damages)
    log = tmp_path / "history.jsonl"
    shutil.copyfile(large, log)
    lines = _lines(log)
    content = bytearray(log.read_bytes())
    # Damage in the very last commit, and no lock record, is what nobody can tell from a torn end.
    room = len(content) if with_record else len(content) - 400 * 300
    hit: set[int] = set()
    for _ in range(damages):
        at = dice.randrange(room)
        size = dice.choice([1, 1, 16, 512, 4096])
        content[at : at + size] = dice.choice(
            [bytes([content[at] ^ 1 << dice.randrange(8)]), b"\0" * size, dice.randbytes(size)]
        ).ljust(size, b"\n")[: len(content) - at]
        hit.update(range(at, min(at + size, len(content))))
    log.write_bytes(content)
    if with_record:
        record = large.with_name("history.jsonl.lock").read_bytes()
        inode = f"{log.stat().st_ino:020}".encode()
        checked = record[:8] + inode + record[28:131]
        log.with_name("history.jsonl.lock").write_bytes(checked + _crc(checked) + LF)
    before = log.read_bytes(), log.stat().st_mtime_ns, sorted(os.listdir(tmp_path))  # noqa: PTH208

    kept = iter([_content(line) for line in _salvaged(log, tmp_path / "new")])

    shutil.rmtree(tmp_path / "new")
    assert (log.read_bytes(), log.stat().st_mtime_ns, sorted(os.listdir(tmp_path))) == before  # noqa: PTH208
    offset, lost = 0, 0
    for line in lines:
        reach = range(offset - 1, offset + len(line))  # the LF before it, if that is hit, joins it
        if hit.isdisjoint(reach):
            assert _content(line) in kept  # consumes what stands before it: the order is the same
        else:
            lost += 1
        offset += len(line)
    assert 0 < lost <= 3 * damages + sum(4096 // 150 for _ in range(damages))


def _crc(data: bytes) -> bytes:
    return b"%08x" % crc32(data)


def test_the_new_log_says_where_it_comes_from(tmp_path: Path) -> None:
    """Source, its size and checksum, what was kept and lost, and which positions became which."""
    log = tmp_path / "history.jsonl"
    _write(log, [_event("a")] * 3, [_event("b")], [_event("c")] * 2)
    log.write_bytes(log.read_bytes().replace(b'"payload":"b"', b'"payload":"B"'))
    salvage = es.salvage_log(log, tmp_path / "new")
    record = _record(tmp_path / "new" / "history.jsonl")
    told = record["type"]
    assert record["version"] == 1
    assert told["source"] == str(log)
    assert told["source_bytes"] == log.stat().st_size
    assert told["source_inode"] == log.stat().st_ino
    assert told["source_crc"].encode() == _crc(log.read_bytes())
    assert (told["events"], told["bad"], salvage.events) == (5, 1, 5)
    assert told["positions"] == [[1, 3, 1], [5, 6, 4]]
    assert {"damage"} == {finding["severity"] for finding in told["findings"]}
    assert salvage.ranges == (es.PositionRange(1, 3, 1), es.PositionRange(5, 6, 4))


def test_the_new_log_is_appended_to_like_any_other(tmp_path: Path) -> None:
    """Versions go on without a gap, and a key that was used stays used."""
    log = tmp_path / "history.jsonl"
    _write(log, [_event("a")], [_event("b")], [_event("c")])
    line = json.loads(_lines(log)[2])
    log.write_bytes(log.read_bytes().replace(b'"payload":"b"', b'"payload":"B"'))
    es.salvage_log(log, tmp_path / "new")

    async def use() -> tuple[es.Appended, es.Appended]:
        async with es.open_store(tmp_path / "new" / "history.jsonl") as store:
            again = await store.append(
                "otter",
                [es.HistoryEvent(_event("c"), data={"n": 2})],
                expected_version=es.ANY,
                key=line["key"],
            )
            return again, await store.append("otter", [_event()], expected_version=2)

    assert anyio.run(use) == (es.Appended(2, 2), es.Appended(3, 4))


def test_kinds_nobody_registered_survive_byte_for_byte(tmp_path: Path) -> None:
    """A salvage copies bytes: it needs to know neither kinds, nor fields, nor members to come."""

    class DeployedFar(es.Event):
        where: dict[str, Any]

    log = tmp_path / "history.jsonl"

    async def write() -> None:
        async with es.open_store(log, types=es.EventTypes[DeployedFar](DeployedFar)) as store:
            for number in range(3):
                event = DeployedFar(where={"π": 1.50e10, "n": number, "deep": [[{"version": 7}]]})
                await store.append("s", [event], expected_version=es.ANY)

    anyio.run(write)
    first, second, third = _lines(log)
    log.write_bytes(first + second.replace(b"deployed", b"employed") + third)
    new = _salvaged(log, tmp_path / "new")
    assert [_content(line) for line in new] == [_content(first), _content(third)]


def test_foreign_records_stay_byte_for_byte_and_noise_goes(tmp_path: Path) -> None:
    """Of a file of the original, each record it reads is kept as it is, the last without LF too."""
    records = _lines(FOREIGN)
    log = tmp_path / "history.jsonl"
    odd = records[0].replace(b'"ts"', b' "ts" ', 1)
    log.write_bytes(records[0] + LF + b"no record\n" + odd + b"\0\0\n" + records[1].rstrip())
    salvage = es.salvage_log(log, tmp_path / "new")
    new = Path(str(salvage.log))
    assert _lines(new)[:-1] == [records[0], odd, records[1]]
    assert (salvage.events, salvage.foreign, salvage.noise) == (3, 3, 3)
    assert [(run.first, run.new_first) for run in salvage.ranges] == [(1, 1), (4, 2), (6, 3)]
    assert es.verify_log(new).is_sound


def test_ours_and_foreign_lines_keep_their_order(tmp_path: Path) -> None:
    """Streams that both wrote to stay in order, and their versions have no gap."""
    record = _lines(FOREIGN)[0]
    log = tmp_path / "history.jsonl"
    for number in range(4):
        _write(log, [_event(str(number))] * 2, stream="main")
        log.write_bytes(log.read_bytes() + record)
    lines = _lines(log)
    log.write_bytes(log.read_bytes().replace(b'"payload":"1"', b'"payload":"?"', 1))
    new = _salvaged(log, tmp_path / "new")
    assert list(map(_content, new)) == list(map(_content, lines[:3] + lines[4:]))


def test_a_commit_that_never_was_whole_is_not_kept(tmp_path: Path) -> None:
    """Neither a void one, nor a torn one at the end: nobody was told that they are recorded."""
    log = tmp_path / "whole" / "history.jsonl"
    sizes = _write(log, [_event("a")], [_event("b")] * 3)
    record = _lines(FOREIGN)[0]
    torn = tmp_path / "history.jsonl"
    torn.write_bytes(log.read_bytes()[: sizes[1] - 1].rsplit(LF, 1)[0] + LF + record)
    _write(torn, [_event("c")])
    salvage = es.salvage_log(torn, tmp_path / "void")
    assert (salvage.events, salvage.unfinished, salvage.partial) == (3, 2, 0)
    torn.with_name("history.jsonl.lock").unlink()
    torn.write_bytes(log.read_bytes()[: sizes[1] - 1].rsplit(LF, 1)[0] + LF)
    salvage = es.salvage_log(torn, tmp_path / "torn")
    assert (salvage.events, salvage.unfinished, salvage.partial) == (1, 2, 0)


def test_the_rest_of_a_damaged_commit_is_kept_and_counted(tmp_path: Path) -> None:
    """What was acknowledged and is intact is not lost because a line beside it is."""
    for number, damaged in enumerate([1, 2, 3]):
        log = tmp_path / str(number) / "history.jsonl"
        _write(log, [_event("a")], [_event("b"), _event("c"), _event("d")], [_event("e")])
        lines = _lines(log)
        lines[damaged] = lines[damaged].replace(b"event_", b"EVENT_")
        log.write_bytes(b"".join(lines))
        salvage = es.salvage_log(log, log.parent / "new")
        assert (salvage.events, salvage.partial, salvage.unfinished) == (4, 2, 0)


def test_lines_that_stand_there_twice_are_kept_once(tmp_path: Path) -> None:
    """A doubled or misplaced block makes no event happen twice, and hides none."""
    log = tmp_path / "history.jsonl"
    _write(log, *([_event(str(number))] for number in range(6)), [_event("6"), _event("7")])
    _write(log, [_event("8")])
    lines = _lines(log)
    orders = [
        [0, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8],
        [0, 8, 1, 2, 3, 4, 5, 6, 7],
        [0, 1, 2, 3, 4, 6, 5, 6, 7, 8],
    ]
    for number, order in enumerate(orders):
        log.write_bytes(b"".join(lines[index] for index in order))
        new = _salvaged(log, tmp_path / str(number))
        assert sorted(map(_content, new)) == sorted(map(_content, lines))


def test_sealed_segments_are_salvaged_too_and_a_missing_one_is_survived(tmp_path: Path) -> None:
    """All segments that are there become one log."""
    log = tmp_path / "history.jsonl"

    async def write() -> None:
        async with es.open_store(log, segment_bytes_max=600) as store:
            for number in range(12):
                await store.append("otter", [_event(str(number) * 50)], expected_version=es.ANY)

    anyio.run(write)
    sealed = sorted(tmp_path.glob("history-*.jsonl"))
    kept = [line for file in (sealed[0], *sealed[2:], log) for line in _lines(file)]
    sealed[1].unlink()
    assert list(map(_content, _salvaged(log, tmp_path / "new"))) == list(map(_content, kept))


def test_without_a_place_nothing_is_written(tmp_path: Path) -> None:
    """`None` counts what would be kept, with the same result."""
    log = tmp_path / "history.jsonl"
    _write(log, [_event("a")], [_event("b")], [_event("c")])
    log.write_bytes(log.read_bytes().replace(b'"payload":"b"', b'"payload":"B"'))
    before = sorted(tmp_path.rglob("*"))
    planned = es.salvage_log(log, None)
    assert sorted(tmp_path.rglob("*")) == before
    assert planned.log is None
    done = es.salvage_log(log, tmp_path / "new")
    assert (planned.events, planned.ranges, planned.bad) == (done.events, done.ranges, done.bad)


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path) -> None:
    """A salvage never writes where anything is already, least of all over the log itself."""
    log = tmp_path / "logs" / "history.jsonl"
    _write(log, [_event()])
    content = log.read_bytes()
    for into in (log.parent, log):
        with pytest.raises(es.StoreUnavailableError):
            es.salvage_log(log, into)
    assert log.read_bytes() == content
    (tmp_path / "empty").mkdir()
    assert es.salvage_log(log, tmp_path / "empty").events == 1


def test_an_interrupted_salvage_is_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the last moment there is no file of the log's name; an error takes the rest away."""
    log = tmp_path / "history.jsonl"
    _write(log, [_event()])
    names: list[list[str]] = []

    def fail(self: DiskFiles, old: str, new: str) -> None:
        del old, new
        names.append(self.listdir(""))
        raise OSError(28, "no space left")

    monkeypatch.setattr(DiskFiles, "rename", fail)
    with pytest.raises(es.StoreUnavailableError, match="no space left; nothing was salvaged"):
        es.salvage_log(log, tmp_path / "new")
    assert names == [["history.jsonl.partial"]]
    assert list((tmp_path / "new").iterdir()) == []


def test_a_path_that_is_no_text_is_told_as_far_as_it_can_be(tmp_path: Path) -> None:
    """Bytes of a file name that are no UTF-8 stand as escapes in the record of the salvage."""
    directory = tmp_path / os.fsdecode(b"logs-\xff")
    try:
        directory.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    log = directory / "history.jsonl"
    _write(log, [_event("a")], [_event("b")], [_event("c")])
    log.write_bytes(log.read_bytes().replace(b'"payload":"b"', b'"payload":"B"'))
    es.salvage_log(log, tmp_path / "new")
    told = _record(tmp_path / "new" / "history.jsonl")["type"]
    assert told["source"] == f"{tmp_path}/logs-\\udcff/history.jsonl"
    assert told["findings"][0]["file"] == told["source"]


# --- the command ---


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "projections.cli", "repair", *arguments],
        env={**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_sound_log_needs_no_repair(tmp_path: Path) -> None:
    """Nothing is done, with or without `--apply`; lines nobody can read are told of."""
    log = tmp_path / "history.jsonl"
    log.write_bytes(_lines(FOREIGN)[0] + b"no record\n" + _lines(FOREIGN)[1])
    for flags in ((), ("--apply",)):
        done = _run(log, *flags)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{log}: nothing to repair\n  1 line nobody can read")
    assert os.listdir(tmp_path) == ["history.jsonl"]  # noqa: PTH208


def test_a_torn_end_is_set_aside_when_asked(tmp_path: Path) -> None:
    """First it is only said; then log and quarantine together are the original, byte for byte."""
    whole = tmp_path / "whole" / "history.jsonl"
    before, _ = _write(whole, [_event()], [_event()])
    log = tmp_path / "history.jsonl"
    torn = whole.read_bytes()[:-5]
    log.write_bytes(torn)
    done = _run(log)
    assert (done.returncode, done.stderr) == (4, "")
    assert f"would move {len(torn) - before} bytes" in done.stdout
    assert log.read_bytes() == torn
    done = _run(log, "--apply")
    assert (done.returncode, done.stderr) == (0, "")
    (kept,) = (tmp_path / "history.jsonl.d" / "quarantine").iterdir()
    assert str(kept) in done.stdout
    assert log.read_bytes() + kept.read_bytes() == torn
    assert es.verify_log(log).is_sound


def test_damage_is_salvaged_beside_the_log_when_asked(tmp_path: Path) -> None:
    """First what would be kept and lost is said; then a new log is there, and the old as it was."""
    log = tmp_path / "history.jsonl"
    _write(log, [_event("a")], [_event("b")], [_event("c")])
    damaged = log.read_bytes().replace(b'"payload":"b"', b'"payload":"B"')
    log.write_bytes(damaged)
    done = _run(log)
    assert (done.returncode, done.stderr) == (4, "")
    assert "would keep 2 events\n  positions without an event: 2\n" in done.stdout
    assert not list(tmp_path.glob("*salvaged*"))
    done = _run(log, "--apply")
    assert (done.returncode, done.stderr) == (0, "")
    (new,) = tmp_path.glob("history.salvaged-*/history.jsonl")
    assert f"wrote {new}, which is sound" in done.stdout
    assert es.verify_log(new).events == 3
    assert log.read_bytes() == damaged


def test_repair_json_is_one_object(tmp_path: Path) -> None:
    """Programs get the action, whether it was done, and the figures."""
    log = tmp_path / "history.jsonl"
    _write(log, [_event("a")], [_event("b")])
    assert json.loads(_run(log, "--json").stdout)["action"] == "none"
    copy = tmp_path / "copy" / "history.jsonl"
    copy.parent.mkdir()
    copy.write_bytes(log.read_bytes()[:-1])
    planned = json.loads(_run(copy, "--json").stdout)
    assert (planned["action"], planned["applied"], planned["recovery"]) == ("recover", False, None)
    done = json.loads(_run(copy, "--json", "--apply").stdout)
    assert done["recovery"]["cut_bytes"] == planned["found"]["cut_bytes"] > 0
    log.write_bytes(log.read_bytes().replace(b'"payload":"a"', b'"payload":"A"'))
    done = json.loads(_run(log, "--json", "--apply", "--into", tmp_path / "new").stdout)
    assert (done["action"], done["applied"]) == ("salvage", True)
    assert done["salvage"]["log"] == str(tmp_path / "new" / "history.jsonl")
    assert done["salvage"]["events"] == 1


def test_repair_of_what_is_no_log_is_exit_code_3(tmp_path: Path) -> None:
    """A mistyped path, and a directory that holds something, end with one clear error."""
    log = tmp_path / "history.jsonl"
    _write(log, [_event()])
    for arguments in ((tmp_path / "no\x1b[31m.jsonl",), (log, "--apply", "--into", tmp_path)):
        done = _run(*arguments)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith("error[E-PATH] ")
        assert "\x1b" not in done.stderr


def test_damage_behind_many_odd_lines_is_still_found(tmp_path: Path) -> None:
    """The list of findings is bounded, and damage is on it all the same."""
    log = tmp_path / "history.jsonl"
    log.write_bytes(b"no record\n" * 150)
    _write(log, [_event("a")], [_event("b")], [_event("c")])
    log.write_bytes(log.read_bytes().replace(b'"payload":"b"', b'"payload":"B"'))
    found = es.verify_log(log)
    assert len(found.findings) == 100
    assert "damage" in {finding.severity for finding in found.findings}
    assert "would keep 2 events" in _run(log).stdout
