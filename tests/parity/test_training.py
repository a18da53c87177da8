"""Training against PEFT, and the files that it writes in PEFT and diffusers."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from diffusers import AceStepPipeline, FlowMatchEulerDiscreteScheduler

from acestep_core.train.flow_loss import flow_loss
from acestep_core.train.results import TrainingOrigin, write_results
from acestep_core.train.train_settings import TrainSettings
from acestep_core.train.trainable import Trainable, make_trainable
from tests.support import tiny
from tests.support.tiny import draw, relative_error

from . import diffusers_maps

LIMIT = 1e-5
X, CONTEXT, T = draw(1, 30, 64, seed=2), draw(1, 30, 128), torch.tensor([0.6])
CONDITION = draw(1, 9, tiny.STANDARD.encoder_hidden_size, seed=1)
CASES = [("lora", False), ("lora", True), ("dora", False)]


LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def trainable_of(kind: str, stabilized: bool) -> Trainable:
    """Return factors whose product is not zero, and that are exact in a file."""
    settings = TrainSettings(kind=kind, rank=4, modules="all", rank_stabilized=stabilized)
    trainable = make_trainable(tiny.model(), settings)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(trainable.named_parameters()):
            noise = draw(*parameter.shape, seed=number)
            if "magnitude" in name:
                parameter.mul_(1 + 0.1 * noise)
            else:
                parameter.copy_((parameter + 0.1 * noise).bfloat16())
    return trainable


@pytest.mark.parametrize("kind, stabilized", CASES)
def test_gradients_are_those_of_peft(kind, stabilized):
    trainable, network = trainable_of(kind, stabilized), tiny.model()
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=LINEAR, use_dora=kind == "dora", use_rslora=stabilized)
    wrapped = peft.get_peft_model(network.decoder, config).base_model.model
    theirs = {}
    for path in trainable.layers:
        layer = wrapped.get_submodule(path.removeprefix("decoder."))
        theirs[f"{path}.down"] = layer.lora_A["default"].weight
        theirs[f"{path}.up"] = layer.lora_B["default"].weight
        if kind == "dora":
            theirs[f"{path}.magnitude"] = layer.lora_magnitude_vector["default"].weight
    with torch.no_grad():
        for name, parameter in trainable.named_parameters():
            theirs[name].copy_(parameter)
    rows = [draw(1, 9, tiny.STANDARD.encoder_hidden_size, seed=5), draw(1, 5, tiny.STANDARD.encoder_hidden_size)]
    batch = draw(2, 41, 64, seed=3), rows, draw(2, 41, 64, seed=4), torch.tensor([0.3, 0.8])
    flow_loss(network, *batch).backward()
    with trainable.attached():
        flow_loss(trainable.network, *batch).backward()
    for name, parameter in trainable.named_parameters():
        assert relative_error(parameter.grad, theirs[name].grad) < LIMIT, name
    assert len(theirs) == len(list(trainable.named_parameters()))


def velocity(decoder):
    return decoder(X, T, decoder.prepare(CONTEXT, CONDITION))


def diffusers_velocity(transformer):
    return transformer(
        hidden_states=X, timestep=T, timestep_r=T, encoder_hidden_states=CONDITION, context_latents=CONTEXT,
        return_dict=False,
    )[0]  # fmt: skip


@pytest.fixture(params=CASES, ids=["LoRA", "rsLoRA", "DoRA"])
def trained(request, tmp_path):
    """A network, its velocity with trained factors, and their files."""
    trainable = trainable_of(*request.param)
    network = trainable.network
    settings = TrainSettings(kind=request.param[0], rank=4, modules="all", rank_stabilized=request.param[1])
    with torch.no_grad(), trainable.attached():
        expected = velocity(network.decoder)
    origin = TrainingOrigin("nano", "turbo", 3, 60.0, "0" * 64, "neon", "neon, piano", settings)
    adapter = trainable.adapter("a", ("neon",))
    result = write_results(adapter, None, tmp_path / "a.safetensors", tmp_path / "a", origin, [], [])
    return network, expected, result


@torch.no_grad()
def test_the_folder_opens_in_peft(trained):
    network, expected, result = trained
    wrapped = peft.PeftModel.from_pretrained(copy.deepcopy(network.decoder), str(result.folder)).eval()
    assert relative_error(velocity(wrapped.base_model.model), expected) < LIMIT


@torch.no_grad()
def test_the_folder_opens_in_diffusers(trained):
    network, expected, result = trained
    pipeline = AceStepPipeline(
        vae=None, text_encoder=None, tokenizer=None, transformer=diffusers_maps.transformer(network),
        condition_encoder=None, scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
    )  # fmt: skip
    pipeline.load_lora_weights(str(result.folder), weight_name="adapter_model.safetensors")
    found = diffusers_velocity(pipeline.transformer)
    assert relative_error(found, expected) < LIMIT
    assert relative_error(diffusers_velocity(diffusers_maps.transformer(network)), expected) > 0.01
