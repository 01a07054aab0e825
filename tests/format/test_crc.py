"""A log is the same, byte for byte, whichever library made its checksums."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventstore as es
from eventstore._log._crc import crc32

pytestmark = pytest.mark.anyio

_WITHOUT_THE_EXTRA: Final = """
import sys
sys.modules["isal"] = None
import anyio, zlib
import eventstore as es
from eventstore._log import _crc
from tests.format import test_crc
assert _crc.crc32 is zlib.crc32
anyio.run(test_crc.write_log, sys.argv[1])
"""


async def write_log(path: str) -> None:
    """Short lines and long ones, at a time of their own."""
    async with es.open_store(path, clock=lambda: 1_700_000_000_000_000_000) as store:
        for size in (0, 100, 5_000, 100_000):
            events = [es.EventPublished(topic="t", payload="x" * size)] * 7
            await store.append("a", events, expected_version=es.ANY, key=f"key-{size}")


def test_the_library_of_the_extra_is_used() -> None:
    """The tests run with it, so that it is the one they try."""
    assert crc32 is not zlib.crc32


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1), st.sampled_from([1, 20, 1_000]))
def test_both_libraries_agree(data: bytes, start: int, times: int) -> None:
    """From any value on, for any bytes, in any kind of buffer."""
    data *= times
    expected = zlib.crc32(data, start)
    assert crc32(data, start) == expected
    assert crc32(memoryview(data), start) == crc32(bytearray(data), start) == expected


async def test_a_log_does_not_tell_which_library_wrote_it(tmp_path: Path) -> None:
    """A process without the extra writes the same bytes; one with it finds them sound."""
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    await write_log(str(ours))
    command = [sys.executable, "-W", "error", "-c", _WITHOUT_THE_EXTRA, str(theirs)]
    subprocess.run(command, check=True, timeout=60, cwd=Path(__file__).parents[2])
    assert ours.read_bytes() == theirs.read_bytes()
    assert es.verify_log(theirs).is_sound
