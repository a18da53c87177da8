"""A morph: the gradual change of a recording from its own description to another one (flow-edit)."""

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
    """The steps of a morph that edit, and their noise draws. Raises RequestError.

    start: share of the steps to skip, 0–1. Higher values stay nearer to the source. 0 works best.
    end: share of the steps after which the target alone is sampled, 0–1. Lower values follow the target more freely.
        1 works best.
    draws: noise draws that each step averages, 1–16.
    """

    start: float = 0.0
    end: float = 1.0
    draws: int = 1

    def __post_init__(self) -> None:
        numbers = all(isinstance(value, Real) for value in (self.start, self.end))
        if not numbers or not 0 <= self.start < self.end <= 1:
            raise RequestError(
                f"start and end of a morph must be 0 ≤ start < end ≤ 1, got {self.start!r}, {self.end!r}"
            )
        if isinstance(self.draws, bool) or not isinstance(self.draws, int) or not 1 <= self.draws <= 16:
            raise RequestError(f"draws of a morph must be a whole number from 1 to 16, got {self.draws!r}")


@dataclass(frozen=True, eq=False)
class Morph:
    """A recording and its own description. The conditions of the song are the target. Raises RequestError.

    conditions: the encoded description of the recording, one for all songs or one per song.
    source: latents [1 or B, T, 64] of the recording. The result has the same length.
    """

    conditions: Sequence[TextCondition]
    source: Tensor
    settings: MorphSettings = field(default_factory=MorphSettings)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", check_latents(self.source))
        given = self.conditions
        object.__setattr__(self, "conditions", tuple(given) if isinstance(given, Sequence) else (given,))
        if not self.conditions:
            raise RequestError("conditions: a morph needs the description of its source")
        if min(len(self.conditions), len(self.source)) > 1 and len(self.conditions) != len(self.source):
            raise RequestError(
                "morph: give one of each for all songs or one per song, got "
                f"{len(self.conditions)} conditions and {len(self.source)} sources"
            )

    @property
    def frames(self) -> int:
        """Latent frames of the source, and so of the result."""
        return self.source.shape[1]

    @property
    def items(self) -> int:
        """Number of different songs that the morph is for. 1 serves a batch of any size."""
        return max(len(self.conditions), len(self.source))

    def repeated(self, times: int) -> Morph:
        """Return the morph for `times` versions of each song, one after the other."""
        if times == 1 or self.items == 1:
            return self
        source = self.source if len(self.source) == 1 else self.source.repeat_interleave(times, 0)
        each = times if len(self.conditions) > 1 else 1
        return replace(self, source=source, conditions=tuple(c for c in self.conditions for _ in range(each)))
