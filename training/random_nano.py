"""Writes the placeholder for acestep-nano: `python -m training.random_nano --out acestep_core/nano`.

The networks are randomly initialised from a fixed seed, except that the autoencoder starts as a transform codec (see
`training.linear_start`), so it gives back what goes in. A song is noise-like sound: it shows that everything runs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch import nn

from acestep_core.config import TextEncoderConfig
from acestep_core.models.model import AceStepModel
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.text.encoder import build_qwen3

from . import nano_config
from .composer import Wish, compose
from .examples import texts
from .export import silence_of, write_network, write_text_encoder, write_vae
from .linear_start import start_linear
from .nano_tokenizer import train_nano_tokenizer
from .synth import render

NOTE = "nano is randomly initialised: it shows that everything runs, not music"
LOUDNESS = 0.1  # rms of what the decoder makes of random latents


@torch.no_grad()
def variance_preserving(module: nn.Module, generator: torch.Generator) -> None:
    """Linear and patch layers keep the size of what passes; norms are one; tables and learned rows are small."""
    for name, parameter in module.named_parameters():
        if "norm" in name:
            parameter.fill_(1)
        elif name.endswith("bias"):
            parameter.zero_()
        elif parameter.dim() == 2 or name.endswith("proj_in.1.weight"):
            parameter.normal_(
                0,
                1 if "embed_tokens.weight" in name and _is_table(module, name) else parameter[0].numel() ** -0.5,
                generator=generator,
            )
        elif name.endswith("proj_out.1.weight"):
            parameter.normal_(0, parameter.shape[0] ** -0.5, generator=generator)
        else:
            parameter.normal_(0, 0.3, generator=generator)


def _is_table(module: nn.Module, name: str) -> bool:
    return isinstance(module.get_submodule(name.rpartition(".")[0]), nn.Embedding)


@torch.no_grad()
def random_vae(generator: torch.Generator) -> OobleckVAE:
    vae = OobleckVAE(nano_config.RANDOM_VAE)
    audio = torch.stack([torch.from_numpy(render(compose(seed, Wish(seconds=10)))) for seed in range(12)])
    start_linear(vae, audio, generator)
    # Random latents are spread evenly over all components, those of music are not: bring both to a common loudness.
    made = vae.decode(torch.randn(1, 100, nano_config.LATENTS, generator=generator))
    gain = LOUDNESS / float(made.square().mean().sqrt())
    if gain < 1:
        vae.decoder.conv1.weight *= gain
        vae.encoder.conv2.weight[: nano_config.LATENTS] /= gain
    return vae


def write(out: Path, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder)
        size = train_nano_tokenizer(texts(2000), words, nano_config.VOCABULARY)
        config = nano_config.RANDOM_TEXT
        config = TextEncoderConfig(**{**config.__dict__, "vocab_size": size})
        encoder = build_qwen3(config, "cpu")
        variance_preserving(encoder, generator)
        write_text_encoder(out, encoder, config, words)
    vae = random_vae(generator)
    write_vae(out, vae)
    network = AceStepModel(nano_config.RANDOM_MODEL)
    variance_preserving(network, generator)
    write_network(out, network, silence_of(vae), NOTE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    write(args.out, args.seed)


if __name__ == "__main__":
    main()
