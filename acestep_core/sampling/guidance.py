"""Guidance: how the conditional and the unconditional velocity make one.

`Guidance` says what was chosen; its `method` makes a fresh `GuidanceMethod` for every sampling, which may carry state
from step to step (the momentum of APG). All methods treat the items of a batch independently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

_ROUNDING = 1e-6  # schedule times are float32: 0.9 is stored as 0.89999998 and still lies in an interval from 0.9


class GuidanceMethod(Protocol):
    """Makes one velocity of two. `x`, `cond`, `null` are [B, T, C] float32, `t` is their time, `scale` > 1."""

    def combine(self, x: torch.Tensor, t: float, cond: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
        """The guided velocity of a step; called once a step, so it may advance the method's state."""
        ...

    def correct(self, x: torch.Tensor, t: float, cond: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
        """The guided velocity at a solver's extra point (t may be 0); leaves the method's state alone."""
        ...

    def join(self, copies: Sequence[Any]) -> None:
        """Goes on from the mean state of copies of itself, each of which has combined once."""
        ...


class CFG:
    """Classifier-free guidance: null + scale · (cond − null)."""

    def combine(self, x: torch.Tensor, t: float, cond: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
        return null + scale * (cond - null)

    def correct(self, x: torch.Tensor, t: float, cond: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
        return self.combine(x, t, cond, null, scale)

    def join(self, copies: Sequence[CFG]) -> None:
        pass  # it has no state


class APG:
    """Adaptive projected guidance (arXiv 2410.02416) with ACE-Step's constants; the released models' own method.

    Norm, clip and projection run over time, for every channel by itself. Only the part of the guidance that is
    orthogonal to the conditional velocity is kept. The reversed momentum damps what repeats from step to step; it
    advances on guided steps only.
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
        clipped = difference * (self.max_norm / norm).clamp(max=1)  # a norm of 0 divides to infinity: factor 1
        return cond + (scale - 1) * _orthogonal(clipped, cond)

    def correct(self, x: torch.Tensor, t: float, cond: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
        return CFG().combine(x, t, cond, null, scale)  # as the original: momentum must not advance twice in a step

    def join(self, copies: Sequence[APG]) -> None:
        states = [copy._running for copy in copies if copy._running is not None]
        self._running = sum(states) / len(states) if states else None


@dataclass(frozen=True)
class ADG:
    """Angle-based guidance: turns the clean estimate away from the unconditional one, frame by frame.

    `max_angle` limits the turn (radians, None = no limit); `keep_norm` restores the conditional estimate's norm over
    time. 3.14 is the original's π.
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
        method = CFG() if t == 0 else self  # the angle's velocity divides by t
        return method.combine(x, t, cond, null, scale)

    def join(self, copies: Sequence[ADG]) -> None:
        pass  # it has no state


METHODS: dict[str, Callable[[], GuidanceMethod]] = {
    "apg": APG,
    "cfg": CFG,
    "adg": ADG,
    "adg_w_norm": lambda: ADG(max_angle=3.14 / 3, keep_norm=True),
    "adg_wo_clip": lambda: ADG(max_angle=None),
}


@dataclass(frozen=True)
class Guidance:
    """What guidance a sampling uses. `scale` ≤ 1 is none; outside `interval` (bounds on t, inclusive; 1 is the start
    of sampling) steps go unguided and the unconditional half is not computed.
    """

    scale: float = 1.0
    method: Callable[[], GuidanceMethod] = APG
    interval: tuple[float, float] = (0.0, 1.0)

    @property
    def enabled(self) -> bool:
        """True when any step can be guided, so that the network must be prepared for the null condition."""
        return self.scale > 1

    def active(self, t: float) -> bool:
        """True when the velocity at time `t` is guided."""
        low, high = self.interval
        return self.enabled and low - _ROUNDING <= t <= high + _ROUNDING


def _orthogonal(v: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The part of `v` orthogonal to `reference` over time, for every channel by itself."""
    wide, unit = _wide(v), torch.nn.functional.normalize(_wide(reference), dim=1, eps=1e-12)
    return (wide - (wide * unit).sum(dim=1, keepdim=True) * unit).to(v.dtype)


def _wide(v: torch.Tensor) -> torch.Tensor:
    """Float64 where the device has it (MPS has not, XPU not always): the projections cancel leading digits."""
    return v.double() if v.device.type in ("cpu", "cuda") else v.float()
