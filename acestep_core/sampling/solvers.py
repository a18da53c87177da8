"""Solvers: one step from time t to t_next.

A solver is a callable from a `SolverStep` to the next state. It may ask for the velocity at another point (`correct`) or for
fresh noise (`noise`); both are made only when called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class SolverStep:
    """One step of the loop: the state `x` [B, T, C] at `t`, its guided velocity `v`, and the time to reach."""

    x: torch.Tensor
    v: torch.Tensor
    t: float
    t_next: float
    correct: Callable[[torch.Tensor, float], torch.Tensor]  # guided velocity at another state and time
    noise: Callable[[], torch.Tensor]  # fresh noise of this step, [B, T, C]

    @property
    def clean(self) -> torch.Tensor:
        """The data that `x` and `v` point at."""
        return self.x - self.t * self.v


Solver = Callable[[SolverStep], torch.Tensor]


def euler(step: SolverStep) -> torch.Tensor:
    """First order: along the velocity. The last step lands on the clean estimate."""
    return step.x - (step.t - step.t_next) * step.v


@dataclass(frozen=True)
class Heun:
    """Second order: averages the velocities at both ends of the Euler step, for a second network call.

    The original does so in the last step too (at t = 0), except on turbo models, whose last step is plain Euler.
    """

    correct_last: bool = True

    def __call__(self, step: SolverStep) -> torch.Tensor:
        predicted = euler(step)
        if step.t_next == 0 and not self.correct_last:
            return predicted
        mean = (step.v + step.correct(predicted, step.t_next)) / 2
        return step.x - (step.t - step.t_next) * mean


def sde(step: SolverStep) -> torch.Tensor:
    """Stochastic: takes the clean estimate and noises it again, with fresh noise, to the next time of the schedule."""
    clean = step.clean
    return clean if step.t_next == 0 else step.t_next * step.noise() + (1 - step.t_next) * clean


SOLVERS: dict[str, Solver] = {"euler": euler, "heun": Heun(), "sde": sde}
TURBO_SOLVERS: dict[str, Solver] = SOLVERS | {"heun": Heun(correct_last=False)}
