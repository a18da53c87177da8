"""TrainLoraNode and SaveLoRA of ComfyUI train on our MODEL, LATENT and CONDITIONING."""

from __future__ import annotations

import time

import pytest
from safetensors.torch import load_file

from .graph import find, load_workflow, to_prompt, with_inputs
from .server import REPO, ComfyServer

STEPS = 12


@pytest.fixture(scope="module")
def training(server: ComfyServer) -> dict[str, dict]:
    """A prompt that trains on two takes of a song of 2 s, with the node's own values but the number of steps."""
    info = server.object_info()
    shipped = to_prompt(load_workflow(REPO / "workflows" / "01 Text to music.json"), info)
    shipped = with_inputs(with_inputs(shipped, "AS15_Song", duration=2.0), "AS15_Sample", steps=1, batch_size=2)
    model, conditioning, latent = (find(shipped, f"AS15_{name}") for name in ("LoadModel", "Encode", "Sample"))
    node = info["TrainLoraNode"]["input"]["required"]
    values = {name: spec[1]["default"] for name, spec in node.items() if len(spec) > 1 and "default" in spec[1]}
    # A list, because the node of 0.3.75 fails on a batch.
    shipped["list"] = {"class_type": "TestsListOfBatch", "inputs": {"samples": [latent, 0]}}
    links = {"model": [model, 0], "latents": ["list", 0], "positive": [conditioning, 0]}
    shipped["train"] = {"class_type": "TrainLoraNode", "inputs": {**values, "steps": STEPS, **links}}
    # 0.3.75 also returns its MODEL, first.
    lora, losses, steps = (info["TrainLoraNode"]["output"].index(kind) for kind in ("LORA_MODEL", "LOSS_MAP", "INT"))
    saved = {"lora": ["train", lora], "steps": ["train", steps], "prefix": "loras/trained"}
    shipped["save"] = {"class_type": "SaveLoRA", "inputs": saved}
    shipped["graph"] = {"class_type": "LossGraphNode", "inputs": {"loss": ["train", losses], "filename_prefix": "loss"}}
    return {key: node for key, node in shipped.items() if node["class_type"] not in ("AS15_Decode", "AS15_SaveSong")}


def test_a_lora_is_trained_and_saved(server: ComfyServer, training: dict) -> None:
    server.play(training)
    (file,) = (server.base / "output").rglob("trained*.safetensors")
    lora = load_file(file)
    trained = [name for name, value in lora.items() if "lora_down" in name and value.count_nonzero()]
    assert trained and all(name.startswith("diffusion_model.decoder.") for name in trained)


def test_an_interrupt_stops_training(server: ComfyServer, training: dict) -> None:
    logged = len(server.log)
    prompt_id = server.queue(with_inputs(training, "TrainLoraNode", steps=1000))
    server.wait_for_log("Training LoRA", logged)
    time.sleep(0.3)
    server.interrupt()
    assert server.wait(prompt_id, timeout=60).message("execution_interrupted")
    server.play(with_inputs(training, "TrainLoraNode", steps=2, seed=1))
