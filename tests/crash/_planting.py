"""A copy of the engine with a planted bug, for processes that are told to import it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import tests
from tests.crash._planted_bugs import Mutant

__all__ = ["ROOT", "planted"]

ROOT: Final = Path(tests.__file__).resolve().parent.parent
"""Where the engine without planted bugs is imported from."""


@contextmanager
def planted(mutant: Mutant) -> Generator[Path]:
    """A directory with the mutated `eventstore` and these `tests`, to be put on PYTHONPATH."""
    with tempfile.TemporaryDirectory(prefix="loopledger-mutant-") as name:
        directory = Path(name)
        shutil.copytree(ROOT / "eventstore", directory / "eventstore")
        (directory / "tests").symlink_to(ROOT / "tests")
        path = directory / "eventstore" / "_log" / mutant.file
        source = path.read_text(encoding="utf-8")
        assert source.count(mutant.old) == 1, f"{mutant.name}: not once in {mutant.file}"
        path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
        yield directory
