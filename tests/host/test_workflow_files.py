"""The files of the shipped workflows: they fit the live schemas, and have thumbnails and notes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from PIL import Image

from acestep_core.checkpoints.catalog import RELEASES
from tools.build_workflows import out_of_date

from .graph import load_workflow, to_prompt, widget_names
from .server import REPO, ComfyServer
from .test_workflows import APPS, PLAYER, RATE, RECORDING, RECORDING_SECONDS, WORKFLOWS, path_of
from .workflow_check import problems


def test_the_files_are_up_to_date(server: ComfyServer) -> None:
    """A changed schema or declaration needs `python -m tools.build_workflows`."""
    assert not out_of_date(server.object_info())


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_it_fits_the_live_schemas(server: ComfyServer, workflow: Path) -> None:
    info = server.object_info()
    assert not problems(load_workflow(workflow), info)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_it_has_a_thumbnail_and_a_note(workflow: Path) -> None:
    with Image.open(workflow.with_suffix(".jpg")) as picture:
        assert picture.format == "JPEG"
        assert picture.width == picture.height >= 256
        assert len(picture.resize((32, 32)).getcolors(32 * 32)) > 100, "the thumbnail is empty"
    notes = [node for node in load_workflow(workflow)["nodes"] if node["type"] == "MarkdownNote"]
    assert [note["title"] for note in notes] == ["Read me first"]
    texts = notes[0]["properties"]["as15_text"]
    assert texts["en"]["text"] == notes[0]["widgets_values"][0] and {"zh", "ja"} < texts.keys()
    assert not [text for text in texts.values() if "`" in text["text"] or "{" in text["text"]]  # code is hard to read


def test_no_thumbnail_is_left_over() -> None:
    pictures = {path.stem for path in (REPO / "workflows").iterdir() if path.suffix == ".jpg"}
    assert pictures == {path.stem for path in WORKFLOWS}
    assert not [path for path in (REPO / "workflows").glob("*.jpg") if path.stat().st_size > 40_000]


@pytest.mark.parametrize("workflow", APPS, ids=lambda path: path.stem)
def test_a_form_has_its_widgets_and_a_player(server: ComfyServer, workflow: Path) -> None:
    app, info = load_workflow(workflow), server.object_info()
    nodes = {node["id"]: node["type"] for node in app["nodes"]}
    form = app["extra"]["linearData"]
    assert app["extra"]["linearMode"] is True
    assert [nodes[node] for node in form["outputs"]] == [PLAYER]
    assert not [entry for entry in form["inputs"] if entry[1] not in widget_names(info[nodes[entry[0]]])]


def test_files_of_comfyui_are_offered_for_download() -> None:
    """The frontend compares names with widgets, and downloads to the folder."""
    loaders = [
        node for node in load_workflow(path_of("03 Files of ComfyUI"))["nodes"] if "models" in node["properties"]
    ]
    files = [file for node in loaders for file in node["properties"]["models"]]
    urls = {
        f"https://huggingface.co/{release.repo}/resolve/main/{release.files[0]}": release.target
        for release in RELEASES.values()
        if release.is_file
    }
    assert len(files) == 4
    assert not [file for file in files if urls[file["url"]] != f"{file['directory']}/{file['name']}"]
    assert {file["name"] for file in files} <= {value for node in loaders for value in node["widgets_values"]}


def test_no_node_is_deprecated(server: ComfyServer) -> None:
    info = server.object_info()
    used = {node["type"] for path in WORKFLOWS for node in load_workflow(path)["nodes"]} & info.keys()
    assert not [name for name in used if info[name].get("deprecated")]


def test_the_recording_is_small_and_in_the_list_of_load_audio(server: ComfyServer) -> None:
    assert RECORDING.stat().st_size <= 200_000
    copied = server.base / "input" / RECORDING.name
    assert copied.read_bytes() == RECORDING.read_bytes()
    kind, *rest = server.object_info()["LoadAudio"]["input"]["required"]["audio"]
    assert RECORDING.name in (kind if isinstance(kind, list) else rest[0]["options"])
    samples, rate = soundfile.read(RECORDING)
    assert (rate, samples.shape) == (RATE, (RECORDING_SECONDS * RATE, 2)) and samples.std() > 0.02


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_every_node_is_used(server: ComfyServer, workflow: Path) -> None:
    """Every node contributes to an output node."""
    info = server.object_info()
    prompt = to_prompt(load_workflow(workflow), info)
    used = {key for key, node in prompt.items() if info[node["class_type"]]["output_node"]}
    waiting = list(used)
    while waiting:
        inputs = prompt[waiting.pop()]["inputs"].values()
        new = {value[0] for value in inputs if isinstance(value, list)} - used
        used |= new
        waiting += new
    assert used == prompt.keys()


def rename(workflow: dict, old: str, new: str) -> None:
    (node,) = [node for node in workflow["nodes"] if node["type"] == old]
    node["type"] = new


def set_value(workflow: dict, node_type: str, index: int, value: object) -> None:
    (node,) = [node for node in workflow["nodes"] if node["type"] == node_type]
    node["widgets_values"][index] = value


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda w: rename(w, "AS15_Sample", "AS15_Sampel"), "does not exist"),
        (lambda w: w["nodes"][3]["inputs"][0].update(name="modell"), "has the inputs"),
        (lambda w: w["nodes"][3]["outputs"][0].update(type="IMAGE"), "has the outputs"),
        (lambda w: w["nodes"][0].update(inputs=[{"name": "steps", "type": "INT", "widget": {"name": "steps"},
                                                 "link": None}]), "has no widget steps"),
        (lambda w: w["nodes"][4]["inputs"][1].update(link=None), "nothing is connected to latent"),
        (lambda w: w["nodes"][3]["widgets_values"].pop(), "values for the widgets"),
        (lambda w: set_value(w, "AS15_LoadModel", 0, "acestep-v15-nowhere"), "not allowed for model"),
        (lambda w: set_value(w, "AS15_Song", 3, -0.5), "not allowed for duration"),
        (lambda w: set_value(w, "AS15_Sample", 0, 1.5), "not allowed for seed"),
        (lambda w: set_value(w, "AS15_Sample", 1, "sometimes"), "not allowed for control after generate"),
        (lambda w: set_value(w, "AS15_Decode", 0, "yes"), "not allowed for normalize"),
        (lambda w: set_value(w, "AS15_Song", 0, "/home/me/song"), "absolute path"),
        (lambda w: set_value(w, "AS15_Song", 0, "C:\\songs\\mine"), "absolute path"),
        (lambda w: w["links"].pop(), "do not agree"),
        (lambda w: w["links"][0].__setitem__(4, 1), "inputs and the table of links do not agree"),
        (lambda w: w["links"][0].__setitem__(5, "CLIP"), "is called CLIP"),
        (lambda w: w.update(last_link_id=1), "id that is taken"),
        (lambda w: w["extra"].update(linkExtensions=[{"id": 1, "parentId": 9}]), "does not know it"),
        (lambda w: w["nodes"][2].update(pos=[-300, 0]), "runs backwards"),
        (lambda w: w["nodes"][5].update(pos=[3000, 0]), "too wide"),
        (lambda w: w["nodes"][5].update(pos=[1165, 3000]), "too high"),
        (lambda w: w["nodes"][1].update(pos=[0, 350]), "too near"),
        (lambda w: w["nodes"][1].update(pos=[0, 250]), "overlaps"),
        (lambda w: w["groups"].append({"title": "A part", "bounding": [-20, -20, 300, 900]}), "sticks out of"),
    ],
)  # fmt: skip
def test_mistakes_are_found(server: ComfyServer, harm: Callable[[dict], object], complaint: str) -> None:
    broken = copy.deepcopy(load_workflow(path_of("01 Text to music")))
    harm(broken)
    assert any(complaint in problem for problem in problems(broken, server.object_info()))
