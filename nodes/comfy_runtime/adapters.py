"""Adapters as patches of a MODEL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.model_patcher
import torch
from comfy.weight_adapter.base import WeightAdapterBase

from ...acestep_core.adapters.adapter import Adapter, AdapterReport, ModuleAdapter
from ...acestep_core.adapters.merge import AdapterUse
from ...acestep_core.adapters.module_paths import Group
from .model import song_model

PREFIX = "diffusion_model."  # of our network's tensors in ComfyUI's BaseModel


class _Weight(WeightAdapterBase):
    """The change of one weight. ComfyUI calls it when it loads the weight, or at each use under partial loading.

    Later versions rebuild patches from `loaded_keys` and `weights`, which therefore hold all there is.
    """

    name = "acestep"

    def __init__(self, loaded_keys: set[str], weights: tuple[ModuleAdapter, ...]):
        self.loaded_keys, self.weights = loaded_keys, weights

    def calculate_weight(self, weight, key, strength, strength_model, offset, function, *_: Any, **__: Any):
        (module,) = self.weights
        return weight.add_(function(module.delta(weight).to(weight.dtype)), alpha=strength)


class _Bias(_Weight):
    """The change of one bias."""

    def calculate_weight(self, weight, key, strength, strength_model, offset, function, *_: Any, **__: Any):
        (module,) = self.weights
        assert module.bias is not None
        difference = module.bias.to(torch.float32).to(weight.device)
        return weight.add_(function(difference.to(weight.dtype)), alpha=strength)


def with_adapter(
    model: comfy.model_patcher.ModelPatcher, adapter: Adapter, strength: float, groups: Mapping[Group, float]
) -> tuple[comfy.model_patcher.ModelPatcher, AdapterReport]:
    """Return the MODEL with an adapter, and what the adapter changes. The given MODEL stays as it is.

    groups: factors of the strength. Raises RequestError if the adapter does not fit the model.
    """
    report = adapter.report(song_model(model).diffusion_model)
    use, missing = AdapterUse(adapter, strength, groups), set(report.unmatched)
    by_strength: dict[float, dict[str, WeightAdapterBase]] = {}
    for path, module in adapter.modules.items():
        if path in missing or use.strength_of(path) == 0:
            continue
        patches = by_strength.setdefault(use.strength_of(path), {})
        if module.factors is not None:
            patches[f"{PREFIX}{path}.weight"] = _Weight(set(), (module,))
        if module.bias is not None:
            patches[f"{PREFIX}{path}.bias"] = _Bias(set(), (module,))
    patched = model.clone()
    for each, patches in by_strength.items():
        patched.add_patches(patches, each)
    return patched, report
