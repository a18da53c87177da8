"""Files of `acestep lora-convert` in ComfyUI's own loader: it changes every weight as our own merge does."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import comfy.lora
import comfy.sd
import comfy.utils
import torch
from pack_under_test.acestep_core.adapters.adapter_file import read_adapter
from pack_under_test.acestep_core.adapters.convert import convert_adapter
from safetensors.torch import save_file

from .world import World, network_of

RANK = 4
MODULES = (
    "layers.0.self_attn.q_proj",
    "layers.1.mlp.down_proj",
    "condition_embedder",
    "time_embed.linear_1",
    "proj_in.1",
)


def _write(folder: Path, network, **config) -> Path:
    """Write a PEFT folder whose alpha is no tensor."""
    state = {}
    for name in MODULES:
        rows, *inner = network.decoder.get_submodule(name).weight.shape
        up = torch.randn(rows, RANK, *[1] * (len(inner) - 1))
        state[f"base_model.model.{name}.lora_A.weight"] = 0.1 * torch.randn(RANK, *inner)
        state[f"base_model.model.{name}.lora_B.weight"] = 0.1 * up
    folder.mkdir()
    save_file(state, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 2 * RANK, **config}))
    return folder


def _lycoris(file: Path, network) -> Path:
    rows, columns = network.decoder.layers[0].cross_attn.k_proj.weight.shape
    inner, outer = network.decoder.layers[0].mlp.up_proj.weight.shape
    name, other = "lycoris_layers_0_cross_attn_k_proj", "lycoris_layers_0_mlp_up_proj"
    state = {
        f"{name}.lokr_w1": torch.randn(4, 4),
        f"{name}.lokr_w2_a": 0.1 * torch.randn(rows // 4, 2),
        f"{name}.lokr_w2_b": 0.1 * torch.randn(2, columns // 4),
        f"{name}.alpha": torch.tensor(3.0),
        f"{other}.hada_w1_a": 0.1 * torch.randn(inner, 2),
        f"{other}.hada_w1_b": torch.randn(2, outer),
        f"{other}.hada_w2_a": 0.1 * torch.randn(inner, 2),
        f"{other}.hada_w2_b": torch.randn(2, outer),
        f"{other}.alpha": torch.tensor(1.0),
        "lycoris_time_embed_linear_2.diff_b": torch.randn(len(network.decoder.time_embed.linear_2.bias)),
    }
    save_file(state, file)
    return file


def _check_same(world: World, path: Path, target: Path) -> None:
    adapter = read_adapter(path)
    state = comfy.utils.load_torch_file(str(convert_adapter(adapter, target)))
    patcher, _ = comfy.sd.load_lora_for_models(world.model, None, state, 1.0, 0.0)
    network = network_of(world.model)
    weights = [module for module in adapter.modules.values() if module.factors is not None]
    assert len(patcher.patches) == len(weights) + sum(module.bias is not None for module in adapter.modules.values())
    for module in weights:
        key = f"diffusion_model.{module.path}.weight"
        weight = network.get_submodule(module.path).weight.float()
        theirs = comfy.lora.calculate_weight(patcher.patches[key], weight.clone(), key)
        ours = weight + module.delta(weight)
        assert (theirs - ours).abs().max() <= 1e-5 * (ours - weight).abs().max(), key


def check_converted_files_are_the_same_adapter_in_core(world: World) -> None:
    torch.manual_seed(0)
    network = network_of(world.model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _check_same(world, _write(folder / "a", network), folder / "a.safetensors")
        _check_same(world, _write(folder / "b", network, use_rslora=True), folder / "b.safetensors")
        _check_same(world, _lycoris(folder / "c.safetensors", network), folder / "d.safetensors")
