"""Draw a square thumbnail of every workflow in ComfyUI's own frontend: workflows/<name>.jpg, for the template browser.

Usage: COMFYUI_PATH=/path/to/ComfyUI python -m tools.thumbnails
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.frontend import SETTLE, Frontend, launch
from tests.host.server import REPO, ComfyServer

WINDOW = {"width": 1400, "height": 1100}
LEFT, TOP, SIDE = 400, 200, 512  # pixels of the canvas without menus
MARGIN = 30
# The nodes, by type or title, that distinguish a workflow from the others.
SHOWN = {
    "audio_codes": ("AS15_AudioCodes", "PreviewAny", "AS15_SaveCodes"),
    "batch_of_seeds": ("LatentFromBatch", "PreviewAudio"),
    "batch_of_songs": ("AS15_BatchSongs",),
    "cover": ("AS15_Cover",),
    "extend": ("AS15_Extend",),
    "listen_and_remix": ("AS15_Listen", "AS15_ShowSong"),
    "morph": ("AS15_Morph",),
    "native_ksampler": ("KSampler",),
    "one_line_to_song": ("AS15_Write",),
    "planned_song": ("AS15_Plan",),
    "repaint": ("AS15_Repaint",),
    "retake": ("Retake",),
    "stems": ("AS15_Stems",),
    "text_to_music": ("AS15_Song",),
    "text_to_music_base": ("AS15_Sample",),
    "timbre": ("AS15_Timbre",),
}
ZOOM = """([shown, left, top, side, margin]) => {
    const nodes = app.graph.nodes.filter(node => [node.type, node.title].some(name => shown.includes(name)));
    const boxes = nodes.map(node => node.getBounding());
    const [x, y] = [0, 1].map(i => Math.min(...boxes.map(box => box[i])));
    const [x2, y2] = [0, 1].map(i => Math.max(...boxes.map(box => box[i] + box[i + 2])));
    const wide = Math.max(x2 - x, y2 - y) + 2 * margin, view = app.canvas.ds;
    view.scale = side / wide;
    view.offset[0] = left / view.scale - (x + x2 - wide) / 2;
    view.offset[1] = top / view.scale - (y + y2 - wide) / 2;
    app.canvas.setDirty(true, true);
    const corner = app.canvas.canvas.getBoundingClientRect();
    return [corner.x, corner.y];
}"""


def picture(tab: Frontend, workflow: Path) -> Image.Image:
    """Return a square around the distinguishing nodes. A whole graph is too small on a card."""
    tab.open()
    tab.drop_file(workflow)
    x, y = tab.page.evaluate(ZOOM, [SHOWN[workflow.stem], LEFT, TOP, SIDE, MARGIN])
    tab.page.wait_for_timeout(SETTLE)
    clip = {"x": x + LEFT, "y": y + TOP, "width": SIDE, "height": SIDE}
    return Image.open(io.BytesIO(tab.page.screenshot(clip=clip))).convert("RGB")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = ComfyServer(Path(folder), args=("--cpu",))
        server.install(REPO, "acestep")
        with server, sync_playwright() as playwright:
            browser = launch(playwright)
            for workflow in sorted((REPO / "workflows").glob("*.json")):
                page = browser.new_page(viewport=WINDOW)
                picture(Frontend(page, server), workflow).save(workflow.with_suffix(".jpg"), quality=85)
                page.close()
            browser.close()


if __name__ == "__main__":
    main()
