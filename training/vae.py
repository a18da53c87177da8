"""Train the autoencoder: `python -m training.vae --pool DIR --out DIR --minutes N --threads 1`.

Training stops after N minutes and resumes from the state in OUT. OUT also has the losses (`log.csv`) and held-out
pieces as spectrograms and sound (`samples/`). The data of a step depend only on the seed and the step.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from acestep_core.config import VAEConfig
from acestep_core.models.oobleck import OobleckVAE

from . import nano_config
from .composer import compose
from .discriminator import Adversary
from .initialization import init_autoencoder
from .loop import mixed, run
from .losses import kl_loss, mel_distance, middle_and_side, si_sdr, spectral_loss, wave_loss
from .mdct_init import init_as_mdct
from .pool import HELD_OUT, Pool
from .sample_files import write_spectrograms, write_wav
from .state import Average, load_state, save_state
from .synth import render
from .warm_start import load_vae_into

log = logging.getLogger("acestep")


@dataclass(frozen=True)
class VAERecipe:
    """Hyperparameters for one CPU core. A GPU takes a larger batch."""

    batch: int = 2
    frames: int = 16  # a crop of 0.64 s
    rate: float = 6e-4
    warmup: int = 100
    half_life: int = 12_000  # steps until the learning rate is 0.7 of its peak
    spectral: float = 1.0
    wave: float = 0.3
    kl: float = 0.01
    adversarial: float = 0.0  # weight of the adversarial loss; 0.1 on a GPU
    features: float = 2.0  # weight of the discriminators' feature distance
    freeze_encoder: bool = False  # train only the decoder, because latents are in use
    mdct: bool = True  # initialise as an MDCT codec
    seed: int = 0


def add_weight_norm(vae: nn.Module) -> None:
    """Add weight norm to every convolution, as in the released checkpoint."""
    for module in vae.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            weight_norm(module)


def remove_weight_norm(vae: nn.Module) -> None:
    """Restore plain weights, for export."""
    for module in vae.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            remove_parametrizations(module, "weight")


def autoencode(vae: OobleckVAE, wave: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the decoded waveform `[B, 2, N]`, and mean and std `[B, 64, T]` of the latents.

    With `noise` (shaped like the mean), the latents are sampled.
    """
    mean, scale = vae.encoder(wave).float().chunk(2, dim=1)
    std = F.softplus(scale) + 1e-4
    latents = mean if noise is None else mean + std * noise
    return vae.decoder(latents).float(), mean, std


