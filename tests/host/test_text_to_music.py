"""The shipped text-to-music workflow: seeds, batches, and the effect of every widget."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from .graph import find, load_workflow, to_prompt, with_inputs
from .server import REPO, ComfyServer

WORKFLOW = REPO / "workflows" / "01 Text to music.json"
SHORT = 2.0  # seconds; sampled at 5.12 s, the least that a model supports


def listen(server: ComfyServer, file: dict) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(io.BytesIO(server.fetch(file)), always_2d=True)
    return samples, rate


@pytest.fixture(scope="module")
def shipped(server: ComfyServer) -> dict:
    """The shipped workflow."""
    prompt = to_prompt(load_workflow(WORKFLOW), server.object_info())
    return with_inputs(prompt, "AS15_SaveSong", filename_prefix="audio/ACE-Step")


@pytest.fixture(scope="module")
def prompt(shipped: dict) -> dict:
    """The shipped workflow, with a short song and few steps."""
    return with_inputs(with_inputs(shipped, "AS15_Song", duration=SHORT), "AS15_Sample", steps=2)


@pytest.fixture(scope="module")
def usual(server: ComfyServer, prompt: dict) -> np.ndarray:
    """The audio of that prompt. It has its own file name, because cached outputs are not listed."""
    return listen(server, server.play(with_inputs(prompt, "AS15_SaveSong", filename_prefix="usual")).files()[0])[0]


def test_the_shipped_workflow_works(server: ComfyServer, shipped: dict) -> None:
    (file,) = server.play(shipped).files()
    samples, rate = listen(server, file)
    assert file["type"] == "output"
    assert file["filename"].endswith(".flac")
    assert rate == 48_000
    assert samples.shape == (48_000 * shipped[find(shipped, "AS15_Song")]["inputs"]["duration"], 2)
    assert 0.88 < np.abs(samples).max() < 0.9  # -1 dBFS
    assert np.abs(samples[:, 0] - samples[:, 1]).max() > 1e-3


def test_the_same_seed_is_cached(server: ComfyServer, prompt: dict) -> None:
    server.play(prompt)
    assert server.play(prompt).cached == set(prompt)


def test_another_seed_gives_another_take(server: ComfyServer, prompt: dict, usual: np.ndarray) -> None:
    server.play(prompt)
    run = server.play(with_inputs(prompt, "AS15_Sample", seed=9))
    assert find(prompt, "AS15_Encode") in run.cached
    other, _ = listen(server, run.files()[0])
    assert other.shape == usual.shape
    assert np.abs(other - usual).max() > 0.1


def test_a_batch_equals_its_seeds_alone(server: ComfyServer, prompt: dict, usual: np.ndarray) -> None:
    seed = prompt[find(prompt, "AS15_Sample")]["inputs"]["seed"]
    files = server.play(with_inputs(prompt, "AS15_Sample", seed=seed - 1, batch_size=2)).files()
    assert len(files) == 2
    batched, _ = listen(server, files[1])
    assert np.abs(batched - usual).max() < 1e-3


@pytest.mark.parametrize(
    ("node", "change"),
    [
        ("AS15_Song", {"caption": "a single church bell"}),
        ("AS15_Song", {"lyrics": "[Verse]\nother words altogether"}),
        ("AS15_Song", {"language": "Japanese"}),
        ("AS15_Song", {"bpm": 61}),
        ("AS15_Song", {"key": "F# minor"}),
        ("AS15_Song", {"time_signature": "3/4"}),
        ("AS15_Sample", {"steps": 3}),
        ("AS15_Sample", {"shift": 1.0}),
        ("AS15_Sample", {"solver": "sde"}),
        ("AS15_Sample", {"dcw": "double"}),
        ("AS15_Decode", {"normalize": False}),
        ("AS15_LoadModel", {"variant": "base"}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_every_widget_changes_the_song(
    server: ComfyServer, prompt: dict, usual: np.ndarray, node: str, change: dict
) -> None:
    changed, _ = listen(server, server.play(with_inputs(prompt, node, **change)).files()[0])
    assert np.abs(changed - usual).max() > 1e-4


def test_writes_into_output_only(server: ComfyServer, prompt: dict) -> None:
    def tree(folder: Path) -> set[Path]:
        return {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}

    places = [REPO / "nodes", REPO / "acestep_core", REPO / "workflows", server.base]
    before = {path for place in places for path in tree(place)}
    server.play(with_inputs(prompt, "AS15_Sample", seed=31))
    new = {path for place in places for path in tree(place)} - before
    assert new
    assert all(server.base / "output" in path.parents for path in new)
