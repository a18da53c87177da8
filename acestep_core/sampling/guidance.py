"""Guidance: combine the conditional and the unconditional velocity.

`Guidance` holds the settings. Its `method` makes a new `GuidanceMethod` for every sampling. A method may carry state
from step to step (the momentum of APG) and treats the items of a batch independently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

_ROUNDING = 1e-6  # schedules are float32: a time of 0.89999998 must lie in an interval from 0.9


class GuidanceMethod(Protocol):
    """Combine two velocities. `x`, `cond`, `null` are [B, T, C] float32, `t` is their time, `scale` > 1."""

    def combine(self, x: torch.Tensor, t: float, cond: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
        """Return the guided velocity of a step, and advance the state. Called once per step."""
        ...

    def correct(self, x: torch.Tensor, t: float, cond: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
        """Return the guided velocity at an extra point of a solver (t may be 0), without a change of state."""
        ...

    def join(self, copies: Sequence[Any]) -> None:
        """Take the mean state of copies of this method, each of which has combined once."""
        ...


class CFG:
    """Classifier-free guidance: null + scale · (cond − null)."""

    def combine(self, x: torch.Tensor, t: float, cond: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
        return null + scale * (cond - null)

    def correct(self, x: torch.Tensor, t: float, cond: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
        return self.combine(x, t, cond, null, scale)

    def join(self, copies: Sequence[CFG]) -> None:
        pass  # no state


class APG:
    """Adaptive projected guidance (arXiv 2410.02416) with ACE-Step's constants, the method of the released models.

    Norm, clip and projection run over time, separately for every channel. Only the part of the guidance that is
    orthogonal to the conditional velocity is used. The negative momentum damps what repeats from step to step. The
    momentum advances on guided steps only.
    """

    momentum = -0.75
    max_norm = 2.5

    def __init__(self) -> None:
        self._running: torch.Tensor | None = None

    def combine(self, x: torch.Tensor, t: float, cond: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
        difference = cond - null
        if self._running is not None:
            difference = difference + self.momentum * self._running
        self._running = difference
        norm = difference.norm(dim=1, keepdim=True)
        clipped = difference * (self.max_norm / norm).clamp(max=1)  # a norm of 0 gives infinity: factor 1
        return cond + (scale - 1) * _orthogonal(clipped, cond)

    def correct(self, x: torch.Tensor, t: float, cond: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
        return CFG().combine(x, t, cond, null, scale)  # as in the original: one momentum update per step

    def join(self, copies: Sequence[APG]) -> None:
        states = [copy._running for copy in copies if copy._running is not None]
        self._running = sum(states[1:], start=states[0]) / len(states) if states else None


@dataclass(frozen=True)
class ADG:
    """Angle-based guidance: rotate the clean estimate away from the unconditional one, frame by frame.

    max_angle: limit of the rotation in radians, None for no limit. The original uses 3.14 for π.
    keep_norm: True restores the norm of the conditional estimate over time.
    """

    max_angle: float | None = 3.14 / 6
    keep_norm: bool = False

    def combine(self, x: torch.Tensor, t: float, cond: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
        clean, clean_null = _wide(x - t * cond), _wide(x - t * null)
        weight = max(scale - 1, 0) + 1e-3
        cosine = torch.nn.functional.cosine_similarity(clean, clean_null, dim=-1, eps=1e-12).unsqueeze(-1)
        angle = cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos()
        turn = weight * angle
        if self.max_angle is not None:
            turn = turn.clamp(-self.max_angle, self.max_angle)
        difference = clean - clean_null
        along = (difference * clean_null).sum(-1, keepdim=True) / (clean_null.square().sum(-1, keepdim=True) + 1e-8)
        away = difference - along * clean_null
        stretch = torch.where(angle.sin() > 1e-3, turn.sin() / angle.sin(), weight)
        guided = turn.cos() * clean + stretch * away
        if self.keep_norm:
            guided = guided * (clean.norm(dim=1, keepdim=True) / guided.norm(dim=1, keepdim=True))
        return ((_wide(x) - guided) / t).to(x.dtype)

    def correct(self, x: torch.Tensor, t: float, cond: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
        method = CFG() if t == 0 else self  # ADG divides by t
        return method.combine(x, t, cond, null, scale)

    def join(self, copies: Sequence[ADG]) -> None:
        pass  # no state


METHODS: dict[str, Callable[[], GuidanceMethod]] = {
    "apg": APG,
    "cfg": CFG,
    "adg": ADG,
    "adg_w_norm": lambda: ADG(max_angle=3.14 / 3, keep_norm=True),
    "adg_wo_clip": lambda: ADG(max_angle=None),
}


@dataclass(frozen=True)
class Guidance:
    """The guidance settings of a sampling.

    scale: 1 and below turn guidance off.
    method: makes the guidance method.
    interval: inclusive bounds on t, which is 1 at the start of sampling. Steps outside of it are unguided and compute
        no unconditional velocity.
    """

    scale: float = 1.0
    method: Callable[[], GuidanceMethod] = APG
    interval: tuple[float, float] = (0.0, 1.0)

    @property
    def enabled(self) -> bool:
        """True if steps can be guided, which needs the null condition."""
        return self.scale > 1

    def active(self, t: float) -> bool:
        """Return True if the velocity at time `t` is guided."""
        low, high = self.interval
        return self.enabled and low - _ROUNDING <= t <= high + _ROUNDING


def _orthogonal(v: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return the part of `v` that is orthogonal to `reference` over time, separately for every channel."""
    wide, unit = _wide(v), torch.nn.functional.normalize(_wide(reference), dim=1, eps=1e-12)
    return (wide - (wide * unit).sum(dim=1, keepdim=True) * unit).to(v.dtype)


def _wide(v: torch.Tensor) -> torch.Tensor:
    """Convert to float64, as projections cancel leading digits. MPS and some XPUs have float32 only."""
    return v.double() if v.device.type in ("cpu", "cuda") else v.float()
