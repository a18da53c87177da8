"""Finish Song and Save Song on the canvas: levels, player and saved files that open their graph."""

from __future__ import annotations

import time
from pathlib import Path

from .frontend import Frontend
from .test_text import both_renderers, drop

FORMATS = ["flac", "mp3", "opus"]
PREFIX = "browser/%date:yyyy%-%AS15_FinishSong.loudness%"
GRAPH = [
    ("LoadAudio", ["ACE-Step example.ogg"], []),
    ("AS15_FinishSong", [], [(0, 0, "audio")]),
    ("AS15_Song", ["a song", "[Verse]\nhello 夜", "English", 60, 90, "C major", "4/4"], []),
    *(
        ("AS15_SaveSong", [PREFIX, name, f"Night 夜 {name}", "me", "", True], [(1, 0, "audio"), (2, 0, "song")])
        for name in FORMATS
    ),
]  # fmt: skip
SAVED = "() => Object.values(app.nodeOutputs).flatMap(output => output.audio ?? [])"
# The seconds that each player has loaded.
PLAYED = """() => Promise.all([...document.querySelectorAll("audio[src*='type=output']")].map(audio =>
    audio.duration || new Promise(done => audio.addEventListener("loadedmetadata", () => done(audio.duration)))))"""
VALUES = "() => app.graph.serialize().nodes.map(node => [node.type, node.widgets_values])"


def values_of(tab: Frontend) -> list[list]:
    ours = [[name, values] for name, values in tab.page.evaluate(VALUES) if name.startswith("AS15_")]
    return sorted(ours, key=str)


@both_renderers
def test_a_saved_song_plays_and_opens_its_graph(tab: Frontend, tmp_path: Path, nodes_2: bool) -> None:
    tab.open(nodes_2=nodes_2)
    values = ["broadcast (-23)", -14, -1, 0, 2 if nodes_2 else 1, False, 0, False]  # a cached node shows nothing
    drop(tab, [GRAPH[0], ("AS15_FinishSong", values, GRAPH[1][2]), *GRAPH[2:]], tmp_path)
    before = values_of(tab)
    assert [name for name, _ in before].count("AS15_SaveSong") == len(FORMATS)
    tab.press_run()
    tab.page.wait_for_function(f"({SAVED})().length === {len(FORMATS)}")
    (levels,) = tab.page.evaluate("app.nodeOutputs[2].text")
    assert "→ -23" in levels
    texts = tab.page.evaluate("[...document.querySelectorAll('textarea')].map(area => area.value)")
    assert levels in texts and sum(text.startswith("browser/") for text in texts) == len(FORMATS)
    tab.screenshot(f"save song {'nodes_2' if nodes_2 else 'canvas'}")
    played = tab.page.evaluate(PLAYED)
    assert len(played) == len(FORMATS) and all(seconds > 11 for seconds in played)
    files = tab.page.evaluate(SAVED)
    assert {file["filename"].rpartition(".")[2] for file in files} == set(FORMATS)
    assert all(file["filename"].startswith(f"{time.strftime('%Y')}-broadcast (-23)_000") for file in files)
    if nodes_2:
        return
    for file in files:
        tab.new_workflow()
        tab.drop_file(tab.server.base / "output" / file["subfolder"] / file["filename"])
        assert values_of(tab) == before, file
