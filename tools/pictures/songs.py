"""The pictures of songs from text."""

from __future__ import annotations

import math
import random

from .shapes import EDIT, GREY, MODEL, NATIVE, PLANNER, SONG, TAKES, arrow, bars, card, contour, gradient, lines, play


def text_to_music() -> str:
    return lines(48, 150, (130, 96, 118, 74), "#e8ecf6") + arrow(238, 200, 26) + bars(
        contour(15, 3), 290, 200, 180, 220, SONG
    )  # fmt: skip


def real_model() -> str:
    tray = f'<path d="M120 268v44q0 16 16 16h240q16 0 16-16v-44" fill="none" stroke="{MODEL[1]}" stroke-width="12" \
stroke-linecap="round"/>'
    return bars(contour(27, 8), 56, 180, 400, 210, MODEL, 0.45) + arrow(256, 208, 62, 90) + tray


def comfy_files() -> str:
    def file(x: float, y: float, word: str, colour: str) -> str:
        return (
            f'<path d="M{x} {y + 14}q0-14 14-14h62l38 38v98q0 14-14 14h-86q-14 0-14-14z" fill="#1b2030" '
            f'stroke="{colour}" stroke-width="6" stroke-linejoin="round"/><path d="M{x + 76} {y}v26q0 12 12 12h26" '
            f'fill="none" stroke="{colour}" stroke-width="6"/><text x="{x + 57}" y="{y + 102}" font-size="32" '
            f'font-weight="700" text-anchor="middle" fill="{colour}">{word}</text>'
        )

    files = zip((48, 199, 350), ("DiT", "Text", "VAE"), (MODEL[1], PLANNER[1], SONG[1]), strict=True)
    return "".join(file(x, 66, word, colour) for x, word, colour in files) + bars(
        contour(27, 21), 48, 290, 416, 96, MODEL
    )  # fmt: skip


def one_line() -> str:
    return (
        lines(48, 190, (120,), PLANNER[1], thick=20)
        + arrow(226, 200, 28)
        + card(286, 66, 182, 268)
        + lines(310, 98, (92, 132, 112, 70, 128, 104, 84), "#e8ecf6", gap=31, thick=13)
    )


def planned_song() -> str:
    rng = random.Random(4)
    staff = "".join(f'<path d="M48 {86 + i * 28}H464" stroke="#ffffff22" stroke-width="3"/>' for i in range(6))
    notes, x = "", 52.0
    while x < 430:
        width = rng.choice((34, 50, 66))
        row = rng.randrange(6)
        notes += f'<rect x="{x}" y="{76 + row * 28}" width="{min(width, 460 - x)}" height="20" rx="10" \
fill="{gradient(PLANNER)}"/>'
        x += width + 8
    return staff + notes + bars(contour(30, 11), 48, 302, 416, 90, PLANNER)


def many_takes() -> str:
    base = contour(24, 61)
    drawn = ""
    for row, (seed, opacity) in enumerate(((61, 1.0), (62, 0.85), (0, 0.7))):
        levels = contour(24, seed) if seed else [level * random.Random(i).uniform(0.75, 1.1) for i, level in
                                                 enumerate(base)]  # fmt: skip
        y = 96 + row * 104
        drawn += play(78, y, 28, TAKES) + bars(levels, 128, y, 336, 88, TAKES, opacity)
    return drawn


def batch_of_songs() -> str:
    drawn = ""
    for place, (colours, seed) in enumerate(((EDIT, 71), (PLANNER, 72), (SONG, 73))):
        x, y = 140 - place * 46, 62 + place * 50
        drawn += card(x, y, 326, 172, colours[1], "#151925")
        drawn += bars(contour(20, seed), x + 22, y + 104 if place < 2 else y + 88, 282, 120, colours)
    return drawn


def ksampler() -> str:
    rng = random.Random(9)
    levels = contour(27, 81)
    step = 416 / 27
    noise = ""
    for _ in range(420):
        x = 48 + rng.random() ** 1.5 * 300
        y = 200 + rng.gauss(0, 62)
        noise += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{rng.uniform(2, 4):.1f}"/>'
    part = 12
    return f'<g fill="{GREY[1]}" opacity=".8">{noise}</g>' + bars(
        levels[part:], 48 + part * step, 200, 416 - part * step, 230, NATIVE
    )  # fmt: skip


