"""ComfyUI's own frontend in Chromium, used with mouse and keyboard. Scripts in the page only read and locate."""

from __future__ import annotations

import base64
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Playwright

from ..host.server import REPO, ComfyServer

ARTIFACTS = REPO / "tests" / "artifacts"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
KINDS = {  # of a dropped file, as the browser reports them
    ".json": "application/json", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".opus": "audio/ogg",
}  # fmt: skip
WINDOW = {"width": 1600, "height": 900}
TIMEOUT = 60_000  # milliseconds for a step on a slow machine
SETTLE = 500  # milliseconds until the canvas is redrawn
TITLE = re.compile(
    r"\[\d+%\]\[(\d+)%\] (.*)"
)  # "[14%][50%] Sample Song": progress of the graph and of the running node

OURS = re.compile(r"AS15|acestep|songs_of_mine", re.IGNORECASE)  # in an error of the console
WITH_FORMS = (0, 4)  # versions of ComfyUI
LEAF = ".node-lib-node-container, .tree-explorer-item[data-tree-node-type=node]"  # of the node library
RESULT = "[data-testid=result-item]"  # of the search box
NODES_2 = "Comfy.VueNodes.Enabled"
OLD_LIBRARY = "Comfy.NodeLibrary.NewDesign"  # later frontends have another by default

READ_NODES = """() => app.graph.nodes.map(node => ({
    id: node.id, type: node.type, title: node.getTitle(), box: [...node.getBounding()],
    size: [...node.size], smallest: [...node.computeSize()],
    collapsed: !!node.flags.collapsed,
    missing: !(node.type in LiteGraph.registered_node_types), red: !!node.has_errors,
    linked: (node.inputs ?? []).filter(slot => slot.link != null).map(slot => slot.name),
}))"""
DRAWN_BOXES = """() => {
    const canvas = app.canvas.canvas.getBoundingClientRect(), { scale } = app.canvas.ds;
    const box = node => {
        const drawn = document.querySelector(`[data-node-id="${node.id}"]`);
        if (drawn) return [...["x", "y", "width", "height"].map(side => drawn.getBoundingClientRect()[side])];
        const [left, top, width, height] = node.getBounding();
        const [x, y] = app.canvas.ds.convertOffsetToCanvas([left, top]);
        return [canvas.x + x, canvas.y + y, width * scale, height * scale];
    };
    return [scale, Object.fromEntries(app.graph.nodes.map(node => [`${node.id} ${node.getTitle()}`, box(node)]))];
}"""
LOCATE = """([id, output, name]) => {
    const node = app.graph.getNodeById(id), slots = output ? node.outputs : node.inputs;
    const slot = slots.findIndex(slot => [slot.name, slot.label].includes(name));
    if (slot < 0) throw new Error(`${node.type} has no socket ${name}, but ${slots.map(slot => slot.name)}`);
    const at = output ? node.getOutputPos(slot) : node.getInputPos(slot);
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([at[0], at[1]]);
    const box = app.canvas.canvas.getBoundingClientRect();
    return [box.x + x, box.y + y];
}"""
TITLE_BAR = """id => {
    const node = app.graph.getNodeById(id);
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + 60, node.pos[1] - 15]);
    const box = app.canvas.canvas.getBoundingClientRect();
    return [box.x + x, box.y + y];
}"""
WIDGET = """([id, name]) => {
    const node = app.graph.getNodeById(id), widget = node.widgets.find(widget => widget.name === name);
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2, node.pos[1] + widget.y + 10]);
    const box = app.canvas.canvas.getBoundingClientRect();
    return [box.x + x, box.y + y];
}"""
LOOK_OF_NODES = """() => {
    const saved = new Map(app.graph.serialize().nodes.map(node => [`${node.id}`, node.color ?? null]));
    return app.graph.nodes.map(node => [node.type, node.renderingColor, saved.get(`${node.id}`)]);
}"""
ADD_NODES = """types => {
    for (const [index, type] of types.entries()) {
        const node = LiteGraph.createNode(type);
        node.pos = [450 * (index % 6), 600 * Math.floor(index / 6)];
        app.graph.add(node);
    }
}"""
READ_TEXTS = """() => [...document.querySelectorAll("textarea[readonly]")].filter(area => area.checkVisibility()).map(
    area => ({text: area.value, height: area.clientHeight, needed: area.scrollHeight}))"""
