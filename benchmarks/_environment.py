"""Where the figures come from: what stands above every table."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["IN_MEMORY", "SYNCED_BYTES", "Environment", "describe", "survey"]

IN_MEMORY: Final = frozenset({"ramfs", "tmpfs"})
"""File systems on which a sync does nothing."""
SYNCED_BYTES: Final = 200
"""What is written before each sync that is timed; a short event."""
_SYNCS: Final = 100
_DISTRIBUTIONS: Final = ("loopledger", "anyio", "msgspec", "isal", "uvloop", "trio")


class Environment(msgspec.Struct, frozen=True):
    """The machine, the disk and the libraries.

    Attributes:
        cpu: model name.
        cores: how many this process may use.
        load: processes that wanted a core, averaged over the minute before.
        system: operating system and release.
        python: implementation and version.
        libraries: version by distribution, of those that are installed.
        directory: where the scratch files are.
        file_system: its type, `unknown` where the system does not tell.
        sync_p50_us: how long `fdatasync` takes after a short write, in microseconds.
    """

    cpu: str
    cores: int
    load: float
    system: str
    python: str
    libraries: dict[str, str]
    directory: str
    file_system: str
    sync_p50_us: float


def survey(directory: Path, distributions: Sequence[str] = ()) -> Environment:
    """Look around; write and remove one small file in `directory`.

    Args:
        directory: where the scratch files will be.
        distributions: whose versions matter too.
    """
    return Environment(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        load=os.getloadavg()[0],
        system=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        libraries=_libraries(distributions),
        directory=str(directory.resolve()),
        file_system=_file_system(directory),
        sync_p50_us=_sync_p50_us(directory / "sync"),
    )


def describe(environment: Environment, *, with_directory: bool = True) -> list[str]:
    """The environment as lines of text; the directory is of interest on the machine only."""
    libraries = ", ".join(f"{name} {version}" for name, version in environment.libraries.items())
    sync = f"write and fdatasync of {SYNCED_BYTES} bytes: p50 {environment.sync_p50_us:.0f} us"
    lines = [
        f"cpu        {environment.cpu}, {environment.cores} cores, load {environment.load:.1f}",
        f"system     {environment.system}, {environment.python}",
        f"libraries  {libraries}",
        *([f"directory  {environment.directory}"] if with_directory else []),
        f"disk       {environment.file_system}, {sync}",
    ]
    if environment.file_system in IN_MEMORY:
        lines.append("WARNING    this is memory: a sync costs nothing here, and nothing is durable")
    return lines


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line)
    return next(names, platform.machine())


def _libraries(distributions: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in (*_DISTRIBUTIONS, *distributions):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _file_system(directory: Path) -> str:
    """The type of the file system that holds a directory."""
    try:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    device = directory.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in text.splitlines():
        mount, _, rest = line.partition(" - ")
        if mount.split()[2] == number:
            return rest.split()[0]
    return "unknown"  # btrfs gives each subvolume a number of its own


def _sync_p50_us(path: Path) -> float:
    line = bytes(SYNCED_BYTES)
    taken: list[float] = []
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    try:
        for _ in range(_SYNCS):
            begin = time.perf_counter()
            os.write(handle, line)
            os.fdatasync(handle)
            taken.append(time.perf_counter() - begin)
    finally:
        os.close(handle)
        path.unlink()
    return 1e6 * statistics.median(taken)
