"""What the crash tests share."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of recoveries have nothing to say to the reader of a test report."""
    monkeypatch.setattr(logging.getLogger("eventstore"), "disabled", True)
