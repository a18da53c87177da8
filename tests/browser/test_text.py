"""Results and notes on the canvas, in both renderers of the frontend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .frontend import QUEUED_INPUTS, Frontend
from .test_canvas import node_of

LINES = [f"line {number} of the song" for number in range(40)]
# Type, widget values, and the links of the first inputs: index of the node, index of its output, name of the input.
SHOWN = [
    ("PrimitiveStringMultiline", ["<|audio_code_1|><|audio_code_2|>"], []),
    ("AS15_SaveCodes", ["codes/shown"], [(0, 0, "codes")]),
]
NOTED = [
    ("AS15_LoadModel", ["nano", "auto", "auto", "auto", "auto"], []),
    ("AS15_Song", ["a song", "\n".join(LINES * 20), "auto", 60, 0, "auto", "auto"], []),
    ("AS15_Encode", [], [(0, 1, "text_encoder"), (1, 0, "song")]),
    ("PreviewAny", [], [(2, 0, "source")]),
]
OUTPUTS = {
    "AS15_LoadModel": ["MODEL", "ACESTEP_TEXT_ENCODER", "VAE"],
    "AS15_Song": ["ACESTEP_SONG"],
    "AS15_EditSong": ["ACESTEP_SONG", "STRING"],
    "AS15_Encode": ["CONDITIONING"],
    "AS15_FinishSong": ["AUDIO"],
    "LoadAudio": ["AUDIO"],
    "PrimitiveStringMultiline": ["STRING"],
}
# Earlier frontends lose the outputs of a run that ends before the response to its request.
KEEP_OUTPUTS = """{
  const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker;
  tracker.nodeOutputs = JSON.parse(JSON.stringify(app.nodeOutputs));
}"""
both_renderers = pytest.mark.parametrize("nodes_2", [False, True], ids=["canvas", "nodes_2"])


def drop(tab: Frontend, graph: list[tuple], folder: Path) -> None:
    nodes, links = [], []
    for place, (node_type, values, sources) in enumerate(graph):
        inputs = []
        for slot, (source, output, name) in enumerate(sources):
            kind = OUTPUTS[graph[source][0]][output]
            links.append([len(links) + 1, source + 1, output, place + 1, slot, kind])
            inputs.append({"name": name, "type": kind, "link": len(links)})
        outputs = [{"name": kind, "type": kind, "links": []} for kind in OUTPUTS.get(node_type, [])]
        x, y = 500 * (place % 2), 450 * (place // 2)
        nodes.append(
            {"id": place + 1, "type": node_type, "pos": [x, y], "size": [400, 100], "order": place, "mode": 0,
             "flags": {}, "properties": {}, "inputs": inputs, "outputs": outputs, "widgets_values": values}
        )  # fmt: skip
    for node in nodes:  # after all links are known
        for slot, output in enumerate(node["outputs"]):
            output["links"] = [link[0] for link in links if link[1:3] == [node["id"], slot]]
    file = folder / "dropped.json"
    file.write_text(json.dumps({"version": 0.4, "last_node_id": 4, "last_link_id": 3, "nodes": nodes, "links": links}))
    tab.drop_file(file)
    tab.fit_view()


@both_renderers
def test_a_result_is_shown_on_its_node_and_not_saved(tab: Frontend, tmp_path: Path, nodes_2: bool) -> None:
    tab.open(nodes_2=nodes_2)
    drop(tab, SHOWN, tmp_path)
    saved, queued = tab.saved_values(), tab.page.evaluate(QUEUED_INPUTS)
    tab.press_run()
    path = tab.read_text("codes/shown_")
    assert path.height >= path.needed
    now = tab.saved_values()
    assert {name: now[name] or [] for name in now} == {name: saved[name] or [] for name in saved}
    assert tab.page.evaluate(QUEUED_INPUTS) == queued, "shown text must not be an input"


def test_a_result_replaces_the_previous_one_and_is_restored(tab: Frontend, tmp_path: Path) -> None:
    tab.open()
    drop(tab, SHOWN, tmp_path)
    tab.press_run()
    first = tab.read_text("codes/shown_")
    tall = node_of(tab, "AS15_SaveCodes").size[1]
    tab.write("<|audio_code", "<|audio_code_3|>")
    tab.press_run()
    gone = "text => ![...document.querySelectorAll('textarea[readonly]')].some(area => area.value === text)"
    tab.page.wait_for_function(gone, arg=first.text)
    shown = tab.read_text("codes/shown_")
    assert shown.text != first.text and node_of(tab, "AS15_SaveCodes").size[1] == tall
    tab.page.evaluate(KEEP_OUTPUTS)
    tab.new_workflow()
    tab.back_to("dropped")
    assert tab.read_text("codes/shown_") == shown


@both_renderers
def test_notes_are_shown_completely(tab: Frontend, tmp_path: Path, nodes_2: bool) -> None:
    tab.open(nodes_2=nodes_2)
    drop(tab, NOTED, tmp_path)
    tab.server.unload_models(forget=True)  # a cached node has no notes
    tab.press_run()
    for words in ("not how ACE-Step sounds", "make two songs"):
        note = tab.read_text(words)
        assert note.height >= note.needed, f"cut: {note.text}"
