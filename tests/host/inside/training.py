"""ComfyUI's TrainLoraNode on our MODEL, LATENT and CONDITIONING."""

from __future__ import annotations

import inspect

import comfy.sd
import torch
from comfy_extras.nodes_train import TrainLoraNode

from .world import World, difference, network_of

STEPS = 12


def data(world: World, *frames: int) -> list[dict]:
    """Return a LATENT of each length, as other nodes create them."""
    with torch.inference_mode():
        samples = world.sample(steps=2)
        return [{"samples": samples[..., :length].clone()} for length in frames]


def train(world: World, latents: list[dict], positive: list | None = None, **changes: object) -> tuple[dict, list]:
    """Run the node as ComfyUI does, and return the LoRA and the loss of each step."""
    values = {
        "model": world.model, "batch_size": 1, "grad_accumulation_steps": 1, "steps": STEPS, "learning_rate": 2e-3,
        "rank": 4, "optimizer": "AdamW", "loss_function": "MSE", "seed": 0, "training_dtype": "fp32",
        "lora_dtype": "fp32", "quantized_backward": False, "algorithm": "LoRA", "gradient_checkpointing": False,
        "checkpoint_depth": 1, "offloading": False, "existing_lora": "[None]", "bucket_mode": False,
        "bypass_mode": False, **changes,
    }  # fmt: skip
    inputs = {name: [value] for name, value in values.items()}  # the node takes lists
    inputs |= {"latents": latents, "positive": positive or [world.conditioning]}
    known = inspect.signature(TrainLoraNode.execute).parameters
    torch.manual_seed(0)
    with torch.inference_mode():
        *_, lora, losses, _ = TrainLoraNode.execute(**{name: inputs[name] for name in known}).args
    return lora, losses["loss"]


def trained(lora: dict) -> set[str]:
    """Return the layers whose LoRA has changed: it starts with zeros in one of its matrices."""
    down = {name.removesuffix(".lora_down.weight"): value for name, value in lora.items() if "lora_down" in name}
    assert all(value.isfinite().all() for value in down.values())
    return {name.removeprefix("diffusion_model.") for name, value in down.items() if value.count_nonzero()}


def check_the_loss_falls_and_gradients_reach_the_dit(world: World) -> None:
    latents, before = data(world, 50, 50), world.sample()  # 0.3.75 fails on a single one
    lora, losses = train(world, latents, gradient_checkpointing=True)
    _, untrained = train(world, latents, learning_rate=1e-9)
    assert len(losses) == STEPS and losses[0] == untrained[0]
    assert sum(losses) < 0.98 * sum(untrained), (losses, untrained)
    layers = {name for name, one in network_of(world.model).named_modules() if hasattr(one, "weight_function")}
    assert trained(lora) == {name for name in layers if name.startswith("decoder.")}, "the condition encoder is frozen"
    assert difference(world.sample(), before) == 0, "the MODEL itself is not changed"
    patched, _ = comfy.sd.load_lora_for_models(world.model, None, lora, 1.0, 0)
    assert difference(world.sample(patched), before) > 1e-3


def check_songs_of_several_lengths_and_all_dtypes(world: World) -> None:
    for dtype, bypass in (("bf16", False), ("none", True)):
        latents, two = data(world, 50, 40), [world.conditioning, world.encode(caption="techno")]
        if "bucket_mode" not in inspect.signature(TrainLoraNode.execute).parameters:
            latents = data(world, 50, 50)  # early versions repeat an image
        lora, losses = train(world, latents, two, steps=4, training_dtype=dtype, bypass_mode=bypass)
        assert len(losses) == 4 and trained(lora), (dtype, losses)
