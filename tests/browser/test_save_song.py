"""Finish Song and Save Song on the canvas: levels, player and saved files that open their graph."""

from __future__ import annotations

import time
from pathlib import Path

from .frontend import QUEUED_INPUTS, Frontend
from .test_ranges import DRAWN
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
LOADED = """() => Promise.all([...document.querySelectorAll(".as15-waveform audio[src*='type=output']")].map(audio =>
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
    loaded = tab.page.evaluate(LOADED)
    assert len(loaded) == len(FORMATS) and all(seconds > 11 for seconds in loaded)
    files = tab.page.evaluate(SAVED)
    assert {file["filename"].rpartition(".")[2] for file in files} == set(FORMATS)
    assert all(file["filename"].startswith(f"{time.strftime('%Y')}-broadcast (-23)_000") for file in files)
    if nodes_2:
        return
    for file in files:
        tab.new_workflow()
        tab.drop_file(tab.server.base / "output" / file["subfolder"] / file["filename"])
        assert values_of(tab) == before, file


@both_renderers
def test_the_player_seeks_and_plays(tab: Frontend, tmp_path: Path, nodes_2: bool) -> None:
    tab.open(nodes_2=nodes_2)
    values = [f"player/{nodes_2}", "mp3", "", "", "", True]
    drop(tab, [GRAPH[0], ("AS15_SaveSong", values, [(0, 0, "audio")])], tmp_path)
    before = tab.saved_values()
    tab.press_run()
    tab.page.wait_for_function(f"({SAVED})().length === 1")
    player = tab.page.locator(".as15-waveform")
    canvas, clock, audio = player.locator("canvas"), player.locator("span").first, player.locator("audio")
    tab.page.wait_for_function(f"() => ({DRAWN})(document.querySelector('.as15-waveform canvas')) > 0.1")
    for _ in range(10):  # the node may still grow, and the place of the click with it
        tab.fit_view()
        canvas.click()  # waits until nothing covers it
        if clock.inner_text() != "0:00.0 / 0:12.0":
            break
    assert clock.inner_text().startswith(("0:05.9", "0:06."))
    tab.page.keyboard.press("ArrowRight")
    assert clock.inner_text().startswith(("0:06.9", "0:07."))
    tab.page.keyboard.press("Space")
    tab.page.wait_for_function("audio => !audio.paused && audio.currentTime > 7.3", arg=audio.element_handle())
    tab.screenshot(f"save song plays {'nodes_2' if nodes_2 else 'canvas'}")
    tab.page.keyboard.press("Space")
    assert audio.evaluate("audio => audio.paused")
    assert player.locator("a").get_attribute("href").endswith("type=output")
    assert tab.saved_values() == before, "the player is not saved"
    assert "player" not in tab.page.evaluate(QUEUED_INPUTS)["AS15_SaveSong"]


def test_the_player_shows_the_line_and_every_song(tab: Frontend, tmp_path: Path) -> None:
    tab.open()
    drop(tab, [("AS15_SaveSong", [], [])], tmp_path)
    tab.zoom(1)  # some frontends show a single node larger than the window
    song = {
        "seconds": 12,
        "low": [-50] * 50,
        "high": [50] * 50,
        "sections": [[1, "Verse"]],
        "lines": [[1, 7, "hello 夜"]],
    }
    file = {"filename": "none.flac", "subfolder": "", "type": "output"}
    output = {
        "audio": [file, {**file, "filename": "other.flac"}],
        "waveform": [song, {**song, "seconds": 8, "lines": []}],
    }
    tab.page.evaluate("output => app.graph.nodes[0].onExecuted(output)", output)
    box = tab.page.locator(".as15-waveform canvas").bounding_box()
    tab.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert tab.page.locator(".as15-line").inner_text() == "hello 夜"
    line, bar = (tab.page.locator(place).bounding_box() for place in (".as15-line", ".as15-waveform button >> nth=0"))
    assert line["height"] > 15 and line["y"] + line["height"] < bar["y"], "the line is above the buttons"
    tab.screenshot("save song with lyrics")
    tab.page.get_by_label("Next song").click()
    bar = tab.page.locator(".as15-waveform").inner_text()
    assert "0:00.0 / 0:08.0" in bar and "2 / 2" in bar and not tab.page.locator(".as15-line").is_visible()
    tab.errors.clear()  # the file is missing
