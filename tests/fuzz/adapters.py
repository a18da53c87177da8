"""Hostile adapters: headers of safetensors files and configs of PEFT."""

from __future__ import annotations

import functools
import random
import tempfile
from pathlib import Path

import torch

from acestep_core.adapters.adapter_file import read_adapter, stored_tensors
from acestep_core.adapters.convert import convert_adapter
from acestep_core.adapters.merge import AdapterUse, merge
from acestep_core.errors import RequestError
from acestep_core.models.model import AceStepModel
from tests.support import adapter_files, tiny
from tests.support.layouts import save

from .checkpoints import NETWORK, Files, mutate_header, write
from .mutations import mutate_json
from .run import Work

MODULES = ("layers.0.self_attn.q_proj", "layers.1.mlp.down_proj")
PATTERNS = {"lora_alpha": 8, "alpha_pattern": {"q_proj": 3, r"layers\.\d+\.mlp": 2}, "rank_pattern": {"q_proj": 4}}
WEIGHTS = "adapter_model.safetensors"


@functools.cache
def network() -> AceStepModel:
    return tiny.model(NETWORK)


@functools.cache
def valid_adapter(kind: str) -> Files:
    """Return the files of a valid adapter: peft or lycoris."""
    lora = adapter_files.factors(NETWORK, MODULES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "peft":
            adapter_files.peft_folder(folder, lora, **PATTERNS)
        else:
            state = {
                "lycoris_layers_0_self_attn_q_proj.lokr_w1": tiny.draw(4, 4),
                "lycoris_layers_0_self_attn_q_proj.lokr_w2_a": tiny.draw(16, 2),
                "lycoris_layers_0_self_attn_q_proj.lokr_w2_b": tiny.draw(2, 8),
                "lycoris_layers_0_self_attn_q_proj.alpha": torch.tensor(1.0),
                "lycoris_layers_0_self_attn_q_proj.dora_scale": torch.ones(64, 1),
                "lycoris_layers_1_mlp_down_proj.hada_w1_a": tiny.draw(32, 2),
                "lycoris_layers_1_mlp_down_proj.hada_w1_b": tiny.draw(2, 32),
                "lycoris_layers_1_mlp_down_proj.hada_w2_a": tiny.draw(32, 2),
                "lycoris_layers_1_mlp_down_proj.hada_w2_b": tiny.draw(2, 32),
                "lycoris_proj_in_1.diff": tiny.draw(32, 192, 2),
                "lycoris_proj_in_1.diff_b": tiny.draw(32),
            }
            save(folder / WEIGHTS, state, {"lokr_config": '{"linear_dim": 2, "linear_alpha": 1}'})
        return {file.name: file.read_bytes() for file in folder.iterdir()}


def adapter_result(path: Path) -> str | None:
    """Merge and convert an accepted adapter."""
    adapter = read_adapter(path)
    adapter.report(network())
    changed = merge(network(), [AdapterUse(adapter)])
    if not all(parameter.isfinite().all() for parameter in changed.parameters()):
        return "a weight that is not finite"
    if not all(stored_tensors(module) for module in adapter.modules.values()):
        return "a module without tensors"
    try:
        again = read_adapter(convert_adapter(adapter, path / "again.safetensors"))
    except RequestError as error:
        return f"it cannot be converted: {error}"
    return None if again.modules.keys() == adapter.modules.keys() else "other modules after a conversion"


def peft_adapter(rng: random.Random, folder: Path) -> Work:
    files = valid_adapter("peft")
    changed = rng.choice(("adapter_config.json", WEIGHTS))
    mutate = mutate_json if changed.endswith("json") else mutate_header
    write(folder, files | {changed: mutate(rng, files[changed])})
    return lambda: adapter_result(folder)


def lycoris_adapter(rng: random.Random, folder: Path) -> Work:
    write(folder, {WEIGHTS: mutate_header(rng, valid_adapter("lycoris")[WEIGHTS])})
    return lambda: adapter_result(folder)


TARGETS = {"peft_adapter": peft_adapter, "lycoris_adapter": lycoris_adapter}
