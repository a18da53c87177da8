"""Solvers (samplers): one step from time t to t_next.

A solver is a callable from a `SolverStep` to the next state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

MAX_HISTORY = 2  # earlier estimates that a solver can use


@dataclass(frozen=True)
class SolverStep:
    """The inputs of one step.

    x: the state [B, T, C] at time t.
    v: its guided velocity.
    correct: computes the guided velocity at another state and time, by one more network call.
    noise: draws the fresh noise of this step, [B, T, C].
    earlier: time and clean estimate of the steps before, the latest first, at most MAX_HISTORY.
    """

    x: torch.Tensor
    v: torch.Tensor
    t: float
    t_next: float
    correct: Callable[[torch.Tensor, float], torch.Tensor]
    noise: Callable[[], torch.Tensor]
    earlier: Sequence[tuple[float, torch.Tensor]] = ()

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


def dpmpp_3m(step: SolverStep) -> torch.Tensor:
    """Extrapolate the clean estimates of three steps (DPM-Solver++ 3M, arXiv 2211.01095), with one network call.

    The paper solves the flow x_t = (1 − t)·clean + t·noise for a clean estimate that is a polynomial of
    λ = log((1 − t) / t): linear after one earlier step, quadratic after two. Its code, diffusers and k-diffusion take
    half of the quadratic term, as here. λ is infinite at times 1 and 0: a step from 1 or to 0 is a step of Euler, and
    an estimate at 1 is not used.
    """
    if step.t == 1 or step.t_next == 0:
        return euler(step)
    start, scale = _half_log_snr(step.t), 1 - step.t_next
    h = _half_log_snr(step.t_next) - start
    decay = math.expm1(-h)
    x = step.t_next / step.t * step.x - scale * decay * step.clean
    earlier = [(_half_log_snr(t) - start, clean) for t, clean in step.earlier if t < 1]
    if not earlier:
        return x
    first = slope = (earlier[0][1] - step.clean) / earlier[0][0]  # divided differences, as in Newton's polynomial
    if len(earlier) > 1:
        second = (earlier[1][1] - earlier[0][1]) / (earlier[1][0] - earlier[0][0])
        curvature = (second - first) / earlier[1][0]
        slope = first - earlier[0][0] * curvature
        x = x + scale * (h * h / 2 - (decay + h)) * curvature
    return x + scale * (decay + h) * slope


def _half_log_snr(t: float) -> float:
    """Return log(signal / noise), the λ of the paper. 0 < t < 1."""
    return math.log((1 - t) / t)


SOLVERS: dict[str, Solver] = {"euler": euler, "heun": Heun(), "sde": sde, "dpmpp_3m": dpmpp_3m}
TURBO_SOLVERS: dict[str, Solver] = SOLVERS | {"heun": Heun(correct_last=False)}
