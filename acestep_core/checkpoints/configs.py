"""Read a network's config from config.json, and missing settings from the shapes of the tensors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from ..config import PLANNER_VOCAB_SIZE, ModelConfig, PlannerConfig, TextEncoderConfig, VAEConfig
from ..errors import CheckpointError
from ..files import read_json_object

Shapes = Mapping[str, tuple[int, ...]]
NetworkConfig = TypeVar("NetworkConfig", ModelConfig, VAEConfig, TextEncoderConfig, PlannerConfig)


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json` of a folder; empty if there is none. Raises CheckpointError if the file is unreadable."""
    path = folder / "config.json"
    if not os.path.isfile(path):
        return {}
    config = read_json_object(path)
    rope = config.get("rope_parameters")  # transformers writes rope_theta inside since version 5
    return config | ({"rope_theta": rope["rope_theta"]} if isinstance(rope, dict) and "rope_theta" in rope else {})


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
    config: the settings of config.json, which override the shapes.

    Values in neither (sliding window, RoPE base) are the released ones. Raises CheckpointError for another
    architecture.
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
    found.add("num_attention_pooler_hidden_layers", found.count("tokenizer.attention_pooler.layers"))
    found.add("text_hidden_dim", found.size("encoder.text_projector.weight", 1))
    found.add("timbre_hidden_dim", found.size("encoder.timbre_encoder.embed_tokens.weight", 1))
    found.add("audio_acoustic_hidden_dim", found.size("tokenizer.audio_acoustic_proj.weight", 1))
    found.add("pool_window_size", found.size("detokenizer.special_tokens", 1))
    found.add("fsq_dim", found.size("tokenizer.quantizer.project_in.weight", 1))
    found.add("fsq_input_levels", LEVELS.get(found.size("tokenizer.quantizer.project_in.weight", 0) or 0))
    return _build_config(ModelConfig, found.values, config)


# The networks here have these settings. Other settings may give tensors of the same shapes, and wrong results.
_FIXED = {
    "use_sliding_window": True,
    "rope_scaling": None,
    "attention_bias": False,
    "hidden_act": "silu",
    "fsq_input_num_quantizers": 1,
}
_LAYER_TYPES = ("sliding_attention", "full_attention")  # of even and of odd layers


def _check_architecture(config: Mapping[str, Any]) -> None:
    layers = config.get("layer_types")
    alternating = None if not isinstance(layers, list) else [_LAYER_TYPES[i % 2] for i in range(len(layers))]
    for key, value in {**_FIXED, "layer_types": alternating}.items():
        given = config.get(key)
        if given is not None and given != value:
            raise CheckpointError(f"config.json: {key} is {given!r}; every ACE-Step 1.5 model has {value!r}")


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
    return _build_config(VAEConfig, found.values, config)


def text_encoder_config(shapes: Shapes, config: Mapping[str, Any]) -> TextEncoderConfig:
    """Return the config of the text encoder; arguments as for `network_config`."""
    return _build_config(TextEncoderConfig, _qwen3(shapes).values, config)


def planner_config(shapes: Shapes, config: Mapping[str, Any]) -> PlannerConfig:
    """Return the config of a planner; arguments as for `network_config`.

    The audio codes are the released planners', or the last `audio_codes` rows if config.json states that number.
    """
    found = _qwen3(shapes)
    rows = found.values.get("vocab_size", 0)
    if rows != PLANNER_VOCAB_SIZE and isinstance(config.get("audio_codes"), int):
        found.add("audio_base", rows - config["audio_codes"])
    return _build_config(PlannerConfig, found.values, config)


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
        every = tuple(values)
        if every and all(every):
            self.values[key] = every

    def size(self, name: str, axis: int) -> int | None:
        shape = self._shapes.get(name, ())
        return shape[axis] if len(shape) > axis else None

    def count(self, prefix: str) -> int | None:
        """Return the number of numbered children: the highest number plus one."""
        pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
        numbers = [int(match[1]) for name in self._shapes if (match := pattern.match(name))]
        return max(numbers) + 1 if numbers else None


def _ratio(value: int | None, unit: int | None) -> int | None:
    return value // unit if value and unit else None


def _build_config(kind: type[NetworkConfig], found: Mapping[str, Any], config: Mapping[str, Any]) -> NetworkConfig:
    values = dict(found)
    for setting in fields(kind):
        given = config.get(setting.name)
        if given is not None and setting.default is not MISSING:
            values[setting.name] = _as_type_of(setting.default, given, setting.name)
    return kind(**values)


def _as_type_of(default: Any, given: Any, name: str) -> Any:
    """Convert `given` to the type of `default`. Raises CheckpointError if that is impossible."""
    try:
        if isinstance(default, tuple):
            return tuple(int(value) for value in given)
        if isinstance(default, bool):  # a single file's metadata holds strings
            return str(given).lower() in ("true", "1")
        if isinstance(default, str):
            return str(given)
        value = type(default)(given)
        if value <= 0 or value != given:
            raise ValueError
        return value
    except (TypeError, ValueError, OverflowError):
        kind = "a list of whole numbers" if isinstance(default, tuple) else f"a positive {type(default).__name__}"
        raise CheckpointError(f"config.json: {name} should be {kind}, it is {given!r}") from None
