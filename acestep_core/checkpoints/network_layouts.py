"""Open the diffusion model with its encoders in each of its layouts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import ModelConfig
from ..errors import CheckpointError, RequestError, shown
from .catalog import Kind
from .configs import merge_diffusers_configs, network_config, read_config
from .contents import network_prefix, text_prefix, vae_prefix
from .diffusers_keys import DIFFUSERS_COMPONENTS, from_diffusers
from .layouts import (
    CheckpointSource,
    Layout,
    collect_weights,
    is_diffusers,
    layout_of,
    naming,
    open_index,
    weight_shapes,
)
from .reader import TensorEntry, read_index
from .variants import VARIANTS, Family, Variant, pick_variant, variant_from_name

# Tensors of the other parts of an all-in-one file whose diffusion model has no prefix.
_OTHER_PARTS = ("vae.", "first_stage_model.", "text_encoders.", "model_ema.")


@dataclass(frozen=True)
class NetworkSource(CheckpointSource[ModelConfig]):
    """The diffusion model on disk.

    guessed: the variant is a guess.
    silence: the stored silence latent, a tensor or a .pt file.
    without: children that the checkpoint lacks. A diffusers folder may lack the audio tokenizer and detokenizer.
    """

    variant: Variant = VARIANTS["turbo"]
    guessed: bool = False
    silence: TensorEntry | Path | None = None
    without: tuple[str, ...] = ()


def open_network(path: Path, variant: str | None = None) -> NetworkSource:
    """Open the diffusion model at `path`: an original or diffusers folder, a ComfyUI file, or an all-in-one file.

    variant: overrides the checkpoint's variant. Raises CheckpointError, or RequestError for an unknown variant.
    """
    if variant is not None and (not isinstance(variant, str) or variant not in VARIANTS):
        raise RequestError(f"variant {shown(variant)} is unknown; known: {', '.join(VARIANTS)}")
    source = _open_diffusers(path) if is_diffusers(path) else _open_original(path)
    return replace(source, variant=VARIANTS[variant], guessed=False) if variant else source


def _open_original(path: Path) -> NetworkSource:
    path, index, prefix, config = open_index(path, "", network_prefix, "an ACE-Step 1.5 diffusion model")
    own = [item for item in index.below(prefix).entries.items() if not item[0].startswith(_OTHER_PARTS)]
    has_other_parts = vae_prefix(index) is not None or text_prefix(index) is not None
    layout = layout_of(path, bool(prefix) and has_other_parts)
    return _network(path, layout, own, config, index.metadata)


def _open_diffusers(path: Path) -> NetworkSource:
    absent = [part for part in DIFFUSERS_COMPONENTS if not os.path.isdir(path / part)]
    needed = [part for part in absent if part in ("transformer", "condition_encoder")]
    if needed:
        raise CheckpointError(f"{path} is a diffusers folder without its {' and '.join(needed)}")
    entries: list[tuple[str, TensorEntry]] = []
    metadata: dict[str, str] = {}
    for part in DIFFUSERS_COMPONENTS:
        if part not in absent:
            index = read_index(path / part)
            metadata |= index.metadata
            entries += [(from_diffusers(part, name), entry) for name, entry in index.entries.items()]
    configs = (read_config(path / part) for part in ("transformer", "condition_encoder", "audio_tokenizer"))
    config = merge_diffusers_configs(*configs)
    source = _network(path, Layout.DIFFUSERS, entries, config, metadata)
    return replace(source, without=tuple(DIFFUSERS_COMPONENTS[part].rstrip(".") for part in absent))


def _network(
    path: Path,
    layout: Layout,
    entries: list[tuple[str, TensorEntry]],
    config: dict[str, Any],
    metadata: Mapping[str, str],
) -> NetworkSource:
    silence = next((entry for name, entry in entries if name == "silence_latent"), None)
    weights, dropped = collect_weights(item for item in entries if item[0] != "silence_latent")
    with naming(path):
        merged = network_config(weight_shapes(weights), config)
    variant, guessed = pick_variant(
        _stated_family(config) or _stated_family(metadata), _variant_hint(path), merged.is_xl
    )
    silence_file = (path if os.path.isdir(path) else path.parent) / "silence_latent.pt"
    return NetworkSource(
        kind=Kind.NETWORK,
        path=path,
        layout=layout,
        config=merged,
        weights=weights,
        dropped=dropped,
        variant=variant,
        guessed=guessed,
        silence=silence_file if os.path.isfile(silence_file) else silence,
    )


def _variant_hint(path: Path) -> str:
    """Return the names in the path that may contain the variant's name."""
    snapshot = path.parents[1].name if path.parent.name == "snapshots" else ""  # of the Hub's cache
    name = f"{path.name} {snapshot}"
    if os.path.isfile(path) and variant_from_name(name) is None:  # the variant may name the folder
        return path.absolute().parent.name
    return name


def _stated_family(stated: Mapping[str, object]) -> Family | None:
    """Read the family from config.json, or from the metadata of a single file, where every value is a string."""
    if str(stated.get("is_turbo", "")).lower() == "true":
        return Family.TURBO
    version = str(stated.get("model_version", "")).lower()
    family = next((family for family in Family if family.value in version), None)
    if family is None and str(stated.get("is_turbo", "")).lower() == "false":
        return Family.BASE
    return family
