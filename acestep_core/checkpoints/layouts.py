"""What lies at a path: which layout, which network, which variant, and which stored tensor makes which of ours.

Only headers and config files are read here. The layouts of one model differ in names alone, so each ends up as the same
`Source`, and the loader knows none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import prod
from pathlib import Path
from typing import Generic, TypeVar

from ..config import HOP, PLANNER_VOCAB_SIZE, ModelConfig, PlannerConfig, TextEncoderConfig, VAEConfig
from ..errors import CheckpointError, RequestError
from . import keymaps
from .catalog import VARIANTS, Family, Kind, Variant, pick_variant, variant_named
from .dimensions import (
    merge_diffusers_configs,
    network_config,
    planner_config,
    read_config,
    text_encoder_config,
    vae_config,
)
from .keymaps import Role
from .kinds import describe, network_prefix, planner_prefix, text_prefix, vae_prefix
from .reader import FLOATS, Entry, read_table
from .shards import weight_files

Config = TypeVar("Config", ModelConfig, VAEConfig, TextEncoderConfig, PlannerConfig)

TEXT_ENCODER_ROWS = 151_669  # vocabulary of Qwen3-Embedding-0.6B
QWEN3_LAYER = {
    f"{name}.weight"
    for name in (
        *(f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
        *(f"mlp.{part}" for part in ("gate_proj", "up_proj", "down_proj")),
        "input_layernorm",
        "post_attention_layernorm",
    )
}
PLAIN_QWEN_ROWS = 151_936  # vocabulary of every Qwen3 that is not the embedding model
STABLE_AUDIO_HOP = 2048


class Layout(Enum):
    """How the same tensors are packed."""

    ORIGINAL = "original folder"
    DIFFUSERS = "diffusers folder"
    COMFY_SPLIT = "single file"
    COMFY_ALL_IN_ONE = "all-in-one file"


@dataclass(frozen=True)
class Weight:
    """The stored tensors that make one of ours: a value, or a weight-norm pair, or an fp8 value with its scale."""

    value: Entry
    gain: Entry | None = None
    scale: Entry | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in (self.value, self.gain, self.scale) if entry is not None)


@dataclass(frozen=True)
class Source(Generic[Config]):
    """A network on disk: all that is known before the first tensor is read. `weights` by our names."""

    kind: Kind
    path: Path
    layout: Layout
    config: Config
    weights: Mapping[str, Weight]
    dropped: tuple[str, ...]

    @property
    def parameters(self) -> int:
        return sum(prod(weight.value.shape) for weight in self.weights.values())


@dataclass(frozen=True)
class NetworkSource(Source[ModelConfig]):
    """The diffusion model with its encoders. `silence` is the stored silence latent, a tensor or a .pt file.

    `without` names children that this checkpoint does not have (the audio tokenizer, optional in diffusers folders).
    """

    variant: Variant = VARIANTS["turbo"]
    guessed: bool = False
    silence: Entry | Path | None = None
    without: tuple[str, ...] = ()


@dataclass
class _Collected:
    """Stored tensors sorted by what they make."""

    parts: dict[str, dict[Role, Entry]] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)

    def add(self, name: str, entry: Entry) -> None:
        target, role = keymaps.role_of(name)
        if role is Role.DROPPED:
            self.dropped.append(entry.name)
            return
        parts = self.parts.setdefault(target, {})
        if role in parts:
            raise CheckpointError(f"{entry.file} holds {target} twice: as {parts[role].name} and as {entry.name}")
        parts[role] = entry

    def weights(self) -> dict[str, Weight]:
        return {target: self._weight(target, parts) for target, parts in self.parts.items()}

    @staticmethod
    def _weight(target: str, parts: dict[Role, Entry]) -> Weight:
        value = parts.get(Role.VALUE)
        if value is None:
            entry = next(iter(parts.values()))
            raise CheckpointError(f"{entry.file} holds {entry.name} without the tensor {target} that it belongs to")
        if value.name.endswith((".weight_v", ".original1")) and Role.GAIN not in parts:
            raise CheckpointError(f"{value.file} holds half of a weight-norm pair: {value.name} without its magnitude")
        if value.dtype not in FLOATS:
            raise CheckpointError(
                f"{value.file} stores {value.name} as {value.dtype}: a quantised format that is not supported; "
                "use bf16, fp16, fp32 or fp8"
            )
        return Weight(value, parts.get(Role.GAIN), parts.get(Role.SCALE))


def _shapes(weights: Mapping[str, Weight]) -> dict[str, tuple[int, ...]]:
    return {name: weight.value.shape for name, weight in weights.items()}


# --- the diffusion model ----------------------------------------------------------------------------------------------


def open_network(path: Path, variant: str | None = None) -> NetworkSource:
    """The diffusion model at `path`: an original or a diffusers folder, a ComfyUI file alone or all in one.

    `variant` overrides what the checkpoint says it is. Raises CheckpointError for anything else, RequestError for an
    unknown variant.
    """
    if variant is not None and variant not in VARIANTS:
        raise RequestError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
    path = _folder_of(path)
    source = _open_diffusers(path) if is_diffusers(path) else _open_single(path)
    return replace(source, variant=VARIANTS[variant], guessed=False) if variant else source


def is_diffusers(path: Path) -> bool:
    """Whether `path` is a folder in the diffusers layout."""
    return path.is_dir() and ((path / "model_index.json").is_file() or (path / "transformer").is_dir())


def _folder_of(path: Path) -> Path:
    """The folder whose config.json belongs to the file, or the path itself."""
    is_inner = path.is_file() and path in weight_files(path.parent)
    return path.parent if is_inner and (path.parent / "config.json").is_file() else path


def _open_single(path: Path) -> NetworkSource:
    table = read_table(path)
    prefix = network_prefix(table)
    if prefix is None:
        raise CheckpointError(f"{path} is {describe(table)}; wanted here: an ACE-Step 1.5 diffusion model")
    collected = _Collected()
    inner = table.under(prefix).entries
    for name, entry in inner.items():
        if name != "silence_latent" and not _belongs_elsewhere(name):
            collected.add(name, entry)
    folder = path if path.is_dir() else path.parent
    stated = read_config(path) if path.is_dir() else {}
    layout = Layout.ORIGINAL if path.is_dir() else Layout.COMFY_SPLIT
    if prefix and (vae_prefix(table) is not None or text_prefix(table) is not None):
        layout = Layout.COMFY_ALL_IN_ONE
    return _network(path, layout, collected, stated, table.metadata, inner.get("silence_latent"), folder)


def _belongs_elsewhere(name: str) -> bool:
    """Tensors of the other parts of an all-in-one file whose diffusion model has no prefix."""
    return name.startswith(("vae.", "first_stage_model.", "text_encoders.", "model_ema."))


def _open_diffusers(path: Path) -> NetworkSource:
    collected, metadata, silence = _Collected(), {}, None
    absent = [part for part in keymaps.DIFFUSERS_COMPONENTS if not (path / part).is_dir()]
    needed = [part for part in absent if part in ("transformer", "condition_encoder")]
    if needed:
        raise CheckpointError(f"{path} is a diffusers folder without its {' and '.join(needed)}")
    for part in keymaps.DIFFUSERS_COMPONENTS:
        if part in absent:
            continue
        table = read_table(path / part)
        metadata |= table.metadata
        for theirs, entry in table.entries.items():
            name = keymaps.from_diffusers(part, theirs)
            if name == "silence_latent":
                silence = entry
            else:
                collected.add(name, entry)
    configs = (read_config(path / part) for part in ("transformer", "condition_encoder", "audio_tokenizer"))
    stated = merge_diffusers_configs(*configs)
    source = _network(path, Layout.DIFFUSERS, collected, stated, metadata, silence, path)
    return replace(source, without=tuple(keymaps.DIFFUSERS_COMPONENTS[part].rstrip(".") for part in absent))


def _network(
    path: Path, layout: Layout, collected: _Collected, stated: dict, metadata: Mapping[str, str],
    silence: Entry | None, folder: Path,
) -> NetworkSource:  # fmt: skip
    weights = collected.weights()
    config = network_config(_shapes(weights), stated)
    snapshot = path.parents[1].name if path.parent.name == "snapshots" else ""  # of the hub's own cache
    family = _stated_family(stated) or _stated_family(metadata)
    name = f"{path.name} {snapshot}"
    if path.is_file() and variant_named(name) is None:  # model.safetensors, in a folder that may say it
        name = path.absolute().parent.name
    variant, guessed = pick_variant(family, name, config.is_xl)
    silence_file = folder / "silence_latent.pt"
    return NetworkSource(
        kind=Kind.NETWORK,
        path=path,
        layout=layout,
        config=config,
        weights=weights,
        dropped=tuple(collected.dropped),
        variant=variant,
        guessed=guessed,
        silence=silence_file if silence_file.is_file() else silence,
    )


def _stated_family(stated: Mapping[str, object]) -> Family | None:
    """From config.json, or from the metadata of a single file, where every value is a string."""
    if str(stated.get("is_turbo", "")).lower() == "true":
        return Family.TURBO
    version = str(stated.get("model_version", "")).lower()
    family = next((family for family in Family if family.value in version), None)
    if family is None and str(stated.get("is_turbo", "")).lower() == "false":
        return Family.BASE
    return family


# --- the VAE ----------------------------------------------------------------------------------------------------------


def open_vae(path: Path) -> Source[VAEConfig]:
    """The Oobleck VAE at `path`: its folder, a diffusers folder, a file in either naming, or an all-in-one file."""
    if is_diffusers(path):
        path = part_folder(path, "vae")
    path = _folder_of(path)
    stated = read_config(path) if path.is_dir() else {}
    table = read_table(path)
    prefix = vae_prefix(table)
    if prefix is None:
        raise CheckpointError(f"{path} is {describe(table)}; wanted here: the ACE-Step 1.5 VAE")
    inside = table.under(prefix).entries
    blocks = _blocks(inside)
    collected = _Collected()
    for name, entry in inside.items():
        original = keymaps.from_stable_audio(name, blocks)
        if prefix or original.startswith(("encoder.", "decoder.")):
            collected.add(original, entry)
    weights = collected.weights()
    config = vae_config(_shapes(weights), stated)
    if config.hop != HOP:
        known = " (Stable Audio's, for 44.1 kHz)" if config.hop == STABLE_AUDIO_HOP else ""
        raise CheckpointError(
            f"{path} is a VAE with {config.hop} samples a frame{known}; ACE-Step 1.5's has {HOP}, for 48 kHz"
        )
    layout = Layout.COMFY_ALL_IN_ONE if prefix else Layout.ORIGINAL if path.is_dir() else Layout.COMFY_SPLIT
    return Source(Kind.VAE, path, layout, config, weights, tuple(collected.dropped))


def _blocks(names: Iterable[str]) -> int:
    """How many blocks a half has in stable-audio naming: its layers are convolution, blocks, snake, convolution."""
    outer = [int(name.split(".")[2]) for name in names if name.startswith("decoder.layers.")]
    return max(outer) - 2 if outer else 0


# --- the text encoder -------------------------------------------------------------------------------------------------


def open_text_encoder(path: Path) -> Source[TextEncoderConfig]:
    """The text encoder at `path`: its folder, a diffusers folder, a ComfyUI file alone or all in one."""
    if is_diffusers(path):
        path = part_folder(path, "text_encoder")
    path = _folder_of(path)
    table = read_table(path)
    prefix = text_prefix(table)
    if prefix is None:
        raise CheckpointError(f"{path} is {describe(table)}; wanted here: the text encoder, Qwen3-Embedding-0.6B")
    collected = _Collected()
    for name, entry in table.under(prefix).entries.items():
        collected.add(name, entry)
    weights = collected.weights()
    rows = weights["embed_tokens.weight"].value.shape[0]
    stated = read_config(path) if path.is_dir() else {}
    if not _is_qwen3(weights):
        raise CheckpointError(
            f"{path} is another language model, with {rows} rows in its vocabulary; the text encoder, "
            f"Qwen3-Embedding-0.6B, has {TEXT_ENCODER_ROWS}"
        )
    if rows in (PLANNER_VOCAB_SIZE, PLAIN_QWEN_ROWS) or "audio_codes" in stated:
        kind = "a plain Qwen3 model" if rows == PLAIN_QWEN_ROWS else "a planner LM"
        raise CheckpointError(
            f"{path} is {kind}: its vocabulary has {rows} rows; the text encoder, Qwen3-Embedding-0.6B, has "
            f"{TEXT_ENCODER_ROWS}"
        )
    config = text_encoder_config(_shapes(weights), stated)
    in_all = prefix.startswith(("text_encoders.", "qwen3_"))
    layout = Layout.COMFY_ALL_IN_ONE if in_all else Layout.ORIGINAL if path.is_dir() else Layout.COMFY_SPLIT
    return Source(Kind.TEXT_ENCODER, path, layout, config, weights, tuple(collected.dropped))


def _is_qwen3(names: Iterable[str]) -> bool:
    """Told by the first layer: the text encoders of other models (Qwen 2.5, Llama, Gemma) have biases or more norms
    there, or none of queries."""
    first = {name.removeprefix("layers.0.") for name in names if name.startswith("layers.0.")}
    return "self_attn.q_norm.weight" in first and first <= QWEN3_LAYER


def open_planner(path: Path) -> Source[PlannerConfig]:
    """The planner LM at `path`: its folder, sharded or not, a ComfyUI file alone or all in one.

    One of another size than the released ones says in its config.json how many `audio_codes` it has.
    """
    path = _folder_of(path)
    table = read_table(path)
    prefix = planner_prefix(table)
    if prefix is None:
        raise CheckpointError(f"{path} is {describe(table)}; wanted here: a planner LM")
    collected = _Collected()
    for name, entry in table.under(prefix).entries.items():
        if name == "lm_head.weight":  # a copy of the embedding
            collected.dropped.append(entry.name)
        else:
            collected.add(name, entry)
    weights = collected.weights()
    stated = read_config(path) if path.is_dir() else {}
    _check_rows(path, weights["embed_tokens.weight"].value.shape[0], stated)
    config = planner_config(_shapes(weights), stated)
    if config.audio_base + config.audio_codes > config.vocab_size:
        raise CheckpointError(
            f"{path}: {config.audio_codes} audio codes from row {config.audio_base} on do not fit into "
            f"{config.vocab_size} rows"
        )
    layout = Layout.ORIGINAL if path.is_dir() else Layout.COMFY_SPLIT
    layout = Layout.COMFY_ALL_IN_ONE if prefix in keymaps.PLANNER_PREFIXES else layout
    return Source(Kind.PLANNER, path, layout, config, weights, tuple(collected.dropped))


def _check_rows(path: Path, rows: int, stated: Mapping[str, object]) -> None:
    """A planner is told from other Qwen3 models by its vocabulary alone."""
    if rows == PLANNER_VOCAB_SIZE or "audio_codes" in stated:
        return
    kinds = {TEXT_ENCODER_ROWS: "the text encoder, Qwen3-Embedding-0.6B", PLAIN_QWEN_ROWS: "a plain Qwen3 model"}
    kind = kinds.get(rows, "no planner LM that is known here")
    raise CheckpointError(
        f"{path} is {kind}: its vocabulary has {rows} rows; a planner LM has {PLANNER_VOCAB_SIZE}, audio codes among them, "
        "or a config.json with its number of audio_codes"
    )


def part_folder(path: Path, part: str) -> Path:
    """The folder of one part of a diffusers folder. Raises CheckpointError when it is missing."""
    if not (path / part).is_dir():
        raise CheckpointError(f"{path} is a diffusers folder without its {part}")
    return path / part
