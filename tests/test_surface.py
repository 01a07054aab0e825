"""The public names: complete, sorted, documented, and those that were promised."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import eventstore
import projections
import projections.testing
from eventstore._log._files import Files

_ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = {
    "eventstore": eventstore,
    "projections": projections,
    "projections.testing": projections.testing,
}
MODULES: Final = sorted(
    ".".join(path.relative_to(_ROOT).with_suffix("").parts)
    for package in ("eventstore", "projections")
    for path in (_ROOT / package).rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
PROMISED: Final = {
    "eventstore": {
        *("open_store", "memory_store", "Event", "EventTypes", "LOOP_EVENTS", "LoopEvent"),
        *("HistoryEvent", "Unknown", "NO_STREAM", "ANY", "STREAM_EXISTS", "ExpectedVersion"),
        *("Recorded", "Appended", "EventStore", "EventReader", "RunContext"),
        *("EventStoreError", "VersionConflictError", "CommitUnknownError", "StorePoisonedError"),
        *("StoreClosedError", "StoreBusyError", "CorruptLogError", "EventRefusedError"),
        *("StoreUnavailableError", "LoopStarted", "IterationStarted", "EventPublished"),
        *("IterationCompleted", "LoopCompleted", "LoopResumed", "LoopTerminated", "MergeQueued"),
        *("MergeStarted", "MergeCompleted", "MergeFailed", "LoopDiscarded"),
    },
    "projections": {
        *("Projection", "latest", "first", "LAST_ITERATION", "COMPLETION", "PROMPT", "SUMMARY"),
        *("REGISTRY", "TIMELINE", "Summary", "Completion", "LoopEntry", "load", "load_all"),
        *("open_history", "transact", "bisect", "diff"),
    },
}

_SHARED_TYPE_VARIABLES: Final = {"E", "E_co"}


def _order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions; each by the alphabet."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def defined(module: ast.Module, *, imports: bool) -> set[str]:
    """The public names at the top of a module: what it imports, or what it makes."""
    names: set[str] = set()
    for node in _statements(module.body):
        match node:
            case ast.ImportFrom() | ast.Import():
                if imports:
                    names.update(alias.asname or alias.name for alias in node.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar"))):
                continue
            case ast.Assign():
                names.update(t.id for t in node.targets if isinstance(t, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case _:
                pass
    return {name for name in names if not name.startswith("_") and name != "annotations"}


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from _statements(node.body + node.orelse)


def documented_assignments(package: str) -> set[str]:
    """The constants and aliases of a package that have a string behind them."""
    names: set[str] = set()
    for path in _ROOT.joinpath(*package.split(".")).rglob("*.py"):
        body = ast.parse(path.read_bytes()).body
        for node, after in itertools.pairwise(body):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if is_text and isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if isinstance(target, ast.Name):
                    names.add(target.id)
    return names


def public_names(package: ModuleType) -> list[str]:
    """What a package exports."""
    names: list[str] = package.__all__
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_exports_what_it_imports(package: str) -> None:
    """`__all__` equals the names at the top, in order, so that there is one path to each."""
    source = ast.parse(_ROOT.joinpath(*package.split("."), "__init__.py").read_bytes())
    names = public_names(PACKAGES[package])
    assert set(names) == defined(source, imports=True)
    assert names == sorted(names, key=_order)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_exports_what_it_defines(name: str) -> None:
    """`__all__` of every module inside is what it defines without an underscore, in order."""
    path = _ROOT / Path(*name.split(".")).with_suffix(".py")
    source = ast.parse(path.read_bytes())
    names = public_names(importlib.import_module(name))
    assert set(names) - _SHARED_TYPE_VARIABLES == defined(source, imports=False)
    assert names == sorted(names, key=_order)


@pytest.mark.parametrize("package", PROMISED)
def test_the_promised_names_are_there(package: str) -> None:
    """Programs are written against these names; one that goes missing breaks them."""
    assert set(public_names(PACKAGES[package])) >= PROMISED[package]


@pytest.mark.parametrize(
    ("package", "name"), [(p, name) for p, module in PACKAGES.items() for name in module.__all__]
)
def test_every_public_name_is_documented(package: str, name: str) -> None:
    """Classes, their methods and functions have docstrings; constants and aliases a string."""
    value: Any = getattr(PACKAGES[package], name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        assert name in documented_assignments(package)
        return
    assert inspect.getdoc(value)
    if not inspect.isclass(value):
        return
    members: dict[str, object] = dict(vars(value))
    for attribute, member in members.items():
        is_method = inspect.isfunction(member) or isinstance(member, property)
        if is_method and not attribute.startswith("_"):
            is_files = issubclass(value, eventstore.MemoryFiles)
            promise = getattr(Files, attribute, None) if is_files else None
            assert inspect.getdoc(member) or inspect.getdoc(promise), f"{name}.{attribute}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_tells_where_to_read_on(package: str) -> None:
    """The module docstring is the manual."""
    text = inspect.getdoc(PACKAGES[package])
    assert text is not None
    assert len(text.splitlines()) > 10
