"""Draw a chart with logarithmic axes as SVG, with the standard library."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

Point = tuple[float, float]
WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 64, 170, 44, 56  # margins
GREY, LIGHT = "#555", "#ddd"


@dataclass(frozen=True)
class Line:
    """A labelled line through `points` (x, y > 0). `dashes` is an SVG dash pattern."""

    label: str
    points: Sequence[Point]
    colour: str
    dashes: str = ""


def write_chart(
    path: Path, title: str, x_label: str, y_label: str, lines: Sequence[Line], ticks: Mapping[float, str]
) -> None:
    """Write the chart. `ticks` are the marks of the x axis and their labels; those of the y axis are powers of ten."""
    xs, ys = ([point[axis] for line in lines for point in line.points] for axis in (0, 1))
    low = math.floor(math.log10(min(ys)))
    high = max(math.ceil(math.log10(max(ys))), low + 1)
    to_x = _scale(math.log10(min(xs)), math.log10(max(xs)), LEFT, WIDTH - RIGHT)
    to_y = _scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [
        _text(LEFT, 24, title, size=15, weight="bold"),
        _text(LEFT, HEIGHT - 14, x_label),
        _text(16, TOP - 8, y_label),
    ]
    for power in range(low, high + 1):
        y = to_y(power)
        parts += [_rule(LEFT, y, WIDTH - RIGHT, y), _text(LEFT - 8, y + 4, f"{10.0**power:g}", "end")]
    for value, label in ticks.items():
        x = to_x(math.log10(value))
        parts += [_rule(x, TOP, x, HEIGHT - BOTTOM), _text(x, HEIGHT - BOTTOM + 18, label, "middle")]
    curves = [(line, [(to_x(math.log10(x)), to_y(math.log10(y))) for x, y in line.points]) for line in lines]
    parts += [_curve(line, points) for line, points in curves]
    body = "\n".join(parts + _legend(curves))
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n',
        encoding="utf-8",
    )


def _scale(low: float, high: float, first: float, last: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: first + (value - low) / span * (last - first)


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = GREY, **style: object) -> str:
    attributes = "".join(f' font-{name}="{value}"' for name, value in style.items())
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{attributes}>{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{LIGHT}"/>'


def _curve(line: Line, points: Iterable[Point]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = f' stroke-dasharray="{line.dashes}"' if line.dashes else ""
    return f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2.2"{dashes}/>'


def _legend(curves: Sequence[tuple[Line, Sequence[Point]]]) -> list[str]:
    """Label each line at the height of its last point, or lower if another label is there."""
    parts, free, x = [], -math.inf, WIDTH - RIGHT + 10
    for line, points in sorted(curves, key=lambda curve: curve[1][-1][1]):
        free = max(points[-1][1], free + 15)
        parts += [_curve(line, [(x, free), (x + 24, free)]), _text(x + 30, free + 4, line.label, colour=line.colour)]
    return parts
