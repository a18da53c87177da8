"""The sampling loop: from noise along a velocity to clean latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

from ..callbacks import Callbacks
from ..errors import NonFiniteError
from .guidance import Guidance
from .noise import draw_step_noise
from .solvers import Solver, SolverStep, euler

STAGE = "sample"

Velocity = Callable[[torch.Tensor, float, bool], torch.Tensor]
"""velocity(x [B, T, C] float32, t, with_null) → [B, T, C] float32; with_null: [2B, T, C], the conditional rows first
and the unconditional ones after them, so that a network makes both in one call."""

AfterStep = Callable[[int, float, torch.Tensor], torch.Tensor]
"""after_step(index of the step just made, time reached, x) → the x to go on with."""

Adjust = Callable[[torch.Tensor, float, torch.Tensor], torch.Tensor]
"""adjust(x, t, guided velocity) → the velocity to follow, at every point that a solver asks for."""

Later = tuple[int, Callable[[], Velocity]]
"""From the step of that index on another velocity is followed, which is made only then."""


@torch.no_grad()
def denoise(
    velocity: Velocity,
    noise: torch.Tensor,
    schedule: torch.Tensor,
    *,
    solver: Solver = euler,
    guidance: Guidance | None = None,
    seeds: Sequence[int] | None = None,
    callbacks: Callbacks | None = None,
    after_step: AfterStep | None = None,
    adjust: Adjust | None = None,
    later: Later | None = None,
) -> torch.Tensor:
    """Follows `velocity` from `noise` [B, T, C] down `schedule` [N + 1] and returns the latents [B, T, C], float32.

    The state lives on the noise's device in float32. `noise` is where sampling starts, whatever the first time of the
    schedule is. `seeds`, one per item, are needed by solvers that draw fresh noise. Before every network call
    the callbacks are asked whether to stop (Cancelled); after every step they are told of it, with the current clean
    estimate. Raises NonFiniteError after the first or the last step when the state is no longer finite.
    """
    guidance, callbacks = guidance or Guidance(), callbacks or Callbacks()
    method = guidance.method()

    def guided(x: torch.Tensor, t: float, combine: Callable[..., torch.Tensor]) -> torch.Tensor:
        callbacks.check(STAGE)
        if guidance.active(t):
            cond, null = velocity(x, t, True).chunk(2)
            v = combine(x, t, cond, null, guidance.scale)
        else:
            v = velocity(x, t, False)
        return v if adjust is None else adjust(x, t, v)

    def correct(x: torch.Tensor, t: float) -> torch.Tensor:
        return guided(x, t, method.correct)

    x = noise.float()
    steps = list(pairwise(schedule.tolist()))
    for i, (t, t_next) in enumerate(steps):
        if later is not None and i == later[0]:
            velocity = later[1]()
        v = guided(x, t, method.combine)
        step = SolverStep(x, v, t, t_next, correct, _fresh_noise(seeds, i, x))
        x = solver(step)
        if after_step is not None:
            x = after_step(i, t_next, x)
        if i in (0, len(steps) - 1):
            require_finite(x, i + 1, len(steps))
        callbacks.report(STAGE, i + 1, len(steps), step.clean)
    return x


def _fresh_noise(seeds: Sequence[int] | None, index: int, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    def draw() -> torch.Tensor:
        if seeds is None or len(seeds) != len(x):
            raise ValueError(f"this solver draws noise in every step and needs one seed for each of {len(x)} items")
        return draw_step_noise(seeds, index, x.shape[1], x.shape[2]).to(x.device)

    return draw


def require_finite(x: torch.Tensor, step: int, total: int) -> None:
    if not torch.isfinite(x).all():
        raise NonFiniteError(
            f"sampling: the diffusion transformer gave NaN or infinity in or before step {step} of {total}; the usual "
            "causes are float16 overflow (choose bfloat16 or float32) and damaged or mismatched weights or adapters"
        )
