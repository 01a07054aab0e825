"""What goes on, for what takes long: on a terminal's stderr, and after half a second only."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.status import Status

__all__ = ["byte_progress", "status_line"]

_PATIENCE_SECONDS: Final = 0.5


@contextlib.contextmanager
def byte_progress() -> Generator[Callable[[int, int], None] | None]:
    """What to tell of the bytes done and the bytes there are; None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    begun = time.monotonic()
    bar: Progress | None = None

    def tell(done: int, total: int) -> None:
        nonlocal bar
        if bar is None and time.monotonic() - begun >= _PATIENCE_SECONDS:
            bar = _bar()
            bar.add_task("", total=total)
            bar.start()
        if bar is not None:
            bar.update(bar.task_ids[0], completed=done, total=total)

    try:
        yield tell
    finally:
        if bar is not None:
            bar.stop()


@contextlib.contextmanager
def status_line() -> Generator[Callable[[str], None]]:
    """What to tell in words how far it is; nobody hears it where there is no terminal."""
    begun = time.monotonic()
    line: Status | None = None

    def tell(text: str) -> None:
        nonlocal line
        if line is None and sys.stderr.isatty() and time.monotonic() - begun >= _PATIENCE_SECONDS:
            from rich.console import Console

            line = Console(stderr=True, markup=False, highlight=False).status("")
            line.start()
        if line is not None:
            line.update(text)

    try:
        yield tell
    finally:
        if line is not None:
            line.stop()


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (BarColumn(None), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
