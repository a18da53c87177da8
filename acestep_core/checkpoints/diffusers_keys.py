"""Tensor names of diffusers' ACE-Step folders. Names the map does not know pass through unchanged."""

from __future__ import annotations

import re

DIFFUSERS_COMPONENTS = {  # folder: prefix of the original names
    "transformer": "decoder.",
    "condition_encoder": "encoder.",
    "audio_tokenizer": "tokenizer.",
    "audio_token_detokenizer": "detokenizer.",
}
DIFFUSERS_MARKERS = {
    "transformer": "proj_in_conv.weight",
    "condition_encoder": "lyric_encoder.embed_tokens.weight",
    "audio_tokenizer": "quantizer.project_in.weight",
    "audio_token_detokenizer": "special_tokens",
}
_ATTENTION = {  # original: diffusers, below every self_attn and cross_attn
    "q_proj": "to_q",
    "k_proj": "to_k",
    "v_proj": "to_v",
    "o_proj": "to_out.0",
    "q_norm": "norm_q",
    "k_norm": "norm_k",
}
_FROM_ATTENTION = {theirs: ours for ours, theirs in _ATTENTION.items()}
_CONVOLUTIONS = {"proj_in.1.": "proj_in_conv.", "proj_out.1.": "proj_out_conv."}  # of the transformer alone
_UNPREFIXED = ("null_condition_emb", "silence_latent")  # diffusers keeps both in condition_encoder

_DIFFUSERS_ATTENTION = re.compile(r"(?<=_attn\.)(to_out\.0|to_[qkv]|norm_[qk])(?=\.)")
_ORIGINAL_ATTENTION = re.compile(r"(?<=_attn\.)([qkvo]_proj|[qk]_norm)(?=\.)")


def from_diffusers(component: str, name: str) -> str:
    """Return the original name of tensor `name` in the diffusers folder `component`."""
    if component == "condition_encoder" and name in _UNPREFIXED:
        return name
    name = _DIFFUSERS_ATTENTION.sub(lambda match: _FROM_ATTENTION[match[1]], name)
    if component == "transformer":
        for ours, theirs in _CONVOLUTIONS.items():
            if name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
    return DIFFUSERS_COMPONENTS[component] + name


def to_diffusers(name: str) -> tuple[str, str]:
    """Return the diffusers folder and the name there of an original tensor name."""
    if name in _UNPREFIXED:
        return "condition_encoder", name
    component = next(part for part, prefix in DIFFUSERS_COMPONENTS.items() if name.startswith(prefix))
    name = name.removeprefix(DIFFUSERS_COMPONENTS[component])
    name = _ORIGINAL_ATTENTION.sub(lambda match: _ATTENTION[match[1]], name)
    if component == "transformer":
        for ours, theirs in _CONVOLUTIONS.items():
            if name.startswith(ours):
                name = theirs + name.removeprefix(ours)
    return component, name
