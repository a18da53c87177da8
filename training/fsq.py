"""Train audio tokenizer and detokenizer on cached latents:
`python -m training.fsq --latents DIR --out DIR --minutes N`.

Five frames become one code and are decoded to five frames, with straight-through gradients. A code has too few bits for
the sound. So the decoded frames shall predict the score (`training.score`), and only then be close to the latents.
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
from .initialization import init_transformer
from .latents import LatentPool
from .loop import mixed, run
from .score import ScoreHead, score_rows
from .state import load_state, save_state

log = logging.getLogger("acestep")
FRAMES = 4_000  # in a batch; a GPU takes more
SCORE = 6.0  # weight of the score's error


def straight_through(quantizer: FSQ, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return embeddings, codes and unrounded values (−1…1) of `x`: `FSQ.forward`, but differentiable."""
    z = quantizer.project(x)
    codes = codes_of(z.detach(), quantizer.levels)
    rounded = z + (values_of(codes, quantizer.levels) - z).detach()
    return quantizer.project_out(rounded), codes, z


def round_trip(model: AceStepModel, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return decoded latents `[B, 5 N, 64]`, codes `[B, N]` and unrounded values; differentiable."""
    tokenizer = model.tokenizer
    groups = tokenizer.audio_acoustic_proj(latents).unflatten(1, (-1, tokenizer.window))
    pooled = tokenizer.attention_pooler(groups.flatten(0, 1)).unflatten(0, groups.shape[:2])
    embeddings, codes, unrounded = straight_through(tokenizer.quantizer, pooled)
    return model.detokenizer(embeddings), codes, unrounded


def unevenness(unrounded: Tensor) -> Tensor:
    """Return the distance of the values' mean and covariance from those of a uniform cube (0 and 1/3).

    Without this loss, the tokenizer collapses to a few codes.
    """
    flat = unrounded.float().flatten(0, -2)
    spread = torch.cov(flat.T) - torch.eye(flat.shape[1], device=flat.device) / 3
    return flat.mean(0).square().sum() + spread.square().sum()


class FSQTrainer:
    def __init__(self, config: ModelConfig, pool: LatentPool, out: Path, device: str = "cpu", seed: int = 0):
        self.pool, self.out, self.device, self.seed = pool, out, torch.device(device), seed
        self.step, self.seconds = 0, 0.0
        self.model = AceStepModel(config)
        init_transformer(self.model, torch.Generator().manual_seed(seed))
        self.model.to(self.device)
        self.head = ScoreHead(config.audio_acoustic_hidden_dim, patch=1, whole=False).to(self.device)
        parts = (self.model.tokenizer, self.model.detokenizer, self.head)
        parameters = [parameter for part in parts for parameter in part.parameters()]
        self.optimiser = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
        saved = load_state(out, "fsq")
        if saved is not None:
            self.step, self.seconds = saved["step"], saved["seconds"]
            self.model.tokenizer.load_state_dict(saved["tokenizer"])
            self.model.detokenizer.load_state_dict(saved["detokenizer"])
            self.head.load_state_dict(saved["head"])
            self.optimiser.load_state_dict(saved["optimiser"])

    def save(self) -> None:
        parts = {name: getattr(self.model, name).state_dict() for name in ("tokenizer", "detokenizer")}
        parts["head"] = self.head.state_dict()
        state = {"step": self.step, "seconds": self.seconds, "optimiser": self.optimiser.state_dict(), **parts}
        save_state(self.out, "fsq", state)

    def train_step(self) -> dict[str, float]:
        latents, score = self._batch(np.random.default_rng([self.seed, self.step]))
        for group in self.optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, (self.step + 1) / 100) / (1 + self.step / 3000) ** 0.5
        with mixed(self.device):
            decoded, codes, unrounded = round_trip(self.model, latents)
        decoded = decoded.float()
        error = (decoded - latents).square().mean() / latents.var()
        score_error = self.head(decoded, score).mean()
        loss = error + SCORE * score_error + unevenness(unrounded)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], 1.0)
        self.optimiser.step()
        self.step += 1
        return {
            "loss": float(loss.detach()),
            "score": float(score_error.detach()),
            "explained": 1 - float(error.detach()),
        }

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw latents in whole groups of five, and their score."""
        seeds, latents = self.pool.batch(FRAMES, rng)
        frames = latents.shape[1] // 5 * 5
        score = torch.from_numpy(np.stack([score_rows(seed)[:frames] for seed in seeds]))
        return latents[:, :frames].to(self.device), score.to(self.device)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        latents, score = self._batch(np.random.default_rng(10**9))
        decoded, codes, _ = round_trip(self.model, latents)
        return {
            "score": float(self.head(decoded, score).mean()),
            "explained": 1 - float((decoded - latents).square().mean() / latents.var()),
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
