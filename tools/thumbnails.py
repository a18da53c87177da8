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

WINDOW, SIDE = 1400, 512
MARGIN = 20
FRAME = """() => {
    const boxes = app.graph.nodes.map(node => node.getBounding());
    const place = (x, y) => app.canvas.ds.convertOffsetToCanvas([x, y]);
    const [left, top] = place(Math.min(...boxes.map(b => b[0])), Math.min(...boxes.map(b => b[1])));
    const [right, bottom] = place(Math.max(...boxes.map(b => b[0] + b[2])), Math.max(...boxes.map(b => b[1] + b[3])));
    return [left, top, right, bottom];
}"""


def picture(tab: Frontend, workflow: Path) -> Image.Image:
    """The whole graph in the middle of a square, on the canvas's own background."""
    tab.open()
    tab.drop_file(workflow)
    tab.fit_view()
    left, top, right, bottom = tab.page.evaluate(FRAME)
    window = Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB")
    graph = window.crop((int(left) - MARGIN, int(top) - MARGIN, int(right) + MARGIN, int(bottom) + MARGIN))
    square = Image.new("RGB", (max(graph.size),) * 2, graph.getpixel((2, 2)))
    square.paste(graph, tuple((max(graph.size) - side) // 2 for side in graph.size))
    return square.resize((SIDE, SIDE), Image.LANCZOS)


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
