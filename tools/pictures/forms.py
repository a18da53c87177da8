"""The pictures of forms."""

from __future__ import annotations

from .shapes import EDIT, GREY, SONG, Colours, bars, card, contour, gradient, lines, play


def form(picture: str, colours: Colours) -> str:
    """Draw a form: a window with a small picture, fields and a button."""
    bar = "".join(f'<circle cx="{74 + i * 24}" cy="84" r="7" fill="#ffffff55"/>' for i in range(3))
    fields = "".join(card(298, 116 + row * 58, 146, 42, "#ffffff40") for row in range(3))
    texts = "".join(
        lines(314, 130 + row * 58, (width,), "#e8ecf6", thick=12) for row, width in enumerate((96, 70, 110))
    )
    button = f'<rect x="298" y="292" width="146" height="34" rx="17" fill="{gradient(colours)}"/>'
    return card(44, 58, 424, 290, "#ffffff40", "#151925") + bar + picture + fields + texts + button


def simple_form() -> str:
    return form(play(166, 164, 38, SONG) + bars(contour(14, 3), 72, 280, 196, 90, SONG), SONG)


def cover_form() -> str:
    levels = contour(14, 5)
    return form(bars(levels, 72, 166, 196, 90, GREY) + bars(levels, 72, 284, 196, 90, EDIT), EDIT)


def repaint_form() -> str:
    levels, step = contour(14, 14), 14.0
    context = bars(levels[:5], 72, 222, 5 * step, 150, GREY) + bars(levels[9:], 72 + 9 * step, 222, 5 * step, 150, GREY)
    return form(
        context + card(138, 126, 64, 192, EDIT[1], "#7b3fe433") + bars(levels[5:9], 142, 222, 56, 150, EDIT), EDIT
    )


def extend_form() -> str:
    levels, step = contour(14, 17), 14.0
    return form(bars(levels[:8], 72, 222, 8 * step, 150, GREY) + bars(levels[8:], 184, 222, 6 * step, 150, EDIT), EDIT)
