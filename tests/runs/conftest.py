"""Both workspaces, and a clock that stands still until it is told to move."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from eventstore._runs import DiskWorkspace, MemoryWorkspace, Workspace

NOON_NS: Final = 1_795_219_646_254_876_167  # 2026-11-21T00:07:26.254876167Z
NOON_ID: Final = "2026-11-21_00-07-26.254Z"


class ManualClock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now_ns = NOON_NS

    def __call__(self) -> int:
        """Tell the time in nanoseconds since 1970."""
        return self.now_ns


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture(params=["disk", "memory"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Workspace:
    """An empty workspace of either kind; its files' times are the machine's."""
    return DiskWorkspace(tmp_path) if request.param == "disk" else MemoryWorkspace()
