"""Who may import whom, and who may touch the operating system: read from the source itself."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

_ROOT: Final = Path(__file__).parents[1]
_SEAM: Final = {
    "eventstore._log._files",  # the log's only way to the operating system
    "eventstore._runs._disk_workspace",  # the run directories'
}
_WAKER: Final = "eventstore._log._inbox"  # wakes the writer's thread by a socket pair
_DEVICES: Final = {
    *("fcntl", "io", "mmap", "pathlib", "shutil", "socket", "subprocess", "tempfile", "glob"),
}
_OS_WITHOUT_IO: Final = {
    *("PathLike", "fspath", "path", "strerror", "getpid", "register_at_fork"),
    *("SEEK_CUR", "SEEK_END", "SEEK_SET"),
}
_OS_PATH_WITHOUT_IO: Final = {"abspath", "basename", "dirname", "join", "split"}
_CLOCKS_AND_LOOPS: Final = {
    *("aiofiles", "anyio", "asyncio", "os", "queue", "random", "secrets", "signal", "threading"),
    *("time", "trio", "uuid"),
}
_CORE: Final = {"aiofiles", "anyio", "msgspec"}
_EXTRAS: Final = {
    "projections.cli": {"click", "rich"},
    "eventstore._log._crc": {"isal"},  # without it, zlib
    "projections.testing.plugin": {"pytest"},  # whoever loads it runs pytest
}
_KNOWN_PURE: Final = {
    *("_codec", "_event_types", "_events", "_foreign", "_loop", "_timestamps", "_upcasts"),
    *("_log._index", "_log._lines", "_log._lock_record", "_log._names"),
    *("_log._numbering", "_log._recovery", "_log._request", "_log._scan"),
}


def sources(package: str) -> dict[str, ast.Module]:
    """Every module of a package, by its dotted name."""
    return {
        ".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(
            ".__init__"
        ): ast.parse(path.read_bytes())
        for path in sorted((_ROOT / package).rglob("*.py"))
    }


def imported(module: ast.Module) -> Iterator[str]:
    """The dotted names a module imports, wherever in it."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def roots(module: ast.Module) -> set[str]:
    """The top-level packages a module imports."""
    return {name.partition(".")[0] for name in imported(module)}


def attributes(module: ast.Module, of: str) -> set[str]:
    """What a module uses of an imported name: `os.path` gives `path`."""
    return {
        node.attr
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == of
    }


def calls_open(module: ast.Module) -> bool:
    """Whether a module opens files by the built-in function."""
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"
        for node in ast.walk(module)
    )


WRITE_SIDE: Final = sources("eventstore")
READ_SIDE: Final = sources("projections")
PURE: Final = sorted(
    name
    for name, module in (WRITE_SIDE | READ_SIDE).items()
    if (ast.get_docstring(module) or "").partition("\n")[0].endswith("Pure.")
)


@pytest.mark.parametrize("name", WRITE_SIDE)
def test_the_write_side_never_imports_the_read_side(name: str) -> None:
    """`eventstore` knows nothing of `projections`, nor of the tests."""
    assert not roots(WRITE_SIDE[name]) & {"projections", "tests", "benchmarks"}


@pytest.mark.parametrize("name", READ_SIDE)
def test_the_read_side_imports_public_names_only(name: str) -> None:
    """`projections` uses what any user of `eventstore` can."""
    assert not roots(READ_SIDE[name]) & {"tests", "benchmarks"}
    inside = [used for used in imported(READ_SIDE[name]) if used.startswith("eventstore._")]
    assert inside == []


@pytest.mark.parametrize("name", [name for name in WRITE_SIDE if name not in _SEAM])
def test_only_the_seam_touches_the_operating_system(name: str) -> None:
    """The log reaches disk, lock and cache by `Files` alone; so one seam can break all of it."""
    module = WRITE_SIDE[name]
    if name.startswith("eventstore._log"):
        assert roots(module) & _DEVICES <= ({"socket"} if name == _WAKER else set())
        assert not calls_open(module)
    assert "fcntl" not in roots(module)
    assert attributes(module, "os") <= _OS_WITHOUT_IO
    assert attributes(module, "os.path") <= _OS_PATH_WITHOUT_IO
    assert not [used for used in imported(module) if used.startswith("os.")]


def test_what_is_pure_says_so() -> None:
    """The rules of the bytes are pure; none of them has lost its mark."""
    assert {f"eventstore.{name}" for name in _KNOWN_PURE} <= set(PURE)


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_know_no_clock_no_loop_and_no_disk(name: str) -> None:
    """A module that calls itself pure imports nothing with effects, and only pure modules."""
    module = (WRITE_SIDE | READ_SIDE)[name]
    assert not roots(module) & (_DEVICES | _CLOCKS_AND_LOOPS)
    assert not calls_open(module)
    if name in WRITE_SIDE:
        ours = {used for used in imported(module) if used in WRITE_SIDE}
        assert ours <= {*PURE, "eventstore._errors"}


@pytest.mark.parametrize("name", WRITE_SIDE | READ_SIDE)
def test_nothing_is_imported_that_is_not_a_dependency(name: str) -> None:
    """The standard library, three packages, and what an extra brings where it is used."""
    allowed = {*sys.stdlib_module_names, *_CORE, "_typeshed", "eventstore", "projections"}
    for package, extra in _EXTRAS.items():
        if name == package or name.startswith(f"{package}."):
            allowed |= extra
    assert roots((WRITE_SIDE | READ_SIDE)[name]) <= allowed
