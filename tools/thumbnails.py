"""Draw workflows/<name>.jpg, the pictures of the templates, as SVG in Chromium.

Usage: python -m tools.thumbnails
"""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.frontend import launch
from tests.host.server import REPO

from .pictures import edits, forms, songs
from .pictures.shapes import EDIT, GREY, MODEL, NATIVE, PLANNER, SONG, TAKES, Colours, define

SIDE = 512
QUALITY = 90
FONT = "Inter, 'Liberation Sans', 'DejaVu Sans', sans-serif"
# Title, picture and colours of each workflow.
PICTURES: dict[str, tuple[str, Callable[[], str], Colours]] = {
    "01 Text to music": ("Text\nto music", songs.text_to_music, SONG),
    "02 Real model": ("Real model", songs.real_model, MODEL),
    "03 Files of ComfyUI": ("ComfyUI's\nfiles", songs.comfy_files, MODEL),
    "04 One line to a song": ("One line\nto a song", songs.one_line, PLANNER),
    "05 Planned song": ("Planned\nsong", songs.planned_song, PLANNER),
    "06 Cover": ("Cover", edits.cover, EDIT),
    "07 Repaint": ("Repaint", edits.repaint, EDIT),
    "08 Extend": ("Extend", edits.extend, EDIT),
    "09 Stems": ("Stems", edits.stems, EDIT),
    "10 Timbre": ("Timbre", edits.timbre, EDIT),
    "11 Morph": ("Morph", edits.morph, EDIT),
    "12 Listen and remix": ("Listen\nand remix", edits.listen, PLANNER),
    "13 Many takes": ("Many takes", songs.many_takes, TAKES),
    "14 Batch of songs": ("Batch\nof songs", songs.batch_of_songs, TAKES),
    "15 KSampler": ("KSampler", songs.ksampler, NATIVE),
    "16 LoRA": ("LoRA", songs.lora, MODEL),
    "17 Lyric times": ("Lyric times", songs.lyric_times, TAKES),
    "18 Best of four takes": ("Best of\nfour takes", songs.best_of, TAKES),
    "19 Repaint by name": ("Repaint\nby name", edits.repaint_by_name, EDIT),
    "20 Finish and save": ("Finish\nand save", songs.finish_and_save, SONG),
    "21 Stems to files": ("Stems\nto files", edits.stems_to_files, EDIT),
    "22 Mix stems": ("Mix stems", edits.mix_stems, SONG),
    "23 Choose a take": ("Choose\na take", songs.choose_a_take, TAKES),
    "24 Train a LoRA": ("Train\na LoRA", songs.train_lora, MODEL),
    "simple_song.app": ("Simple\nsong", forms.simple_form, SONG),
    "cover_my_song.app": ("Cover\nmy song", forms.cover_form, EDIT),
    "repaint_my_song.app": ("Repaint\nmy song", forms.repaint_form, EDIT),
    "extend_my_song.app": ("Extend\nmy song", forms.extend_form, EDIT),
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
