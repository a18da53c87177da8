"""The paths of the model's modules, and their spellings in adapter files.

Names with underscores for dots are ambiguous, so no name is split. Every spelling of every real path is in one table,
and a name of a file is looked up there.
"""

from __future__ import annotations

import functools
import re
from enum import Enum

from ..checkpoints.diffusers_keys import to_diffusers
from ..config import ModelConfig
from ..models.model import AceStepModel

_LAYER = re.compile(r"(?<=layers_)\d{1,4}(?=_)")
_PATH_LAYER = re.compile(r"(?<=\.layers\.)\d+(?=\.)")
# Trainers put these before a path, and wrappers of torch and of trainers put the others into it.
_PREFIXES = re.compile(
    "(?:_*(?:base_model_model|model_diffusion_model|diffusion_model|transformer|lora_unet|lora_transformer|lycoris|unet"
    "|forward_module|module|orig_mod)_)+"
)
_INFIXES = re.compile("_*(?:original_mlp|original_module|orig_mod|base_layer|fsdp_wrapped_module|forward_module)_")


class Group(Enum):
    """The part of the model that an adapter changes. Each part can have a strength of its own."""

    SELF_ATTENTION = "self_attention"
    CROSS_ATTENTION = "cross_attention"
    MLP = "mlp"
    CONDITIONING = "conditioning"  # condition_embedder, condition encoder, audio tokenizer
    TIME = "time"  # time embeddings, input and output projections

    @property
    def label(self) -> str:
        return "MLP" if self is Group.MLP else self.value.replace("_", " ")


def group_of(path: str) -> Group:
    """Return the group of a module's path in the AceStepModel."""
    part = path.removeprefix("decoder.")
    if part == path or part.startswith("condition_embedder"):
        return Group.CONDITIONING
    if not part.startswith("layers."):
        return Group.TIME
    name = part.split(".")[2]
    if name.startswith("self_attn"):
        return Group.SELF_ATTENTION
    return Group.CROSS_ATTENTION if name.startswith("cross_attn") else Group.MLP


def find_module_path(name: str) -> str | None:
    """Return the path in the AceStepModel of a module's name in a file, or None for no module of the model.

    The layer may be beyond those of a certain model.
    """
    flat = name.replace(".", "_")
    prefix = _PREFIXES.match(flat)
    flat = flat[prefix.end() :] if prefix else flat
    for candidate in (flat, _INFIXES.sub("_", flat), flat.replace("original_mlp", "mlp")):
        layer = _LAYER.search(candidate)
        path = _spellings().get(_LAYER.sub("0", candidate, count=1))
        if path is not None:
            return path if layer is None else _PATH_LAYER.sub(str(int(layer[0])), path, count=1)
    return None


@functools.cache
def _spellings() -> dict[str, str]:
    """Return the path, with layer 0, by each of its spellings with underscores for dots."""
    one_layer = ModelConfig(
        num_hidden_layers=1,
        num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1,
        num_attention_pooler_hidden_layers=1,
    )
    network = AceStepModel(one_layer, device="meta")
    table: dict[str, str] = {}
    for parameter, _ in network.named_parameters():
        path, _, leaf = parameter.rpartition(".")
        if leaf != "weight":
            continue
        names = [path]
        if path.startswith("decoder."):  # files name its modules without the prefix, too
            inner = path.removeprefix("decoder.")
            names += [inner, inner.removesuffix(".1"), to_diffusers(parameter)[1].removesuffix(".weight")]
        table |= {name.replace(".", "_"): path for name in names}
    return table
