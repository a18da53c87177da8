"""The apps: graphs that later frontends open as a form. Earlier ones open them as a graph."""

from __future__ import annotations

from collections.abc import Callable

from .edits import EDITS, edit_template
from .graph import Graph
from .songs import text_to_music

LINES = 120  # pixels of a text box
PLAYER = "AS15_SaveSong"
Widgets = list[tuple[str, str]]  # node type and widget, from the top of the form

SONG: Widgets = [("AS15_Song", "caption"), ("AS15_Song", "lyrics")]
SETTINGS: Widgets = [("AS15_Sample", "seed"), ("AS15_LoadModel", "model")]
RECORDING: Widgets = [("LoadAudio", "audio")]


def as_form(graph: Graph, widgets: Widgets) -> Graph:
    """Open a graph as a form with these widgets and the player."""
    ids = {node.type: node.id for node in graph.nodes}
    inputs = [
        [ids[type_], name, {"height": LINES}] if name in ("caption", "lyrics") else [ids[type_], name]
        for type_, name in widgets
    ]
    graph.extra |= {"linearMode": True, "linearData": {"inputs": inputs, "outputs": [ids[PLAYER]]}}
    return graph


def edit_app(name: str, edit: str, widgets: list[str]) -> Callable[[dict], Graph]:
    task: Widgets = [(f"AS15_{EDITS[edit].task}", widget) for widget in widgets]
    return lambda info: as_form(edit_template(name, EDITS[edit])(info), [*RECORDING, *task, *SONG, *SETTINGS])


def simple_song(info: dict) -> Graph:
    metadata: Widgets = [("AS15_Song", "language"), ("AS15_Song", "duration")]
    return as_form(text_to_music(info, "simple_song.app"), [*SONG, *metadata, *SETTINGS])


APPS: list[Callable[[dict], Graph]] = [
    simple_song,
    edit_app("cover_my_song.app", "cover", ["strength"]),
    edit_app("repaint_my_song.app", "repaint", ["start", "end"]),
    edit_app("extend_my_song.app", "extend", ["after"]),
]
