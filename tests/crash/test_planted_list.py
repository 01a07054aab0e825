"""The list of planted bugs that people read is the one that is planted."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import tests
from tests.crash._planted_bugs import MUTANTS as OF_THE_LOG
from tests.schedules._planted_bugs import MUTANTS as OF_THE_WRITER

_README: Final = Path(tests.__file__).with_name("README.md")


def test_every_planted_bug_stands_in_the_readme() -> None:
    """By its name and its file, in order, and no other does."""
    rows = _README.read_text(encoding="utf-8").partition("## The planted bugs")[2].splitlines()
    listed = [tuple(row.split(" | ")[:2]) for row in rows if row.startswith("| ")][2:]
    planted = [(f"| {bug.name}", f"`{bug.file}`") for bug in (*OF_THE_LOG, *OF_THE_WRITER)]
    assert listed == planted