SAVED_VALUES = """() => Object.fromEntries(app.graph.serialize().nodes.map(node => [node.type, node.widgets_values]))"""
QUEUED_INPUTS = """async () => Object.fromEntries(Object.values((await app.graphToPrompt()).output).map(
    node => [node.class_type, node.inputs]))"""
TEXT_BOX = """text => [...document.querySelectorAll("textarea:not([readonly])")].findLast(
    area => area.checkVisibility() && area.value.startsWith(text))"""
STILL = """async ([selector, delay]) => {
    const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
    const read = () => JSON.stringify([...document.querySelectorAll(selector)].map(
        entry => [entry.textContent, entry.getBoundingClientRect()]));
    await pause(delay);  // longer than the search waits for another letter
    for (let before = null, now = read(); before !== now; before = now, now = read()) await pause(delay / 2);
}"""
WATCH_RUN = """() => {
    window.seenTitles = [document.title];
    window.seenSongs = [];
    window.watchedApi ??= app.api.addEventListener(
        "executed", event => seenSongs.push(...(event.detail.output?.audio ?? []))) ?? true;
    new MutationObserver(() => seenTitles.push(document.title))
        .observe(document.querySelector("title"), {childList: true, characterData: true, subtree: true});
}"""
DROP = """([name, bytes, kind, x, y]) => {
    const data = new DataTransfer();
    const content = Uint8Array.from(atob(bytes), letter => letter.charCodeAt(0));
    data.items.add(new File([content], name, {type: kind}));
    const target = document.elementFromPoint(x, y);
    for (const event of ["dragenter", "dragover", "drop"])
        target.dispatchEvent(new DragEvent(event, {
            dataTransfer: data, bubbles: true, cancelable: true, clientX: x, clientY: y}));
}"""


def find_chromium() -> str:
    for name in CHROMIUM:
        if path := shutil.which(name):
            return path
    raise AssertionError(f"No browser found: install Debian's chromium (looked for {', '.join(CHROMIUM)}).")


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=find_chromium(), headless=True, args=ARGUMENTS)


Box = tuple[float, float, float, float]  # x, y, width and height


@dataclass
class Node:
    """A node on the canvas. Boxes are (x, y, width, height), with the title bar."""

    id: int
    type: str
    title: str
    box: list[float]
    size: list[float]
    smallest: list[float]
    collapsed: bool
    missing: bool
    red: bool
    linked: list[str]

    def overlaps(self, other: Node) -> bool:
        (x, y, w, h), (x2, y2, w2, h2) = self.box, other.box
        return x < x2 + w2 and x2 < x + w and y < y2 + h2 and y2 < y + h


@dataclass
class Text:
    """A read-only text area on the canvas, and the height that its whole text needs."""

    text: str
    height: float
    needed: float


