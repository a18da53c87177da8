"""The tensor names of adapter files: which module a tensor belongs to, and its role there."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Spellings of a tensor's name after the module, and its role. PEFT may put the adapter's name before `.weight`.
_ROLES = {
    "lora_A": "down",
    "lora_down": "down",
    "lora.down": "down",
    "lora_linear_layer.down": "down",
    "lora_B": "up",
    "lora_up": "up",
    "lora.up": "up",
    "lora_linear_layer.up": "up",
    "lora_mid": "mid",
    "lora_magnitude_vector": "magnitude",
    "dora_scale": "dora_scale",
    "alpha": "alpha",
    "diff": "diff",
    "w_norm": "diff",
    "diff_b": "diff_b",
    "b_norm": "diff_b",
    **{f"lokr_{name}": f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    **{f"hada_{name}": f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
}
_NAMES = "|".join(re.escape(name) for name in sorted(_ROLES, key=len, reverse=True))
_KEY = re.compile(rf"(.+?)[._]({_NAMES})(?:\.(?!weight$|bias$)[\w-]+)?(\.weight|\.bias)?")

_PEFT = "base_model.model."
_TEXT = re.compile(r"(lora_te|text_encoder|te\d?\.|clip)|(base_model\.model\.)?(model\.)+(layers|embed_tokens)\.")
_FOREIGN = re.compile(r"\.(oft_\w+|boft_\w+|a1|b1|ia3_\w+|vera_\w+|lora_E|hada_w3\w*|lokr_t1|ortho\w*)(\.|$)")
_ACE_STEP_1 = re.compile(r"speaker_embedder|genre_embedder|lyric_proj|lyric_embs|transformer_blocks.\d+.cross_attn")


def split_key(key: str) -> tuple[str, str] | None:
    """Return a tensor's module, as the file names it, and the tensor's role; None for a name of no known form."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    role = _ROLES[match[2]]
    if match[3] == ".bias":
        return (match[1], "up_bias") if role == "up" else None
    return match[1], role


def trained_name(module: str) -> str:
    """Return the name of a module in the network that the trainer wrapped, which the patterns of PEFT match."""
    return module.removeprefix(_PEFT)


def describe_foreign(keys: Iterable[str]) -> str | None:
    """Describe the adapter of another model, or None if it is unknown."""
    keys = list(keys)
    if any(_ACE_STEP_1.search(key) for key in keys):
        return "an adapter of ACE-Step 1.0, a different model"
    if all(_TEXT.match(key) for key in keys):
        return "an adapter of a text encoder or language model; only those of the diffusion model are loaded"
    other = next((match[1] for key in keys if (match := _FOREIGN.search(key))), None)
    return None if other is None else f"an adapter of an unsupported kind ({other})"
