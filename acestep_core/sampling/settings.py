"""What a caller may choose about sampling, and how it becomes concrete for a model variant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TypeVar

import torch

from ..config import ModelConfig
from ..errors import RequestError
from .guidance import METHODS, Guidance
from .schedule import custom_schedule, make_schedule
from .solvers import SOLVERS, TURBO_SOLVERS, Solver

TURBO_MAX_STEPS = 20  # beyond this the original refuses a turbo model; here it is a warning

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class VariantDefaults:
    """What the authors recommend for a model variant."""

    steps: int
    shift: float
    guidance_scale: float
    is_turbo: bool


TURBO = VariantDefaults(steps=8, shift=3.0, guidance_scale=1.0, is_turbo=True)
BASE = VariantDefaults(steps=50, shift=3.0, guidance_scale=7.0, is_turbo=False)  # base and sft


def variant_defaults(config: ModelConfig) -> VariantDefaults:
    """The defaults of a model known only by its config."""
    return TURBO if config.is_turbo else BASE


@dataclass(frozen=True)
class SamplingSettings:
    """How to sample; None means the variant's own default.

    `timesteps` (descending, in 0..1) replace steps and shift. `guidance_method` is a name in METHODS, `solver`
    one in SOLVERS. `guidance_interval` bounds the times t that are guided; t goes from 1 (noise, the start) down to 0.
    """

    steps: int | None = None
    shift: float | None = None
    guidance_scale: float | None = None
    guidance_method: str = "apg"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    solver: str = "euler"
    timesteps: Sequence[float] | None = None

    def resolve(self, defaults: VariantDefaults) -> ResolvedSampling:
        """Checks every value and fills in the variant's defaults. Raises RequestError."""
        warnings: list[str] = []
        concrete = self._with_schedule_defaults(defaults, warnings)
        concrete = concrete._with_guidance_defaults(defaults, warnings)
        if concrete.timesteps is not None:
            schedule = custom_schedule(concrete.timesteps)
        else:
            schedule = make_schedule(concrete.steps, concrete.shift)
        if defaults.is_turbo and len(schedule) - 1 > TURBO_MAX_STEPS:
            warnings.append(
                f"{len(schedule) - 1} steps on a turbo model, which is made for {defaults.steps}; "
                f"the original allows at most {TURBO_MAX_STEPS}"
            )
        method = _choose(METHODS, self.guidance_method, "guidance method")
        return ResolvedSampling(
            settings=concrete,
            schedule=schedule,
            guidance=Guidance(concrete.guidance_scale, method, concrete.guidance_interval),
            solver=_choose(TURBO_SOLVERS if defaults.is_turbo else SOLVERS, self.solver, "solver"),
            warnings=tuple(warnings),
        )

    def _with_schedule_defaults(self, defaults: VariantDefaults, warnings: list[str]) -> SamplingSettings:
        if self.timesteps is None:
            return replace(
                self,
                steps=defaults.steps if self.steps is None else self.steps,
                shift=defaults.shift if self.shift is None else self.shift,
            )
        if self.steps is not None or self.shift is not None:
            warnings.append("custom timesteps are used as they are: steps and shift are ignored")
        return replace(self, steps=None, shift=None)

    def _with_guidance_defaults(self, defaults: VariantDefaults, warnings: list[str]) -> SamplingSettings:
        scale = defaults.guidance_scale if self.guidance_scale is None else self.guidance_scale
        if not isinstance(scale, Real) or not math.isfinite(scale) or scale < 0:
            raise RequestError(f"guidance scale is a number from 0 (1 and below: no guidance) upwards, got {scale!r}")
        try:
            low, high = (float(bound) for bound in self.guidance_interval)
        except (TypeError, ValueError):
            low, high = math.nan, math.nan
        if not 0 <= low <= high <= 1:
            raise RequestError(
                f"guidance interval is two numbers with 0 ≤ start ≤ end ≤ 1, got {self.guidance_interval!r}"
            )
        if defaults.is_turbo and scale > 1:
            warnings.append(f"guidance {scale:g} is ignored: turbo models have it built in and run with 1")
            scale = 1.0
        return replace(self, guidance_scale=float(scale), guidance_interval=(low, high))


@dataclass(frozen=True)
class ResolvedSampling:
    """Ready for `denoise`. `settings` has every value concrete: given back to the same variant it samples the same
    (steps and shift stay None beside custom timesteps). `warnings` are sentences for the user.
    """

    settings: SamplingSettings
    schedule: torch.Tensor
    guidance: Guidance
    solver: Solver
    warnings: tuple[str, ...]


def _choose(table: Mapping[str, Choice], name: str, what: str) -> Choice:
    if not isinstance(name, str) or name not in table:
        raise RequestError(f"unknown {what} {name!r}; known: {', '.join(table)}")
    return table[name]
