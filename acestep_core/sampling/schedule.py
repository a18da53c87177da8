"""Timestep schedules: float32 tensors [steps + 1], strictly descending, ending in 0.

The original computes schedules in the model's dtype. In bfloat16 some early steps round to 0, and many steps even
change their order. Here schedules are float32, whatever the model's dtype.
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
    """Return `steps` times from 1 downwards and a final 0. A `shift` above 1 spends more steps near the noise.

    σ = s·t / (1 + (s − 1)·t) for t = 1 − i/steps. 8 steps with shift 1, 2 or 3 are the tables of the turbo models.
    Raises RequestError.
    """
    if isinstance(steps, bool) or not isinstance(steps, Integral) or not 1 <= steps <= MAX_STEPS:
        raise RequestError(f"steps must be a whole number from 1 to {MAX_STEPS}, got {steps!r}")
    if not isinstance(shift, Real) or not 0 < shift <= MAX_SHIFT:  # NaN fails the comparison too
        raise RequestError(f"shift must be a number above 0 and at most {MAX_SHIFT:g}, got {shift!r}")
    t = 1 - torch.arange(steps + 1, dtype=torch.float64) / steps
    return (shift * t / (1 + (shift - 1) * t)).float()


def custom_schedule(timesteps: Sequence[float]) -> torch.Tensor:
    """Return the given times as they are, with a final 0 added if it is missing. Raises RequestError.

    The first time may be below 1. Sampling still starts from pure noise, as in the original.
    """
    try:
        times = [float(t) for t in timesteps]
    except (TypeError, ValueError, OverflowError):
        raise RequestError(f"timesteps must be a list of numbers, got {timesteps!r}") from None
    if times and times[-1] == 0:
        times.pop()
    if not 1 <= len(times) <= MAX_STEPS:
        raise RequestError(f"timesteps needs 1 to {MAX_STEPS} values above 0, got {len(times)}")
    bad = [t for t in times if not (math.isfinite(t) and 0 < t <= 1)]
    if bad:
        raise RequestError(f"timesteps must lie above 0 and at most at 1 (a final 0 may be given), got {bad[0]}")
    schedule = torch.tensor([*times, 0.0], dtype=torch.float32)
    for earlier, later in pairwise(schedule.tolist()):
        if later >= earlier:
            raise RequestError(f"timesteps must go down at every step, got {earlier:.6g} followed by {later:.6g}")
    return schedule


def steps_in(share: float, steps: int) -> int:
    """Return a share of the steps in whole steps. 0.29 of 100 is 29, although the float product is less."""
    return math.floor(steps * share + 1e-9)


def start_from_source(
    noise: torch.Tensor, source: torch.Tensor, schedule: torch.Tensor, time: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the start [B, T, C] between source and noise, and the schedule from there on.

    The start is at the entry of the schedule nearest to `time`. Time 1 is pure noise and the whole schedule.
    """
    if time == 1:
        return noise, schedule
    first = int((schedule[:-1] - time).abs().argmin())
    t = float(schedule[first])
    return t * noise + (1 - t) * source, schedule[first:]
