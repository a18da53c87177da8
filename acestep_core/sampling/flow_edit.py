"""Morphing (flow-edit): from a recording and its description to another description, without noising the recording.

At every time both descriptions are asked where they would go, each from a noised point of its own, and the song moves
by the difference of the two.
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
def morph(
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
    """Latents [B, T, C], float32: `source` [B, T, C] turned from what `from_velocity` describes to `to_velocity`.

    `schedule` [N + 1] descends to 0. Every step draws fresh noise of the item's own seed. Each description has its own
    guidance, with its own momentum. Callbacks and NonFiniteError as in `denoise`.
    """
    guidance, settings, callbacks = guidance or Guidance(), settings or MorphSettings(), callbacks or Callbacks()
    source = source.float()
    here, there = _Guided(from_velocity, guidance, callbacks), _Guided(to_velocity, guidance, callbacks)
    steps = list(pairwise(schedule.tolist()))
    first, last = steps_in(settings.start, len(steps)), steps_in(settings.end, len(steps))

    def noised(draw: int, t: float) -> torch.Tensor:
        noise = draw_step_noise(seeds, draw, *source.shape[1:]).to(source.device)
        return (1 - t) * source + t * noise

    x = source
    for i, (t, t_next) in enumerate(steps):
        if first <= i < last:
            points = [noised(i * settings.draws + draw, t) for draw in range(settings.draws)]
            moved = there([x + point - source for point in points], t) - here(points, t)
            x = x + (t_next - t) * moved
        elif i >= last:
            if i == last:
                x = x + noised(i * settings.draws, t) - source
            x = x + (t_next - t) * there([x], t)
        if i in (0, len(steps) - 1):
            require_finite(x, i + 1, len(steps))
        callbacks.report(STAGE, i + 1, len(steps), x)
    return x


class _Guided:
    """A velocity with the state of its own guidance, averaged over several points of one time."""

    def __init__(self, velocity: Velocity, guidance: Guidance, callbacks: Callbacks):
        self.velocity, self.guidance, self.callbacks = velocity, guidance, callbacks
        self.method: GuidanceMethod = guidance.method()

    def __call__(self, points: Sequence[torch.Tensor], t: float) -> torch.Tensor:
        """Every point starts from the same state of guidance, which then advances once, by their mean."""
        methods = [copy.copy(self.method) for _ in points]
        velocities = [self._at(x, t, method) for x, method in zip(points, methods, strict=True)]
        self.method.join(methods)
        return sum(velocities) / len(velocities)

    def _at(self, x: torch.Tensor, t: float, method: GuidanceMethod) -> torch.Tensor:
        self.callbacks.check(STAGE)
        if not self.guidance.active(t):
            return self.velocity(x, t, False)
        cond, null = self.velocity(x, t, True).chunk(2)
        return method.combine(x, t, cond, null, self.guidance.scale)
