"""The pack in a real server: it loads silently, and its schemas are complete."""

from __future__ import annotations

import re

from .conftest import PACK_FOLDER
from .graph import inputs_of, widget_names
from .server import ComfyServer

NODES = {
    "AS15_LoadLora",
    "AS15_LoadModel",
    "AS15_Song",
    "AS15_Encode",
    "AS15_Sample",
    "AS15_EmptyLatent",
    "AS15_Decode",
    "AS15_EncodeAudio",
    "AS15_Cover",
    "AS15_Repaint",
    "AS15_Extend",
    "AS15_Stems",
    "AS15_Timbre",
    "AS15_Morph",
    "AS15_BatchSongs",
    "AS15_AudioCodes",
    "AS15_SaveCodes",
    "AS15_LoadCodes",
    "AS15_LoadPlanner",
    "AS15_Plan",
    "AS15_Write",
    "AS15_Polish",
    "AS15_Listen",
    "AS15_Download",
    "AS15_EditSong",
    "AS15_LyricTimes",
    "AS15_PickBest",
    "AS15_SaveLyrics",
    "AS15_CompareTakes",
    "AS15_MixStems",
    "AS15_FinishSong",
    "AS15_SaveSong",
    "AS15_SongPicture",
    "AS15_SongFolder",
    "AS15_TrainLora",
    "AS15_TrainOptions",
}


def test_loads_silently(server: ComfyServer) -> None:
    """At the lowest log level, the pack logs nothing while ComfyUI imports it."""
    lines = [line for line in server.log.splitlines() if line]
    start = next(i for i, line in enumerate(lines) if line.startswith("Trying to load") and line.endswith(PACK_FOLDER))
    assert lines[start + 1].startswith(("Trying to load custom node", "Import times for custom nodes"))


def test_loads(server: ComfyServer) -> None:
    (times,) = [line for line in server.log.splitlines() if line.endswith(PACK_FOLDER) and "seconds" in line]
    assert "IMPORT FAILED" not in times


def test_object_info_shows_the_nodes(server: ComfyServer) -> None:
    info = server.object_info()
    assert {name for name in info if name.startswith("AS15_")} == NODES
    for name in NODES:
        assert re.fullmatch(
            r"ACE-Step 1\.5/(loaders|song|sampling|audio|edits|planner|training)", info[name]["category"]
        ), name
        assert info[name]["description"].endswith(".")
        assert info[name]["python_module"] == f"custom_nodes.{PACK_FOLDER}"


def numbers_of(info: dict) -> set[tuple[str, float | None, float | None]]:
    """Return name, least and greatest value of the number widgets that may be 0."""
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}.items()
    options = {name: spec[1] for name, spec in inputs if spec[0] in ("INT", "FLOAT") and len(spec) > 1}
    return {(name, each.get("min"), each.get("max")) for name, each in options.items() if each.get("min") == 0}


def test_words_for_zero_are_shown_on_our_nodes_alone(server: ComfyServer) -> None:
    """web/js/zero.js knows an input element by name and range."""
    worded, others = set(), set()
    for info in server.object_info().values():
        inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        words = {key for key, spec in inputs.items() if len(spec) > 1 and "zero_shown_as" in spec[1]}
        for number in numbers_of(info):
            (worded if number[0] in words else others).add(number)
    assert len(worded) >= 5 and not worded & others


def test_every_input_and_output_has_a_tooltip(server: ComfyServer) -> None:
    info = server.object_info()
    for name in NODES:
        for input_name, _, options in inputs_of(info[name]):
            assert options.get("tooltip", "").endswith("."), f"{name}.{input_name}"
        assert all(tooltip.endswith(".") for tooltip in info[name]["output_tooltips"]), name


def test_no_node_has_more_than_a_dozen_widgets(server: ComfyServer) -> None:
    """Sample Song has two more, which are folded away: the guidance of a part of the steps and DCW."""
    info = server.object_info()
    own = {name: [widget for widget in widget_names(info[name]) if widget] for name in NODES}
    folded = {name: [key for key, _, options in inputs_of(info[name]) if options.get("advanced")] for name in NODES}
    for name, widgets in own.items():  # without the frontend's own for a seed
        assert len(widgets) <= (14 if name == "AS15_Sample" else 12), name
        assert len(set(widgets) - set(folded[name])) <= 12, name


def test_nano_is_always_listed(server: ComfyServer) -> None:
    options = server.object_info()["AS15_LoadModel"]["input"]["required"]
    assert "nano" in options["model"][1]["options"]
    assert options["text_encoder"][1]["options"][0] == options["vae"][1]["options"][0] == "auto"
