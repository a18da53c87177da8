"""Progress, cancel and warnings: how a caller watches a run or stops it. Imports no torch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import Cancelled

if TYPE_CHECKING:
    import torch

log = logging.getLogger("acestep")


@dataclass(frozen=True)
class Progress:
    """One report: `step` of `total` done in `stage` ("load VAE", "encode", "sample", "decode", …).

    `estimate` is the current clean estimate, latents `[batch, frames, 64]`, float32, while sampling; else None.
    `tokens` is how many a planner has written so far, in all rows together; else None.
    """

    stage: str
    step: int
    total: int
    estimate: torch.Tensor | None = None
    tokens: int | None = None


def _ignore(_: object) -> None:
    return None


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Callbacks:
    """Functions of the caller: `progress` runs after every step or tile, `cancelled` before each, `warning` for every
    sentence that the user should read."""

    progress: Callable[[Progress], None] = _ignore
    cancelled: Callable[[], bool] = _never
    warning: Callable[[str], None] = _ignore

    def report(
        self, stage: str, step: int, total: int, estimate: torch.Tensor | None = None, tokens: int | None = None
    ) -> None:
        self.progress(Progress(stage, step, total, estimate, tokens))

    def check(self, stage: str) -> None:
        """Raises Cancelled when the caller wants to stop."""
        if self.cancelled():
            raise Cancelled(f"stopped by the user during {stage}")

    def warn(self, sentence: str) -> None:
        log.warning(sentence)
        self.warning(sentence)


class TokenRate:
    """How many tokens a second a planner writes, by the reports of its progress. The time before an answer's first
    report, in which the prompt is read, does not count."""

    def __init__(self) -> None:
        self._first = self._last = 0
        self._started = 0.0

    def __call__(self, tokens: int) -> float:
        now = time.perf_counter()
        if tokens < self._last or not self._last:  # the next answer
            self._first, self._started = tokens, now
        self._last = tokens
        return (tokens - self._first) / max(now - self._started, 1e-9)
