"""Makes the turbo: a student whose one step is several guided steps of the teacher.

`python -m training.distill --teacher DIR …`, the rest as for `training.dit`. On the times of an 8-step schedule the
student learns the straight line from where it stands to where the teacher, with guidance, arrives at the next time; so
8 steps without guidance suffice.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from acestep_core.sampling.schedule import make_schedule

from .dit import DiTTrainer, Networks, arguments, guided, prepare
from .flow import encode, masked_error
from .loop import mixed, run
from .state import Average, load_state

log = logging.getLogger("acestep")


@dataclass(frozen=True)
class Distillation:
    steps: int = 8
    shifts: tuple[float, ...] = (3.0, 3.0, 2.0, 1.0)  # drawn from; 3 is the default at inference
    substeps: int = 2  # of the teacher, for one of the student
    guidance: float = 2.5


class Distiller(DiTTrainer):
    """Trains as DiTTrainer does, towards a frozen teacher instead of towards the data."""

    def __init__(self, teacher: Path, plan: Distillation, stage: DiTTrainer):
        self.__dict__.update(stage.__dict__)
        self.plan = plan
        saved = load_state(teacher, "dit")
        if saved is None:
            raise FileNotFoundError(
                f"no state of the diffusion model in {teacher}: train it first (python -m training.dit)"
            )
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
    def _arrival(self, batch, x: Tensor, t: Tensor, following: Tensor) -> Tensor:
        """Where the teacher gets from `x` at `t` by the time `following`, by Euler steps."""
        model, plan = self.teacher.model, self.plan
        condition, mask = encode(model, self.teacher.tower, batch, 0.0, np.random.default_rng(0))
        prepared = model.decoder.prepare(batch.context, condition, mask, model.null_condition_emb)
        width = (t - following) / plan.substeps
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
        t, following = schedule[index].to(self.device), schedule[index + 1].to(self.device)
        x = t[:, None, None] * noise + (1 - t[:, None, None]) * batch.latents
        with mixed(self.device):
            wanted = (x - self._arrival(batch, x, t, following)) / (t - following)[:, None, None]
        model = self.networks.model
        with mixed(self.device):
            condition, mask = encode(model, self.networks.tower, batch, 0.0, rng)
            made = model.decoder(x, t, model.decoder.prepare(batch.context, condition, mask))
            loss = masked_error(made, wanted, batch.context).mean()
        norm = self.learn(loss, share=0.3)
        return {"loss": float(loss.detach()), "grad": norm}

    def _songs(self) -> None:
        super()._songs(steps=self.plan.steps, guidance=1.0)


def main() -> None:
    parser = arguments()
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--substeps", type=int, default=Distillation.substeps)
    parser.add_argument("--guidance", type=float, default=Distillation.guidance)
    args = parser.parse_args()
    plan = Distillation(substeps=args.substeps, guidance=args.guidance)
    distiller = Distiller(args.teacher, plan, prepare(args))
    if not args.no_compile:
        distiller.compile()
        for layer in distiller.teacher.model.decoder.layers:
            layer.forward = torch.compile(layer.forward, dynamic=True)
    run(distiller, args.minutes)


if __name__ == "__main__":
    main()
