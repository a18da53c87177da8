"""Ranges drawn by hand on the waveform of Repaint: mouse, keyboard, and the widgets as the truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from .frontend import QUEUED_INPUTS, Frontend
from .test_canvas import node_of
from .test_text import OUTPUTS, both_renderers, drop

RECORDING, SECONDS = "ACE-Step example.ogg", 12.0
VALUES = [4, 8, "", "balanced", 0.5, ""]
FROM_FILE = [
    ("AS15_Repaint", VALUES, [(1, 0, "audio")]),
    ("LoadAudio", [RECORDING], []),
]
FROM_GRAPH = [
    ("AS15_Repaint", [0, 2, "3-4", "balanced", 0.5, ""], [(2, 0, "audio"), (1, 2, "vae")]),
    ("AS15_LoadModel", ["nano", "auto", "auto", "auto", "auto"], []),
    ("AS15_FinishSong", ["none", -14, 0, 0, 0, False, 0, False], [(3, 0, "audio")]),
    ("LoadAudio", [RECORDING], []),
    ("PreviewAny", [], [(0, 0, "source")]),
]
CANVAS, LINE = ".as15-waveform canvas", ".as15-line"
# The share of pixels near the bottom of the waveform that are not grey.
COLOURED = """canvas => {
    const context = canvas.getContext("2d"), { width, height } = canvas;
    const row = context.getImageData(0, Math.round(height * 0.75), width, 1).data;
    let coloured = 0;
    for (let i = 0; i < width; i++) coloured += Math.abs(row[4 * i] - row[4 * i + 1]) > 20;
    return coloured / width;
}"""
SET_WHERE = """value => {
    const { widgets } = app.graph.nodes.find(node => node.type === "AS15_Repaint");
    const widget = widgets.find(widget => widget.name === "where");
    widget.value = value;
    widget.callback(value);
}"""
PLAYED = "() => document.querySelector('.as15-waveform audio').currentTime"
# The share of columns with a drawn waveform: bright pixels off the middle line.
DRAWN = """canvas => {
    const context = canvas.getContext("2d"), { width, height } = canvas;
    const row = context.getImageData(0, Math.round(height * 0.35), width, 1).data;
    let bright = 0;
    for (let i = 0; i < width; i++) bright += row[4 * i] > 120;
    return bright / width;
}"""


@pytest.fixture(autouse=True)
def outputs_of_edits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AS15_Repaint", "AS15_Stems", "AS15_Extend"):
        monkeypatch.setitem(OUTPUTS, name, ["ACESTEP_TASK"])


def wait_for_waveform(tab: Frontend) -> None:
    """Wait until the source is drawn."""
    tab.page.wait_for_function(f"() => ({DRAWN})(document.querySelector({CANVAS!r})) > 0.1")
    tab.page.wait_for_timeout(200)


def values_of(tab: Frontend) -> tuple:
    """Return start, end and more_ranges of Repaint, as they would be saved."""
    return tuple(tab.saved_values()["AS15_Repaint"][:3])


def place(tab: Frontend, seconds: float) -> tuple[float, float]:
    """Return the pixels of the window of a moment of the song."""
    box = tab.page.locator(CANVAS).bounding_box()
    return box["x"] + box["width"] * seconds / SECONDS, box["y"] + box["height"] / 2


def drag(tab: Frontend, start: float, end: float) -> None:
    tab.drag(place(tab, start), place(tab, end))
    tab.page.wait_for_timeout(100)


@both_renderers
def test_ranges_are_drawn_moved_and_removed(tab: Frontend, tmp_path: Path, nodes_2: bool) -> None:
    tab.open(nodes_2=nodes_2)
    drop(tab, FROM_FILE, tmp_path)
    wait_for_waveform(tab)
    assert values_of(tab) == (4, 8, "") and len(tab.saved_values()["AS15_Repaint"]) <= len(VALUES) + 1
    before = node_of(tab, "AS15_Repaint").box

    drag(tab, 9, 11)
    assert values_of(tab) == (4, 8, "9-11")
    drag(tab, 1, 2.5)
    assert values_of(tab) == (1, 2.5, "4-8, 9-11"), "the first range has widgets of its own"
    drag(tab, 8, 7)
    assert values_of(tab) == (1, 2.5, "4-7, 9-11"), "an edge moves"
    drag(tab, 5.5, 6)
    assert values_of(tab) == (1, 2.5, "4.5-7.5, 9-11"), "a range moves"
    drag(tab, 11, 11.99)
    assert values_of(tab) == (1, 2.5, "4.5-7.5, 9-"), "a range at the end is open"
    tab.screenshot(f"ranges {'nodes_2' if nodes_2 else 'canvas'}")
    tab.page.mouse.dblclick(*place(tab, 10))
    tab.page.wait_for_timeout(100)
    assert values_of(tab) == (1, 2.5, "4.5-7.5")
    assert node_of(tab, "AS15_Repaint").box == before, "the node must not move"
    queued = tab.page.evaluate(QUEUED_INPUTS)["AS15_Repaint"]
    assert (queued["start"], queued["end"], queued["more_ranges"]) == (1, 2.5, "4.5-7.5") and "ranges" not in queued


def test_keys_move_and_remove_the_selected_range(tab: Frontend, tmp_path: Path) -> None:
    tab.open()
    drop(tab, FROM_FILE, tmp_path)
    wait_for_waveform(tab)
    tab.page.mouse.click(*place(tab, 6))
    keys = tab.page.keyboard
    keys.press("ArrowRight")
    assert values_of(tab) == (4.1, 8.1, "")
    keys.press("Shift+ArrowLeft")
    assert values_of(tab) == (4.1, 8, "")
    keys.press("Delete")
    assert values_of(tab) == (4.1, 8, ""), "one range stays"
    assert len(tab.nodes()) == 2, "Delete must not remove the node"
    tab.page.mouse.click(*place(tab, 1))
    keys.press("Enter")
    start, end, more = values_of(tab)
    assert start == pytest.approx(1, abs=0.05) and end == pytest.approx(6, abs=0.05) and more == "4.1-8"
    keys.press("Delete")
    assert values_of(tab) == (4.1, 8, "")


def test_the_widgets_are_the_truth(tab: Frontend, tmp_path: Path) -> None:
    tab.open()
    drop(tab, FROM_FILE, tmp_path)
    wait_for_waveform(tab)
    shown = tab.page.locator(".as15-waveform span").first
    tab.set_number(node_of(tab, "AS15_Repaint"), "start", 5.5)
    assert shown.inner_text().endswith("5.5-8")
    tab.set_number(node_of(tab, "AS15_Repaint"), "end", 0)
    assert shown.inner_text().endswith("5.5-")
    tab.page.evaluate(SET_WHERE, "chorus")
    drag(tab, 1, 2)
    assert values_of(tab) == (5.5, 0, ""), "where sets the part"
    tab.page.evaluate(SET_WHERE, "2-3.5")
    assert shown.inner_text().endswith("2-3.5"), "seconds of where are shown before a run"


def test_edges_snap_to_lines_of_the_lyrics(tab: Frontend, tmp_path: Path) -> None:
    tab.open()
    drop(tab, FROM_FILE, tmp_path)
    wait_for_waveform(tab)
    tab.page.evaluate("""() => app.graph.nodes.find(node => node.type === "AS15_Repaint").onExecuted({waveform: [{
        seconds: 12, low: [], high: [], regions: [], where: "", file: null,
        sections: [[0.5, "Verse"], [6.11, "Chorus"]], lines: [[9.37, 10.83, "hello 夜"]],
    }]})""")
    drag(tab, 9.3, 10.9)
    assert values_of(tab) == (4, 8, "9.37-10.83")
    drag(tab, 8, 6.2)
    assert values_of(tab) == (4, 6.11, "9.37-10.83"), "an edge snaps to a section"
    tab.page.mouse.click(*place(tab, 10))
    assert tab.page.locator(LINE).inner_text() == "hello 夜"
    tab.screenshot("ranges with lyrics")


def test_stems_have_ranges_for_an_added_track(tab: Frontend, tmp_path: Path) -> None:
    tab.open()
    values = ["extract", "vocals", "", 0, 0, "balanced", 0.5, ""]
    drop(tab, [("AS15_Stems", values, [(1, 0, "audio")]), FROM_FILE[1]], tmp_path)
    wait_for_waveform(tab)
    drag(tab, 2, 4)
    assert tab.saved_values()["AS15_Stems"][:8] == values, "extract uses the whole song"
    tab.page.evaluate("""() => {
        const widget = app.graph.nodes.find(node => node.type === "AS15_Stems").widgets[0];
        widget.value = "add";
        widget.callback(widget.value);
    }""")
    drag(tab, 2, 4)
    drag(tab, 6, 8)
    now = tab.saved_values()["AS15_Stems"]
    assert (now[3], now[4], now[7]) == (2, 4, "6-8")
    for seconds in (7, 3):
        tab.page.mouse.dblclick(*place(tab, seconds))
    tab.page.wait_for_timeout(100)
    now = tab.saved_values()["AS15_Stems"]
    assert (now[3], now[4], now[7]) == (0, 0, ""), "without ranges, the track lasts the whole song"


def test_extend_continues_from_a_dragged_place(tab: Frontend, tmp_path: Path) -> None:
    tab.open()
    values = [8, 0, 0, "balanced", 0.5, ""]
    drop(tab, [("AS15_Extend", values, [(1, 0, "audio")]), FROM_FILE[1]], tmp_path)
    wait_for_waveform(tab)
    drag(tab, 11.9, 9)
    assert tab.saved_values()["AS15_Extend"][5] == "9"
    drag(tab, 9, 7.5)
    assert tab.saved_values()["AS15_Extend"][5] == "7.5"
    tab.screenshot("ranges of extend")
    tab.page.mouse.dblclick(*place(tab, 10))
    tab.page.wait_for_timeout(100)
    assert tab.saved_values()["AS15_Extend"][5] == ""


def test_edges_snap_to_beats_of_the_song(tab: Frontend, tmp_path: Path) -> None:
    tab.open()
    song = ("AS15_Song", ["a song", "", "auto", 60, 60, "auto", "3/4"], [])
    drop(tab, [*FROM_FILE, song, ("AS15_Encode", [], [(0, 0, "task"), (2, 0, "song")])], tmp_path)
    wait_for_waveform(tab)
    page, bpm, first = (
        tab.page,
        tab.page.get_by_label("BPM of the beats"),
        tab.page.get_by_label("First beat", exact=True),
    )
    assert not bpm.is_visible()
    page.get_by_label("Snap to beats").click()
    bpm.wait_for()
    assert bpm.get_attribute("placeholder") == "60", "the BPM of Song"
    first.fill("0.25")
    first.press("Enter")
    drag(tab, 9.1, 11.4)
    assert values_of(tab) == (4, 8, "9.25-11.25")
    bpm.fill("40")  # a beat lasts 1.5 seconds
    bpm.press("Enter")
    drag(tab, 11.25, 10.5)
    assert values_of(tab) == (4, 8, "9.25-10.75")
    tab.screenshot("ranges with beats")
    (saved,) = page.evaluate(
        "app.graph.serialize().nodes.filter(n => n.type === 'AS15_Repaint').map(n => n.properties)"
    )
    assert (saved["snap_to_beats"], saved["bpm"], saved["first_beat"]) == (True, 40, 0.25)
    assert tab.page.evaluate(QUEUED_INPUTS)["AS15_Repaint"].keys().isdisjoint({"bpm", "first_beat"})
    page.get_by_label("Snap to beats").click()
    drag(tab, 10.75, 10.04)
    assert values_of(tab) == (4, 8, "9.25-10")


def test_spectrogram_and_loudness_are_shown(tab: Frontend, tmp_path: Path) -> None:
    tab.open()
    drop(tab, FROM_FILE, tmp_path)
    wait_for_waveform(tab)
    tab.page.get_by_label("Loudness curve").click()
    shown = tab.page.locator(".as15-waveform span").first
    tab.page.wait_for_function("span => / -1[0-9]\\.[0-9] LUFS/.test(span.textContent)", arg=shown.element_handle())
    assert tab.page.locator(CANVAS).evaluate(COLOURED) < 0.5
    tab.page.get_by_label("Spectrogram").click()
    tab.page.wait_for_timeout(200)
    assert tab.page.locator(CANVAS).evaluate(COLOURED) > 0.8
    tab.screenshot("ranges with spectrogram")
    tab.page.get_by_label("Spectrogram").click()
    tab.page.get_by_label("Loudness curve").click()
    wait_for_waveform(tab)
    assert "LUFS" not in shown.inner_text()


def test_a_timbre_takes_one_dragged_part(tab: Frontend, tmp_path: Path) -> None:
    tab.open()
    drop(tab, [("AS15_Timbre", [0, 0], [(1, 0, "audio")]), FROM_FILE[1]], tmp_path)
    wait_for_waveform(tab)
    drag(tab, 2, 4)
    assert tab.saved_values()["AS15_Timbre"][:2] == [2, 4]
    drag(tab, 6, 9)
    assert tab.saved_values()["AS15_Timbre"][:2] == [6, 9], "the new part replaces the old one"
    tab.screenshot("ranges of timbre")
    tab.page.mouse.dblclick(*place(tab, 8))
    tab.page.wait_for_timeout(100)
    assert tab.saved_values()["AS15_Timbre"][:2] == [0, 0]


@both_renderers
def test_a_source_of_the_graph_is_shown_after_its_run(tab: Frontend, tmp_path: Path, nodes_2: bool) -> None:
    tab.open(nodes_2=nodes_2)
    repaint, *others = FROM_GRAPH
    values = [0, 2, "3-4" if nodes_2 else "3.5-4", *repaint[1][3:]]  # a cached node shows nothing
    drop(tab, [(repaint[0], values, repaint[2]), *others], tmp_path)
    assert tab.page.locator(CANVAS).evaluate(DRAWN) < 0.1
    tab.press_run()
    wait_for_waveform(tab)
    if not nodes_2:  # which is too small for the mouse here
        drag(tab, 8, 10)
        assert values_of(tab) == (0, 2, f"{values[2]}, 8-10")
    tab.page.locator(".as15-waveform button").first.evaluate("button => button.click()")
    tab.page.wait_for_function(f"({PLAYED})() > 0.2")
    tab.screenshot(f"ranges of a graph {'nodes_2' if nodes_2 else 'canvas'}")
