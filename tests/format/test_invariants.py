"""FORMAT.md's invariants and the tests that hold them: neither without the other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_MANUAL: Final = _ROOT / "eventstore" / "FORMAT.md"
_NUMBER: Final = re.compile(r"\bI[1-9][0-9]?\b")


def invariants() -> list[int]:
    """The numbers that FORMAT.md defines, in the order they stand there."""
    text = _MANUAL.read_text(encoding="utf-8")
    return [int(number) for number in re.findall(r"^\* \*\*I([0-9]+)\*\* \S", text, re.MULTILINE)]


def docstrings_of_tests() -> Iterator[tuple[str, str]]:
    """Every test's name and docstring."""
    for path in sorted((_ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(
                node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            ) and node.name.lower().startswith("test"):
                yield f"{path.relative_to(_ROOT)}::{node.name}", ast.get_docstring(node) or ""


def numbers_in(text: str) -> set[int]:
    """The invariants that a text cites."""
    return {int(number[1:]) for number in _NUMBER.findall(text)}


def test_invariants_are_numbered_in_order() -> None:
    """Each number stands once, and none is missing, so that a citation finds its line."""
    assert invariants() == list(range(1, len(invariants()) + 1))
    assert len(invariants()) >= 20


def test_every_invariant_is_cited_by_a_test() -> None:
    """A promise in FORMAT.md that no test's docstring names is not proved."""
    cited = set[int]().union(*(numbers_in(text) for _, text in docstrings_of_tests()))
    assert set(invariants()) <= cited


def test_every_cited_invariant_exists() -> None:
    """A test or a module that names an invariant means one of FORMAT.md."""
    known = set(invariants())
    for name, text in docstrings_of_tests():
        assert numbers_in(text) <= known, name
    for package in ("eventstore", "projections"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            assert numbers_in(path.read_text(encoding="utf-8")) <= known, path


def test_assumptions_are_numbered_in_order() -> None:
    """The medium's assumptions too, and FORMAT.md cites only those."""
    text = _MANUAL.read_text(encoding="utf-8")
    assumptions = [int(n) for n in re.findall(r"^\* \*\*M([0-9]+)\*\* ", text, re.MULTILINE)]
    assert assumptions == list(range(1, len(assumptions) + 1))
    assert {int(n) for n in re.findall(r"\bM([0-9]+)\b", text)} == set(assumptions)
