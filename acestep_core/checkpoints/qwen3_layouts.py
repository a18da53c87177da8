"""Open the two Qwen3 models in each of their layouts: the text encoder and the planner (5 Hz LM)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..config import PLANNER_VOCAB_SIZE, PlannerConfig, TextEncoderConfig
from ..errors import CheckpointError
from .catalog import Kind
from .configs import planner_config, text_encoder_config
from .contents import PLANNER_PREFIXES, planner_prefix, text_prefix, vocabulary_rows
from .layouts import CheckpointSource, collect_weights, layout_of, naming, open_index, weight_shapes

TEXT_ENCODER_ROWS = 151_669  # vocabulary of Qwen3-Embedding-0.6B
COARSE = ("Q2", "Q3", "Q4")
PLAIN_QWEN_ROWS = 151_936  # vocabulary of the other Qwen3 models
QWEN3_LAYER = {
    f"{name}.weight"
    for name in (
        *(f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
        *(f"mlp.{part}" for part in ("gate_proj", "up_proj", "down_proj")),
        "input_layernorm",
        "post_attention_layernorm",
    )
}


def open_text_encoder(path: Path) -> CheckpointSource[TextEncoderConfig]:
    """Open the text encoder at `path`: its folder, a diffusers folder, a ComfyUI file, or an all-in-one file.

    Raises CheckpointError.
    """
    expected = "the text encoder, Qwen3-Embedding-0.6B"
    path, index, prefix, config = open_index(path, "text_encoder", text_prefix, expected)
    weights, dropped = collect_weights(index.below(prefix).entries.items())
    rows = vocabulary_rows(index, prefix)
    if not _is_qwen3(weights):
        raise CheckpointError(
            f"{path} is another language model, with {rows} vocabulary rows; {expected}, has {TEXT_ENCODER_ROWS}"
        )
    if rows in (PLANNER_VOCAB_SIZE, PLAIN_QWEN_ROWS) or "audio_codes" in config:
        kind = "a plain Qwen3 model" if rows == PLAIN_QWEN_ROWS else "a planner LM"
        raise CheckpointError(f"{path} is {kind} with {rows} vocabulary rows; {expected}, has {TEXT_ENCODER_ROWS}")
    layout = layout_of(path, prefix.startswith(("text_encoders.", "qwen3_")))
    with naming(path):
        merged = text_encoder_config(weight_shapes(weights), config)
    return CheckpointSource(Kind.TEXT_ENCODER, path, layout, merged, weights, dropped)


def _is_qwen3(names: Iterable[str]) -> bool:
    """Return True if the first layer is a Qwen3 layer.

    Qwen 2.5, Llama and Gemma have biases or more norms there, or no norm of the queries.
    """
    first = {name.removeprefix("layers.0.") for name in names if name.startswith("layers.0.")}
    return "self_attn.q_norm.weight" in first and first <= QWEN3_LAYER


def open_planner(path: Path) -> CheckpointSource[PlannerConfig]:
    """Open the planner LM at `path`: its folder (one file or shards), a ComfyUI file, or an all-in-one file.

    The config.json of a planner with another vocabulary than the released ones must state its number of `audio_codes`.
    Raises CheckpointError.
    """
    path, index, prefix, config = open_index(path, "", planner_prefix, "a planner LM")
    entries = dict(index.below(prefix).entries)
    head = entries.pop("lm_head.weight", None)  # a copy of the embedding
    weights, dropped = collect_weights(entries.items())
    _check_rows(path, vocabulary_rows(index, prefix), config)
    with naming(path):
        merged = planner_config(weight_shapes(weights), config)
    if merged.audio_base + merged.audio_codes > merged.vocab_size:
        raise CheckpointError(
            f"{path}: {merged.audio_codes} audio codes from row {merged.audio_base} on do not fit into "
            f"{merged.vocab_size} rows"
        )
    dropped = dropped if head is None else (*dropped, head.name)
    layout = layout_of(path, prefix in PLANNER_PREFIXES)
    return CheckpointSource(Kind.PLANNER, path, layout, merged, weights, dropped)


def coarse_types(source: CheckpointSource[PlannerConfig]) -> list[str]:
    """Return the quantisations of a planner that are too coarse for its audio codes: those of four bits and less."""
    return sorted({weight.value.dtype for weight in source.weights.values() if weight.value.dtype[:2] in COARSE})


def _check_rows(path: Path, rows: int, config: Mapping[str, object]) -> None:
    """Check that the vocabulary is a planner's: nothing else distinguishes a planner from other Qwen3 models."""
    if rows == PLANNER_VOCAB_SIZE or "audio_codes" in config:
        return
    kinds = {TEXT_ENCODER_ROWS: "the text encoder, Qwen3-Embedding-0.6B", PLAIN_QWEN_ROWS: "a plain Qwen3 model"}
    kind = kinds.get(rows, "no known planner LM")
    raise CheckpointError(
        f"{path} is {kind} with {rows} vocabulary rows; a planner LM has {PLANNER_VOCAB_SIZE}, audio codes among them, "
        "or a config.json with its number of audio_codes"
    )
