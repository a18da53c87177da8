"""Draw workflows/<name>.jpg, the pictures of the templates, as SVG in Chromium.

Usage: python -m tools.thumbnails
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Sequence

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.frontend import launch
from tests.host.server import REPO

SIDE = 512
QUALITY = 90
FONT = "Inter, 'Liberation Sans', 'DejaVu Sans', sans-serif"
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


# -- pictures ---------------------------------------------------------------------------------------------------------


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


def form(picture: str, colours: Colours) -> str:
    """Draw a form: a window with a small picture, fields and a button."""
    bar = "".join(f'<circle cx="{74 + i * 24}" cy="84" r="7" fill="#ffffff55"/>' for i in range(3))
    fields = "".join(card(298, 116 + row * 58, 146, 42, "#ffffff40") for row in range(3))
    texts = "".join(
        lines(314, 130 + row * 58, (width,), "#e8ecf6", thick=12) for row, width in enumerate((96, 70, 110))
    )
    button = f'<rect x="298" y="292" width="146" height="34" rx="17" fill="{gradient(colours)}"/>'
    return card(44, 58, 424, 290, "#ffffff40", "#151925") + bar + picture + fields + texts + button


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


def finish_and_save() -> str:
    def ceiling(y: float) -> str:
        return (
            f'<path d="M48 {y}H464" stroke="#ffffff" stroke-width="5" stroke-dasharray="4 14" stroke-linecap="round"/>'
        )

    count = 27
    levels = [0.78 + 0.22 * level for level in contour(count, 91)]
    faded = [level * min(1.0, (count - i) / 6) for i, level in enumerate(levels)]
    return bars(faded, 48, 190, 416, 190, SONG) + ceiling(84) + ceiling(296)


def stems_to_files() -> str:
    drawn = ""
    for row, (seed, colours) in enumerate(((31, EDIT), (32, PLANNER), (33, SONG))):
        y = 92 + row * 96
        drawn += bars(contour(20, seed), 48, y, 250, 72, colours) + arrow(338, y, 20)
        drawn += (
            f'<path d="M392 {y - 36}h40l32 32v40h-72z" fill="#1b2030" stroke="{colours[1]}" stroke-width="6" '
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


# Title, picture and colours of each workflow.
PICTURES: dict[str, tuple[str, Callable[[], str], Colours]] = {
    "01 Text to music": ("Text\nto music", text_to_music, SONG),
    "02 Real model": ("Real model", real_model, MODEL),
    "03 Files of ComfyUI": ("ComfyUI's\nfiles", comfy_files, MODEL),
    "04 One line to a song": ("One line\nto a song", one_line, PLANNER),
    "05 Planned song": ("Planned\nsong", planned_song, PLANNER),
    "06 Cover": ("Cover", cover, EDIT),
    "07 Repaint": ("Repaint", repaint, EDIT),
    "08 Extend": ("Extend", extend, EDIT),
    "09 Stems": ("Stems", stems, EDIT),
    "10 Timbre": ("Timbre", timbre, EDIT),
    "11 Morph": ("Morph", morph, EDIT),
    "12 Listen and remix": ("Listen\nand remix", listen, PLANNER),
    "13 Many takes": ("Many takes", many_takes, TAKES),
    "14 Batch of songs": ("Batch\nof songs", batch_of_songs, TAKES),
    "15 KSampler": ("KSampler", ksampler, NATIVE),
    "16 LoRA": ("LoRA", lora, MODEL),
    "17 Lyric times": ("Lyric times", lyric_times, TAKES),
    "18 Best of four takes": ("Best of\nfour takes", best_of, TAKES),
    "19 Repaint by name": ("Repaint\nby name", repaint_by_name, EDIT),
    "20 Finish and save": ("Finish\nand save", finish_and_save, SONG),
    "21 Stems to files": ("Stems\nto files", stems_to_files, EDIT),
    "22 Mix stems": ("Mix stems", mix_stems, SONG),
    "23 Choose a take": ("Choose\na take", choose_a_take, TAKES),
    "24 Train a LoRA": ("Train\na LoRA", train_lora, MODEL),
    "simple_song.app": ("Simple\nsong", simple_form, SONG),
    "cover_my_song.app": ("Cover\nmy song", cover_form, EDIT),
    "repaint_my_song.app": ("Repaint\nmy song", repaint_form, EDIT),
    "extend_my_song.app": ("Extend\nmy song", extend_form, EDIT),
}


def svg(title: str, picture: str, colours: Colours) -> str:
    defined = "".join(define(each) for each in (SONG, EDIT, PLANNER, MODEL, TAKES, NATIVE, GREY))
    rows = title.split("\n")
    size = 56 if len(rows) == 1 else 48
    words = "".join(
        f'<text x="48" y="{(444, 416)[len(rows) - 1] + 54 * row}" font-size="{size}">{line}</text>'
        for row, line in enumerate(rows)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIDE}" height="{SIDE}" font-family="{FONT}"><defs>{defined}'
        f'<radialGradient id="glow" cx=".5" cy=".36" r=".75"><stop offset="0" stop-color="{colours[0]}" '
        'stop-opacity=".42"/><stop offset="1" stop-color="#10131b" stop-opacity="0"/></radialGradient></defs>'
        f'<rect width="{SIDE}" height="{SIDE}" fill="#10131b"/><rect width="{SIDE}" height="{SIDE}" fill="url(#glow)"/>'
        f'{picture}<g font-weight="700" fill="#ffffff">{words}</g>'
        f'<rect x="48" y="{(466, 486)[len(rows) - 1]}" width="72" height="8" rx="4" fill="{colours[1]}"/></svg>'
    )


def main() -> None:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page(viewport={"width": SIDE, "height": SIDE})
        for name, (title, draw, colours) in PICTURES.items():
            page.set_content(f'<body style="margin:0">{svg(title, draw(), colours)}</body>')
            image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            image.save(REPO / "workflows" / f"{name}.jpg", quality=QUALITY)
        browser.close()


if __name__ == "__main__":
    main()
