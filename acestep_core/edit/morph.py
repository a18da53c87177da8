"""Morph: a walk from a recording and its description to another description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import RequestError
from .source import check_latents

if TYPE_CHECKING:
    from ..text.encoder import TextCondition


@dataclass(frozen=True)
class MorphSettings:
    """Which part of the way is edited, as fractions of the steps, and how many draws of noise a step averages.

    start: steps before it are left out, so the song stays nearer to the source. end: steps from it on are plain
    sampling with the target alone, so the song follows the target more freely. 0 and 1 are what works best.
    """

    start: float = 0.0
    end: float = 1.0
    draws: int = 1

    def __post_init__(self) -> None:
        numbers = all(isinstance(value, Real) for value in (self.start, self.end))
        if not numbers or not 0 <= self.start < self.end <= 1:
            raise RequestError(f"a morph runs from start to end, 0 ≤ start < end ≤ 1, got {self.start!r}, {self.end!r}")
        if isinstance(self.draws, bool) or not isinstance(self.draws, int) or not 1 <= self.draws <= 16:
            raise RequestError(f"the draws of a morph are a whole number from 1 to 16, got {self.draws!r}")


@dataclass(frozen=True, eq=False)
class Morph:
    """A recording and the words that describe it as it is; the song's own words say what it shall become.

    conditions: that description encoded, one for all songs or one for each.
    source: latents [1 or B, T, 64] of the recording; the result is as long.
    """

    conditions: tuple[TextCondition, ...]
    source: Tensor
    settings: MorphSettings = field(default_factory=MorphSettings)

    def __post_init__(self) -> None:
        given = self.conditions
        object.__setattr__(self, "conditions", tuple(given) if isinstance(given, Sequence) else (given,))
        object.__setattr__(self, "source", check_latents(self.source))
        if len(self.conditions) == 0:
            raise RequestError("a morph needs words for the recording as it is")
        if min(len(self.conditions), len(self.source)) > 1 and len(self.conditions) != len(self.source):
            raise RequestError(
                "a morph has one of each for all songs, or one for each song, got "
                f"{len(self.conditions)} conditions and {len(self.source)} sources"
            )

    @property
    def frames(self) -> int:
        return self.source.shape[1]

    @property
    def items(self) -> int:
        """How many different songs it is for; 1 serves a batch of any size."""
        return max(len(self.conditions), len(self.source))

    def repeated(self, times: int) -> Morph:
        """The morph for `times` versions of each of its songs, one after the other."""
        if times == 1 or self.items == 1:
            return self
        source = self.source if len(self.source) == 1 else self.source.repeat_interleave(times, 0)
        each = times if len(self.conditions) > 1 else 1
        return replace(self, source=source, conditions=tuple(c for c in self.conditions for _ in range(each)))
