"""All bytes of a log on the disk."""

from __future__ import annotations

import os
from pathlib import Path

from eventstore._log._names import LogNames

__all__ = ["log_bytes"]


def log_bytes(path: Path) -> bytes:
    """The sealed segments and the active one, in order; it may be missing after a kill."""
    names = LogNames(path.name)
    sealed = names.sealed_positions(os.listdir(path.parent))  # noqa: PTH208 - as the log does
    files = [path.with_name(names.sealed(position)) for position in sealed]
    return b"".join(file.read_bytes() for file in [*files, *([path] if path.exists() else [])])
