"""The shapes of the pictures: waveforms, lines of text, arrows and cards, in the colours of the stages."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

# The stages' colours: from dark to light.
SONG, EDIT, PLANNER, MODEL, TAKES, NATIVE = (
    ("#1f8a5b", "#7ff0b2"),
    ("#7b3fe4", "#ff9ad5"),
    ("#2f5bea", "#8fd0ff"),
    ("#c8791a", "#ffe08a"),
    ("#0f8f9c", "#9af7e8"),
    ("#54627d", "#d5e0f5"),
)
GREY = ("#4a5060", "#8890a3")
Colours = tuple[str, str]


def contour(count: int, seed: int) -> list[float]:
    """Return heights from 0 to 1, like the level of a song."""
    rng = random.Random(seed)
    phases = [rng.uniform(0, math.tau) for _ in range(3)]
    swell = [
        0.5 + 0.28 * math.sin(i / count * 9 + phases[0]) + 0.2 * math.sin(i / count * 23 + phases[1])
        for i in range(count)
    ]
    return [min(1.0, max(0.08, level * rng.uniform(0.55, 1.15))) for level in swell]


def bars(
    levels: Sequence[float], x: float, y: float, width: float, height: float, colours: Colours, opacity: float = 1
) -> str:
    """Draw a waveform as rounded bars around the line y."""
    step = width / len(levels)
    fill = gradient(colours)
    drawn = "".join(
        f'<rect x="{x + i * step + step * 0.18:.1f}" y="{y - level * height / 2:.1f}" width="{step * 0.64:.1f}" '
        f'height="{level * height:.1f}" rx="{step * 0.32:.1f}"/>'
        for i, level in enumerate(levels)
    )
    return f'<g fill="{fill}" opacity="{opacity}">{drawn}</g>'


def gradient(colours: Colours) -> str:
    return f"url(#{name_of(colours)})"


def name_of(colours: Colours) -> str:
    return "g" + "".join(colours).replace("#", "")


def define(colours: Colours) -> str:
    return (
        f'<linearGradient id="{name_of(colours)}" gradientUnits="userSpaceOnUse" x1="0" y1="60" x2="512" y2="360">'
        f'<stop offset="0" stop-color="{colours[1]}"/><stop offset="1" stop-color="{colours[0]}"/></linearGradient>'
    )


def lines(x: float, y: float, widths: Sequence[float], colour: str, gap: float = 30, thick: float = 14) -> str:
    """Draw lines of text as rounded strips."""
    return "".join(
        f'<rect x="{x}" y="{y + i * gap}" width="{width}" height="{thick}" rx="{thick / 2}" fill="{colour}"/>'
        for i, width in enumerate(widths)
    )


def arrow(x: float, y: float, size: float = 34, turn: float = 0, colour: str = "#ffffff") -> str:
    """Draw an arrow to the right, turned by degrees, around (x, y)."""
    return (
        f'<g transform="translate({x} {y}) rotate({turn})" stroke="{colour}" stroke-width="9" fill="none" '
        f'stroke-linecap="round" stroke-linejoin="round"><path d="M{-size} 0H{size}M{size * 0.3} {-size * 0.65}'
        f'L{size} 0L{size * 0.3} {size * 0.65}"/></g>'
    )


def card(x: float, y: float, width: float, height: float, stroke: str = "#ffffff30", fill: str = "#ffffff10") -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="18" fill="{fill}" stroke="{stroke}" '
        'stroke-width="3"/>'
    )


def play(x: float, y: float, size: float, colours: Colours) -> str:
    return (
        f'<circle cx="{x}" cy="{y}" r="{size}" fill="{gradient(colours)}"/><path fill="#10131b" d="M{x - size * 0.3} '
        f'{y - size * 0.48}L{x + size * 0.55} {y}L{x - size * 0.3} {y + size * 0.48}Z"/>'
    )
