"""Networks that are partly loaded, or stored in fewer bits."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import comfy.lora
import comfy.sd
import torch
from pack_under_test.acestep_core.callbacks import Callbacks
from pack_under_test.nodes import files
from pack_under_test.nodes.comfy_runtime import load
from safetensors.torch import save_file

from .estimates import peak
from .world import World, difference, network_of, similarity

ADAPTED = tuple(
    f"decoder.{name}"
    for name in ("layers.0.self_attn.q_proj", "layers.0.cross_attn.k_proj", "layers.1.mlp.down_proj", "proj_in.1")
)


def weights_of_an_adapter(model) -> dict[str, torch.Tensor]:
    """Return LoRA weights of a self-attention, a cross-attention, an MLP and a convolution."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name in ADAPTED:
        weight = network_of(model).get_parameter(f"{name}.weight")
        rank = (4, *weight.shape[1:])
        up = (weight.shape[0], 4, *(1 for _ in weight.shape[2:]))
        key = f"diffusion_model.{name}"
        weights[f"{key}.lora_A.weight"] = torch.randn(rank, generator=generator) * 0.3
        weights[f"{key}.lora_B.weight"] = torch.randn(up, generator=generator) * 0.3
    return weights


def with_lora(model):
    """Return a clone of the MODEL with that LoRA, from ComfyUI's loader."""
    patched, _ = comfy.sd.load_lora_for_models(model, None, weights_of_an_adapter(model), 1.0, 0)
    assert len(patched.patches) == len(ADAPTED)
    return patched


def keep_partly(model, share: float = 0.4):
    """Limit the MODEL to a GPU that has room for that share of its weights."""
    whole, room = model.partially_load, model.model_size() * share

    def partially_load(device, extra_memory=0, force_patch_weights=False):
        return whole(device, room - model.loaded_size(), force_patch_weights=force_patch_weights)

    model.partially_load = partially_load
    return model


def check_partial_loading_changes_nothing(world: World) -> None:
    model, _, _ = world.load()
    plain = world.sample(model)
    partly = keep_partly(model.clone())
    assert difference(world.sample(partly), plain) == 0
    assert partly.model.model_lowvram
    assert 0 < partly.loaded_size() < 0.6 * partly.model_size()
    assert difference(world.ksample(partly), plain) <= 1e-4


def check_partial_loading_with_a_lora(world: World) -> None:
    model, _, _ = world.load()
    plain, patched = world.sample(model), world.sample(with_lora(model))
    assert difference(plain, patched) > 1e-2
    partly = keep_partly(with_lora(model), share=0.05)
    assert difference(world.sample(partly), patched) <= 1e-5
    assert partly.model.model_lowvram and partly.lowvram_patch_counter() >= 2
    assert difference(world.sample(model), plain) == 0


def check_fp8_storage_is_close_to_float32(world: World) -> None:
    exact, loaded = world.sample(), []
    wrap = load.wrap_network

    def watched(network, *settings):
        loaded.append(
            {layer.weight.dtype for layer in network.decoder.layers.modules() if isinstance(layer, torch.nn.Linear)}
        )
        return wrap(network, *settings)

    with mock.patch.object(load, "wrap_network", watched):
        model, _, _ = world.load("fp8_e4m3fn")
    assert loaded == [{torch.float8_e4m3fn}], "cast while loading, so that the whole model is never there in float32"
    assert model.model_size() < world.model.model_size()
    assert 0.97 < similarity(world.sample(model), exact) < 1 - 1e-7
    assert difference(world.ksample(model), world.sample(model)) <= 1e-2
    assert similarity(world.sample(with_lora(model)), world.sample(with_lora(world.model))) > 0.9


def check_fp8_never_takes_the_memory_of_the_compute_dtype(world: World) -> None:
    def load_fp8(compute: torch.dtype, path: Path, *files: Path) -> tuple[torch.nn.Module, int]:
        """Return the network, and the most bytes that loading took beside the maps of its files."""
        loaded = []
        with mock.patch.object(load, "network_dtypes", lambda *_: (torch.float8_e4m3fn, compute)):
            measured = peak(lambda: loaded.append(load._load_network(path, "fp8_e4m3fn", "turbo", Callbacks())))
        return loaded[0][0], measured - sum(file.stat().st_size for file in files or [path])

    released = files.resolve_model(files.NANO_ENTRY, "auto", "auto").network  # in bfloat16
    for compute in (torch.float32, torch.bfloat16):
        network, measured = load_fp8(compute, released, *released.glob("*.safetensors"))
        largest = max(parameter.numel() for parameter in network.parameters())
        size = sum(parameter.nbytes for parameter in network.parameters())
        assert measured <= size + 2 * compute.itemsize * largest, (compute, measured, size)
    file = Path.cwd() / "fp8.safetensors"
    save_file({name: parameter.clone() for name, parameter in network.named_parameters()}, file)
    again, measured = load_fp8(torch.bfloat16, file)
    assert measured < 0.02 * size, "nothing is cast, so all weights stay in the map"
    for name, parameter in network.named_parameters():
        assert torch.equal(again.get_parameter(name).view(torch.uint8), parameter.view(torch.uint8)), name
    file.unlink()
