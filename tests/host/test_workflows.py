"""Every shipped workflow fits the live schemas, has a thumbnail and a note, and runs in the real server."""

from __future__ import annotations

import copy
import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from safetensors.torch import load

from acestep_core.checkpoints.catalog import RELEASES
from tests.support.singing import NAME as SINGING_NANO
from tests.support.singing import write_singing_nano
from tools.build_workflows import out_of_date

from .graph import find, load_workflow, to_prompt, widget_names, with_all, with_inputs, with_node, without
from .server import REPO, ComfyServer
from .test_previews import messages_of, notes
from .workflow_check import problems

WORKFLOWS = sorted((REPO / "workflows").glob("*.json"))
APPS = [path for path in WORKFLOWS if path.stem.endswith(".app")]
# Real models are not there, and the graphs of the apps are those of templates.
RUNNABLE = [path for path in WORKFLOWS if path not in APPS and path.stem[:2] not in ("02", "03")]
SECONDS = 6.0  # above the shortest length that models run at, so that KSampler draws the same noise
RECORDING = REPO / "workflows" / "ACE-Step example.ogg"
RECORDING_SECONDS = 12.0
ADDED = 8.0  # seconds that Extend adds
# Seconds of the song where a source or the duration of the template sets them.
DURATIONS = dict.fromkeys(
    ["06 Cover", "07 Repaint", "09 Stems", "11 Morph", "12 Listen and remix", "21 Stems to files", "22 Mix stems"],
    RECORDING_SECONDS,
)
DURATIONS["08 Extend"] = RECORDING_SECONDS + ADDED
SHIPPED = 30.0  # seconds of a song without a source
SAMPLERS = ("AS15_Sample", "KSampler")
PASSED_ON = {"AS15_Timbre": "conditioning", "AS15_Morph": "target"}  # the input that replaces the output of these
# Notes on nano, on short songs, on the values of auto and on what a LoRA changes, token rates, and places by name.
UNAVOIDABLE = re.compile(
    r".*a miniature.*|.*: LoRA rank .*|.*shorter than any song.*|auto: .*|\d+ tokens, .*|"
    r"lyrics: about \d+ syllables .*|"  # in few seconds
    r"where: .* seconds"
)
# By another rule than that of the peak.
LEVELLED = {"07 Repaint", "08 Extend", "20 Finish and save", "21 Stems to files", "22 Mix stems"}
BATCHES = {"14 Batch of songs": 2, "21 Stems to files": 4}  # songs of one player
PLAYER = "AS15_SaveSong"
START, END = 4.0, 8.0  # of the repainted part
RATE = 48_000
EDGE = RATE // 20  # no crossfade is longer


def path_of(name: str) -> Path:
    return REPO / "workflows" / f"{name}.json"


@pytest.fixture(scope="module", autouse=True)
def without_singing_nano(server: ComfyServer) -> Iterator[None]:
    """Delete the model that `quick_prompt` writes: other tests of this server list its models."""
    yield
    shutil.rmtree(server.base / "models" / "acestep" / Path(SINGING_NANO).parts[0], ignore_errors=True)


def quick_prompt(server: ComfyServer, name: str, seed: int) -> dict[str, dict]:
    """Return a shipped workflow as a prompt, with a short song and few steps.

    Each test needs its own seed, because cached outputs are not listed.
    """
    info = server.object_info()
    prompt = to_prompt(load_workflow(path_of(name)), info)
    for key, node in prompt.items():
        if node["class_type"] == "AS15_Song" and node["inputs"]["duration"] == SHIPPED:
            prompt = with_node(prompt, key, duration=SECONDS)
    prompt = with_all(prompt, "AS15_Write", duration=SECONDS)
    prompt = with_all(prompt, "AS15_TrainLora", steps=2)
    if {"AS15_LyricTimes", "AS15_PickBest"} & {node["class_type"] for node in prompt.values()}:
        prompt = with_all(prompt, "AS15_LoadModel", model=write_singing_nano(server.base / "models" / "acestep"))
        prompt = {key: node for key, node in prompt.items() if node["class_type"] != "AS15_Download"}
    for sampler in SAMPLERS:
        prompt = with_all(prompt, sampler, steps=2, seed=seed)
    return prompt


def songs(server: ComfyServer, prompt: dict[str, dict]) -> list[np.ndarray]:
    """Return the audio of each player that is not cached, in the order of their ids."""
    return audio_of(server, prompt, server.play(prompt).outputs)


def audio_of(server: ComfyServer, prompt: dict[str, dict], outputs: dict[str, dict]) -> list[np.ndarray]:
    players = sorted((key for key, node in prompt.items() if node["class_type"] == PLAYER), key=int)
    return [listen(server, file) for key in players if key in outputs for file in outputs[key]["audio"]]


def avoidable(messages: list[dict | bytes], prompt: dict[str, dict]) -> set[tuple[str, str]]:
    """Return (node class, sentence) of the notes of one run that another input would avoid."""
    lines = [(prompt[node]["class_type"], line) for node, text in notes(messages) for line in text.splitlines()]
    return {(node, line) for node, line in lines if not UNAVOIDABLE.fullmatch(line)}


