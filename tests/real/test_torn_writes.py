"""Real short, torn and failing writes, at every byte of a commit.

A small C library stands between a writer and the kernel (torn_writes.c). What the writer leaves is
opened without it. Every byte with LOOPLEDGER_PROVE=1, otherwise every 16th and those that matter.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Final

import anyio
import msgspec
import pytest

import eventstore as es
from eventstore._log._names import LogNames
from tests.contract._lines import check_lines
from tests.real._effort import PROVES
from tests.real._torn_writer import ACTIVE, BEFORE, TORN, Action, End, Fault, clock

_ROOT: Final = Path(__file__).parents[2]
_SOURCE: Final = Path(__file__).with_name("torn_writes.c")
_QUARANTINE: Final = LogNames(ACTIVE).quarantine
_STEP: Final = 1 if PROVES else 16


class TornWriter:
    """The process that is forked once per fault, and directories for what is left."""

    def __init__(self, library: Path, directory: Path) -> None:
        self._directories = (directory / str(number) for number in count())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.real._torn_writer"],
            cwd=_ROOT,
            env={**os.environ, "LD_PRELOAD": str(library)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def meet(
        self, action: Action, lefts: Iterable[int], error: int = 0
    ) -> Iterator[tuple[int, Path, End]]:
        """Let a new writer of a new log meet each fault; tell the log and what became of it.

        Each one is at work while the log of the one before it is judged.
        """
        pending: list[tuple[int, Path]] = []
        for left in lefts:
            directory = next(self._directories)
            directory.mkdir()
            self._send(Fault(str(directory), action, left, error))
            pending.append((left, directory / ACTIVE))
            if len(pending) > 1:
                yield *pending.pop(0), self._receive()
        for left, path in pending:
            yield left, path, self._receive()

    def _send(self, fault: Fault) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(fault) + b"\n")
        self._process.stdin.flush()

    def _receive(self) -> End:
        assert self._process.stdout is not None
        return msgspec.json.decode(self._process.stdout.readline(), type=End)

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TornWriter]:
    """A writer under the library, which is compiled here."""
    if sys.platform != "linux":
        pytest.skip("no real torn writes: LD_PRELOAD and its system calls are Linux's")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no real torn writes: there is no C compiler (cc, gcc)")
    directory = tmp_path_factory.mktemp("torn")
    library = directory / "torn_writes.so"
    flags = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(library), str(_SOURCE)], check=True)
    opened = TornWriter(library, directory)
    yield opened
    opened.close()


class Whole(msgspec.Struct, frozen=True):
    """The log as it is when no write is torn: what stood before, the commit, the bytes after."""

    before: bytes
    commit: bytes

    @property
    def offsets(self) -> list[int]:
        """After which bytes of the commit something happens: a sample, or all but the last."""
        ends = [at for at in range(1, len(self.commit)) if self.commit[at - 1 : at] == b"\n"]
        near = {end + by for end in [0, *ends, len(self.commit)] for by in (-27, -26, -1, 0, 1)}
        return sorted({*near, *range(0, len(self.commit), _STEP)} & {*range(len(self.commit))})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What an undisturbed writer leaves; the clock stands still, so the bytes are the same."""
    path = tmp_path_factory.mktemp("whole") / ACTIVE

    async def write() -> int:
        async with es.open_store(path, clock=clock) as store:
            await store.append("otter", BEFORE, expected_version=es.NO_STREAM)
            size = path.stat().st_size
            await store.append("otter", TORN, expected_version=es.ANY, key="k-1")
        return size

    size = anyio.run(write)
    data = path.read_bytes()
    return Whole(data[:size], data[size:])


def quarantined(path: Path) -> dict[str, bytes]:
    """What recovery set aside."""
    return {file.name: file.read_bytes() for file in (path.parent / _QUARANTINE).glob("*")}


class Recovered(msgspec.Struct, frozen=True):
    """What a log showed before anybody recovered it, what opening did, where a retry ended."""

    shown: list[es.LoopEvent | es.Unknown]
    recovery: es.Recovery
    retried: es.Appended


def recover(path: Path) -> Recovered:
    """Read a log, open it, append the torn commit again with its key, and check every byte."""

    async def append() -> Recovered:
        async with es.open_store(path, read_only=True) as reader:
            shown = [recorded.event async for recorded in reader.read("otter")]
        async with es.open_store(path, clock=clock) as store:
            recovery = store.recovery
            retried = await store.append("otter", TORN, expected_version=es.ANY, key="k-1")
            return Recovered(shown, recovery, retried)

    recovered = anyio.run(append)
    check_lines(path.read_bytes())
    assert es.verify_log(path).findings == ()
    return recovered


