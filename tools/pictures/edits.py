"""The pictures of edits."""

from __future__ import annotations

from .shapes import EDIT, GREY, MODEL, PLANNER, SONG, arrow, bars, card, contour, gradient, lines


def cover() -> str:
    levels = contour(26, 5)
    return bars(levels, 48, 126, 416, 130, GREY) + arrow(256, 206, 16, 90) + bars(levels, 48, 284, 416, 130, EDIT)


def repaint() -> str:
    levels = contour(27, 14)
    new = contour(27, 15)
    part = slice(10, 18)
    step = 416 / 27
    x, width = 48 + part.start * step, (part.stop - part.start) * step
    return (
        bars(levels[: part.start], 48, 200, part.start * step, 230, GREY)
        + bars(levels[part.stop :], x + width, 200, 416 - part.stop * step, 230, GREY)
        + card(x - 8, 66, width + 16, 268, EDIT[1], "#7b3fe433")
        + bars(new[part], x, 200, width, 230, EDIT)
    )


def extend() -> str:
    levels = contour(27, 17)
    known = 15
    step = 416 / 27
    x = 48 + known * step
    edge = f'<path d="M{x} 70V330" stroke="#ffffff" stroke-width="5" stroke-dasharray="4 14" stroke-linecap="round"/>'
    return (
        bars(levels[:known], 48, 200, known * step, 230, GREY)
        + bars(levels[known:], x, 200, 416 - known * step, 230, EDIT)
        + edge
    )


def stems() -> str:
    tracks = ""
    for row, seed in enumerate((31, 32, 33, 34)):
        chosen = row == 1
        y = 92 + row * 72
        tracks += card(48, y - 30, 416, 60, EDIT[1] if chosen else "#ffffff22", "#7b3fe433" if chosen else "#ffffff08")
        tracks += bars(contour(32, seed), 62, y, 388, 44, EDIT if chosen else GREY, 1 if chosen else 0.7)
    return tracks


def timbre() -> str:
    rings = "".join(
        f'<circle cx="128" cy="200" r="{radius}" fill="none" stroke="{gradient(EDIT)}" stroke-width="{width}" '
        f'opacity="{opacity}"/>'
        for radius, width, opacity in ((22, 44, 1), (58, 10, 0.9), (78, 7, 0.6), (96, 5, 0.35))
    )
    return rings + arrow(262, 200, 24) + bars(contour(11, 27), 318, 200, 150, 210, EDIT)


def morph() -> str:
    count = 27
    old, new = contour(count, 41), contour(count, 48)
    shares = [i / (count - 1) for i in range(count)]
    levels = [a * (1 - share) + b * share for a, b, share in zip(old, new, shares, strict=True)]
    step = 416 / count

    def mixed(share: float) -> str:
        ends = [(0x8F, 0xD0, 0xFF), (0xFF, 0x7A, 0xC8)]
        return "#" + "".join(f"{round(a * (1 - share) + b * share):02x}" for a, b in zip(*ends, strict=True))

    return "".join(
        f'<rect x="{48 + i * step + 3:.1f}" y="{200 - level * 120:.1f}" width="{step - 6:.1f}" '
        f'height="{level * 240:.1f}" rx="{(step - 6) / 2:.1f}" fill="{mixed(share)}"/>'
        for i, (level, share) in enumerate(zip(levels, shares, strict=True))
    )


def listen() -> str:
    lens = f'<circle cx="196" cy="186" r="104" fill="#10131b" fill-opacity=".55" stroke="{PLANNER[1]}" \
stroke-width="14"/><path d="M272 262L330 320" stroke="{PLANNER[1]}" stroke-width="24" stroke-linecap="round"/>'
    return (
        bars(contour(27, 51), 48, 186, 416, 150, GREY, 0.6)
        + lens
        + lines(136, 136, (120, 84, 108, 64), "#e8ecf6", gap=30, thick=13)
    )


def repaint_by_name() -> str:
    levels, new = contour(27, 121), contour(27, 122)
    step, part = 416 / 27, slice(11, 20)
    x, width = 48 + part.start * step, (part.stop - part.start) * step
    label = (
        f'<rect x="{x - 8}" y="62" width="{width + 16}" height="46" rx="14" fill="{EDIT[1]}"/>'
        f'<text x="{x + width / 2}" y="95" font-size="30" font-weight="700" text-anchor="middle" fill="#10131b">'
        "chorus</text>"
    )
    return (
        bars(levels[: part.start], 48, 230, part.start * step, 200, GREY)
        + bars(levels[part.stop :], x + width, 230, 416 - part.stop * step, 200, GREY)
        + card(x - 8, 120, width + 16, 220, EDIT[1], "#7b3fe433")
        + bars(new[part], x, 230, width, 200, EDIT)
        + label
    )


def stems_to_files() -> str:
    drawn = ""
    for row, (seed, colours) in enumerate(((31, EDIT), (32, PLANNER), (33, SONG), (34, GREY))):
        y = 80 + row * 80
        drawn += bars(contour(20, seed), 48, y, 250, 60, colours) + arrow(338, y, 18)
        drawn += (
            f'<path d="M398 {y - 30}h34l26 26v34h-60z" fill="#1b2030" stroke="{colours[1]}" stroke-width="6" '
            'stroke-linejoin="round"/>'
        )
    return drawn


def mix_stems() -> str:
    drawn = ""
    for place, (share, colours) in enumerate(((0.3, EDIT), (0.7, PLANNER), (0.5, SONG), (0.85, MODEL))):
        x, y = 104 + place * 101, 330 - share * 250
        drawn += f'<path d="M{x} 66V334" stroke="#ffffff30" stroke-width="12" stroke-linecap="round"/>'
        drawn += f'<path d="M{x} {y}V334" stroke="{gradient(colours)}" stroke-width="12" stroke-linecap="round"/>'
        drawn += f'<rect x="{x - 32}" y="{y - 17}" width="64" height="34" rx="12" fill="{gradient(colours)}"/>'
    return drawn
