"""Flow-edit: change a recording from one description to another without adding noise to the recording itself.

At every time both descriptions give a velocity, each at its own noised point. The latents move by the difference.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch

from ..callbacks import Callbacks
from ..edit.morph import MorphSettings
from .guidance import Guidance, GuidanceMethod
from .loop import STAGE, Velocity, require_finite
from .noise import draw_step_noise
from .schedule import steps_in


@torch.no_grad()
def flow_edit(
    from_velocity: Velocity,
    to_velocity: Velocity,
    source: torch.Tensor,
    schedule: torch.Tensor,
    *,
    seeds: Sequence[int],
    guidance: Guidance | None = None,
    settings: MorphSettings | None = None,
    callbacks: Callbacks | None = None,
) -> torch.Tensor:
    """Change `source` from one description to another. Return latents [B, T, C], float32.

    from_velocity, to_velocity: velocities of the description of the source and of the target.
    source: latents [B, T, C].
    schedule: times [steps + 1], descending to 0.
    seeds: one per item. Every step draws fresh noise.
    guidance: each description has its own guidance state.

    Callbacks and errors as in `denoise`.
    """
    guidance, settings, callbacks = guidance or Guidance(), settings or MorphSettings(), callbacks or Callbacks()
    source = source.float()
    origin, target = (_GuidedVelocity(velocity, guidance, callbacks) for velocity in (from_velocity, to_velocity))
    steps = list(pairwise(schedule.tolist()))
    first, last = steps_in(settings.start, len(steps)), steps_in(settings.end, len(steps))

    def noised_source(draw: int, t: float) -> torch.Tensor:
        noise = draw_step_noise(seeds, draw, *source.shape[1:]).to(source.device)
        return (1 - t) * source + t * noise

    x = source
    for i, (t, t_next) in enumerate(steps):
        if first <= i < last:
            points = [noised_source(i * settings.draws + draw, t) for draw in range(settings.draws)]
            difference = target([x + point - source for point in points], t) - origin(points, t)
            x = x + (t_next - t) * difference
        elif i >= last:
            if i == last:
                x = x + noised_source(i * settings.draws, t) - source
            x = x + (t_next - t) * target([x], t)
        if i in (0, len(steps) - 1):
            require_finite(x, i + 1, len(steps))
        callbacks.report(STAGE, i + 1, len(steps), x)
    return x


class _GuidedVelocity:
    """A velocity with its own guidance state, averaged over several points of one time."""

    def __init__(self, velocity: Velocity, guidance: Guidance, callbacks: Callbacks):
        self.velocity, self.guidance, self.callbacks = velocity, guidance, callbacks
        self.method: GuidanceMethod = guidance.method()

    def __call__(self, points: Sequence[torch.Tensor], t: float) -> torch.Tensor:
        """Guide every point from the same state, then advance the state once, to the mean."""
        methods = [copy.copy(self.method) for _ in points]
        velocities = [self._at(x, t, method) for x, method in zip(points, methods, strict=True)]
        self.method.join(methods)
        return sum(velocities[1:], start=velocities[0]) / len(velocities)

    def _at(self, x: torch.Tensor, t: float, method: GuidanceMethod) -> torch.Tensor:
        self.callbacks.check(STAGE)
        if not self.guidance.active(t):
            return self.velocity(x, t, False)
        cond, null = self.velocity(x, t, True).chunk(2)
        return method.combine(x, t, cond, null, self.guidance.scale)
