"""Timestep schedules: float32 tensors [steps + 1], strictly descending, ending in 0.

The original computes them in the model's dtype; in bfloat16 that rounds some early steps to nothing (and with many
steps turns a few backwards), so here they stay float32 whatever the model runs in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral, Real

import torch

from ..errors import RequestError

MAX_STEPS = 1000
MAX_SHIFT = 100.0  # with MAX_STEPS this keeps neighbouring times apart in float32


def make_schedule(steps: int, shift: float) -> torch.Tensor:
    """`steps` times from 1 downwards and a final 0; `shift` > 1 spends more of them near the noise.

    σ = s·t / (1 + (s − 1)·t) over t = 1 − i/steps. For 8 steps and shift 1, 2, 3 these are the turbo models' tables.
    """
    if isinstance(steps, bool) or not isinstance(steps, Integral) or not 1 <= steps <= MAX_STEPS:
        raise RequestError(f"steps is a whole number from 1 to {MAX_STEPS}, got {steps!r}")
    if not isinstance(shift, Real) or not 0 < shift <= MAX_SHIFT:  # NaN fails the comparison too
        raise RequestError(f"shift is a number above 0 and at most {MAX_SHIFT:g}, got {shift!r}")
    t = 1 - torch.arange(steps + 1, dtype=torch.float64) / steps
    return (shift * t / (1 + (shift - 1) * t)).float()


def custom_schedule(timesteps: Sequence[float]) -> torch.Tensor:
    """The given times, verbatim, with the final 0 added when it is missing.

    They need not start at 1: sampling still begins with pure noise, as in the original.
    """
    try:
        times = [float(t) for t in timesteps]
    except (TypeError, ValueError):
        raise RequestError(f"timesteps is a list of numbers, got {timesteps!r}") from None
    if times and times[-1] == 0:
        times.pop()
    if not 1 <= len(times) <= MAX_STEPS:
        raise RequestError(f"timesteps needs 1 to {MAX_STEPS} values above 0, got {len(times)}")
    bad = [t for t in times if not (math.isfinite(t) and 0 < t <= 1)]
    if bad:
        raise RequestError(f"timesteps lie above 0 and at most at 1 (a final 0 may be given), got {bad[0]}")
    schedule = torch.tensor([*times, 0.0], dtype=torch.float32)
    for earlier, later in pairwise(schedule.tolist()):
        if later >= earlier:
            raise RequestError(f"timesteps must go down at every step, got {earlier:.6g} followed by {later:.6g}")
    return schedule


def steps_in(share: float, steps: int) -> int:
    """How many whole steps a share of them is: 0.29 of 100 are 29, though their product in floats is less."""
    return math.floor(steps * share + 1e-9)
