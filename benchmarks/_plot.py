"""Small SVG charts: lines over a logarithmic x axis, and bars around a ratio of 1.

They are shown as images, where no style of the page reaches them and `prefers-color-scheme` is
the system's and not the page's. So they have no background, and only colours that can be read on
white and on black.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias
from xml.sax.saxutils import escape

__all__ = ["Points", "bars", "lines"]

Points: TypeAlias = Sequence[tuple[float, float]]
"""x and y, both above 0."""

_INK: Final = "#7d8590"
_FAINT: Final = "#7d859055"
_COLOURS: Final = (
    "#2f81f7",
    "#db6d28",
    "#3fa45b",
    "#a371f7",
    "#d1497f",
    "#a68a00",
    "#1b9e9e",
    "#9a6b4f",
)
_WIDTH: Final = 720
_HEIGHT: Final = 360
_LEFT: Final = 70
_RIGHT: Final = 190  # the legend
_TOP: Final = 40
_BOTTOM: Final = 50
_BAR: Final = 20
_NAMES: Final = 300  # beside the bars
_FONT: Final = 'font-family="system-ui, sans-serif" font-size="12"'


def lines(title: str, x_name: str, y_name: str, series: Mapping[str, Points]) -> str:
    """Draw one line for each series; both axes are logarithmic.

    Args:
        title: above the chart.
        x_name: what x is.
        y_name: what y is, with its unit.
        series: the points by name. A name that ends in `floor` is drawn dashed.
    """
    points = [point for one in series.values() for point in one]
    if not points:
        return _svg(title, _HEIGHT, [])
    xs = _Axis([x for x, _ in points], _LEFT, _WIDTH - _RIGHT)
    ys = _Axis([y for _, y in points], _HEIGHT - _BOTTOM, _TOP, whole=True)
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [_text((_LEFT + right) / 2, _HEIGHT - 12, x_name, "middle")]
    parts.append(_text(_LEFT, _TOP - 8, y_name, "start"))
    for value in ys.ticks():
        y = ys.at(value)
        parts.append(_line(_LEFT, y, right, y))
        parts.append(_text(_LEFT - 8, y + 4, _short(value), "end"))
    for value in sorted({x for x, _ in points}):
        x = xs.at(value)
        parts.append(_line(x, _TOP, x, bottom))
        parts.append(_text(x, bottom + 18, _short(value), "middle"))
    for number, (name, ordered) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dashes = ' stroke-dasharray="5 4"' if name.endswith("floor") else ""
        places = [(xs.at(x), ys.at(y)) for x, y in sorted(ordered)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        stroke = f'fill="none" stroke="{colour}" stroke-width="2"{dashes}'
        parts.append(f'<polyline points="{path}" {stroke}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        y = _TOP + 10 + 20 * number
        parts.append(
            _line(right + 14, y, right + 34, y, colour=colour, more=f' stroke-width="2"{dashes}')
        )
        parts.append(_text(right + 40, y + 4, name, "start"))
    return _svg(title, _HEIGHT, parts)


def bars(title: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Draw one bar for each ratio, to the right of 1 where it is higher; logarithmic.

    Args:
        title: above the chart.
        groups: the ratios, each above 0, by name, by the name of their group.
    """
    ratios = [ratio for group in groups.values() for ratio in group.values()]
    axis = _Axis([1, *ratios], _NAMES, _WIDTH - 60)
    one = axis.at(1)
    parts: list[str] = []
    y = _TOP + 10
    for heading, group in groups.items():
        parts.append(_text(10, y + 4, heading, "start", ' font-weight="bold"'))
        y += _BAR
        for name, ratio in group.items():
            end = axis.at(ratio)
            colour = _COLOURS[0] if ratio >= 1 else _COLOURS[1]
            size = f'width="{max(1, abs(end - one)):.1f}" height="{_BAR - 6}"'
            parts.append(f'<rect x="{min(one, end):.1f}" y="{y - 7}" {size} fill="{colour}"/>')
            parts.append(_text(_NAMES - 50, y + 4, name, "end"))
            parts.append(_text(max(one, end) + 5, y + 4, f"{ratio:.2g}\u00d7", "start"))
            y += _BAR
        y += _BAR // 2
    parts.append(_line(one, _TOP, one, y - _BAR, colour=_INK))
    return _svg(title, y, parts)


class _Axis:
    """From values to places, evenly by their logarithms."""

    def __init__(
        self, values: Sequence[float], first: float, last: float, *, whole: bool = False
    ) -> None:
        logs = [math.log10(value) for value in values]
        self._low, self._high = min(logs), max(logs)
        if whole:
            self._low, self._high = math.floor(self._low), math.ceil(self._high)
        if self._low == self._high:
            self._high += 1
        self._first, self._last = first, last

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._first + share * (self._last - self._first)

    def ticks(self) -> Iterator[float]:
        for exponent in range(math.floor(self._low), math.ceil(self._high) + 1):
            yield 10.0**exponent


def _short(value: float) -> str:
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit and value % (unit / 10) == 0:
            return f"{value / unit:g}{suffix}"
    return f"{value:,g}"


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{_INK}"{more}>{escape(text)}</text>'


def _line(
    x1: float, y1: float, x2: float, y2: float, *, colour: str = _FAINT, more: str = ""
) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}"{more}/>'


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {_FONT}>'
    body = [f"<title>{escape(title)}</title>", _text(10, 16, title, "start", ' font-size="14"')]
    return "\n".join([head, *body, *parts, "</svg>", ""])
