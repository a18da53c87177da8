"""Read a network's config from config.json, and missing settings from the shapes of the tensors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, replace
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from ..config import (
    CODE_COUNT,
    MAX_FRAMES,
    PLANNER_VOCAB_SIZE,
    ModelConfig,
    PlannerConfig,
    TextEncoderConfig,
    VAEConfig,
)
from ..errors import CheckpointError, first_line, shown
from ..files import parse_json, read_json_object
from .gguf_header import CONFIG

Shapes = Mapping[str, tuple[int, ...]]
MAX_LAYERS = 512
_RANGES = {  # the lowest and highest useful values of settings that no tensor shows
    "rope_theta": (1, 10**12),
    "rms_norm_eps": (1e-12, 0.01),
    "timbre_fix_frame": (1, MAX_FRAMES),
}
NetworkConfig = TypeVar("NetworkConfig", ModelConfig, VAEConfig, TextEncoderConfig, PlannerConfig)


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json` of a folder; empty if there is none. Raises CheckpointError if the file is unreadable."""
    path = folder / "config.json"
    if not os.path.isfile(path):
        return {}
    return _with_rope_theta(read_json_object(path))


def stored_config(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Read the config in the settings of a GGUF file; empty if there is none. Raises CheckpointError."""
    if CONFIG not in metadata:
        return {}
    try:
        config = parse_json(metadata[CONFIG])
    except ValueError as error:
        raise CheckpointError(f"{path}: its setting {CONFIG} is not valid JSON: {first_line(error)}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: its setting {CONFIG} should be an object, it is {shown(config)}")
    return _with_rope_theta(config)


def _with_rope_theta(config: dict[str, Any]) -> dict[str, Any]:
    rope = config.get("rope_parameters")  # transformers writes rope_theta inside since version 5
    return config | ({"rope_theta": rope["rope_theta"]} if isinstance(rope, dict) and "rope_theta" in rope else {})


def model_note(folder: Path) -> str:
    """Return the note to the user in a model's config.json, or an empty string."""
    note = read_config(folder).get("acestep_note")
    return note if isinstance(note, str) else ""


_ENCODER_KEYS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")


def merge_diffusers_configs(
    transformer: dict[str, Any], condition_encoder: dict[str, Any], audio_tokenizer: dict[str, Any]
) -> dict[str, Any]:
    """Merge the configs of three diffusers folders into one with the original's keys."""
    encoder = {f"encoder_{key}": condition_encoder[key] for key in _ENCODER_KEYS if key in condition_encoder}
    rest = {key: value for key, value in condition_encoder.items() if key not in _ENCODER_KEYS}
    tokenizer_keys = ("pool_window_size", "fsq_dim", "fsq_input_levels", "num_attention_pooler_hidden_layers")
    tokenizer = {key: audio_tokenizer[key] for key in tokenizer_keys if key in audio_tokenizer}
    return rest | tokenizer | transformer | encoder


# FSQ levels by their number: the weights show only the number. nano has four. Other numbers get the released levels.
LEVELS = {4: (8, 8, 8, 5)}


def network_config(shapes: Shapes, config: Mapping[str, Any]) -> ModelConfig:
    """Return the config of the diffusion model with its encoders.

    shapes: by original tensor names.
    config: the settings of config.json.

    Values in neither (sliding window, RoPE base) are the released ones. Raises CheckpointError for another
    architecture, or if config.json and the shapes differ.
    """
    _check_architecture(config)
    decoder, lyric = "decoder.layers.0.self_attn", "encoder.lyric_encoder.layers.0"
    found = _ShapeReader(shapes)
    head = found.size("decoder.layers.0.self_attn.q_norm.weight", 0)
    found.add("head_dim", head)
    found.add("hidden_size", found.size("decoder.layers.0.self_attn_norm.weight", 0))
    found.add("intermediate_size", found.size("decoder.layers.0.mlp.gate_proj.weight", 0))
    found.add("num_hidden_layers", found.count("decoder.layers"))
    found.add("num_attention_heads", _ratio(found.size(f"{decoder}.q_proj.weight", 0), head))
    found.add("num_key_value_heads", _ratio(found.size(f"{decoder}.k_proj.weight", 0), head))
    found.add("in_channels", found.size("decoder.proj_in.1.weight", 1))
    found.add("patch_size", found.size("decoder.proj_in.1.weight", 2))
    found.add("encoder_hidden_size", found.size("null_condition_emb", 2))
    found.add("encoder_intermediate_size", found.size(f"{lyric}.mlp.gate_proj.weight", 0))
    found.add("encoder_num_attention_heads", _ratio(found.size(f"{lyric}.self_attn.q_proj.weight", 0), head))
    found.add("encoder_num_key_value_heads", _ratio(found.size(f"{lyric}.self_attn.k_proj.weight", 0), head))
    found.add("num_lyric_encoder_hidden_layers", found.count("encoder.lyric_encoder.layers"))
    found.add("num_timbre_encoder_hidden_layers", found.count("encoder.timbre_encoder.layers"))
    pooler = found.count("tokenizer.attention_pooler.layers") or found.count("detokenizer.layers")
    found.add("num_attention_pooler_hidden_layers", pooler)
    found.add("text_hidden_dim", found.size("encoder.text_projector.weight", 1))
    found.add("timbre_hidden_dim", found.size("encoder.timbre_encoder.embed_tokens.weight", 1))
    found.add("audio_acoustic_hidden_dim", found.size("tokenizer.audio_acoustic_proj.weight", 1))
    found.add("pool_window_size", found.size("detokenizer.special_tokens", 1))
    found.add("fsq_dim", found.size("tokenizer.quantizer.project_in.weight", 1))
    levels = found.size("tokenizer.quantizer.project_in.weight", 0)
    merged = _build_config(ModelConfig, found, {"fsq_input_levels": LEVELS.get(levels or 0)} | dict(config))
    _check_levels(merged.fsq_input_levels, levels)
    _check_heads(merged.head_dim, merged.num_attention_heads, merged.num_key_value_heads)
    _check_heads(merged.head_dim, merged.encoder_num_attention_heads, merged.encoder_num_key_value_heads)
    heads = _lyric_heads(config.get(_LYRIC_HEADS), merged.num_hidden_layers, merged.num_attention_heads)
    return replace(merged, lyric_alignment_layers_config=heads)


_LYRIC_HEADS = "lyric_alignment_layers_config"


def _lyric_heads(given: Any, layers: int, heads: int) -> dict[int, tuple[int, ...]]:
    """Return the heads of each layer that config.json lists, or none. Raises CheckpointError for unknown ones."""
    if given is None:
        return {}
    listed = {}
    entries: list[tuple[Any, Any]] = [*given.items()] if isinstance(given, dict) else [(None, given)]
    for layer, numbers in entries:
        known = isinstance(layer, str) and re.fullmatch("[0-9]{1,4}", layer) and int(layer) < layers
        fit = isinstance(numbers, list) and all(type(number) is int and 0 <= number < heads for number in numbers)
        if not (known and fit):
            raise CheckpointError(
                f"config.json: {_LYRIC_HEADS} should list heads below {heads} for layers below {layers}, such as "
                f'{{"2": [0]}}, it is {shown(given)}'
            )
        listed[int(layer)] = tuple(sorted(set(numbers)))
    return listed


def _check_levels(levels: tuple[int, ...], count: int | None) -> None:
    """Check that the FSQ has as many levels as the tensors, and no more codes than the released one."""
    if len(levels) != (count or len(levels)):
        raise CheckpointError(f"fsq_input_levels: there are {len(levels)} numbers, but the tensors have {count}")
    if min(levels) < 2 or prod(levels) > CODE_COUNT:
        raise CheckpointError(
            f"config.json: fsq_input_levels is {shown(list(levels))}; each should be at least 2 and their product at "
            f"most {CODE_COUNT:,}, the number of audio codes"
        )


def _check_heads(width: int, heads: int, key_heads: int) -> None:
    if width % 2 or heads % key_heads:
        raise CheckpointError(
            f"the tensors have {heads} attention heads of width {width} for {key_heads} key heads; the width should be "
            "even, and the heads a multiple of the key heads"
        )


# The networks here have these settings. Other settings may give tensors of the same shapes, and wrong results.
_NETWORK_SETTINGS = {
    "use_sliding_window": True,
    "rope_scaling": None,
    "attention_bias": False,
    "hidden_act": "silu",
    "fsq_input_num_quantizers": 1,
}
_QWEN3_SETTINGS = {"use_sliding_window": False, "rope_scaling": None, "attention_bias": False, "hidden_act": "silu"}
_LAYER_TYPES = ("sliding_attention", "full_attention")  # of even and of odd layers
_PLAIN_ROPE = ("default", None)  # spellings of the rope_type without scaling


def _check_settings(config: Mapping[str, Any], fixed: Mapping[str, Any], owner: str) -> None:
    for key, value in fixed.items():
        given = config.get(key)
        if key == "rope_scaling" and isinstance(given, dict) and given.get("rope_type", given.get("type")) == "default":
            continue
        if given is not None and given != value:
            raise CheckpointError(f"config.json: {key} is {shown(given)}; {owner} has {shown(value)}")
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and rope.get("rope_type") not in _PLAIN_ROPE:
        raise CheckpointError(f"config.json: rope_type is {shown(rope['rope_type'])}; {owner} has 'default'")


def _check_architecture(config: Mapping[str, Any]) -> None:
    layers = config.get("layer_types")
    alternating = None if not isinstance(layers, list) else [_LAYER_TYPES[i % 2] for i in range(len(layers))]
    _check_settings(config, {**_NETWORK_SETTINGS, "layer_types": alternating}, "every ACE-Step 1.5 model")


def vae_config(shapes: Shapes, config: Mapping[str, Any]) -> VAEConfig:
    """Return the config of an Oobleck VAE; arguments as for `network_config`."""
    found = _ShapeReader(shapes)
    width = found.size("encoder.conv1.weight", 0)
    found.add("encoder_hidden_size", width)
    found.add("audio_channels", found.size("encoder.conv1.weight", 1))
    found.add("decoder_channels", found.size("decoder.conv2.weight", 1))
    found.add("decoder_input_channels", found.size("decoder.conv1.weight", 1))
    strided = [f"encoder.block.{n}.conv1.weight" for n in range(found.count("encoder.block") or 0)]
    found.add_each("channel_multiples", (_ratio(found.size(name, 0), width) for name in strided))
    found.add_each("downsampling_ratios", (_ratio(found.size(name, 2), 2) for name in strided))
    return _build_config(VAEConfig, found, config)


def text_encoder_config(shapes: Shapes, config: Mapping[str, Any]) -> TextEncoderConfig:
    """Return the config of the text encoder; arguments as for `network_config`."""
    _check_settings(config, _QWEN3_SETTINGS, "the text encoder")
    return _build_qwen3_config(TextEncoderConfig, _qwen3(shapes), config)


def planner_config(shapes: Shapes, config: Mapping[str, Any]) -> PlannerConfig:
    """Return the config of a planner; arguments as for `network_config`.

    The audio codes are the released planners', or the last `audio_codes` rows if config.json states that number.
    """
    _check_settings(config, _QWEN3_SETTINGS, "a planner LM")
    found = _qwen3(shapes)
    rows, codes = found.values.get("vocab_size", 0), config.get("audio_codes")
    if rows != PLANNER_VOCAB_SIZE and _is_whole(codes):
        config = {"audio_base": rows - codes} | dict(config)
    return _build_qwen3_config(PlannerConfig, found, config)


def _build_qwen3_config(kind: type[NetworkConfig], found: _ShapeReader, config: Mapping[str, Any]) -> NetworkConfig:
    merged: Any = _build_config(kind, found, config)
    _check_heads(merged.head_dim, merged.num_attention_heads, merged.num_key_value_heads)
    return merged


def _qwen3(shapes: Shapes) -> _ShapeReader:
    found = _ShapeReader(shapes)
    head = found.size("layers.0.self_attn.q_norm.weight", 0)
    found.add("vocab_size", found.size("embed_tokens.weight", 0))
    found.add("hidden_size", found.size("embed_tokens.weight", 1))
    found.add("intermediate_size", found.size("layers.0.mlp.gate_proj.weight", 0))
    found.add("num_hidden_layers", found.count("layers"))
    found.add("head_dim", head)
    found.add("num_attention_heads", _ratio(found.size("layers.0.self_attn.q_proj.weight", 0), head))
    found.add("num_key_value_heads", _ratio(found.size("layers.0.self_attn.k_proj.weight", 0), head))
    return found


class _ShapeReader:
    """Collect settings from tensor shapes; a setting without its tensor stays out of `values`."""

    def __init__(self, shapes: Shapes):
        self._shapes = shapes
        self.values: dict[str, Any] = {}

    def add(self, key: str, value: int | tuple[int, ...] | None) -> None:
        if value:
            self.values[key] = value

    def add_each(self, key: str, values: Iterable[int | None]) -> None:
        every = list(values)
        if all(every):
            self.add(key, tuple(value for value in every if value))

    def size(self, name: str, axis: int) -> int | None:
        shape = self._shapes.get(name, ())
        return shape[axis] if len(shape) > axis else None

    def count(self, prefix: str) -> int | None:
        """Return the number of numbered children. Raises CheckpointError if a number is missing."""
        pattern = re.compile(re.escape(prefix) + r"\.([0-9]+)\.")
        numbers = {match[1] for name in self._shapes if (match := pattern.match(name))}
        if len(numbers) > MAX_LAYERS:
            raise CheckpointError(f"there are {len(numbers):,} {prefix}; at most {MAX_LAYERS} are supported")
        missing = next((i for i in range(len(numbers)) if str(i) not in numbers), None)
        if missing is not None:
            raise CheckpointError(f"{prefix}.{missing} is missing, but there are {len(numbers)} others of {prefix}")
        return len(numbers) or None


def _ratio(value: int | None, unit: int | None) -> int | None:
    return value // unit if value and unit else None


def _build_config(kind: type[NetworkConfig], found: _ShapeReader, config: Mapping[str, Any]) -> NetworkConfig:
    """Return the config with the settings of the tensors, and config.json's where no tensor shows a setting.

    Raises CheckpointError if both have a setting and they differ.
    """
    values = dict(found.values)
    for setting in fields(kind):
        name, given = setting.name, config.get(setting.name)
        if given is None or setting.default is MISSING:
            continue
        stated = _as_type_of(setting.default, given, name)
        if name not in values:
            if not name.endswith("_layers"):  # without their tensors, a large number would take hours to build
                values[name] = stated
        elif values[name] != stated:
            raise CheckpointError(
                f"config.json: {name} is {shown(given)}, but the tensors have {shown(values[name])}; "
                "take config.json and the tensors from the same model"
            )
    return kind(**values)


def _as_type_of(default: Any, given: Any, name: str) -> Any:
    """Convert `given` to the type of `default`. Raises CheckpointError if that is impossible."""
    value: Any = None
    if isinstance(default, tuple):
        kind = "a list of positive whole numbers"
        if isinstance(given, (list, tuple)) and given and all(_is_whole(item) for item in given):
            value = tuple(given)
    elif isinstance(default, bool):  # a single file's metadata holds strings
        kind = "true or false"
        value = {"true": True, "1": True, "false": False, "0": False}.get(str(shown(given)).strip("'").lower())
    elif isinstance(default, str):
        kind = "text"
        value = given if isinstance(given, str) else None
    else:
        lowest, highest = _RANGES.get(name, (1, 2**31 - 1))
        kind = f"a {'whole ' if isinstance(default, int) else ''}number from {lowest:,} to {highest:,}"
        is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
        if is_number and lowest <= given <= highest and type(default)(given) == given:
            value = type(default)(given)
    if value is None:
        raise CheckpointError(f"config.json: {name} should be {kind}, it is {shown(given)}")
    return value


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31
