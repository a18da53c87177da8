"""What every layout calls a tensor, and what this package calls it: the original checkpoint's names.

Pure functions over names; none knows a file or a tensor. A name that a map does not know passes through unchanged and
is reported as unexpected by the loader.
"""

from __future__ import annotations

import re
from enum import Enum

NETWORK_MARKER = "encoder.lyric_encoder.layers.0.input_layernorm.weight"
NETWORK_PREFIXES = ("", "model.diffusion_model.", "diffusion_model.", "model.")
VAE_MARKERS = ("decoder.block.0.snake1.alpha", "decoder.layers.1.layers.0.alpha")
VAE_PREFIXES = ("", "vae.", "first_stage_model.")
TEXT_MARKER = "layers.0.post_attention_layernorm.weight"
TEXT_PREFIXES = ("", "model.", "text_encoders.qwen3_06b.transformer.model.", "qwen3_06b.transformer.model.")
PLANNER_PREFIXES = tuple(
    f"{outer}qwen3_{size}.transformer.model." for outer in ("text_encoders.", "") for size in ("2b", "4b")
)

# --- diffusers --------------------------------------------------------------------------------------------------------

DIFFUSERS_COMPONENTS = {
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
_BESIDE_THE_ENCODER = ("null_condition_emb", "silence_latent")  # diffusers keeps both in condition_encoder

_THEIR_ATTENTION = re.compile(r"(?<=_attn\.)(to_out\.0|to_[qkv]|norm_[qk])(?=\.)")
_OUR_ATTENTION = re.compile(r"(?<=_attn\.)([qkvo]_proj|[qk]_norm)(?=\.)")


def from_diffusers(component: str, name: str) -> str:
    """Original name of tensor `name` in the diffusers folder `component`."""
    if component == "condition_encoder" and name in _BESIDE_THE_ENCODER:
        return name
    name = _THEIR_ATTENTION.sub(lambda match: _FROM_ATTENTION[match[1]], name)
    if component == "transformer":
        for ours, theirs in _CONVOLUTIONS.items():
            if name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
    return DIFFUSERS_COMPONENTS[component] + name


def to_diffusers(name: str) -> tuple[str, str]:
    """Diffusers folder and name of an original tensor name."""
    if name in _BESIDE_THE_ENCODER:
        return "condition_encoder", name
    component = next(part for part, prefix in DIFFUSERS_COMPONENTS.items() if name.startswith(prefix))
    name = name.removeprefix(DIFFUSERS_COMPONENTS[component])
    name = _OUR_ATTENTION.sub(lambda match: _ATTENTION[match[1]], name)
    if component == "transformer":
        for ours, theirs in _CONVOLUTIONS.items():
            if name.startswith(ours):
                name = theirs + name.removeprefix(ours)
    return component, name


# --- Oobleck VAE as stable-audio-tools and ComfyUI name it ------------------------------------------------------------

_RESIDUAL_UNIT = ("snake1", "conv1", "snake2", "conv2")  # layers.0 … layers.3 of a residual unit
_ENCODER_BLOCK = ("res_unit1", "res_unit2", "res_unit3", "snake1", "conv1")
_DECODER_BLOCK = ("snake1", "conv_t1", "res_unit1", "res_unit2", "res_unit3")
_STABLE_AUDIO = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(?:layers\.(\d+)\.)?(?:layers\.(\d+)\.)?(.+)")


def from_stable_audio(name: str, blocks: int) -> str:
    """Original name of a VAE tensor in stable-audio-tools' naming. `blocks`: how many blocks each half has (5).

    Names that are original already pass through.
    """
    match = _STABLE_AUDIO.fullmatch(name)
    if match is None:
        return name
    half, outer, inner, unit, leaf = match.groups()
    parts = [half]
    if int(outer) in (0, blocks + 1, blocks + 2):
        parts.append({0: "conv1", blocks + 1: "snake1", blocks + 2: "conv2"}[int(outer)])
    else:
        parts += ["block", str(int(outer) - 1)]
    block = _ENCODER_BLOCK if half == "encoder" else _DECODER_BLOCK
    for index, names in ((inner, block), (unit, _RESIDUAL_UNIT)):
        if index is not None:
            if int(index) >= len(names):
                return name
            parts.append(names[int(index)])
    return ".".join([*parts, leaf])


def to_stable_audio(name: str, blocks: int) -> str:
    """The inverse of `from_stable_audio`."""
    half, *parts = name.split(".")
    block = _ENCODER_BLOCK if half == "encoder" else _DECODER_BLOCK
    if parts[0] == "block":
        indices, parts = [int(parts[1]) + 1, block.index(parts[2])], parts[3:]
        if parts[0] in _RESIDUAL_UNIT:
            indices, parts = [*indices, _RESIDUAL_UNIT.index(parts[0])], parts[1:]
    else:
        indices, parts = [{"conv1": 0, "snake1": blocks + 1, "conv2": blocks + 2}[parts[0]]], parts[1:]
    return ".".join([half, *(f"layers.{index}" for index in indices), *parts])


# --- parts of one tensor ----------------------------------------------------------------------------------------------


class Role(Enum):
    """What a stored tensor contributes to the tensor a module holds."""

    VALUE = "value"  # the tensor itself; with a GAIN beside it, the direction of a weight-norm pair
    GAIN = "gain"  # weight-norm magnitude, one number per slice of dimension 0
    SCALE = "scale"  # multiplies an fp8 value
    DROPPED = "dropped"  # known, and not needed


_PAIRS = (
    (".parametrizations.weight.original0", Role.GAIN),
    (".parametrizations.weight.original1", Role.VALUE),
    (".weight_g", Role.GAIN),
    (".weight_v", Role.VALUE),
    (".weight_scale", Role.SCALE),
    (".scale_weight", Role.SCALE),
)
# RoPE caches and FSQ tables are computed here; `scaled_fp8` and `comfy_quant` only mark that scales follow; input
# scales serve fp8 multiplication, which is not done here.
_DROPPED = re.compile(
    r"(.*\.)?rotary_emb\..*"
    r"|tokenizer\.quantizer\.(layers\..*|_levels|_basis|scales|implicit_codebook|soft_clamp_input_value)"
    r"|scaled_fp8|logit_scale"
    r"|.*\.(comfy_quant|input_scale|scale_input)"
)


def role_of(name: str) -> tuple[str, Role]:
    """The module's tensor that `name` (an original name) belongs to, and what it contributes."""
    if _DROPPED.fullmatch(name):
        return name, Role.DROPPED
    for suffix, role in _PAIRS:
        if name.endswith(suffix):
            return name.removesuffix(suffix) + ".weight", role
    return name, Role.VALUE
