"""What may stand at the path, with which modes, and what reading leaves alone."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

import eventstore as es
from tests.recovery._logs import ACTIVE, LOCK, foreign, iterations

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a log would be."""
    return tmp_path / "log" / ACTIVE


async def record(path: Path, *numbers: int) -> None:
    """Open the log, append, close it."""
    async with es.open_store(path) as store:
        await store.append("otter", iterations(*numbers), expected_version=es.ANY)


async def positions(path: Path) -> list[int]:
    """What a read-only store shows."""
    async with es.open_store(path, read_only=True) as store:
        return [recorded.position async for recorded in store.read_all()]


def tree(directory: Path) -> dict[str, tuple[int, int, int, int]]:
    """Everything in a directory: inode, size, mode and time of the last change."""
    return {
        str(entry.relative_to(directory)): (
            entry.lstat().st_ino,
            entry.lstat().st_size,
            entry.lstat().st_mode,
            entry.lstat().st_mtime_ns,
        )
        for entry in sorted(directory.rglob("*"))
    }


def a_directory(path: Path) -> None:
    """A directory where the file should be."""
    path.mkdir()


def a_fifo(path: Path) -> None:
    """A FIFO, which a naive open would wait for."""
    os.mkfifo(path)


def a_symlink(path: Path) -> None:
    """A symlink to a file elsewhere."""
    target = path.parent / "elsewhere"
    target.write_bytes(foreign(1) + b"\n")
    path.symlink_to(target)


def a_dangling_symlink(path: Path) -> None:
    """A symlink to nothing: creating through it would write where it points."""
    path.symlink_to(path.parent / "nowhere")


OBSTACLES = pytest.mark.parametrize(
    "obstacle",
    [a_directory, a_fifo, a_symlink, a_dangling_symlink],
    ids=lambda obstacle: obstacle.__name__,
)


@OBSTACLES
@pytest.mark.parametrize("read_only", [False, True])
async def test_what_is_no_file_is_refused_by_name_and_left_alone(
    path: Path, obstacle: Callable[[Path], None], *, read_only: bool
) -> None:
    """I18: a directory, FIFO or symlink at the path is a clear error, at once."""
    path.parent.mkdir()
    obstacle(path)
    before = tree(path)
    attempt = positions(path) if read_only else record(path, 1)
    with pytest.raises(es.StoreUnavailableError, match="not a regular file") as caught:
        await attempt
    assert caught.value.path == str(path)
    assert tree(path) == before
    assert not (path.parent / "nowhere").exists()


@OBSTACLES
async def test_an_obstacle_at_the_lock_path_is_refused(
    path: Path, obstacle: Callable[[Path], None]
) -> None:
    """I18: a lock that would be taken elsewhere excludes nobody, so nothing is written."""
    path.parent.mkdir()
    obstacle(path.with_name(LOCK))
    with pytest.raises(es.StoreUnavailableError):
        await record(path, 1)
    assert not path.exists()


