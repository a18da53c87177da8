"""Trains audio tokenizer and detokenizer on cached latents:
`python -m training.fsq --latents DIR --out DIR --minutes N`.

Five frames become one code and come back as five frames; the rounding passes gradients straight through.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from acestep_core.config import ModelConfig
from acestep_core.models.audio_tokenizer import FSQ, codes_of, values_of
from acestep_core.models.model import AceStepModel

from . import nano_config
from .latents import LatentPool
from .loop import run
from .random_nano import variance_preserving
from .state import load_state, save_state

log = logging.getLogger("acestep")
FRAMES = 4_000  # in a batch; a GPU takes more


def straight_through(quantizer: FSQ, x: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings and codes of `x`, differentiable. As `FSQ.forward` in value."""
    z = quantizer.project(x)
    codes = codes_of(z.detach(), quantizer.levels)
    rounded = z + (values_of(codes, quantizer.levels) - z).detach()
    return quantizer.project_out(rounded), codes


def round_trip(model: AceStepModel, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Latents `[B, 5 N, 64]` through codes and back, and the codes `[B, N]`; differentiable."""
    tokenizer = model.tokenizer
    groups = tokenizer.audio_acoustic_proj(latents).unflatten(1, (-1, tokenizer.window))
    pooled = tokenizer.attention_pooler(groups.flatten(0, 1)).unflatten(0, groups.shape[:2])
    embeddings, codes = straight_through(tokenizer.quantizer, pooled)
    return model.detokenizer(embeddings), codes


class FSQTrainer:
    def __init__(self, config: ModelConfig, pool: LatentPool, out: Path, device: str = "cpu", seed: int = 0):
        self.pool, self.out, self.device, self.seed = pool, out, torch.device(device), seed
        self.step, self.seconds = 0, 0.0
        self.model = AceStepModel(config)
        variance_preserving(self.model, torch.Generator().manual_seed(seed))
        self.model.to(self.device)
        parameters = [*self.model.tokenizer.parameters(), *self.model.detokenizer.parameters()]
        self.optimiser = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
        saved = load_state(out, "fsq")
        if saved is not None:
            self.step, self.seconds = saved["step"], saved["seconds"]
            self.model.tokenizer.load_state_dict(saved["tokenizer"])
            self.model.detokenizer.load_state_dict(saved["detokenizer"])
            self.optimiser.load_state_dict(saved["optimiser"])

    def save(self) -> None:
        parts = {name: getattr(self.model, name).state_dict() for name in ("tokenizer", "detokenizer")}
        state = {"step": self.step, "seconds": self.seconds, "optimiser": self.optimiser.state_dict(), **parts}
        save_state(self.out, "fsq", state)

    def train_step(self) -> dict[str, float]:
        _, latents = self.pool.batch(FRAMES, np.random.default_rng([self.seed, self.step]))
        latents = latents[:, : latents.shape[1] // 5 * 5].to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, (self.step + 1) / 100) / (1 + self.step / 3000) ** 0.5
        with torch.autocast(self.device.type, torch.bfloat16):
            made, codes = round_trip(self.model, latents)
        made = made.float()
        loss = (made - latents).square().mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], 1.0)
        self.optimiser.step()
        self.step += 1
        return {"loss": float(loss.detach()), "explained": 1 - float(loss.detach() / latents.var())}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        _, latents = self.pool.batch(FRAMES, np.random.default_rng(10**9))
        latents = latents[:, : latents.shape[1] // 5 * 5].to(self.device)
        made, codes = round_trip(self.model, latents)
        return {
            "explained": 1 - float((made - latents).square().mean() / latents.var()),
            "distinct": codes.unique().numel() / codes.numel(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("medium")
    args.out.mkdir(parents=True, exist_ok=True)
    run(FSQTrainer(nano_config.MODEL, LatentPool(args.latents), args.out, args.device), args.minutes)


if __name__ == "__main__":
    main()
