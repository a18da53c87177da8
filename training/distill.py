"""Distill the turbo model: one step of the student is several guided steps of the teacher.

Run `python -m training.distill --teacher DIR …` with the options of `training.dit`. At each time of an 8-step schedule,
the student learns the straight line to the point that the guided teacher reaches at the next time. So 8 steps without
guidance are enough.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from acestep_core.sampling.schedule import make_schedule

from .dit import DiTTrainer, Networks, argument_parser, build_trainer, guided
from .flow import encode, masked_error
from .loop import mixed, run
from .state import Average, load_state

log = logging.getLogger("acestep")


@dataclass(frozen=True)
class Distillation:
    steps: int = 8
    shifts: tuple[float, ...] = (3.0, 3.0, 2.0, 1.0)  # one is drawn for each batch; inference uses 3
    substeps: int = 2  # steps of the teacher for one of the student
    guidance: float = 2.5


class Distiller(DiTTrainer):
    """A `DiTTrainer` whose target is a frozen teacher instead of the data."""

    def __init__(self, teacher: Path, plan: Distillation, stage: DiTTrainer):
        self.__dict__.update(stage.__dict__)
        self.plan = plan
        saved = load_state(teacher, "dit")
        if saved is None:
            raise FileNotFoundError(f"teacher: no training state in {teacher}. Run `python -m training.dit` first.")
        tower = self.networks.tower
        self.teacher = Networks(self.networks.model.config, tower.config, tower.tokenizer).to(self.device)
        self.teacher.load_state_dict(saved["networks"])
        average = Average(self.teacher)
        average.load(saved["average"])
        average.swap()
        self.teacher.requires_grad_(False)
        if self.step == 0:
            self.networks.load_state_dict(self.teacher.state_dict())
            self.average.load([p.detach().float() for p in self.networks.parameters()])

    @torch.no_grad()
    def _teacher_target(self, batch, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """Integrate the teacher from `x` at `t` to `t_next` by Euler steps."""
        model, plan = self.teacher.model, self.plan
        condition, mask = encode(model, self.teacher.tower, batch, 0.0, np.random.default_rng(0))
        prepared = model.decoder.prepare(batch.context, condition, mask, model.null_condition_emb)
        width = (t - t_next) / plan.substeps
        for k in range(plan.substeps):
            now = t - k * width
            velocity = guided(model, prepared, x, now, plan.guidance)
            x = x - width[:, None, None] * velocity
        return x

    def train_step(self) -> dict[str, float]:
        recipe, plan = self.recipe, self.plan
        rng = np.random.default_rng([recipe.seed, 2, self.step])
        batch = self.batch(self.pool, rng, recipe.mixture, recipe.frames)
        noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(self.step)).to(self.device)
        schedule = make_schedule(plan.steps, plan.shifts[int(rng.integers(len(plan.shifts)))])
        index = torch.from_numpy(rng.integers(0, plan.steps, len(batch)))
        t, t_next = schedule[index].to(self.device), schedule[index + 1].to(self.device)
        x = t[:, None, None] * noise + (1 - t[:, None, None]) * batch.latents
        with mixed(self.device):
            target = (x - self._teacher_target(batch, x, t, t_next)) / (t - t_next)[:, None, None]
        model = self.networks.model
        with mixed(self.device):
            condition, mask = encode(model, self.networks.tower, batch, 0.0, rng)
            velocity = model.decoder(x, t, model.decoder.prepare(batch.context, condition, mask))
            loss = masked_error(velocity, target, batch.context).mean()
        norm = self.optimize(loss, rate_factor=0.3)
        return {"loss": float(loss.detach()), "grad": norm}

    def _sample_songs(self) -> None:
        super()._sample_songs(steps=self.plan.steps, guidance=1.0)


def main() -> None:
    parser = argument_parser()
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--substeps", type=int, default=Distillation.substeps)
    parser.add_argument("--guidance", type=float, default=Distillation.guidance)
    args = parser.parse_args()
    plan = Distillation(substeps=args.substeps, guidance=args.guidance)
    distiller = Distiller(args.teacher, plan, build_trainer(args))
    if not args.no_compile:
        distiller.compile()
        for layer in distiller.teacher.model.decoder.layers:
            layer.forward = torch.compile(layer.forward, dynamic=True)
    run(distiller, args.minutes)


if __name__ == "__main__":
    main()
