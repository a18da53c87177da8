"""Sampling settings, and their resolution for a model variant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TypeVar

import torch

from ..errors import RequestError
from .guidance import METHODS, Guidance
from .schedule import custom_schedule, make_schedule
from .solvers import SOLVERS, TURBO_SOLVERS, Solver

TURBO_MAX_STEPS = 20  # on turbo models the original refuses more, here more steps give a warning

Value = TypeVar("Value")


@dataclass(frozen=True)
class VariantDefaults:
    """The recommended sampling of a model variant."""

    steps: int
    shift: float
    guidance_scale: float
    is_turbo: bool


TURBO = VariantDefaults(steps=8, shift=3.0, guidance_scale=1.0, is_turbo=True)


@dataclass(frozen=True)
class SamplingSettings:
    """Sampling settings. None takes the default of the model variant.

    guidance_method: a name in `guidance.METHODS`.
    guidance_interval: bounds of the guided times t, which run from 1 (noise, the start) to 0.
    solver: a name in `solvers.SOLVERS`.
    timesteps: descending times in 0..1, instead of steps and shift.
    """

    steps: int | None = None
    shift: float | None = None
    guidance_scale: float | None = None
    guidance_method: str = "apg"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    solver: str = "euler"
    timesteps: Sequence[float] | None = None

    def resolve(self, defaults: VariantDefaults) -> ResolvedSampling:
        """Check every value and fill in the defaults of the variant. Raises RequestError."""
        warnings: list[str] = []
        steps = defaults.steps if self.steps is None else self.steps
        shift = defaults.shift if self.shift is None else self.shift
        if self.timesteps is None:
            settings, schedule = replace(self, steps=steps, shift=shift), make_schedule(steps, shift)
        else:
            settings, schedule = replace(self, steps=None, shift=None), custom_schedule(self.timesteps)
            if self.steps is not None or self.shift is not None:
                warnings.append("custom timesteps are used as they are: steps and shift are ignored")
        guidance = self._guidance(defaults)
        if defaults.is_turbo and guidance.enabled:
            warnings.append(f"guidance {guidance.scale:g} is ignored: turbo models have it built in and run with 1")
            guidance = replace(guidance, scale=1.0)
        if defaults.is_turbo and len(schedule) - 1 > TURBO_MAX_STEPS:
            warnings.append(
                f"{len(schedule) - 1} steps on a turbo model, which is trained for {defaults.steps}; "
                f"the original allows at most {TURBO_MAX_STEPS}"
            )
        return ResolvedSampling(
            settings=replace(settings, guidance_scale=guidance.scale, guidance_interval=guidance.interval),
            schedule=schedule,
            guidance=guidance,
            solver=_find(TURBO_SOLVERS if defaults.is_turbo else SOLVERS, self.solver, "solver"),
            warnings=tuple(warnings),
        )

    def is_guided(self, defaults: VariantDefaults) -> bool:
        """Return True if sampling computes the unconditional velocity as well."""
        scale = defaults.guidance_scale if self.guidance_scale is None else self.guidance_scale
        return scale > 1 and not defaults.is_turbo

    def _guidance(self, defaults: VariantDefaults) -> Guidance:
        scale = defaults.guidance_scale if self.guidance_scale is None else self.guidance_scale
        if not isinstance(scale, Real) or not 0 <= scale < math.inf:
            raise RequestError(f"guidance scale must be a number from 0 on (1 and below: no guidance), got {scale!r}")
        try:
            low, high = (float(bound) for bound in self.guidance_interval)
        except (TypeError, ValueError, OverflowError):
            low, high = math.nan, math.nan
        if not 0 <= low <= high <= 1:
            raise RequestError(
                f"guidance interval must be two numbers with 0 ≤ start ≤ end ≤ 1, got {self.guidance_interval!r}"
            )
        return Guidance(float(scale), _find(METHODS, self.guidance_method, "guidance method"), (low, high))


@dataclass(frozen=True)
class ResolvedSampling:
    """Settings for one model variant, ready for `denoise`.

    settings: without None values, except steps and shift if there are timesteps. Resolving again changes nothing.
    warnings: sentences for the user.
    """

    settings: SamplingSettings
    schedule: torch.Tensor
    guidance: Guidance
    solver: Solver
    warnings: tuple[str, ...]


def _find(table: Mapping[str, Value], name: str, what: str) -> Value:
    if not isinstance(name, str) or name not in table:
        raise RequestError(f"{what} {name!r} is unknown; choose {', '.join(table)}")
    return table[name]
