"""Apps and blueprints: forms and subgraph nodes in later frontends, and graphs in earlier ones."""

from __future__ import annotations

import pytest

from ..host.server import REPO
from .frontend import SETTLE, Frontend
from .test_canvas import SECONDS, assert_song, node_of

SIMPLE_SONG = REPO / "workflows" / "simple_song.app.json"
BLUEPRINTS = sorted((REPO / "subgraphs").glob("*.json"))
EXAMPLE = "ACE-Step example.ogg"


def test_a_form_makes_a_song(tab: Frontend) -> None:
    tab.open()
    tab.drop_file(SIMPLE_SONG)
    if not tab.has_forms:
        tab.page.get_by_role("button", name="Open Workflow").click()  # an early form shows every widget
        tab.page.wait_for_timeout(SETTLE)
        tab.fit_view()
        tab.set_number(node_of(tab, "AS15_Song"), "duration", SECONDS)
        tab.press_run()
        assert_song(tab.song())
        return
    tab.skip_tour()
    form = tab.page.get_by_test_id("linear-widgets")
    form.get_by_role("textbox").first.fill("a slow waltz for piano")
    duration = form.get_by_role("spinbutton", name="duration").or_(form.locator("[aria-label=duration] input")).first
    duration.fill(str(SECONDS))
    duration.press("Enter")
    tab.page.get_by_test_id("linear-run-button").get_by_role("button", name="Run").last.click()
    assert_song(tab.played_song())
    asked = tab.page.evaluate("app.graph.nodes.find(node => node.type === 'AS15_Song').widgets[0].value")
    assert asked == "a slow waltz for piano"


@pytest.mark.parametrize("name", ["cover_my_song", "repaint_my_song", "extend_my_song"])
def test_a_form_for_an_edit_starts_with_the_recording(tab: Frontend, name: str) -> None:
    tab.open()
    tab.drop_file(REPO / "workflows" / f"{name}.app.json")
    if not tab.has_forms:
        (node,) = [node for node in tab.nodes() if node.type == "LoadAudio"]
        assert tab.page.evaluate("id => app.graph.getNodeById(id).widgets[0].value", node.id) == EXAMPLE
        return
    tab.skip_tour()
    rows = tab.page.get_by_test_id("app-mode-widget-item")
    rows.first.get_by_text(EXAMPLE).wait_for()
    assert rows.count() >= 6


def test_blueprints_are_placed_and_run(tab: Frontend) -> None:
    tab.open()
    if not tab.has_forms:  # nothing lists them: the files must at least be served
        served = tab.server.get("/global_subgraphs")
        assert {item.stem for item in BLUEPRINTS} <= {entry["name"] for entry in served.values()}
        return
    tab.page.set_viewport_size({"width": 1600, "height": 900})
    for blueprint in BLUEPRINTS:
        tab.new_workflow()
        tab.zoom(0.7)
        node = tab.add_node(blueprint.stem, 700, 130)
        preview = tab.add_node("Preview Audio", 1130, 130)
        widgets = tab.page.evaluate("id => app.graph.getNodeById(id).widgets.map(widget => widget.name)", node.id)
        assert {"caption", "lyrics", "seed", "model"} <= set(widgets), blueprint.stem
        if "audio" in tab.page.evaluate("id => app.graph.getNodeById(id).inputs.map(slot => slot.name)", node.id):
            source = tab.add_node("Load Audio", 390, 130)
            tab.connect(source, "AUDIO", node, "audio")
        tab.connect(node, "audio", preview, "audio")
        tab.close_sidebar()
        tab.press_run()
        assert tab.played_song()[:4] == b"fLaC", blueprint.stem
