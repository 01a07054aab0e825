"""The lock record and the lock's name, byte for byte."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from zlib import crc32

import pytest

import eventstore as es
from eventstore._log._lock_record import RECORD_BYTES, decode_record, encode_record
from eventstore._log._names import LogNames, lock_name
from tests.recovery._logs import (
    ACTIVE,
    LOCK,
    append,
    content,
    iterations,
    opened,
    request,
    segments,
)

_ORIGINALS = Path(__file__).parents[3] / "shared" / "golden" / "shared" / "lock-paths.tsv"
_KEPT = Path(__file__).parents[1] / "fixtures" / "v1" / "lock-paths.tsv"


def test_each_field_stands_at_its_bytes() -> None:
    """I10: 140 bytes, fields at fixed places, its own checksum over the first 131."""
    files = es.MemoryFiles()
    with opened(files, segment_bytes_max=300) as committer:
        for number in range(4):
            append(committer, request("otter", *iterations(number)))
    data = content(files, LOCK)
    status = files.stat(ACTIVE)
    assert status is not None
    assert len(data) == RECORD_BYTES == 140
    assert data[0:7] == b"idle   "
    assert int(data[8:28]) == status.inode
    assert int(data[29:49]) == 3  # the first position of the active segment
    assert int(data[80:100]) == status.size
    assert int(data[101:121]) == 4
    whole = b"".join(content(files, name) for name in segments(files))
    assert int(data[122:130], 16) == crc32(whole)
    start = int(data[50:70])
    assert int(data[71:79], 16) == crc32(whole[: len(whole) - status.size + start])
    assert int(data[131:139], 16) == crc32(data[:131])
    assert {data[at : at + 1] for at in (7, 28, 49, 70, 79, 100, 121, 130)} == {b" "}
    assert data[139:] == b"\n"


def test_a_record_is_read_back_equal() -> None:
    """I10: what is written is what is read, whatever stands behind it."""
    files = es.MemoryFiles()
    with opened(files) as committer:
        append(committer, request("otter", *iterations(1)))
    data = content(files, LOCK)
    record = decode_record(data + b"left over")
    assert record is not None
    assert encode_record(record) == data


def test_a_record_with_any_bit_changed_is_none() -> None:
    """I10: every bit of it is checked."""
    files = es.MemoryFiles()
    with opened(files) as committer:
        append(committer, request("otter", *iterations(1)))
    data = content(files, LOCK)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert decode_record(bytes(changed)) is None
    for end in range(len(data)):
        assert decode_record(data[:end]) is None


def _table(path: Path) -> list[tuple[str, str]]:
    rows = path.read_text(encoding="utf-8").splitlines()
    return [(data, lock) for data, lock in (row.split("\t") for row in rows)]


def _lock_path(path: str) -> str:
    """The path of a lock: in the same directory, under the name's own."""
    directory, slash, name = path.rstrip("/").rpartition("/")
    return f"{directory}{slash}{lock_name(name)}"


@pytest.mark.parametrize(("data", "lock"), _table(_KEPT), ids=repr)
def test_the_lock_path_is_the_originals(data: str, lock: str) -> None:
    """I20: whatever the name looks like, both programs take the same lock."""
    assert _lock_path(data) == lock


def test_the_lock_paths_the_original_took_are_ours() -> None:
    """I20: measured by running the original, where that list is at hand."""
    if not _ORIGINALS.is_file():
        pytest.skip(f"the original's list is not here: {_ORIGINALS}")
    for data, lock in _table(_ORIGINALS):
        assert _lock_path(data) == lock, data


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name", ["history.jsonl", "a.b.c", ".hidden", "tasks", "name.", "sp ace.t"]
)
async def test_a_log_of_any_name_seals_beside_itself(tmp_path: Path, name: str) -> None:
    """I15, I20: the names of segments and lock follow from the active file's."""
    async with es.open_store(tmp_path / name, segment_bytes_max=300) as store:
        for number in range(5):
            await store.append("otter", iterations(number), expected_version=number)
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names == {
        name,
        lock_name(name),
        LogNames(name).sealed(1),
        LogNames(name).sealed(3),
    }
    if PurePosixPath(name).suffix and not name.endswith("."):
        assert LogNames(name).sealed(1).endswith(PurePosixPath(name).suffix)
    async with es.open_store(tmp_path / name, read_only=True) as reader:
        assert [r.position async for r in reader.read_all()] == [1, 2, 3, 4, 5]
