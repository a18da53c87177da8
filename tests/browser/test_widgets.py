"""Widgets of our nodes: songs that are edited on the canvas, and the word for 0."""

from __future__ import annotations

from pathlib import Path

from .frontend import ADD_NODES, QUEUED_INPUTS, Frontend
from .test_canvas import node_of
from .test_text import both_renderers, drop

SONG = ["a rainy song", "[Verse]\nhello rain", "English", 30, 120, "C major", "4/4"]
BLANK = ["", "", "auto", 0, 0, "auto", "auto"]
GRAPH = [
    ("AS15_Song", SONG, []),
    ("AS15_EditSong", ["input", *BLANK], [(0, 0, "song")]),
    ("PreviewAny", [], [(1, 1, "source")]),
]
SHOWS_SONG = "() => app.graph.nodes.find(node => node.type === 'AS15_EditSong').widgets[1].value"
# The frontend saves an open workflow a moment after each change.
SAVED_BY_PAGE = "text => JSON.stringify([{...localStorage}, {...sessionStorage}]).includes(text)"
SHOWN_BY_PREVIEW = "text => JSON.stringify(Object.values(app.nodeOutputs)).includes(text)"
# The words drawn instead of numbers: on the canvas, and in Nodes 2.0.
DRAWN = {
    False: "() => app.graph.nodes.flatMap(node => node.widgets.map(widget => [widget.name, widget._displayValue]))",
    True: """() => [...document.querySelectorAll("input[aria-valuenow]")].map(input => [
        input.closest("[aria-label]").ariaLabel, getComputedStyle(input.parentElement, "::after").content])""",
}


@both_renderers
def test_a_song_is_shown_edited_and_kept(tab: Frontend, tmp_path: Path, nodes_2: bool) -> None:
    tab.open(nodes_2=nodes_2)
    drop(tab, GRAPH, tmp_path)
    queued = tab.page.evaluate(QUEUED_INPUTS)["AS15_EditSong"]
    tab.press_run()
    tab.page.wait_for_function(SHOWS_SONG)
    assert tab.saved_values()["AS15_EditSong"] == ["input", *SONG]
    assert tab.page.evaluate(QUEUED_INPUTS)["AS15_EditSong"] == queued, "a shown song must not run later nodes again"

    tab.write("[Verse]", " and sun")
    edited = ["edits", SONG[0], f"{SONG[1]} and sun", *SONG[2:]]
    assert tab.saved_values()["AS15_EditSong"] == edited
    tab.press_run()
    tab.page.wait_for_function(SHOWN_BY_PREVIEW, arg="hello rain and sun")
    tab.page.wait_for_function(SAVED_BY_PAGE, arg="hello rain and sun")
    tab.page.reload()
    tab.page.wait_for_function("window.app?.vueAppReady && app.graph?.nodes.length")
    assert tab.saved_values()["AS15_EditSong"] == edited, "a reload must not lose the changes"


def test_a_shown_song_outlives_its_source(tab: Frontend, tmp_path: Path) -> None:
    tab.open()
    drop(tab, [GRAPH[0], ("AS15_EditSong", ["input", *SONG], GRAPH[1][2]), GRAPH[2]], tmp_path)
    tab.page.evaluate("() => { app.graph.nodes.find(node => node.type === 'AS15_Song').mode = 4; }")  # bypassed
    assert tab.page.evaluate(QUEUED_INPUTS)["AS15_EditSong"]["caption"] == SONG[0]
    tab.press_run()
    tab.page.wait_for_function(SHOWN_BY_PREVIEW, arg="hello rain")
    assert tab.saved_values()["AS15_EditSong"] == ["input", *SONG]

    edit = node_of(tab, "AS15_EditSong")
    tab.set_number(edit, "bpm", 0)  # the value of a new node is an edit as well
    assert tab.saved_values()["AS15_EditSong"] == ["edits", *SONG[:4], 0, *SONG[5:]]


@both_renderers
def test_zero_is_shown_as_a_word(tab: Frontend, nodes_2: bool) -> None:
    tab.open(nodes_2=nodes_2)
    tab.page.evaluate(ADD_NODES, ["AS15_Song", "AS15_Sample", "AS15_Write"])
    tab.fit_view()
    drawn = tab.page.evaluate(DRAWN[nodes_2])
    words = {name: word.strip('"') for name, word in drawn if name in ("bpm", "steps", "guidance", "retake_seed")}
    assert all(words[name] == "auto" for name in ("bpm", "steps", "guidance")), words
    assert words.get("retake_seed") in ("0", "none", None), "0 is a seed"


def test_a_song_placed_by_hand_has_room_for_lyrics(tab: Frontend) -> None:
    tab.open()
    song = tab.add_node("Song", 500, 200)
    assert song.size[0] >= 400 and song.size[1] >= 400
    boxes = tab.page.evaluate("() => [...document.querySelectorAll('textarea')].map(area => area.clientHeight)")
    assert min(boxes) >= 80
    tab.close_sidebar()
    assert node_of(tab, "AS15_Song").size == song.size
