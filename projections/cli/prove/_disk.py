"""The disk that is tried: what it calls itself, and how long it takes to sync."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["IN_MEMORY", "Disk", "look_at"]

IN_MEMORY: Final = frozenset({"ramfs", "tmpfs"})
"""File systems on which a sync does nothing."""
_SYNCS: Final = 200
_SYNCED_BYTES: Final = 200
_sync: Final = getattr(os, "fdatasync", os.fsync)


class Disk(msgspec.Struct, frozen=True):
    """Where a campaign runs.

    Attributes:
        file_system: its type, `unknown` where the system does not tell.
        device: what is mounted there.
        sync_p50_ms: how long a sync takes after a short write, half of the time.
        sync_p99_ms: and 99 times of 100.
    """

    file_system: str
    device: str
    sync_p50_ms: float
    sync_p99_ms: float


def look_at(directory: Path) -> Disk:
    """Look around; write and remove one small file in a directory."""
    file_system, device = _mounted(directory.resolve())
    taken = sorted(_time_syncs(directory / "sync"))
    return Disk(file_system, device, *(1e3 * _percentile(taken, share) for share in (0.5, 0.99)))


def _mounted(directory: Path) -> tuple[str, str]:
    """Type and device of the file system that holds a directory."""
    try:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown", "unknown"
    best, found = -1, ("unknown", "unknown")
    for row in text.splitlines():
        mount, _, rest = row.partition(" - ")
        at = Path(mount.split()[4].replace(r"\040", " "))
        depth = len(at.parts)
        if directory.is_relative_to(at) and depth >= best:  # of two on one place the later counts
            file_system, device, *_ = rest.split()
            best, found = depth, (file_system, device)
    return found


def _time_syncs(path: Path) -> list[float]:
    taken: list[float] = []
    with path.open("xb", buffering=0) as file:
        for _ in range(_SYNCS):
            begin = time.perf_counter()
            file.write(bytes(_SYNCED_BYTES))
            _sync(file.fileno())
            taken.append(time.perf_counter() - begin)
    path.unlink()
    return taken


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[math.ceil(len(ordered) * share) - 1]
