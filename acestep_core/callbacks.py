"""Callbacks for progress, cancellation and warnings. Importing this module imports no torch."""

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
    """One progress report: `step` of `total` steps are done in `stage` ("load VAE", "encode", "sample", "decode", …).

    estimate: the current clean estimate while sampling, latents `[batch, frames, 64]`, float32; else None.
    tokens: tokens generated so far by the planner, summed over the batch; else None.
    """

    stage: str
    step: int
    total: int
    estimate: torch.Tensor | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Callbacks:
    """Functions that the caller supplies.

    progress: runs after every step or tile.
    cancelled: runs before every step or tile; returning True stops the run.
    warning: runs for every sentence that the user should read.
    """

    progress: Callable[[Progress], None] = lambda _: None
    cancelled: Callable[[], bool] = lambda: False
    warning: Callable[[str], None] = lambda _: None

    def report(
        self, stage: str, step: int, total: int, estimate: torch.Tensor | None = None, tokens: int | None = None
    ) -> None:
        """Send a `Progress` report."""
        self.progress(Progress(stage, step, total, estimate, tokens))

    def check(self, stage: str) -> None:
        """Raise Cancelled if the caller cancelled the run."""
        if self.cancelled():
            raise Cancelled(f"stopped by the user during {stage}")

    def warn(self, sentence: str) -> None:
        """Log a warning and send it to the caller."""
        log.warning(sentence)
        self.warning(sentence)


class TokenRate:
    """Measure tokens per second from progress reports.

    The rate starts at the first report of an answer, so the time for the prompt does not count.
    """

    def __init__(self) -> None:
        self._first = self._last = 0
        self._started = 0.0

    def __call__(self, tokens: int) -> float:
        """Return the tokens per second of the current answer, given its `Progress.tokens`."""
        now = time.perf_counter()
        if tokens < self._last or not self._last:  # a new answer
            self._first, self._started = tokens, now
        self._last = tokens
        return (tokens - self._first) / max(now - self._started, 1e-9)