class Frontend:
    """One browser tab on a running server. Coordinates are pixels of the window."""

    def __init__(self, page: Page, server: ComfyServer):
        self.page, self.server = page, server
        self.errors: list[str] = []
        page.set_default_timeout(TIMEOUT)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._note_error)

    def _note_error(self, line: ConsoleMessage) -> None:
        blocked = "Content Security Policy" in line.text  # the frontend asks a registry about every node
        if line.type == "error" and OURS.search(line.text) and not blocked:
            self.errors.append(line.text)

    @property
    def has_forms(self) -> bool:
        """True if this frontend opens apps as forms and lists the blueprints of packs."""
        version = self.server.get("/system_stats")["system"]["comfyui_version"]
        return tuple(map(int, version.split(".")[:2])) >= WITH_FORMS

    # -- around the canvas --------------------------------------------------------------------------------------------

    def open(self, language: str = "en", *, nodes_2: bool = False) -> None:
        """Open a blank canvas, without the dialogs for new users."""
        answers = {"Comfy.TutorialCompleted": True, "Comfy.Locale": language, OLD_LIBRARY: False, NODES_2: nodes_2}
        self.server.request("/settings", answers)
        self.page.goto(f"http://127.0.0.1:{self.server.port}/")
        self.page.wait_for_function("window.app?.vueAppReady && app.graph")
        banner = self.page.locator(".icon-\\[lucide--rocket\\]").locator("xpath=ancestor::div[2]/button")
        if banner.count():
            banner.click()
        self.new_workflow()

    def new_workflow(self) -> None:
        self.page.locator(".new-blank-workflow-button").click()
        self.page.wait_for_function("app.graph.nodes.length === 0")
        self.page.mouse.move(WINDOW["width"] / 2, WINDOW["height"] / 2)  # off the tab, whose tooltip hides others

    def back_to(self, workflow: str) -> None:
        """Select the tab of an open workflow."""
        self.page.locator(".workflow-tabs .p-togglebutton", has_text=workflow).click()
        self.page.wait_for_function("app.graph.nodes.length > 0")

    def screenshot(self, name: str) -> Path:
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        path = ARTIFACTS / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def library(self, words: str) -> Locator:
        """Return the nodes that the node library finds for these words, once the list no longer moves."""
        search = self.page.locator(".side-bar-panel input[type=text]")
        if not search.count():
            self.page.locator(".node-library-tab-button, [data-testid=node-library-tab-button]").first.click()
        search.fill(words)
        self.page.evaluate(STILL, [LEAF, SETTLE])
        return self.page.locator(LEAF)

    def search(self, words: str) -> list[str]:
        """Type words into the search box of the canvas, and return the texts of its results, the best first."""
        box = self.page.get_by_role("dialog").get_by_role("combobox").first
        if not box.count():
            self.page.wait_for_timeout(2 * SETTLE)  # a new canvas takes a moment until it has double clicks
            self.page.mouse.dblclick(WINDOW["width"] / 2, WINDOW["height"] / 3, delay=60)
            box.wait_for()
        box.fill(words)
        self.page.evaluate(STILL, [RESULT, SETTLE / 5])
        return self.page.locator(RESULT).all_inner_texts()

    def close_sidebar(self) -> None:
        self.page.locator(".side-bar-button-selected").click()

    def open_help(self, node: Node) -> Locator:
        """Select a node, press its info button and return the help page in the sidebar."""
        self.page.mouse.click(*self.page.evaluate(TITLE_BAR, node.id))
        self.page.get_by_test_id("info-button").click()
        return self.page.locator(".node-help-content")

    def open_templates(self, folder: str) -> None:
        """Open the template browser at the page of a pack."""
        self.page.locator(".templates-tab-button").click()
        self.page.get_by_role("dialog").get_by_text(folder, exact=True).click()

    def template_card(self, name: str) -> Locator:
        """Return a template's card, once its thumbnail is drawn."""
        card = self.page.get_by_test_id(f"template-workflow-{name}")
        card.scroll_into_view_if_needed()  # cards are drawn when they are visible
        picture = card.locator("img").first.element_handle()
        self.page.wait_for_function("picture => picture.complete && picture.naturalWidth > 0", arg=picture)
        return card

    # -- on the canvas ------------------------------------------------------------------------------------------------

    def nodes(self) -> list[Node]:
        return [Node(**node) for node in self.page.evaluate(READ_NODES)]

    def drawn_boxes(self) -> tuple[float, dict[str, Box]]:
        """Return the canvas' scale, and the box of each node in pixels of the window, as the renderer draws it."""
        return self.page.evaluate(DRAWN_BOXES)

    def read_text(self, words: str) -> Text:
        """Wait for the only text area with these words and return it."""
        there = "words => [...document.querySelectorAll('textarea[readonly]')].some(area => area.value.includes(words))"
        self.page.wait_for_function(there, arg=words)
        self.page.wait_for_timeout(SETTLE)
        (found,) = [text for text in self.page.evaluate(READ_TEXTS) if words in text["text"]]
        return Text(**found)

    def write(self, known: str, text: str) -> None:
        """Click into the last text box that begins with `known`, and type at its end."""
        box = self.page.wait_for_function(TEXT_BOX, arg=known).as_element()
        box.click()
        self.page.keyboard.press("Control+End")
        self.page.keyboard.type(text)
        self.page.wait_for_timeout(SETTLE)

    def saved_values(self) -> dict[str, list]:
        """Return the widget values that the workflow would be saved with, by node type."""
        return self.page.evaluate(SAVED_VALUES)

    def drop_file(self, path: Path) -> None:
        """Drag a file from the desktop onto the canvas."""
        content = base64.b64encode(path.read_bytes()).decode()
        kind = KINDS[path.suffix]
        self.page.evaluate(DROP, [path.name, content, kind, WINDOW["width"] / 2, WINDOW["height"] / 2])
        self.page.wait_for_function("app.graph.nodes.length > 0")
        self.page.wait_for_timeout(SETTLE)

    def fit_view(self) -> None:
        self.page.keyboard.press(".")
        self.page.wait_for_timeout(SETTLE)

    def zoom(self, scale: float) -> None:
        """Turn the mouse wheel over the canvas down to that scale."""
        self.page.mouse.move(WINDOW["width"] / 2, WINDOW["height"] / 2)
        for _ in range(100):
            if self.page.evaluate("app.canvas.ds.scale") <= scale:
                return
            self.page.mouse.wheel(0, 100)
            self.page.wait_for_timeout(50)
        raise AssertionError(f"The canvas does not zoom out to {scale}.")

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=4)
        mouse.move(*end, steps=4)
        self.page.wait_for_timeout(100)
        mouse.up()

    def add_node(self, label: str, x: float, y: float) -> Node:
        """Drag a node from the library, with its title bar to (x, y)."""
        known = {node.id for node in self.nodes()}
        named = re.compile(rf"^\s*{re.escape(label)}\s*$")
        leaf = self.library(label).filter(has=self.page.get_by_text(named)).first
        leaf.wait_for()
        box = leaf.bounding_box()
        self.drag((box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), (x, y))
        self.page.wait_for_function("count => app.graph.nodes.length > count", arg=len(known))
        (added,) = [node for node in self.nodes() if node.id not in known]
        return added

    def connect(self, source: Node, output: str, target: Node, socket: str) -> None:
        """Drag a link from an output to an input, by name."""
        self.drag(
            self.page.evaluate(LOCATE, [source.id, True, output]),
            self.page.evaluate(LOCATE, [target.id, False, socket]),
        )
        linked = "([id, name]) => app.graph.getNodeById(id).inputs.find(slot => slot.name === name).link != null"
        self.page.wait_for_function(linked, arg=[target.id, socket])

    def set_number(self, node: Node, widget: str, value: float) -> None:
        self.page.mouse.click(*self.page.evaluate(WIDGET, [node.id, widget]))
        self.page.locator(".graphdialog input").fill(str(value))
        self.page.keyboard.press("Enter")
        now = "([id, name]) => app.graph.getNodeById(id).widgets.find(widget => widget.name === name).value"
        assert self.page.evaluate(now, [node.id, widget]) == value

    # -- running ------------------------------------------------------------------------------------------------------

    def press_run(self) -> None:
        self.page.evaluate(WATCH_RUN)
        run = self.page.get_by_role("button", name="Run", exact=True)
        self.page.get_by_test_id("queue-button").or_(run).first.click()  # later frontends have two buttons of that name

    def progress_titles(self) -> list[tuple[int, str]]:
        """Return (percent, node) of the tab's titles since Run was pressed."""
        titles = map(TITLE.match, self.page.evaluate("seenTitles"))
        return [(int(title[1]), title[2]) for title in titles if title]

    def skip_tour(self) -> None:
        """Close the dialog that introduces forms to a new user."""
        self.page.get_by_test_id("linear-widgets").wait_for()
        self.page.wait_for_timeout(2 * SETTLE)
        skip = self.page.get_by_role("button", name="Skip")
        if skip.count():
            skip.click()

    def song_file(self) -> dict:
        """Wait until a node has the song of the run that `press_run` started. Return its entry of the outputs."""
        return self.page.wait_for_function("seenSongs[0]", timeout=3 * TIMEOUT).json_value()

    def song(self) -> bytes:
        return self.server.fetch(self.song_file())

    def played_song(self) -> bytes:
        """Wait until a player has loaded the file of a run, and return the file."""
        player = self.page.locator("audio[src*='type=temp'], audio[src*='type=output']").filter(visible=True).first
        player.wait_for()
        self.page.wait_for_function(
            "player => player.readyState >= 2 && player.duration > 0", arg=player.element_handle()
        )
        return self.page.request.get(player.evaluate("player => player.src")).body()