def listen(server: ComfyServer, file: dict) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(server.fetch(file)), always_2d=True)
    assert rate == 48_000
    return samples


def song_of(server: ComfyServer, prompt: dict[str, dict]) -> np.ndarray:
    (song,) = songs(server, prompt)
    return song


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


# -- files ------------------------------------------------------------------------------------------------------------


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


# -- songs ------------------------------------------------------------------------------------------------------------


def test_notes_are_found(server: ComfyServer) -> None:
    prompt = with_all(quick_prompt(server, "01 Text to music", 99), "AS15_Sample", guidance=7.0)
    ((node, sentence),) = avoidable(messages_of(server, prompt), prompt)
    assert node == "AS15_Sample" and "guidance 7" in sentence


@pytest.mark.parametrize("workflow", RUNNABLE, ids=lambda path: path.stem)
def test_it_runs_without_notes(server: ComfyServer, workflow: Path) -> None:
    """Every input of a shipped workflow has an effect."""
    seed = 100 + RUNNABLE.index(workflow)
    prompt = quick_prompt(server, workflow.stem, seed)
    for node in ("AS15_Plan", "AS15_Write", "AS15_Listen"):
        prompt = with_all(prompt, node, seed=seed)
    messages = messages_of(server, prompt)
    assert not avoidable(messages, prompt)
    done = [message["data"] for message in messages if isinstance(message, dict) and message["type"] == "executed"]
    played = audio_of(server, prompt, {data["node"]: data["output"] for data in done})
    assert len(played) == BATCHES.get(workflow.stem, 1)
    for song in played:
        assert song.shape == (DURATIONS.get(workflow.stem, SECONDS) * RATE, 2)
        assert np.isfinite(song).all()
        assert song.std() > 1e-3
        if workflow.stem in LEVELLED:
            assert np.abs(song).max() <= 1
        else:
            assert 0.88 < np.abs(song).max() < 0.9  # -1 dBFS


@pytest.mark.parametrize("workflow", APPS, ids=lambda path: path.stem)
def test_an_app_has_the_graph_of_a_template(workflow: Path) -> None:
    app = load_workflow(workflow)
    graphs = [load_workflow(path) for path in RUNNABLE]
    assert any((app["nodes"], app["links"]) == (graph["nodes"], graph["links"]) for graph in graphs)


@pytest.mark.parametrize(
    ("name", "seed", "generated"),
    [
        ("07 Repaint", 60, slice(int(START * RATE), int(END * RATE))),
        ("08 Extend", 61, slice(int(RECORDING_SECONDS * RATE), None)),
    ],
)
def test_the_kept_part_equals_the_source(server: ComfyServer, name: str, seed: int, generated: slice) -> None:
    prompt = quick_prompt(server, name, seed)
    prompt["0"] = with_inputs(prompt, PLAYER, audio=[find(prompt, "LoadAudio"), 0])[find(prompt, PLAYER)]
    server.unload_models(forget=True)
    song, result = songs(server, prompt)
    kept = np.ones(len(result), bool)
    kept[max(0, generated.start - EDGE) : None if generated.stop is None else generated.stop + EDGE] = False
    padded = np.pad(song, ((0, len(result) - len(song)), (0, 0)))
    assert difference(padded[kept], result[kept]) == 0
    assert difference(padded[generated], result[generated]) > 1e-2


@pytest.mark.parametrize(
    ("name", "task", "inputs"),
    [
        ("06 Cover", "AS15_Cover", {}),
        ("09 Stems", "AS15_Stems", {}),
        ("09 Stems", "AS15_Stems", {"operation": "add"}),
        ("09 Stems", "AS15_Stems", {"operation": "complete", "more_tracks": "drums, bass"}),
        ("10 Timbre", "AS15_Timbre", {}),
        ("11 Morph", "AS15_Morph", {}),
    ],
    ids=["cover", "extract", "add", "complete", "timbre", "morph"],
)
def test_task_and_source_change_the_song(server: ComfyServer, name: str, task: str, inputs: dict) -> None:
    """The result differs from the song without the task, and from that of another source."""
    prompt = with_inputs(quick_prompt(server, name, seed=63), task, **inputs)
    key = find(prompt, task)
    result = song_of(server, prompt)
    least = 1e-2
    if name == "10 Timbre":  # its effect on nano is small, but the same prompt gives the same bits
        least = 1e-4
        server.unload_models(forget=True)
        assert difference(result, song_of(server, prompt)) == 0
    samples, rate = soundfile.read(RECORDING)
    soundfile.write(server.base / "input" / "backwards.wav", samples[::-1], rate)
    for other in (
        without(prompt, key, PASSED_ON.get(task)),
        with_inputs(prompt, "LoadAudio", audio="backwards.wav"),
    ):
        assert difference(result, song_of(server, other)) > least


