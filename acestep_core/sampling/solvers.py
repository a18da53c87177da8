"""Solvers (samplers): one step from time t to t_next.

A solver is a callable from a `SolverStep` to the next state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class SolverStep:
    """The inputs of one step.

    x: the state [B, T, C] at time t.
    v: its guided velocity.
    correct: computes the guided velocity at another state and time, by one more network call.
    noise: draws the fresh noise of this step, [B, T, C].
    """

    x: torch.Tensor
    v: torch.Tensor
    t: float
    t_next: float
    correct: Callable[[torch.Tensor, float], torch.Tensor]
    noise: Callable[[], torch.Tensor]

    @property
    def clean(self) -> torch.Tensor:
        """The clean estimate."""
        return self.x - self.t * self.v


Solver = Callable[[SolverStep], torch.Tensor]


def euler(step: SolverStep) -> torch.Tensor:
    """Step along the velocity (first order). The last step reaches the clean estimate."""
    return step.x - (step.t - step.t_next) * step.v


@dataclass(frozen=True)
class Heun:
    """Average the velocities at both ends of the Euler step (second order), with a second network call.

    As in the original, the last step calls the network at t = 0 as well, except on turbo models.
    """

    correct_last: bool = True

    def __call__(self, step: SolverStep) -> torch.Tensor:
        predicted = euler(step)
        if step.t_next == 0 and not self.correct_last:
            return predicted
        mean = (step.v + step.correct(predicted, step.t_next)) / 2
        return step.x - (step.t - step.t_next) * mean


def sde(step: SolverStep) -> torch.Tensor:
    """Add fresh noise to the clean estimate, up to the next time of the schedule (stochastic)."""
    clean = step.clean
    return clean if step.t_next == 0 else step.t_next * step.noise() + (1 - step.t_next) * clean


SOLVERS: dict[str, Solver] = {"euler": euler, "heun": Heun(), "sde": sde}
TURBO_SOLVERS: dict[str, Solver] = SOLVERS | {"heun": Heun(correct_last=False)}
