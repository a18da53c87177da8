"""ComfyUI's own frontend: drop a workflow, build one by hand, press Run, and play the song."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import soundfile

from ..host.server import REPO
from .frontend import ADD_NODES, LOOK_OF_NODES, Box, Frontend, Node

WORKFLOWS = sorted((REPO / "workflows").glob("*.json"))
TEXT_TO_MUSIC = REPO / "workflows" / "01 Text to music.json"
KSAMPLER = REPO / "workflows" / "15 KSampler.json"
WITH_FILES = REPO / "workflows" / "03 Files of ComfyUI.json"  # earlier frontends show a dialog for missing files
TEMPLATES = [path for path in WORKFLOWS if not path.stem.endswith(".app") and path != WITH_FILES] + [WITH_FILES]
LAPTOP = {"width": 1366, "height": 768}
READABLE = 0.79  # titles have 11 pixels at this scale
SECONDS = 3
LANGUAGES = ["en", "zh", "ja", "ko", "fr"]


def boxes_meet(a: Box, b: Box) -> bool:
    (x, y, w, h), (x2, y2, w2, h2) = a, b
    return x < x2 + w2 and x2 < x + w and y < y2 + h2 and y2 < y + h


def assert_tidy(nodes: list[Node]) -> None:
    assert not [node.type for node in nodes if node.missing or node.red]
    assert not [(a.title, b.title) for a, b in combinations(nodes, 2) if a.overlaps(b)], "nodes overlap"


def node_of(tab: Frontend, node_type: str) -> Node:
    (node,) = [node for node in tab.nodes() if node.type == node_type]
    return node


def assert_song(file: bytes) -> None:
    samples, rate = soundfile.read(io.BytesIO(file))
    assert (rate, samples.shape) == (48_000, (SECONDS * 48_000, 2))
    assert samples.std() > 0


@pytest.mark.parametrize("nodes_2", [False, True], ids=["canvas", "nodes_2"])
def test_dropped_workflows_are_complete_and_readable(tab: Frontend, nodes_2: bool) -> None:
    """On a small laptop, the whole graph is visible when it opens."""
    tab.page.set_viewport_size(LAPTOP)
    tab.open(nodes_2=nodes_2)
    for workflow in TEMPLATES:
        tab.new_workflow()
        tab.drop_file(workflow)
        tab.screenshot(f"{'nodes_2' if nodes_2 else 'canvas'} {workflow.stem}")
        nodes = tab.nodes()
        assert len(nodes) == len(json.loads(workflow.read_text("utf-8"))["nodes"])
        if workflow == WITH_FILES:
            red = {node.type for node in nodes if node.red}  # later frontends mark missing files
            assert red <= {"AS15_LoadModel", "AS15_LoadPlanner"}
            nodes = [replace(node, red=False) for node in nodes]
        assert_tidy(nodes)
        opened = [node for node in nodes if not node.collapsed]
        cramped = [n.title for n in opened if n.size[0] < n.smallest[0] or n.size[1] < n.smallest[1]]
        assert not cramped, f"{workflow.stem}: these nodes are too small for their widgets"
        if nodes_2 and not tab.has_forms:  # earlier frontends enlarge the layout for Nodes 2.0
            continue
        scale, boxes = tab.drawn_boxes()
        assert scale >= READABLE, workflow.stem
        outside = [
            title
            for title, (x, y, width, height) in boxes.items()
            if x < 0 or y < 0 or x + width > LAPTOP["width"] or y + height > LAPTOP["height"]
        ]
        assert not outside, f"{workflow.stem}: outside of the window"
        pairs = [(a, b) for a, b in combinations(boxes, 2) if boxes_meet(boxes[a], boxes[b])]
        assert not pairs, f"{workflow.stem}: drawn over each other"
        assert workflow == WITH_FILES or not tab.page.get_by_role("dialog").count()


@pytest.mark.parametrize(("language", "title"), [("zh", "使用说明"), ("ja", "はじめに")])
def test_notes_have_the_language_of_the_user(tab: Frontend, language: str, title: str) -> None:
    tab.open(language)
    tab.drop_file(TEXT_TO_MUSIC)
    (note,) = [node for node in tab.nodes() if node.type == "MarkdownNote"]
    assert note.title == title
    text = tab.page.evaluate("id => app.graph.getNodeById(id).widgets[0].value", note.id)
    shipped = json.loads(TEXT_TO_MUSIC.read_text("utf-8"))["nodes"][-1]["properties"]["as15_text"]
    assert text == shipped[language]["text"]


def test_a_missing_node_is_found(tab: Frontend, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(TEXT_TO_MUSIC.read_text("utf-8").replace("AS15_Encode", "AS15_Missing"), "utf-8")
    tab.open()
    tab.drop_file(broken)
    (missing,) = [node for node in tab.nodes() if node.missing]
    assert missing.type == "AS15_Missing"
    assert missing.red
    tab.page.get_by_text(missing.type).first.wait_for()  # in a dialog, or in a message


def test_run_shows_progress_and_saves_the_song(tab: Frontend) -> None:
    tab.open()
    tab.drop_file(TEXT_TO_MUSIC)
    tab.fit_view()
    tab.set_number(node_of(tab, "AS15_Song"), "duration", SECONDS)
    tab.press_run()
    file = tab.song()
    assert_song(file)
    assert_tidy(tab.nodes())
    assert any(node == "AS15_Sample" and 0 < percent < 100 for percent, node in tab.progress_titles())


def test_a_graph_is_built_by_hand_and_runs(tab: Frontend) -> None:
    tab.open()
    tab.zoom(0.7)
    load = tab.add_node("Load Model", 390, 130)
    song = tab.add_node("Song", 390, 360)
    encode = tab.add_node("Encode Song", 800, 130)
    sample = tab.add_node("Sample Song", 800, 260)
    decode = tab.add_node("Decode Song", 1130, 130)
    preview = tab.add_node("Preview Audio", 1130, 300)
    tab.close_sidebar()
    assert [node.type for node in (load, song, encode, sample, decode)] == [
        "AS15_LoadModel", "AS15_Song", "AS15_Encode", "AS15_Sample", "AS15_Decode",
    ]  # fmt: skip
    tab.connect(load, "text_encoder", encode, "text_encoder")
    tab.connect(song, "song", encode, "song")
    tab.connect(load, "model", sample, "model")
    tab.connect(encode, "conditioning", sample, "conditioning")
    tab.connect(load, "vae", decode, "vae")
    tab.connect(sample, "latent", decode, "latent")
    tab.connect(decode, "audio", preview, "audio")
    assert_tidy(tab.nodes())
    tab.set_number(song, "duration", SECONDS)
    tab.press_run()
    assert_song(tab.played_song())


@pytest.mark.parametrize("language", LANGUAGES)
def test_our_nodes_have_colours_in_every_language(tab: Frontend, language: str) -> None:
    """One colour per stage, whatever the categories are called, and no error in the console."""
    tab.open(language)
    ours = {name: info["category"] for name, info in tab.server.object_info().items() if name.startswith("AS15_")}
    tab.page.evaluate(ADD_NODES, list(ours))
    colours: dict[str, set[str]] = {}
    for name, shown, saved in tab.page.evaluate(LOOK_OF_NODES):
        colours.setdefault(ours[name], set()).add(shown)
        assert saved is None, "our colours must not be saved"
    assert len(colours) == 7 == len(set.union(*colours.values())) == sum(map(len, colours.values())), colours


def test_the_colours_of_the_user_stay(tab: Frontend, tmp_path: Path) -> None:
    tab.open()
    workflow = json.loads(KSAMPLER.read_text("utf-8"))
    (decode,) = [node for node in workflow["nodes"] if node["type"] == "AS15_Decode"]
    decode["color"] = "#123456"
    chosen = tmp_path / "chosen.json"
    chosen.write_text(json.dumps(workflow), "utf-8")
    tab.drop_file(chosen)
    look = {name: (shown, saved) for name, shown, saved in tab.page.evaluate(LOOK_OF_NODES)}
    shown, saved = look["AS15_Decode"]
    assert saved == "#123456" and shown.startswith("hsla(210,"), "the user's colour must stay"
    assert len({look[name][0] for name in ("AS15_Song", "AS15_EmptyLatent", "KSampler")}) == 3
    assert look["KSampler"][1] is None
