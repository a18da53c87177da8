"""Open the Oobleck VAE in each of its layouts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ..config import HOP, SAMPLE_RATE, VAEConfig
from ..errors import CheckpointError
from .catalog import Kind
from .configs import vae_config
from .contents import vae_prefix
from .layouts import CheckpointSource, collect_weights, layout_of, naming, open_index, weight_shapes
from .stable_audio_keys import from_stable_audio

STABLE_AUDIO_HOP = 2048


def open_vae(path: Path) -> CheckpointSource[VAEConfig]:
    """Open the VAE at `path`: its folder, a diffusers folder, a file in either naming, or an all-in-one file.

    Raises CheckpointError.
    """
    path, index, prefix, config = open_index(path, "vae", vae_prefix, "the ACE-Step 1.5 VAE")
    inside = index.below(prefix).entries
    blocks = _blocks(inside)
    named = [(from_stable_audio(name, blocks), entry) for name, entry in inside.items()]
    weights, dropped = collect_weights(
        (name, entry) for name, entry in named if prefix or name.startswith(("encoder.", "decoder."))
    )
    with naming(path):
        merged = vae_config(weight_shapes(weights), config)
    if merged.hop != HOP:
        known = " (Stable Audio's, for 44.1 kHz)" if merged.hop == STABLE_AUDIO_HOP else ""
        raise CheckpointError(
            f"{path} is a VAE with {merged.hop} samples a frame{known}; ACE-Step 1.5's has {HOP}, for 48 kHz"
        )
    odd = next((stride for stride in merged.downsampling_ratios if stride % 2), None)
    if odd is not None:
        raise CheckpointError(
            f"{path} is a VAE with a stride of {odd}, which would lose samples; ACE-Step 1.5's strides are even, with "
            f"the product {HOP}"
        )
    for name, value in (("audio_channels", 2), ("sampling_rate", SAMPLE_RATE)):
        if (given := getattr(merged, name)) != value:
            raise CheckpointError(f"{path} is a VAE with {name} {given:,}; ACE-Step 1.5's has {value:,}")
    return CheckpointSource(Kind.VAE, path, layout_of(path, bool(prefix)), merged, weights, dropped)


def _blocks(names: Iterable[str]) -> int:
    """Count the blocks of a half in stable-audio naming: its layers are convolution, blocks, snake, convolution."""
    outer = [int(match[1]) for name in names if (match := re.match(r"decoder\.layers\.([0-9]{1,4})\.", name))]
    return max(outer) - 2 if outer else 0