def test_a_writer_that_dies_within_a_write_leaves_its_commit_whole_or_not_at_all(
    writer: TornWriter, whole: Whole, tell: Callable[[str, int], None]
) -> None:
    """I1, I2, I6, I14: killed after any byte of a commit: the events before it are there.

    Its last byte makes it one. What is cut is in the quarantine, byte for byte, and the next
    append goes to the place the torn one had.
    """
    began = time.monotonic()
    size = len(whole.commit)
    assert 3_500 < size < 5_000
    offsets = [*whole.offsets, size]
    assert len(offsets) >= 250
    for offset, path, end in writer.meet(Action.KILL, offsets):
        assert end.signal == signal.SIGKILL
        assert path.read_bytes() == whole.before + whole.commit[:offset]
        is_whole = offset == size
        found = recover(path)
        assert found.shown == [*BEFORE, *(TORN if is_whole else [])]
        assert found.retried == es.Appended(version=5, position=5)
        assert path.read_bytes() == whole.before + whole.commit
        torn = b"" if is_whole else whole.commit[:offset]
        assert b"".join(quarantined(path).values()) == torn
        assert found.recovery.is_clean == (torn == b"")
        shutil.rmtree(path.parent)
    tell(
        f"a commit of {size} bytes torn by SIGKILL after {len(offsets)} of them in "
        f"{time.monotonic() - began:.1f} s: whole or not at all, each cut byte kept",
        len(offsets),
    )


def test_a_short_write_is_completed(writer: TornWriter, whole: Whole) -> None:
    """I2, I5: the system takes a part of the bytes; the rest follows, and nobody notices."""
    for _, path, end in writer.meet(Action.SHORT, whole.offsets[1::8]):
        assert end == End(0, fired=True, outcomes=["acknowledged"] * 3)
        assert path.read_bytes().startswith(whole.before + whole.commit)
        found = recover(path)
        assert found.recovery.is_clean
        assert found.shown == [*BEFORE, *TORN, *BEFORE, *BEFORE]
        assert found.retried == es.Appended(version=5, position=5)
        shutil.rmtree(path.parent)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_a_write_that_fails_after_some_bytes_is_unknown_until_reopened(
    writer: TornWriter, whole: Whole, error: int
) -> None:
    """I1, I2, I5, I6, I9: the store is poisoned; the next one moves to a new inode and goes on."""
    offsets = whole.offsets[::8]
    for offset, path, end in writer.meet(Action.FAIL, offsets, error):
        poisoned = ["StorePoisonedError"] * 2
        assert end == End(0, fired=True, outcomes=["CommitUnknownError", *poisoned])
        failed = path.read_bytes()
        inode = path.stat().st_ino
        assert failed == whole.before + whole.commit[:offset]
        found = recover(path)
        assert found.shown == BEFORE
        assert found.recovery.renewed == 1
        assert found.retried == es.Appended(version=5, position=5)
        assert path.stat().st_ino != inode
        assert path.read_bytes() == whole.before + whole.commit
        kept = quarantined(path)
        assert kept.pop(f"{ACTIVE}-inode-{inode}.jsonl").startswith(whole.before)
        assert b"".join(kept.values()) == whole.commit[:offset]
        shutil.rmtree(path.parent)


@pytest.mark.parametrize(("number", "acknowledged"), [(1, 2), (2, 5), (3, 7)])
def test_a_sync_that_fails_takes_nothing_of_the_appends_before_it(
    writer: TornWriter, number: int, acknowledged: int
) -> None:
    """I1, I5, I9: those are acknowledged and there; its own is unknown, and recorded once."""
    [(_, path, end)] = writer.meet(Action.FAIL_SYNC, [number], errno.EIO)
    outcomes = ["acknowledged"] * (number - 1) + ["CommitUnknownError"]
    outcomes += ["StorePoisonedError"] * (3 - number)
    assert end == End(0, fired=True, outcomes=outcomes)
    found = recover(path)
    assert len(found.shown) >= acknowledged
    assert found.shown == [*BEFORE, *TORN, *BEFORE, *BEFORE][: len(found.shown)]
    assert found.recovery.renewed == 1
    assert found.retried == es.Appended(version=5, position=5)