def test_takes_and_their_retake(server: ComfyServer) -> None:
    """A batch equals its seeds alone. The retake variance sets the distance to the first take."""
    prompt = quick_prompt(server, "13 Many takes", seed=40)
    takes = prompt[find(prompt, "AS15_CompareTakes")]["inputs"]
    save = prompt.pop(find(prompt, PLAYER))["inputs"]
    prompt |= {str(90 + number): {"class_type": PLAYER, "inputs": {**save, "audio": takes[f"take_{number}"]}}
               for number in (1, 2)}  # fmt: skip
    first, second, near = songs(server, prompt)
    assert difference(first, second) > 0.1
    for i, take in enumerate((first, second)):
        assert difference(take, song_of(server, quick_prompt(server, "01 Text to music", seed=40 + i))) < 1e-3
    (retake,) = [key for key, node in prompt.items() if node["inputs"].get("retake_variance")]
    same, far = (songs(server, with_node(prompt, retake, retake_variance=variance))[-1] for variance in (0.0, 1.0))
    assert difference(first, same) < 1e-3 and difference(first, near) > 1e-2
    assert np.linalg.norm(near - first) < np.linalg.norm(far - first)


def test_a_batch_of_songs_equals_each_song(server: ComfyServer) -> None:
    prompt = quick_prompt(server, "14 Batch of songs", seed=80)
    second = prompt[find(prompt, "AS15_BatchSongs")]["inputs"]["song_2"]
    batched = songs(server, prompt)
    alone, *_ = songs(server, with_inputs(prompt, "AS15_Sample", conditioning=second, seed=81))
    assert [difference(alone, song) < 1e-3 for song in batched] == [False, True]


def test_the_files_of_stems_add_up_to_the_song(server: ComfyServer) -> None:
    """The note states this error."""
    prompt = quick_prompt(server, "21 Stems to files", seed=85)
    prompt["0"] = with_inputs(prompt, PLAYER, audio=[find(prompt, "LoadAudio"), 0])[find(prompt, PLAYER)]
    outputs = server.play(prompt).outputs
    song, *stems = audio_of(server, prompt, outputs)
    down = re.search(r"stems turned down by ([\d.]+) dB", outputs[find(prompt, "AS15_MixStems")]["text"][0])
    gain = 10 ** (-float(down[1]) / 20) if down else 1.0
    assert len(stems) == 4 and {len(stem) for stem in stems} == {len(song)}
    assert min(stem.std() for stem in stems) > 1e-3
    assert difference(sum(stems), song * gain) < 1e-6
    prompt.pop("0")
    alone = {key: value for key, value in prompt[find(prompt, "AS15_MixStems")]["inputs"].items() if key != "reference"}
    prompt[find(prompt, "AS15_MixStems")]["inputs"] = alone
    (failed,) = [each["data"] for each in messages_of(server, prompt) if each["type"] == "execution_error"]
    assert "reference: " in failed["exception_message"]


def test_guidance_changes_the_song_of_a_base_model(server: ComfyServer) -> None:
    prompt = with_inputs(quick_prompt(server, "01 Text to music", seed=20), "AS15_LoadModel", variant="base")
    own, seven, off = (songs(server, with_inputs(prompt, "AS15_Sample", guidance=g))[0] for g in (0.0, 7.0, 1.0))
    assert difference(own, seven) < 1e-3
    assert difference(own, off) > 1e-2


def test_ksampler_equals_sample_song(server: ComfyServer) -> None:
    prompt = quick_prompt(server, "15 KSampler", seed=30)
    ksampler = find(prompt, "KSampler")
    inputs = prompt[ksampler]["inputs"]
    ours = {"batch_size": 1, "guidance": 0.0, "shift": 0.0, "solver": "euler", "guidance_method": "cfg"}
    ours |= {"model": inputs["model"], "conditioning": inputs["positive"]}
    ours |= {"seed": inputs["seed"], "steps": inputs["steps"]}
    swapped = {**prompt, ksampler: {"class_type": "AS15_Sample", "inputs": ours}}
    (native,), (sampled,) = songs(server, prompt), songs(server, swapped)
    assert difference(native, sampled) < 1e-3


def test_an_empty_song_has_its_duration_and_batch_size(server: ComfyServer) -> None:
    prompt = with_inputs(quick_prompt(server, "15 KSampler", seed=50), "AS15_Song", duration=4.2)
    prompt = with_inputs(prompt, "AS15_EmptyLatent", batch_size=3)
    empty = [find(prompt, "AS15_EmptyLatent"), 0]
    save = {"class_type": "SaveLatent", "inputs": {"samples": empty, "filename_prefix": "latents/empty"}}
    run = server.play({**{key: prompt[key] for key in (empty[0], find(prompt, "AS15_Song"))}, "save": save})
    latent = load(server.fetch(run.outputs["save"]["latents"][0]))["latent_tensor"]
    assert latent.shape == (3, 64, 105)
    assert not latent.any()
