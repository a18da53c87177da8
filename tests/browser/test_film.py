"""The whole way of a musician, by hand: a recording, a range, a repaint, the better take, a finished and saved file.

Each step is photographed. `pytest tests/browser/test_film.py --basetemp=FOLDER` keeps the pictures.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from acestep_core.audio import measure_loudness, read_audio, read_tags, write_audio
from tests.support.sounds import RATE, music

from ..host.server import REPO
from .frontend import SETTLE, TITLE_BAR, WIDGET, Frontend, Node
from .test_canvas import node_of
from .test_compare_takes import AUDIBLE, KEPT, NAMES, ROWS
from .test_ranges import CANVAS, DRAWN, values_of

REPAINT = REPO / "workflows" / "07 Repaint.json"
EMPTY = (300, 680)  # a place of the window without a node, beside a single one that fills it
SECONDS, START, END = 10.0, 1.0, 3.0
WAVEFORM = f"() => [...document.querySelectorAll('{CANVAS}')].some(canvas => ({DRAWN})(canvas) > 0)"
GRAPH = """() => {  // values and links; a player is a widget without a value of its own
    const { nodes, links } = app.graph.serialize();
    const own = ({ type, widgets_values: all }) => type === "LoadAudio" ? all[0] : all ?? [];
    const values = nodes.map(node => [node.id, node.type, own(node)]);
    return [...values, ...links.map(link => link.slice(1, 5))].map(entry => JSON.stringify(entry));
}"""


class Film:
    """Numbered pictures of a tab, in a folder."""

    def __init__(self, tab: Frontend, folder: Path):
        self.tab, self.folder, self.count = tab, folder, 0

    def take(self, name: str) -> None:
        self.count += 1
        self.tab.page.wait_for_timeout(SETTLE)
        self.tab.page.screenshot(path=self.folder / f"{self.count:02} {name}.png")


def choose(tab: Frontend, node: str, widget: str, value: str) -> None:
    """Choose a value from the list of a widget."""
    tab.page.mouse.click(*tab.page.evaluate(WIDGET, [node_of(tab, node).id, widget]))
    tab.page.locator(".litemenu-entry", has_text=value).first.click()
    tab.page.wait_for_timeout(SETTLE)


def upload(tab: Frontend, file: Path) -> None:
    """Press the button of Load Audio and choose a file."""
    load = node_of(tab, "LoadAudio")
    button = tab.page.evaluate(
        "id => app.graph.getNodeById(id).widgets.find(each => each.type === 'button').name", load.id
    )
    with tab.page.expect_file_chooser() as chooser:
        tab.page.mouse.click(*tab.page.evaluate(WIDGET, [load.id, button]))
    chooser.value.set_files(file)
    tab.page.wait_for_function(
        "([id, name]) => app.graph.getNodeById(id).widgets[0].value === name", arg=[load.id, file.name]
    )


def look_at(tab: Frontend, node: str | None = None) -> None:
    """Fill the window with a node, or with the whole graph."""
    tab.page.mouse.click(*EMPTY)
    tab.fit_view()
    if node:
        tab.page.mouse.click(*tab.page.evaluate(TITLE_BAR, node_of(tab, node).id))
        tab.fit_view()


def open_above(tab: Frontend, node: Node) -> None:
    """Move a collapsed node up and open it."""
    x, y = tab.page.evaluate(TITLE_BAR, node.id)
    tab.drag((x, y), (x, y - 90))
    tab.page.keyboard.press("Alt+c")
    tab.page.wait_for_function("id => !app.graph.getNodeById(id).flags.collapsed", arg=node.id)


def place(tab: Frontend, seconds: float) -> tuple[float, float]:
    """Return the pixels of the window of a moment of the recording, on the waveform of Repaint."""
    box = tab.page.locator(CANVAS).first.bounding_box()
    return box["x"] + box["width"] * seconds / SECONDS, box["y"] + box["height"] / 2


def likeness(one: torch.Tensor, other: torch.Tensor, start: float, end: float) -> float:
    """Return the correlation of a part of two songs, which does not depend on their levels."""
    parts = [song[:, round(start * RATE) : round(end * RATE)].flatten() for song in (one, other)]
    return float(torch.corrcoef(torch.stack(parts))[0, 1])


def test_a_recording_becomes_a_finished_song(tab: Frontend, tmp_path: Path) -> None:
    film, mine = Film(tab, tmp_path), tmp_path / "my song.mp3"
    write_audio(mine, music(SECONDS), RATE)
    tab.open()
    tab.drop_file(REPAINT)
    tab.set_number(node_of(tab, "AS15_Song"), "duration", SECONDS)
    upload(tab, mine)
    tab.page.wait_for_function(WAVEFORM)
    film.take("a recording of the user")

    tab.drag(place(tab, START), place(tab, END))
    tab.page.mouse.dblclick(*place(tab, 6))  # removes the range of the template
    tab.page.wait_for_timeout(SETTLE)
    assert values_of(tab) == (START, END, "")
    choose(tab, "AS15_Sample", "control_after_generate", "fixed")
    film.take("a range on the waveform")
    tab.press_run()
    tab.song()
    film.take("the repainted song")

    tab.zoom(0.55)
    compare = tab.add_node("Compare Takes", 680, 575)
    finish = tab.add_node("Finish Song", 890, 575)
    load, decode, save = (node_of(tab, name) for name in ("LoadAudio", "AS15_Decode", "AS15_SaveSong"))
    tab.close_sidebar()
    open_above(tab, decode)
    tab.connect(load, "AUDIO", compare, "take_1")
    tab.connect(decode, "audio", compare, "take_2")
    tab.connect(compare, "audio", finish, "audio")
    tab.connect(finish, "audio", save, "audio")
    tab.press_run()
    tab.song_file()
    tab.page.wait_for_function(f"{NAMES}.length === 2")
    look_at(tab, "AS15_CompareTakes")
    film.take("the original and the repainted song")

    tab.page.locator(".as15-takes button").first.click()
    tab.page.locator(ROWS).nth(1).locator("button").first.click()
    assert tab.page.evaluate(AUDIBLE) == 1
    film.take("the repainted song is audible")
    tab.page.locator(".as15-keep").nth(1).click()
    assert tab.page.evaluate(KEPT) == ["false", "true"]
    tab.press_run()
    file = tab.song_file()
    look_at(tab, "AS15_SaveSong")
    film.take("finished and saved")
    path = tab.server.base / "output" / file["subfolder"] / file["filename"]
    check_song(path, mine)

    before = tab.page.evaluate(GRAPH)
    tab.new_workflow()
    tab.drop_file(path)
    assert not set(before) ^ set(tab.page.evaluate(GRAPH)), "the graph differs"
    look_at(tab)
    film.take("the graph of the saved file")
    look_at(tab, "AS15_Repaint")
    tab.page.wait_for_function(WAVEFORM)
    film.take("its range is back")
    assert values_of(tab)[:2] == (START, END)
    assert not tab.errors


def check_song(path: Path, source: Path) -> None:
    """Check that a file is the repainted take with the loudness of streaming services."""
    song, recording = read_audio(path)[0], read_audio(source)[0]
    assert abs(song.shape[-1] / RATE - SECONDS) < 0.1
    assert abs(measure_loudness(song, RATE).integrated + 14) < 0.2
    assert likeness(song, recording, 0, START - 0.1) > 0.98 and likeness(song, recording, END + 0.1, SECONDS) > 0.98
    assert likeness(song, recording, START, END) < 0.9
    graph = json.loads(read_tags(path).extra["prompt"]).values()
    (kept,) = [node["inputs"]["keep"] for node in graph if node["class_type"] == "AS15_CompareTakes"]
    assert kept == 2