def lora() -> str:
    def dial(x: float, share: float) -> str:
        turn = math.radians(-135 + 270 * share)
        tip = (x + 34 * math.sin(turn), 330 - 34 * math.cos(turn))
        return (
            f'<circle cx="{x}" cy="330" r="50" fill="#ffffff10" stroke="#ffffff40" stroke-width="4"/>'
            f'<line x1="{x}" y1="330" x2="{tip[0]:.1f}" y2="{tip[1]:.1f}" stroke="#ffffff" stroke-width="10" '
            'stroke-linecap="round"/>'
        )

    levels = contour(28, 16)
    return bars(levels, 60, 170, 392, 150, MODEL) + dial(140, 0.2) + dial(256, 0.75) + dial(372, 0.5)


def lyric_times() -> str:
    levels = contour(27, 101)
    marks = ((64, 96), (176, 132), (324, 108))
    drawn = bars(levels, 48, 130, 416, 150, GREY, 0.7)
    for x, width in marks:
        drawn += (
            f'<path d="M{x} 58V262" stroke="{TAKES[1]}" stroke-width="5" stroke-linecap="round"/>'
            f'<circle cx="{x}" cy="262" r="10" fill="{TAKES[1]}"/>'
        ) + lines(x, 292, (width,), "#e8ecf6", thick=18)
    return drawn + lines(64, 326, (78,), "#e8ecf680", thick=12) + lines(176, 326, (104,), "#e8ecf680", thick=12)


def best_of() -> str:
    drawn = ""
    for row, seed in enumerate((111, 112, 113, 114)):
        y, best = 82 + row * 78, row == 2
        drawn += bars(contour(24, seed), 128, y, 336, 66, TAKES if best else GREY, 1 if best else 0.55)
        if best:
            drawn += card(40, y - 40, 434, 80, TAKES[1], "#0f8f9c33")
            drawn += f'<path d="M62 {y}l12 13l24 -27" stroke="{TAKES[1]}" stroke-width="10" fill="none" \
stroke-linecap="round" stroke-linejoin="round"/>'
        else:
            drawn += f'<circle cx="80" cy="{y}" r="9" fill="#ffffff33"/>'
    return drawn


def finish_and_save() -> str:
    def ceiling(y: float) -> str:
        return (
            f'<path d="M48 {y}H464" stroke="#ffffff" stroke-width="5" stroke-dasharray="4 14" stroke-linecap="round"/>'
        )

    count = 27
    levels = [0.78 + 0.22 * level for level in contour(count, 91)]
    faded = [level * min(1.0, (count - i) / 6) for i, level in enumerate(levels)]
    return bars(faded, 48, 190, 416, 190, SONG) + ceiling(84) + ceiling(296)


def choose_a_take() -> str:
    drawn = ""
    for row, seed in enumerate((61, 62, 63)):
        chosen = row == 1
        y = 92 + row * 96
        drawn += bars(contour(22, seed), 48, y, 320, 72, TAKES if chosen else GREY, 1 if chosen else 0.6)
        drawn += (
            f'<circle cx="424" cy="{y}" r="26" fill="none" stroke="{TAKES[1] if chosen else GREY[1]}" '
            'stroke-width="7"/>'
        )
    tick = f'<path d="M411 188l10 11l18-22" fill="none" stroke="{TAKES[1]}" stroke-width="8" stroke-linecap="round" \
stroke-linejoin="round"/>'
    return drawn + tick + '<path d="M190 48V328" stroke="#ffffff" stroke-width="5" stroke-linecap="round"/>'


def train_lora() -> str:
    drawn = "".join(bars(contour(9, seed), 48, y, 120, 62, MODEL) for seed, y in ((71, 110), (72, 200), (73, 290)))
    curve = "M268 110C300 250 340 284 464 296"
    axes = '<path d="M268 84V320H468" fill="none" stroke="#ffffff40" stroke-width="5" stroke-linecap="round"/>'
    return (
        f'{drawn}{arrow(214, 200, 22)}{axes}<path d="{curve}" fill="none" stroke="{MODEL[1]}" stroke-width="11" '
        'stroke-linecap="round"/>'
    )
