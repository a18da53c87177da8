"""How fast a planner writes. Cheap to import: the terminal needs it before there is anything to measure."""

from __future__ import annotations

import time


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
