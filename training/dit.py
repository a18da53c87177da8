"""Train the diffusion model with its text encoder:
`python -m training.dit --latents DIR --held DIR --vae DIR --fsq DIR --out DIR --minutes N`.

Training is flow matching on cached latents, from scratch and resumable. It starts with `training.text_pretraining` and
`training.rhythm_pretraining`. An auxiliary loss predicts the score (`training.score`) from the middle layer.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from acestep_core.config import ModelConfig, TextEncoderConfig
from acestep_core.models.model import AceStepModel
from acestep_core.sampling.schedule import make_schedule

from . import nano_config
from .conditioning import TextTower, conditions, nano_tokenizer, piece_of, with_dropout
from .examples import song_of
from .export import silence_of
from .flow import Batch, Mixture, draw_times, encode, flow_error, flow_loss, make_batch
from .initialization import init_transformer
from .latents import LatentPool
from .loop import mixed, run
from .muon import RATE_FACTOR, Muon
from .rhythm_pretraining import pretrain_rhythm
from .sample_files import write_spectrograms, write_wav
from .score import MetadataHead, ScoreHead, score_rows
from .state import Average, load_state, save_state
from .text_pretraining import pretrain_text_encoder
from .vae import load_trained
from .warm_start import copy_tokenizer, load_networks_into

log = logging.getLogger("acestep")


@dataclass(frozen=True)
class DiTRecipe:
    """Hyperparameters for one CPU core. A GPU takes larger batches."""

    frames: int = 4000  # latent frames in a batch: 160 s
    rate: float = 1e-3
    warmup: int = 100
    half_life: int = 8_000
    decay: float = 0.01
    metadata_dropout: float = 0.15  # probability that the prompt lacks a metadata field
    score: float = 1.0  # weight of the score's error
    metadata: float = 0.3  # weight of the metadata error
    mixture: Mixture = field(default_factory=Mixture)
    seed: int = 0


class Networks(nn.Module):
    """The diffusion model and its text encoder, trained together."""

    def __init__(self, config: ModelConfig, text: TextEncoderConfig, tokenizer, seed: int = 0):
        super().__init__()
        self.model = AceStepModel(config)
        self.tower = TextTower(text, tokenizer, seed)
        generator = torch.Generator().manual_seed(seed)
        init_transformer(self.model, generator)
        with torch.no_grad():
            for name, parameter in self.model.decoder.named_parameters():
                if name.endswith("scale_shift_table"):
                    parameter.normal_(0, 0.02, generator=generator)
                    if parameter.shape[1] == 6:
                        parameter[:, 2::3] = 0.3  # gates, so that every layer contributes from the start
                elif "time_proj.weight" in name or "proj_out" in name:
                    parameter.mul_(0.1)
        for part in (self.model.tokenizer, self.model.detokenizer):
            part.requires_grad_(False)


class _OutputHook:
    """A forward hook that stores the last output of a layer."""

    def __init__(self, layer: nn.Module):
        self.rows: Tensor | None = None
        layer.register_forward_hook(self._store)

    def _store(self, layer: nn.Module, inputs: tuple, rows: Tensor) -> None:
        self.rows = rows


class DiTTrainer:
    def __init__(
        self,
        recipe: DiTRecipe,
        pool: LatentPool,
        held: LatentPool,
        vae_folder: Path,
        fsq_folder: Path | None,
        out: Path,
        device: str = "cpu",
        config: ModelConfig = nano_config.MODEL,
        text: TextEncoderConfig = nano_config.TEXT,
        start: Path | None = None,
    ):
        self.recipe, self.pool, self.held, self.out = recipe, pool, held, out
        self.device = torch.device(device)
        self.step, self.seconds = 0, 0.0
        self.cooling: tuple[float, float] | None = None  # seconds of training: start and end of the final decay
        self.vae = load_trained(vae_folder)
        if start is not None:
            copy_tokenizer(start, out / "tokenizer")
        self.networks = Networks(config, text, nano_tokenizer(out / "tokenizer"), recipe.seed)
        if start is not None:
            load_networks_into(self.networks, start)
        self.networks.to(self.device)
        self.networks.model.silence_latent = silence_of(self.vae).to(self.device)
        self.heads = nn.ModuleDict(
            {
                "score": ScoreHead(config.hidden_size, config.patch_size),
                "metadata": MetadataHead(config.encoder_hidden_size),
            }
        ).to(self.device)
        self.middle = _OutputHook(self.networks.model.decoder.layers[config.num_hidden_layers // 2 - 1])
        self.average = Average(self.networks)
        self.optimisers = self._optimisers()
        saved = load_state(out, "dit")
        quantizer = None if fsq_folder is None else load_state(fsq_folder, "fsq")
        if saved is not None:
            self.step, self.seconds = saved["step"], saved["seconds"]
            self.networks.load_state_dict(saved["networks"])
            self.heads.load_state_dict(saved["heads"])
            self.average.load(saved["average"])
            for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
                optimiser.load_state_dict(state)
        if quantizer is not None:  # also on resume, so that codes that were trained further are used
            for name in ("tokenizer", "detokenizer"):
                getattr(self.networks.model, name).load_state_dict(quantizer[name])

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        """Use Muon for the matrices of the layers and AdamW for all other parameters."""
        matrices, rest = [], []
        for name, parameter in [*self.networks.named_parameters(), *self.heads.named_parameters()]:
            if parameter.requires_grad:
                (matrices if ".layers." in name and name.endswith("proj.weight") else rest).append(parameter)
        return [
            Muon(matrices, lr=self.recipe.rate, weight_decay=0.05),
            torch.optim.AdamW(rest, lr=self.recipe.rate, betas=(0.9, 0.98), weight_decay=self.recipe.decay),
        ]

    def pretrain_text(self, minutes: float) -> None:
        pretrain_text_encoder(self.networks, self.heads["metadata"], minutes, self.recipe.metadata_dropout)
        self.average = Average(self.networks)

    def pretrain_rhythm(self, minutes: float) -> None:
        pretrain_rhythm(self, minutes)
        self.average = Average(self.networks)

    def compile(self) -> DiTTrainer:
        """Compile layer by layer, so that one compilation serves all layers and lengths."""
        for layer in self.networks.model.decoder.layers:
            layer.forward = torch.compile(layer.forward, dynamic=True)
        return self

    def save(self) -> None:
        save_state(
            self.out,
            "dit",
            {
                "step": self.step,
                "seconds": self.seconds,
                "networks": self.networks.state_dict(),
                "heads": self.heads.state_dict(),
                "average": self.average.state(),
                "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            },
        )

    def rate(self) -> float:
        recipe = self.recipe
        rate = recipe.rate * min(1, (self.step + 1) / recipe.warmup) / (1 + self.step / recipe.half_life) ** 0.5
        if self.cooling is None:
            return rate
        first, last = self.cooling
        return rate * max(0.02, min(1.0, (last - self.seconds) / (last - first)))

    def batch(self, pool: LatentPool, rng: np.random.Generator, mixture: Mixture, frames: int):
        seeds, latents = pool.batch(frames, rng)
        songs = [song_of(piece_of(seed), rng, self.recipe.metadata_dropout) for seed in seeds]
        return make_batch(self.networks.model, seeds, latents.to(self.device), songs, mixture, rng)

    def train_step(self) -> dict[str, float]:
        recipe, model, tower = self.recipe, self.networks.model, self.networks.tower
        rng = np.random.default_rng([recipe.seed, 1, self.step])
        batch = self.batch(self.pool, rng, recipe.mixture, recipe.frames)
        noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(self.step)).to(self.device)
        t = draw_times(len(batch), rng).to(self.device)
        with mixed(self.device):
            rows = conditions(model.encoder, tower, batch.songs, batch.tasks, batch.timbre)
            metadata = self.heads["metadata"](
                torch.cat([row[:, -1] for row in rows]), [piece_of(seed) for seed in batch.seeds], batch.songs
            )
            condition, mask = with_dropout(rows, model.null_condition_emb, recipe.mixture.drop, rng)
            flow = flow_error(model, batch, noise, t, condition, mask).mean()
        score = self.heads["score"](self.middle.rows, self._score(batch)).mean()
        norm = self.optimize(flow + recipe.score * score + recipe.metadata * sum(metadata.values()))
        return {"loss": float(flow.detach()), "score": float(score.detach()), "grad": norm} | {
            name: float(value.detach()) for name, value in metadata.items()
        }

    def _score(self, batch: Batch) -> Tensor:
        return torch.from_numpy(np.stack([score_rows(seed) for seed in batch.seeds])).to(self.device)

    def optimize(self, loss: Tensor, rate_factor: float = 1.0) -> float:
        """Step all optimisers at `rate_factor` times the learning rate, and return the gradient's norm."""
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = rate_factor * self.rate() * (RATE_FACTOR if isinstance(optimiser, Muon) else 1)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        if torch.isfinite(norm):
            for optimiser in self.optimisers:
                optimiser.step()
            self.average.update(self.step)
        self.step += 1
        return float(norm)

    @torch.no_grad()
    def evaluate(self, songs: bool = True) -> dict[str, float]:
        """Return the averaged weights' loss on held-out pieces at fixed times, and write some songs."""
        self.average.swap()
        model, tower = self.networks.model, self.networks.tower
        rng = np.random.default_rng(7)
        losses: dict[str, float] = {}
        for t in (0.2, 0.5, 0.8):
            batch = self.batch(self.held, rng, Mixture(0, 0, 0, 0), 2000)
            noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1)).to(self.device)
            times = torch.full((len(batch),), t, device=self.device)
            with mixed(self.device):
                losses[f"held_{t}"] = float(flow_loss(model, tower, batch, noise, times, 0.0, rng).mean())
        if songs:
            self._sample_songs()
        self.average.swap()
        return losses

    def _sample_songs(self, count: int = 2, steps: int = 20, guidance: float = 2.5) -> None:
        batch = self.batch(self.held, np.random.default_rng(11), Mixture(0, 0, 0, 0), count * 300)
        latents = sample(self.networks, batch, steps, guidance)
        waves = []
        for row in range(min(count, len(batch))):
            for source in (batch.latents[row], latents[row]):
                waves.append(self.vae.decode(source[None, :250].cpu())[0].numpy())
        folder = self.out / "samples"
        folder.mkdir(exist_ok=True)
        write_spectrograms(folder / f"step_{self.step:06d}.png", waves)
        write_wav(folder / "latest.wav", np.concatenate(waves, axis=1))
        (folder / "latest.txt").write_text("\n".join(f"{s.caption} | {s.metadata}" for s in batch.songs[:count]) + "\n")


