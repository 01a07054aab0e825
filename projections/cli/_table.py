"""The registry as a table that fits the terminal, and what one row of it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from projections._loop_entry import LoopEntry
from projections._overlay import Overlay
from projections.cli._text import clean

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["LoopRow", "hidden_cells", "loop_table", "summary_grid"]

_GAP: Final = 2
_LOOP_MIN: Final = 8
_PROMPT_MIN: Final = 12
_CHARACTERS_MAX: Final = 300  # of a value in a summary; --json has all of it
_TIERS: Final = (
    (80, ("loop", "state", "outcome", "last", "failed", "events", "prompt")),
    (64, ("loop", "state", "outcome", "last", "failed", "events")),
    (50, ("loop", "state", "last", "failed", "events")),
    (0, ("loop", "state", "last")),
)
"""From which width on which columns are shown; `hidden_cells` are the others."""
_NUMBERS: Final = frozenset({"last", "failed", "events"})
_STYLES: Final = {
    "running": "cyan",
    "queued": "cyan",
    "merging": "cyan",
    "succeeded": "green",
    "merged": "green",
    "needs-review": "yellow",
    "limit": "yellow",
    "cancelled": "yellow",
    "crashed": "red",
    "stalled": "yellow",
    "failed": "red",
    "terminated": "red",
    "discarded": "dim",
}


class LoopRow(NamedTuple):
    """One loop of the table."""

    loop: str
    entry: LoopEntry
    events: int
    overlay: Overlay | None = None


def loop_table(rows: Sequence[LoopRow], *, width: int) -> Table:
    """Lay out the registry: one line per loop, whatever the width."""
    from rich.table import Table
    from rich.text import Text

    columns = _columns(width)
    cells = [_cells(row) for row in rows]
    widths = {
        name: max([Text(name).cell_len, *(Text(cell[name]).cell_len for cell in cells)])
        for name in columns
    }
    _fit(widths, width)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(
            name,
            width=widths[name],
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if name in _NUMBERS else "left",
        )
    for cell in cells:
        table.add_row(*(Text(cell[name], style=_style(name, cell[name])) for name in columns))
    return table


def hidden_cells(row: LoopRow, *, width: int) -> dict[str, str]:
    """What the table has no column for at a width, by the column's name."""
    columns = _columns(width)
    return {name: cell for name, cell in _cells(row).items() if name not in columns}


def summary_grid(lines: Mapping[str, str], *, width: int) -> Table:
    """Lay out names and values; a value is wrapped at the width, and cut where it is a book."""
    from rich.table import Table
    from rich.text import Text

    named = max(map(len, lines)) + _GAP
    grid = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
    grid.add_column(width=named, style="dim", no_wrap=True)
    grid.add_column(width=max(1, width - named - _GAP), overflow="fold")
    for name, value in lines.items():
        grid.add_row(f"  {name}", Text(_shorten(clean(value))))
    return grid


def _columns(width: int) -> tuple[str, ...]:
    return next(columns for width_min, columns in _TIERS if width >= width_min)


def _cells(row: LoopRow) -> dict[str, str]:
    entry = row.entry
    return {
        "loop": clean(row.loop),
        "state": row.overlay or ("-" if entry.state == "absent" else entry.state),
        "outcome": entry.outcome or "-",
        "last": "-" if entry.last_iteration is None else str(entry.last_iteration),
        "failed": str(entry.iterations_failed),
        "events": str(row.events),
        "prompt": "-" if entry.prompt is None else clean(entry.prompt),
    }


def _shorten(text: str) -> str:
    return text if len(text) <= _CHARACTERS_MAX else f"{text[:_CHARACTERS_MAX].rstrip()}…"


def _fit(widths: dict[str, int], width: int) -> None:
    """Make the columns fit, by cutting the prompt first and then the loop's name."""
    for name, narrowest in (("prompt", _PROMPT_MIN), ("loop", _LOOP_MIN)):
        if name in widths:
            excess = sum(widths.values()) + _GAP * (len(widths) - 1) - width
            widths[name] = max(min(narrowest, widths[name]), widths[name] - max(0, excess))


def _style(column: str, text: str) -> str:
    if column in ("state", "outcome"):
        return _STYLES.get(text, "")
    return "red" if column == "failed" and text != "0" else ""
