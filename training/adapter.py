"""Train a LoRA of nano on one trait of the composer: `python -m training.adapter bells --out FILE_OR_FOLDER`.

The captions belong to other pieces of the same tempo, key and meter. The adapter thus moves any caption towards the
trait. Flow matching on the turbo model's own times; the text encoder and the condition encoder stay as they are.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from acestep_core.adapters.adapter_file import read_adapter
from acestep_core.adapters.convert import convert_adapter
from acestep_core.checkpoints.build import load_network
from acestep_core.checkpoints.catalog import NANO
from acestep_core.models.dit import DiT
from acestep_core.models.layers import Attention
from acestep_core.pipeline import encode, encode_audio, encode_conditions, load_model
from acestep_core.sampling.context import context_latents
from acestep_core.sampling.schedule import make_schedule
from acestep_core.song.song import Song

from .composer import compose
from .examples import song_of
from .piece import Constraints
from .synth import render

log = logging.getLogger("acestep")

TRAITS = {"bells": {"solo": "bells"}, "house": {"style": "house"}}
SECONDS = 10
FIRST_SEED, OTHER_SEED = 3_000_000, 4_000_000  # of the pieces, and of those that give captions
RANK, ALPHA = 4, 8.0
RATE = 4e-3
SONGS_PER_STEP = 4


class LowRankLayer(nn.Module):
    """Trainable factors beside a linear layer."""

    def __init__(self, layer: nn.Linear, generator: torch.Generator):
        super().__init__()
        self.down = nn.Parameter(torch.randn(RANK, layer.in_features, generator=generator) / layer.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, RANK))
        layer.register_forward_hook(self._add)

    def _add(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + ALPHA / RANK * F.linear(F.linear(inputs[0], self.down), self.up)


def wrap_attention(decoder: DiT, seed: int = 0) -> dict[str, LowRankLayer]:
    """Put trainable factors beside every projection of attention. Return them by their names in a file."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"diffusion_model.decoder.{name}.{leaf}": LowRankLayer(getattr(part, leaf), generator)
        for name, part in decoder.named_modules()
        if isinstance(part, Attention)
        for leaf in ("q_proj", "k_proj", "v_proj", "o_proj")
    }


def examples(trait: str, count: int) -> Iterator[tuple[Song, Tensor]]:
    """Yield requests without the trait, each with a sound [1, 2, samples] that has it."""
    for i in range(count):
        piece = compose(FIRST_SEED + i, Constraints(seconds=SECONDS, **TRAITS[trait]))
        same = Constraints(seconds=SECONDS, bpm=piece.bpm, tonic=piece.tonic, mode=piece.mode, meter=piece.meter)
        other = compose(OTHER_SEED + i, same)
        yield replace(song_of(piece), caption=other.caption), torch.from_numpy(render(piece))[None]


def train(trait: str, pieces: int, steps: int, seed: int = 0) -> dict[str, LowRankLayer]:
    """Return trained factors by their names in a file."""
    model = load_model("nano", device="cpu", dtype="float32")
    network, _ = load_network(NANO / "acestep-v15-nano")
    network.requires_grad_(False)
    layers = wrap_attention(network.decoder, seed)
    rows, latents = [], []
    for song, wave in examples(trait, pieces):
        latents.append(encode_audio(model, wave, 48_000)[0])
        rows.append(encode_conditions(network, [encode(model, song)], "cpu")[0].detach())
        log.info("%d of %d pieces", len(rows), pieces)
    context = context_latents(network, None, 1, latents[0].shape[0])
    times = make_schedule(8, 3.0)[:-1]
    optimiser = torch.optim.AdamW([p for layer in layers.values() for p in layer.parameters()], lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    rng, errors = np.random.default_rng(seed), []
    for step in range(steps):
        loss = torch.zeros(())
        for item in rng.integers(0, pieces, SONGS_PER_STEP):
            data = latents[item][None]
            noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(int(rng.integers(2**31))))
            t = times[rng.integers(0, len(times))][None]
            prepared = network.decoder.prepare(context, rows[item])
            velocity = network.decoder(torch.lerp(data, noise, t), t, prepared)
            loss = loss + F.mse_loss(velocity, noise - data) / SONGS_PER_STEP
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        errors.append(loss.item())
        if step % 20 == 19:
            log.info("step %d: %.4f", step + 1, np.mean(errors[-20:]))
    return layers


def save(layers: dict[str, LowRankLayer], out: Path, trait: str) -> None:
    """Write a file of ComfyUI, or a folder of PEFT if the name has no suffix."""
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        tensors[f"{name}.lora_A.weight"] = layer.down.detach().to(torch.bfloat16)
        tensors[f"{name}.lora_B.weight"] = layer.up.detach().to(torch.bfloat16)
        tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{trait}.safetensors"
        save_file(tensors, path)
        convert_adapter(read_adapter(path), out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trait", choices=TRAITS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pieces", type=int, default=48)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    save(train(options.trait, options.pieces, options.steps), options.out, options.trait)


if __name__ == "__main__":
    main()
