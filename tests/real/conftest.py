"""What the proofs measured is printed at the end of the run: a figure nobody sees proves little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

_FIGURES: Final = pytest.StashKey[list[str]]()


@pytest.fixture
def tell(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Callable[[str, int], None]:
    """Say a sentence in the summary of the run, and how many cases it speaks of."""

    def say(sentence: str, cases: int) -> None:
        request.config.stash.setdefault(_FIGURES, []).append(sentence)
        record_property("cases", cases)

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was told."""
    stash = terminalreporter.config.stash
    if _FIGURES in stash:
        terminalreporter.section("real processes and system calls")
        for figure in stash[_FIGURES]:
            terminalreporter.write_line(figure)
