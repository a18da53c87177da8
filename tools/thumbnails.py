"""Takes a square picture of every workflow in ComfyUI's own frontend: workflows/<name>.jpg, for the template browser.

Usage: COMFYUI_PATH=/path/to/ComfyUI python -m tools.thumbnails
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.frontend import Frontend, launch
from tests.host.server import REPO, ComfyServer

WINDOW, SIDE = 2200, 512  # wide enough that the canvas still draws its texts
MARGIN = 30
FRAME = """() => {
    const boxes = app.graph.nodes.map(node => node.getBounding());
    const place = (x, y) => app.canvas.ds.convertOffsetToCanvas([x, y]);
    const [left, top] = place(Math.min(...boxes.map(b => b[0])), Math.min(...boxes.map(b => b[1])));
    const [right, bottom] = place(Math.max(...boxes.map(b => b[0] + b[2])), Math.max(...boxes.map(b => b[1] + b[3])));
    return [left, top, right, bottom];
}"""


def picture(tab: Frontend, workflow: Path) -> Image.Image:
    """The right end of the graph, where the song comes out: a whole graph would be too small to see on a card."""
    tab.open()
    tab.drop_file(workflow)
    tab.fit_view()
    left, top, right, bottom = (int(edge) for edge in tab.page.evaluate(FRAME))
    side = min(right - left, bottom - top) + 2 * MARGIN
    window = Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB")
    right, top = right + MARGIN, top - MARGIN
    return window.crop((right - side, top, right, top + side)).resize((SIDE, SIDE), Image.LANCZOS)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = ComfyServer(Path(folder), args=("--cpu",))
        server.install(REPO, "acestep")
        with server, sync_playwright() as playwright:
            browser = launch(playwright)
            for workflow in sorted((REPO / "workflows").glob("*.json")):
                page = browser.new_page(viewport={"width": WINDOW, "height": WINDOW})
                picture(Frontend(page, server), workflow).save(workflow.with_suffix(".jpg"), quality=85)
                page.close()
            browser.close()


if __name__ == "__main__":
    main()
