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
from .schedule import custom_schedule, make_schedule, steps_in
from .solvers import SOLVERS, TURBO_SOLVERS, Solver
from .wavelet import OFF, WaveletCorrection, find_correction

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
    guidance_start, guidance_end: the guided steps, as shares of all steps. Steps are guided that lie in
        `guidance_interval` as well.
    dcw: a name in `wavelet.MODES`.
    dcw_strength: factor of the original's scales of DCW.
    negative_caption: caption that guidance leads away from. Empty leads away from no text at all.
    """

    steps: int | None = None
    shift: float | None = None
    guidance_scale: float | None = None
    guidance_method: str = "apg"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    solver: str = "euler"
    timesteps: Sequence[float] | None = None
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    dcw: str = OFF
    dcw_strength: float = 1.0
    negative_caption: str = ""

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
        correction = find_correction(self.dcw, self.dcw_strength)
        if self.dcw == OFF and self.dcw_strength != 1.0:
            warnings.append("dcw strength is ignored: dcw is off")
        if not isinstance(self.negative_caption, str):
            raise RequestError(f"negative caption must be text, got {self.negative_caption!r:.80}")
        if defaults.is_turbo and guidance.enabled:
            warnings.append(f"guidance {guidance.scale:g} is ignored: turbo models have it built in and run with 1")
            guidance = replace(guidance, scale=1.0)
        if defaults.is_turbo and len(schedule) - 1 > TURBO_MAX_STEPS:
            warnings.append(
                f"{len(schedule) - 1} steps on a turbo model, which is trained for {defaults.steps}; "
                f"the original allows at most {TURBO_MAX_STEPS}"
            )
        settings = replace(settings, guidance_scale=guidance.scale, guidance_interval=guidance.interval)
        return ResolvedSampling(
            settings=settings,
            schedule=schedule,
            guidance=self._guided_steps(guidance, schedule),
            solver=_find(TURBO_SOLVERS if defaults.is_turbo else SOLVERS, self.solver, "solver"),
            correction=correction,
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
        for name, share in (("start", self.guidance_start), ("end", self.guidance_end)):
            if not isinstance(share, Real) or not 0 <= share <= 1:
                raise RequestError(f"guidance {name} must be a share of the steps from 0 to 1, got {share!r}")
        if self.guidance_start > self.guidance_end:
            raise RequestError(
                f"guidance start must be at most guidance end, got {self.guidance_start:g} and {self.guidance_end:g}"
            )
        return Guidance(float(scale), _find(METHODS, self.guidance_method, "guidance method"), (low, high))

    def _guided_steps(self, guidance: Guidance, schedule: torch.Tensor) -> Guidance:
        """Return the guidance without the steps before `guidance_start` and from `guidance_end` on."""
        steps = len(schedule) - 1
        first, end = steps_in(self.guidance_start, steps), steps_in(self.guidance_end, steps)
        if first >= end:
            return replace(guidance, scale=1.0)
        low, high = guidance.interval
        if end < steps:  # otherwise time 0 is guided, where Heun's last step needs it
            low = max(low, float(schedule[end - 1]))
        if first:
            high = min(high, float(schedule[first]))
        return replace(guidance, interval=(low, high))


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
    correction: WaveletCorrection | None
    warnings: tuple[str, ...]


def _find(table: Mapping[str, Value], name: str, what: str) -> Value:
    if not isinstance(name, str) or name not in table:
        raise RequestError(f"{what} {name!r} is unknown; choose {', '.join(table)}")
    return table[name]
