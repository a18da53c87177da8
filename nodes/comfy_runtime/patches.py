"""What other nodes have put on a MODEL: what our network follows of it, and what would have no effect."""

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

ATTENTION = "optimized_attention_override"  # another attention for all of ComfyUI's networks, such as SageAttention
BLOCKS = {"patches", "patches_replace"}  # changes to blocks that this network does not have under these names


@contextmanager
def attention(network: AceStepModel, options: Mapping[str, Any]) -> Iterator[None]:
    """For as long, the network attends by what `transformer_options` have in attention's place, if anything."""
    if ATTENTION not in options:
        yield
        return

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shaped = {"skip_reshape": True, "skip_output_reshape": True}
        return attention_pytorch(q, k, v, q.shape[1], **shaped, transformer_options=options)

    network.decoder.attention = attend
    try:
        yield
    finally:
        network.decoder.attention = None


def compiled(model: comfy.model_patcher.ModelPatcher) -> AceStepModel:
    """The network, or what TorchCompileModel has made of it: its wrapper puts that in place for one call."""
    wrappers = model.get_wrappers(WrappersMP.APPLY_MODEL, COMPILE_KEY)
    return WrapperExecutor.new_class_executor(lambda: model.model.diffusion_model, model.model, wrappers).execute()


def not_followed(model: comfy.model_patcher.ModelPatcher) -> list[str]:
    """What Sample Song does not follow, as sentences for its user."""
    names = sorted({*_functions(model), *_wrappers(model)})
    followed = f"Sample Song does not follow {', '.join(names)}, which another node has put on the model; KSampler does"
    return [*without_place(model), *([followed] if names else [])]


def without_place(model: comfy.model_patcher.ModelPatcher) -> list[str]:
    """What no sampler can bring into this network, as a sentence for the user."""
    names = sorted(name for kind in BLOCKS for name in options_of(model).get(kind, ()))
    said = f"{', '.join(names)}, which another node has put on the model, changes nothing: ACE-Step has no such blocks"
    return [said] if names else []


def _functions(model: comfy.model_patcher.ModelPatcher) -> Iterator[str]:
    return (name for name in model.model_options if name.endswith(("_function", "_wrapper")))


def _wrappers(model: comfy.model_patcher.ModelPatcher) -> Iterator[str]:
    """The keys of all but what TorchCompileModel sets; those without one by their kind."""
    for kinds in (model.wrappers, options_of(model).get("wrappers", {})):
        for kind, wrappers in kinds.items():
            yield from (key or kind for key, given in wrappers.items() if given and key != COMPILE_KEY)


def options_of(model: comfy.model_patcher.ModelPatcher) -> dict[str, Any]:
    return model.model_options.get("transformer_options", {})
