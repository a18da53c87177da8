"""What other nodes have put on a MODEL: what our network follows of it, and what would have no effect."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import comfy.context_windows
import comfy.model_patcher
from comfy.ldm.modules.attention import attention_pytorch
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import Tensor

from ...acestep_core.errors import RequestError
from ...acestep_core.models.model import AceStepModel
from .condition import WINDOWS

ATTENTION = "optimized_attention_override"  # another attention for all of ComfyUI's networks, such as SageAttention
ROPE = "rope_options"  # what ScaleROPE sets

# These change blocks of the network only while KSampler's guidance runs, blocks that this network does not have.
GUIDED_BY_BLOCKS = {"PerturbedAttentionGuidance", "SkipLayerGuidanceDiT", "SkipLayerGuidanceDiTSimple"}

WATCHES_BLOCKS = "SelfAttentionGuidance"


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
    idle = without_place(options_of(model))
    names = {"Context Windows"} if WINDOWS in model.model_options else set()
    for function, kind in (*_functions(model), *_wrappers(model)):
        node = _node_of(function)
        (idle if getattr(node, "__name__", None) in GUIDED_BY_BLOCKS else names).add(_name(node, kind))
    names -= idle
    followed = f"Sample Song does not follow {', '.join(sorted(names))} on its model; KSampler does"
    return [*change_nothing(idle), *([followed] if names else [])]


def without_place(options: Mapping[str, Any]) -> set[str]:
    """The nodes behind what `transformer_options` have for parts that this network does not have."""
    names = {_name(node, _unnamed(kind)) for node, kind in _of_blocks(options)}
    return names | {"ScaleROPE"} if options.get(ROPE) else names


def check_blocks(options: Mapping[str, Any]) -> None:
    """Refuses nodes whose guidance fails where nobody comes by the blocks that they watch."""
    for node, kind in _of_blocks(options):
        if getattr(node, "__name__", None) == WATCHES_BLOCKS:
            name = _name(node, _unnamed(kind))
            raise RequestError(f"{name} needs parts that ACE-Step's network does not have: take it off the model")


def change_nothing(names: Iterable[str]) -> list[str]:
    """What no sampler can bring into this network, as a sentence for the user."""
    names = sorted(names)
    do, them = ("changes", "it") if len(names) == 1 else ("change", "them")
    return [f"{', '.join(names)} {do} nothing here: ACE-Step's network has no place for {them}"] if names else []


def _of_blocks(options: Mapping[str, Any]) -> Iterator[tuple[type | None, str]]:
    """Of every change to a block: its node, where that is known, and its kind."""
    added = options.get("patches", {}).items()
    replacing = ((kind, by_block.values()) for kind, by_block in options.get("patches_replace", {}).items())
    return ((_node_of(patch), kind) for kind, given in chain(added, replacing) for patch in given)


def _functions(model: comfy.model_patcher.ModelPatcher) -> Iterator[tuple[Callable, str]]:
    """Each with what to call it where its node is not known."""
    for kind, given in model.model_options.items():
        if kind.endswith(("_function", "_wrapper")):
            yield from ((function, _unnamed(kind)) for function in (given if isinstance(given, list) else [given]))


def _wrappers(model: comfy.model_patcher.ModelPatcher) -> Iterator[tuple[Callable, str]]:
    """All but what TorchCompileModel and Context Windows set; those without a name of their own go by their kind."""
    for kinds in (model.wrappers, options_of(model).get("wrappers", {})):
        for kind, wrappers in kinds.items():
            for key, given in wrappers.items():
                if key != COMPILE_KEY:
                    others = (one for one in given if one.__module__ != comfy.context_windows.__name__)
                    yield from ((wrapper, key or _unnamed(kind)) for wrapper in others)


def _unnamed(kind: str) -> str:
    return f"another node's {kind}"


def _node_of(function: Callable) -> type | None:
    """The node that a function was made in, as nearly all that nodes put on models are."""
    made_in = getattr(function, "__qualname__", type(function).__qualname__).partition(".")[0]
    found = getattr(sys.modules.get(function.__module__), made_in, None)
    return found if isinstance(found, type) and hasattr(found, "INPUT_TYPES") else None


def _name(node: type | None, otherwise: str) -> str:
    """The title of a node, as it stands in the graph."""
    if node is None:
        return otherwise
    known = sys.modules.get("nodes")  # ComfyUI's; not there when it is used as a library
    ids = (key for key, one in getattr(known, "NODE_CLASS_MAPPINGS", {}).items() if one is node)
    return next((known.NODE_DISPLAY_NAME_MAPPINGS.get(key, key) for key in ids), node.__name__)


def options_of(model: comfy.model_patcher.ModelPatcher) -> dict[str, Any]:
    return model.model_options.get("transformer_options", {})
