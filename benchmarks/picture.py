"""A chart with logarithmic axes as an SVG, by the standard library alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 64, 170, 44, 56  # margins
GREY, LIGHT = "#555", "#ddd"


@dataclass(frozen=True)
class Line:
    """`points` are (x, y), both above zero; the label is beside the last. `dashes` are SVG's, none: solid."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: str
    dashes: str = ""


def write_chart(path: Path, title: str, x_label: str, y_label: str, lines: Sequence[Line], ticks: Mapping[float, str]):
    """`ticks`: the marks of the x axis and their words. Those of the y axis are powers of ten."""
    xs, ys = ([point[axis] for line in lines for point in line.points] for axis in (0, 1))
    bottom, top = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    across = _scale(math.log10(min(xs)), math.log10(max(xs)), LEFT, WIDTH - RIGHT)
    up = _scale(bottom, max(top, bottom + 1), HEIGHT - BOTTOM, TOP)
    parts = [_text(LEFT, 24, title, size=15, weight="bold"), _text(LEFT, HEIGHT - 14, x_label)]
    parts.append(_text(16, TOP - 8, y_label))
    for power in range(bottom, max(top, bottom + 1) + 1):
        parts += [
            _rule(LEFT, up(power), WIDTH - RIGHT, up(power)),
            _text(LEFT - 8, up(power) + 4, f"{10.0**power:g}", "end"),
        ]
    for value, words in ticks.items():
        x = across(math.log10(value))
        parts += [_rule(x, TOP, x, HEIGHT - BOTTOM), _text(x, HEIGHT - BOTTOM + 18, words, "middle")]
    drawn = [(line, [(across(math.log10(x)), up(math.log10(y))) for x, y in line.points]) for line in lines]
    parts += [_curve(line, points) for line, points in drawn]
    parts += _labels(drawn)
    body = "\n".join(parts)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n',
        encoding="utf-8",
    )


def _scale(low: float, high: float, first: float, last: float):
    span = (high - low) or 1.0
    return lambda value: first + (value - low) / span * (last - first)


def _text(x: float, y: float, words: str, anchor: str = "start", colour: str = GREY, **style: object) -> str:
    more = "".join(f' font-{name}="{value}"' for name, value in style.items())
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{more}>{escape(words)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{LIGHT}"/>'


def _curve(line: Line, points: Iterable[tuple[float, float]]) -> str:
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = f' stroke-dasharray="{line.dashes}"' if line.dashes else ""
    return f'<polyline points="{way}" fill="none" stroke="{line.colour}" stroke-width="2.2"{dashes}/>'


def _labels(drawn: Sequence[tuple[Line, Sequence[tuple[float, float]]]]) -> list[str]:
    """To the right, each at the height of its line's end, with a piece of it; moved down where it would cover one."""
    found, free, x = [], -math.inf, WIDTH - RIGHT + 10
    for line, points in sorted(drawn, key=lambda item: item[1][-1][1]):
        free = max(points[-1][1], free + 15)
        found += [_curve(line, [(x, free), (x + 24, free)]), _text(x + 30, free + 4, line.label, colour=line.colour)]
    return found
