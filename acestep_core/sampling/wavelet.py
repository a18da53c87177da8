"""Wavelet correction (DCW, arXiv 2604.16044): correct the bands of the state after every step of a solver.

A state of few steps is further from the clean estimate than its time says. DCW moves its low and high band along time
away from the clean estimate, the low band mostly in early steps, the high band mostly in late ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import RequestError
from .solvers import SolverStep

OFF = "off"
MODES = (OFF, "low", "high", "double", "pix")
SCALE, HIGH_SCALE = 0.05, 0.02  # of the original


@dataclass(frozen=True)
class WaveletCorrection:
    """DCW as in the original, except that the last step is not corrected.

    mode: low or high corrects one band, double corrects both, pix all frequencies by the same share at every time.
    scale: of the correction. high_scale: of the high band in mode double.
    """

    mode: str = "double"
    scale: float = SCALE
    high_scale: float = HIGH_SCALE

    def __call__(self, step: SolverStep, x: torch.Tensor) -> torch.Tensor:
        """Return the corrected state [B, T, C] after a step."""
        if step.t_next == 0:
            return x
        difference = x - step.clean
        if self.mode == "pix":
            return x + self.scale * difference
        low, high = _bands(difference)
        if self.mode == "low":
            return x + step.t * self.scale * low
        if self.mode == "high":
            return x + (1 - step.t) * self.scale * high
        return x + step.t * self.scale * low + (1 - step.t) * self.high_scale * high


def _bands(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split x [B, T, C] into its low and high Haar band along time, both [B, T, C]. Their sum is x.

    The correction is linear, so the bands of a difference serve for the difference of the bands. An odd length is
    padded with a zero, as in the original.
    """
    frames = x.shape[1]
    even, odd = torch.nn.functional.pad(x, (0, 0, 0, frames % 2)).unflatten(1, (-1, 2)).unbind(2)
    mean, half = (even + odd) / 2, (even - odd) / 2
    low, high = (torch.stack(pair, dim=2).flatten(1, 2)[:, :frames] for pair in ((mean, mean), (half, -half)))
    return low, high


def find_correction(mode: object, strength: object) -> WaveletCorrection | None:
    """Return the correction of that mode, None if it changes nothing.

    strength: factor of the original's scales. Raises RequestError.
    """
    if mode not in MODES:
        raise RequestError(f"dcw {mode!r} is unknown; choose {', '.join(MODES)}")
    if not isinstance(strength, (int, float)) or not 0 <= strength < math.inf:
        raise RequestError(f"dcw strength must be a number from 0 (off) on; 1 is the original's, got {strength!r}")
    if mode == OFF or not strength:
        return None
    return WaveletCorrection(str(mode), SCALE * float(strength), HIGH_SCALE * float(strength))