@torch.no_grad()
def sample(networks: Networks, batch, steps: int, guidance: float = 1.0, shift: float = 3.0, seed: int = 0) -> Tensor:
    """Sample latents `[B, T, 64]` by Euler steps with plain classifier-free guidance."""
    model = networks.model
    condition, mask = encode(model, networks.tower, batch, 0.0, np.random.default_rng(0))
    prepared = model.decoder.prepare(
        batch.context, condition, mask, model.null_condition_emb if guidance != 1 else None
    )
    x = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(seed)).to(batch.latents)
    schedule = make_schedule(steps, shift).tolist()
    for t, t_next in zip(schedule[:-1], schedule[1:], strict=True):
        x = x - guided(model, prepared, x, torch.full((len(x),), t, device=x.device), guidance) * (t - t_next)
    return x


def guided(model: AceStepModel, prepared, x: Tensor, t: Tensor, guidance: float) -> Tensor:
    """Return the guided velocity. If `guidance` is not 1, `prepared` must have the null condition."""
    if guidance == 1:
        return model.decoder(x, t, prepared)
    conditional, null = model.decoder(torch.cat((x, x)), t, prepared).chunk(2)
    return null + guidance * (conditional - null)


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("latents", "held", "vae", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--fsq", type=Path, help="the folder of training.fsq; not needed with --start")
    parser.add_argument("--start", type=Path, help="a checkpoint to start from, such as acestep_core/nano")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--text-minutes", type=float, default=5, help="duration of text pre-training")
    parser.add_argument("--rhythm-minutes", type=float, default=10, help="duration of rhythm pre-training")
    parser.add_argument("--cooling", action="store_true", help="decay the learning rate to 2 %% by the end")
    parser.add_argument("--frames", type=int, default=DiTRecipe.frames)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true")
    return parser


def build_trainer(args: argparse.Namespace) -> DiTTrainer:
    """Build the trainer of the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    torch._dynamo.config.recompile_limit = 64  # with and without gradients, masks, windows
    args.out.mkdir(parents=True, exist_ok=True)
    pools = LatentPool(args.latents), LatentPool(args.held)
    if args.fsq is None and args.start is None:
        raise SystemExit("fsq: missing. Give the folder of training.fsq (--fsq) or a checkpoint (--start).")
    recipe = DiTRecipe(frames=args.frames)
    trainer = DiTTrainer(recipe, *pools, args.vae, args.fsq, args.out, args.device, start=args.start)
    if args.cooling:
        trainer.cooling = (trainer.seconds, trainer.seconds + 60 * args.minutes)
    return trainer


def main() -> None:
    args = argument_parser().parse_args()
    trainer = build_trainer(args)
    if trainer.step == 0:
        trainer.pretrain_text(args.text_minutes)
        trainer.pretrain_rhythm(args.rhythm_minutes)
    if not args.no_compile:
        trainer.compile()
    size = sum(p.numel() for p in trainer.networks.parameters()) / 1e6
    log.info("%.1f M parameters, %d pieces", size, trainer.pool.pieces)
    run(trainer, args.minutes)


if __name__ == "__main__":
    main()
