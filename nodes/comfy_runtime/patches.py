"""Patches of other nodes on a MODEL: those that our network follows, and the names of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import comfy.model_patcher
from comfy.ldm.modules.attention import attention_pytorch
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import Tensor

from ...acestep_core.models.model import AceStepModel
from .conds import WINDOWS_KEY

ATTENTION_KEY = "optimized_attention_override"  # set by nodes for another attention, such as SageAttention
ROPE_KEY = "rope_options"  # set by ScaleROPE


class OverriddenAttention:
    """The attention of `transformer_options`, one object for all steps of a network.

    torch.compile may compile again for another object. TorchCompileModel ignores changes of what is called
    `transformer_options`.
    """

    transformer_options: Mapping[str, Any] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shaped = {"skip_reshape": True, "skip_output_reshape": True}
        return attention_pytorch(q, k, v, q.shape[1], **shaped, transformer_options=self.transformer_options)

    @contextmanager
    def of(self, network: AceStepModel, options: Mapping[str, Any]) -> Iterator[None]:
        """Run the network with the attention of `options`, if they have one."""
        if ATTENTION_KEY not in options:
            yield
            return
        self.transformer_options, network.decoder.attention = options, self
        try:
            yield
        finally:
            self.transformer_options, network.decoder.attention = {}, None


def compiled_network(model: comfy.model_patcher.ModelPatcher) -> AceStepModel:
    """Return the network, or its compiled form, which TorchCompileModel's wrapper sets for the time of a call."""
    wrappers = model.get_wrappers(WrappersMP.APPLY_MODEL, COMPILE_KEY)
    return WrapperExecutor.new_class_executor(lambda: model.model.diffusion_model, model.model, wrappers).execute()


def transformer_options(model: comfy.model_patcher.ModelPatcher) -> dict[str, Any]:
    return model.model_options.get("transformer_options", {})


def foreign_patches(options: Mapping[str, Any]) -> list[str]:
    """Return the kinds of patches in `transformer_options` for blocks that our network does not have."""
    kinds = {kind for key in ("patches", "patches_replace") for kind, given in options.get(key, {}).items() if given}
    return sorted(kinds | ({ROPE_KEY} if options.get(ROPE_KEY) else set()))


def ksampler_only(model: comfy.model_patcher.ModelPatcher) -> list[str]:
    """Return the names of functions, wrappers and context windows that only ComfyUI's samplers run."""
    names = {key for key in model.model_options if key == WINDOWS_KEY or key.endswith(("_function", "_wrapper"))}
    for wrappers in (model.wrappers, transformer_options(model).get("wrappers", {})):
        names |= {key or kind for kind, by_key in wrappers.items() for key, given in by_key.items() if given}
    return sorted(names - {COMPILE_KEY})