class VAETrainer:
    def __init__(
        self,
        config: VAEConfig,
        recipe: VAERecipe,
        pool: Pool,
        out: Path,
        device: str = "cpu",
        compiled: bool = True,
        start: Path | None = None,
    ):
        self.recipe, self.pool, self.out, self.device = recipe, pool, out, torch.device(device)
        self.step, self.seconds = 0, 0.0
        generator = torch.Generator().manual_seed(recipe.seed)
        self.vae = OobleckVAE(config)
        saved = load_state(out, "vae")
        if saved is None:
            if start is not None:
                load_vae_into(self.vae, start / "vae")
            elif recipe.mdct:
                init_as_mdct(self.vae, pool.crops(64, 96_000, np.random.default_rng(recipe.seed)), generator)
            else:
                init_autoencoder(self.vae, generator)
        add_weight_norm(self.vae)
        self.vae.to(self.device)
        if recipe.freeze_encoder:
            self.vae.encoder.requires_grad_(False)
        self.average = Average(self.vae)
        self.optimiser = torch.optim.AdamW(self.vae.parameters(), lr=recipe.rate, betas=(0.8, 0.99), weight_decay=0.0)
        self.adversary = Adversary().to(self.device) if recipe.adversarial else None
        if saved is not None:
            self._load(saved)
        self.autoencode = torch.compile(autoencode) if compiled else autoencode

    def _load(self, saved: dict) -> None:
        self.step, self.seconds = saved["step"], saved["seconds"]
        self.vae.load_state_dict(saved["vae"])
        self.average.load(saved["average"])
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.adversary is not None and "adversary" in saved:
            self.adversary.load_state_dict(saved["adversary"])
            self.adversary.optimiser.load_state_dict(saved["adversary_optimiser"])
        log.info("resumed at step %d", self.step)

    def save(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "vae": self.vae.state_dict(),
            "average": self.average.state(),
            "optimiser": self.optimiser.state_dict(),
        }
        if self.adversary is not None:
            state["adversary"] = self.adversary.state_dict()
            state["adversary_optimiser"] = self.adversary.optimiser.state_dict()
        save_state(self.out, "vae", state)

    def rate(self) -> float:
        return (
            self.recipe.rate
            * min(1, (self.step + 1) / self.recipe.warmup)
            / (1 + self.step / self.recipe.half_life) ** 0.5
        )

    def train_step(self) -> dict[str, float]:
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, self.step])
        wave = self.pool.crops(recipe.batch, recipe.frames * 1920, rng).to(self.device)
        noise = torch.randn(
            recipe.batch, nano_config.LATENTS, recipe.frames, generator=torch.Generator().manual_seed(self.step)
        ).to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        with mixed(self.device):
            decoded, mean, std = self.autoencode(self.vae, wave, noise)
        # The two views alternate, which costs half of both at once.
        view = middle_and_side if self.step % 2 == 0 else torch.clone
        parts = {
            "spectral": spectral_loss(view(decoded), view(wave)),
            "wave": wave_loss(decoded, wave),
            "kl": kl_loss(mean, std),
        }
        report = {}
        if self.adversary is not None:
            report["adversary"] = self.adversary.train_step(decoded, wave)
            parts["adversarial"], parts["features"] = self.adversary.losses(decoded, wave)
        loss = sum(getattr(recipe, name) * part for name, part in parts.items())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.vae.parameters(), 5.0)
        if torch.isfinite(norm):
            self.optimiser.step()
            self.average.update(self.step)
        self.step += 1
        losses = {name: float(part.detach()) for name, part in parts.items()}
        return losses | report | {"grad": float(norm), "std": float(std.detach().mean())}

    @torch.no_grad()
    def evaluate(self, pieces: int = 3, seconds: int = 5, pictures: bool = True) -> dict[str, float]:
        """Return the round-trip metrics of the averaged weights on held-out pieces, and write samples."""
        self.average.swap()
        results, waves = [], []
        for index in range(pieces):
            piece = compose(HELD_OUT + index)
            wave = torch.from_numpy(render(piece)[:, 2 * 48_000 : (2 + seconds) * 48_000].copy())
            decoded = autoencode(self.vae, wave[None].to(self.device), None)[0][0].cpu()
            results.append((mel_distance(decoded, wave), si_sdr(decoded, wave)))
            waves += [wave.numpy(), decoded.numpy()]
        self.average.swap()
        if pictures:
            folder = self.out / "samples"
            folder.mkdir(exist_ok=True)
            write_spectrograms(folder / f"step_{self.step:06d}.png", waves)
            write_wav(folder / "latest.wav", np.concatenate(waves, axis=1))
        mel, sdr = np.mean(results, axis=0)
        return {"mel": float(mel), "si_sdr": float(sdr)}


def load_trained(folder: Path, config: VAEConfig = nano_config.VAE) -> OobleckVAE:
    """Load the averaged weights of the training state in `folder`, or a checkpoint, without weight norm.

    Raises FileNotFoundError if there is neither.
    """
    saved = load_state(folder, "vae")
    vae = OobleckVAE(config)
    if saved is None and (Path(folder) / "config.json").exists():
        load_vae_into(vae, folder)
        return vae.eval().requires_grad_(False)
    if saved is None:
        raise FileNotFoundError(f"vae: no training state in {folder}. Run `python -m training.vae` first.")
    add_weight_norm(vae)
    with torch.no_grad():
        for parameter, value in zip(vae.parameters(), saved["average"], strict=True):
            parameter.copy_(value)
    remove_weight_norm(vae)
    return vae.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=VAERecipe.batch)
    parser.add_argument("--frames", type=int, default=VAERecipe.frames)
    parser.add_argument("--base", type=int, default=nano_config.VAE.decoder_channels, help="channels at full rate")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--freeze-encoder", action="store_true", help="train only the decoder")
    parser.add_argument(
        "--adversarial", type=float, default=0.0, metavar="WEIGHT", help="0.1 on a GPU, late in training"
    )
    parser.add_argument("--start", type=Path, help="a checkpoint to start from, such as acestep_core/nano")
    parser.add_argument("--random-start", action="store_true", help="start from random weights, not as an MDCT codec")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    config = VAEConfig(
        encoder_hidden_size=args.base, decoder_channels=args.base, decoder_input_channels=nano_config.LATENTS
    )
    recipe = VAERecipe(
        args.batch,
        args.frames,
        adversarial=args.adversarial,
        freeze_encoder=args.freeze_encoder,
        mdct=not args.random_start,
    )
    (args.out / "recipe.json").write_text(json.dumps({"base": args.base, **recipe.__dict__}, indent=1))
    trainer = VAETrainer(
        config, recipe, Pool(args.pool), args.out, args.device, compiled=not args.no_compile, start=args.start
    )
    log.info(
        "%.1f M parameters, %.0f s of audio",
        sum(p.numel() for p in trainer.vae.parameters()) / 1e6,
        trainer.pool.seconds,
    )
    run(trainer, args.minutes)


if __name__ == "__main__":
    main()
