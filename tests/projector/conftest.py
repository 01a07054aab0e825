"""Which logs the projector is run over."""

from __future__ import annotations

from pathlib import Path

import pytest

import eventstore as es
from eventstore._log._files import DiskFiles
from tests.contract._backends import Backend, DiskBackend, MemoryBackend

_TINY_SEGMENT_BYTES = 2_000


@pytest.fixture(params=["disk", "memory"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """A log that does not exist yet; on the disk it is sealed all the time."""
    if request.param == "memory":
        return MemoryBackend(es.MemoryFiles(), segment_bytes_max=2**20)
    directory = tmp_path / "log"
    directory.mkdir()
    return DiskBackend(DiskFiles(str(directory)), directory, segment_bytes_max=_TINY_SEGMENT_BYTES)
