"""Opening rich's console, for the commands that print tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["open_console"]


def open_console() -> Console:
    """A console on stdout that takes text literally; colours only on a terminal (`NO_COLOR`)."""
    from rich.console import Console

    class LiteralConsole(Console):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 - called while the error is handled; rich would exit with 1

    return LiteralConsole(markup=False, highlight=False, emoji=False)
