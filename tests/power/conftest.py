"""What the power cuts share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests._mutants import ROOT
from tests.power._campaign import CREW_SIZE
from tests.power._crew import Crew, open_crew


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of recoveries have nothing to say to the reader of a test report."""
    monkeypatch.setattr(logging.getLogger("eventstore"), "disabled", True)


@pytest.fixture
def probed(tmp_path: Path) -> Path:
    """An empty directory to try a machine in."""
    directory = tmp_path / "probed"
    directory.mkdir()
    return directory


@pytest.fixture(scope="session")
def crew() -> Iterator[Crew]:
    """Writers that use the engine as it is."""
    with open_crew(CREW_SIZE, ROOT) as opened:
        yield opened
