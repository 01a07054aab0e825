"""The pytest plugin: one fixture, `tmp_log`. Installing loopledger is enough to have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from projections.testing._logs import TmpLog

__all__ = ["tmp_log"]


@pytest.fixture(params=["memory", "disk"])
def tmp_log(request: pytest.FixtureRequest, tmp_path: Path) -> TmpLog:
    """A log that does not exist yet, once in memory and once on disk; it can be opened again."""
    return TmpLog() if request.param == "memory" else TmpLog(tmp_path / "tmp_log")
