"""Which backends the contract is run against."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import eventstore as es
from eventstore._log._files import DiskFiles
from tests.contract._backends import Backend, DiskBackend, MemoryBackend

_TINY_SEGMENT_BYTES = 2_000  # about eight events: sealing happens all the time
_SEGMENT_BYTES = 256 * 2**20


@pytest.fixture(params=["disk", "disk-tiny-segments", "memory"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """A log that does not exist yet."""
    if request.param == "memory":
        return MemoryBackend(es.MemoryFiles(), segment_bytes_max=_SEGMENT_BYTES)
    size = _TINY_SEGMENT_BYTES if request.param == "disk-tiny-segments" else _SEGMENT_BYTES
    return DiskBackend(DiskFiles(str(tmp_path)), tmp_path, segment_bytes_max=size)


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[es.LogStore[es.LoopEvent]]:
    """A store that is open on the backend's log, which is empty."""
    async with backend.open() as opened:
        yield opened