async def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """I18: where no directory can be, there is an error that names the path."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(es.StoreUnavailableError):
        await record(tmp_path / "file" / ACTIVE, 1)
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("name", ["..x", ".."])
async def test_a_name_without_a_lock_path_is_refused(tmp_path: Path, name: str) -> None:
    """I18, I20: names for which the original has no usable lock are no names of a log."""
    with pytest.raises(es.StoreUnavailableError):
        async with es.open_store(f"{tmp_path}/sub/{name}"):
            pass


async def test_what_is_created_belongs_to_its_owner_alone(path: Path) -> None:
    """I18: files are 0600 and directories 0700, whatever the umask allows."""
    old = os.umask(0)
    try:
        await record(path, 1)
        with path.open("ab") as file:
            file.write(b"torn")
        await record(path, 2)
    finally:
        os.umask(old)
    modes = {
        str(entry.relative_to(path.parents[1])): stat.S_IMODE(entry.stat().st_mode)
        for entry in path.parents[1].rglob("*")
    }
    assert len(modes) == 6
    for name, mode in modes.items():
        is_file = name.endswith((".jsonl", ".lock", ".bin"))
        assert mode == (0o600 if is_file else 0o700), name


async def test_modes_of_files_that_were_there_are_left_alone(path: Path) -> None:
    """I18: another writer's file keeps its mode; if others may write to it, that is said."""
    path.parent.mkdir(mode=0o755)
    path.write_bytes(foreign(1) + b"\n")
    path.chmod(0o644)
    await record(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


async def test_a_file_that_others_may_write_to_is_warned_of(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """I18: a group-writable log is used, and reported."""
    caplog.set_level(logging.WARNING, logger="eventstore")
    path.parent.mkdir()
    path.write_bytes(b"")
    path.chmod(0o660)
    await record(path, 1)
    assert "other users may write to it" in caplog.text


async def test_a_missing_log_reads_as_empty_and_is_not_created(path: Path) -> None:
    """I21: reading what is not there creates nothing, not even the lock file."""
    assert await positions(path) == []
    assert not path.parent.exists()
    path.parent.mkdir()
    assert await positions(path) == []
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("tail", [b"", b'{"ts":"torn', foreign(2), b"\0" * 9])
@pytest.mark.parametrize("lock", ["kept", "deleted"])
async def test_reading_writes_nothing(path: Path, tail: bytes, lock: str) -> None:
    """I21: a read-only store changes no byte, no name, no mode and no time, torn tail or not."""
    await record(path, 1, 2)
    with path.open("ab") as file:
        file.write(tail)
    if lock == "deleted":
        path.with_name(LOCK).unlink()
    before = tree(path.parent)
    assert await positions(path) == [1, 2, 3][: 2 + (tail == foreign(2))]
    async with es.open_store(path, read_only=True) as store:
        assert await store.version("otter") == 2
        assert [r.position async for r in store.read("otter", backwards=True)] == [2, 1]
        assert not hasattr(store, "append")
    assert tree(path.parent) == before


@contextlib.contextmanager
def read_only_directory(path: Path) -> Generator[None]:
    """Nothing in it can be created or changed, not even by root where that can be arranged."""
    if os.geteuid():
        path.chmod(0o500)
        for entry in path.iterdir():
            entry.chmod(0o400)
        try:
            yield
        finally:
            path.chmod(0o700)
        return
    bind = ["mount", "--bind", str(path), str(path)]
    try:
        done = subprocess.run(bind, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"root writes everywhere, and there is no mount: {error}")
    if done.returncode:
        pytest.skip(f"root writes everywhere, and may not mount: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


async def test_a_read_only_directory_is_read_and_refused_for_writing(path: Path) -> None:
    """I18, I21: what cannot be written can be read; opening for writing says why it fails."""
    await record(path, 1, 2)
    with path.open("ab") as file:
        file.write(b"torn")
    with read_only_directory(path.parent):
        assert await positions(path) == [1, 2]
        with pytest.raises(es.StoreUnavailableError, match=r"Read-only|denied"):
            await record(path, 3)


async def test_a_read_only_directory_without_a_log_is_refused(path: Path) -> None:
    """I18: where no file can be made there is an error, and reading shows an empty log."""
    path.parent.mkdir()
    with read_only_directory(path.parent):
        assert await positions(path) == []
        with pytest.raises(es.StoreUnavailableError):
            await record(path, 3)
        with pytest.raises(es.StoreUnavailableError):
            await record(path.parent / "deeper" / ACTIVE, 3)


async def test_a_store_that_could_not_be_opened_holds_no_descriptor(path: Path) -> None:
    """I18: a failed open closes what it had opened, or the process would wait for its own lock."""
    await record(path, 1)
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(bytes(data))
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("no /proc to count descriptors in")
    before = len(list(descriptors.iterdir()))
    for _ in range(3):
        with pytest.raises(es.CorruptLogError):
            await record(path, 2)
    assert len(list(descriptors.iterdir())) == before
