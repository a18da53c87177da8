"""The sampling loop: from noise along a velocity to clean latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

from ..callbacks import Callbacks
from ..errors import NonFiniteError
from .guidance import Guidance
from .noise import draw_step_noise
from .solvers import MAX_HISTORY, Solver, SolverStep, euler

STAGE = "sample"

Velocity = Callable[[torch.Tensor, float, bool], torch.Tensor]
"""velocity(x [B, T, C] float32, t, with_null) → [B, T, C] float32. With `with_null` → [2B, T, C] in one network call:
the conditional rows first, the unconditional ones after them."""

Correction = Callable[[SolverStep, torch.Tensor], torch.Tensor]
"""correction(step, the state that its solver returned) → the corrected state, before `AfterStep`."""

AfterStep = Callable[[int, float, torch.Tensor], torch.Tensor]
"""after_step(index of the finished step, time reached, x) → the x of the next step."""

Adjust = Callable[[torch.Tensor, float, torch.Tensor], torch.Tensor]
"""adjust(x, t, guided velocity) → the velocity to follow, at every point that a solver evaluates."""

Switch = tuple[int, Callable[[], Velocity]]
"""(index, make): from the step of that index on, sampling follows the velocity that `make` then returns."""


@torch.no_grad()
def denoise(
    velocity: Velocity,
    start: torch.Tensor,
    schedule: torch.Tensor,
    *,
    solver: Solver = euler,
    guidance: Guidance | None = None,
    seeds: Sequence[int] | None = None,
    callbacks: Callbacks | None = None,
    correction: Correction | None = None,
    after_step: AfterStep | None = None,
    adjust: Adjust | None = None,
    switch: Switch | None = None,
) -> torch.Tensor:
    """Integrate `velocity` from `start` along the schedule and return the latents [B, T, C], float32.

    start: [B, T, C], the state at the first time of the schedule, even if that time is not 1.
    schedule: descending times [steps + 1].
    seeds: one per item, for solvers that draw fresh noise.
    callbacks: `cancelled` is checked before every network call. `progress` gets the clean estimate after every step.

    The state is float32 on the device of `start`. Raises Cancelled, and NonFiniteError if the state is not finite
    after the first or the last step.
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

    x = start.float()
    steps = list(pairwise(schedule.tolist()))
    earlier: list[tuple[float, torch.Tensor]] = []
    for i, (t, t_next) in enumerate(steps):
        if switch is not None and i == switch[0]:
            velocity, earlier = switch[1](), []  # estimates under another condition mislead a multistep solver
        v = guided(x, t, method.combine)
        step = SolverStep(x, v, t, t_next, correct, _fresh_noise(seeds, i, x), earlier)
        x = solver(step)
        if correction is not None:
            x = correction(step, x)
        if after_step is not None:
            x = after_step(i, t_next, x)
        if i in (0, len(steps) - 1):
            require_finite(x, i + 1, len(steps))
        clean = step.clean
        callbacks.report(STAGE, i + 1, len(steps), clean)
        earlier = [(t, clean), *earlier][:MAX_HISTORY]
    return x


def _fresh_noise(seeds: Sequence[int] | None, index: int, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    def draw() -> torch.Tensor:
        if seeds is None or len(seeds) != len(x):
            raise ValueError(f"seeds: this solver draws noise and needs one seed for each of {len(x)} items")
        return draw_step_noise(seeds, index, x.shape[1], x.shape[2]).to(x.device)

    return draw


def require_finite(x: torch.Tensor, step: int, total: int) -> None:
    """Raise NonFiniteError if the state of a sampling is not finite."""
    if not torch.isfinite(x).all():
        raise NonFiniteError(
            f"sampling: the diffusion transformer gave NaN or infinity in or before step {step} of {total}; the usual "
            "causes are float16 overflow (choose bfloat16 or float32) and damaged or mismatched weights or adapters"
        )
