"""The request of one sampling: all its inputs but the text, checked once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..config import FRAME_RATE, MAX_SECONDS, ModelConfig
from ..edit.edit import Edit
from ..edit.morph import Morph
from ..edit.tasks import SourceContext
from ..errors import RequestError
from ..song.seeds import batch_seeds
from .settings import ResolvedSampling

if TYPE_CHECKING:
    from ..text.encoder import TextCondition


@dataclass(frozen=True, eq=False)
class SampleRequest:
    """A checked request for `prepare`. Raises RequestError for inputs that the model cannot use.

    config: of the diffusion model.
    seeds: one per song of the batch.
    seconds: the duration of the song. None takes the length of the edit or morph.
    edit, morph: for one song, or for as many as there are seeds.
    timbre: reference latents [1, frames, 64].
    retake: a seed, or one per song, and the variance from 0 (the same take) to 1 (the take of the retake seed).
    graphs: True replays the steps of the transformer as CUDA graphs.
    frames: latent frames of the result.
    warnings: sentences for the user.
    """

    config: ModelConfig
    sampling: ResolvedSampling
    seeds: Sequence[int]
    seconds: float | None = None
    edit: Edit | None = None
    morph: Morph | None = None
    timbre: Sequence[Tensor] | None = None
    retake: tuple[int | Sequence[int], float] | None = None
    graphs: bool = False
    frames: int = field(init=False)
    warnings: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, Sequence) or not self.seeds:
            raise RequestError(f"seeds must be a list of whole numbers, one for each song, got {self.seeds!r}")
        for name, item in (("edit", self.edit), ("morph", self.morph)):
            if item is not None:
                check_items(name, item.items, len(self.seeds))
        if self.morph is not None and self.edit is not None and self.edit.source_context is not SourceContext.CODES:
            raise RequestError(f"morph: works on a song from text or a cover, not on {self.edit.task}")
        _check_timbre(self.timbre, self.config.timbre_hidden_dim)
        _check_retake(self.retake, len(self.seeds))
        object.__setattr__(self, "frames", _result_frames(self.seconds, self.edit, self.morph))
        object.__setattr__(self, "warnings", (*self._edit_warnings(), *self.sampling.warnings))

    def _edit_warnings(self) -> list[str]:
        warnings = []
        if self.edit is not None:
            untrained = self.edit.check_model(self.config)
            warnings += self.edit.ignored_options() + ([untrained] if untrained else [])
        if self.morph is not None and self.edit is not None and (self.edit.drops_source or self.edit.start_noise < 1):
            warnings.append("strength, blend and noise_strength are ignored: a morph starts from the source itself")
        if self.morph is not None and 0 < self.retake_variance < 1:
            warnings.append("the retake variance is ignored: a morph draws all its noise from the retake seed")
        if self.morph is not None and self.sampling.correction is not None:
            warnings.append("dcw is ignored: a morph has its own steps")
        return warnings

    def check_conditions(self, conditions: Sequence[TextCondition], negative: Sequence[TextCondition] = ()) -> None:
        """Raise RequestError unless the encoded texts fit the batch and the edit."""
        if len(negative) not in (0, 1, len(self.seeds)):
            raise RequestError(
                f"negative: got {len(negative)} for {len(self.seeds)} seeds; give one for all or one for each"
            )
        if len(conditions) not in (1, len(self.seeds)):
            raise RequestError(
                f"conditions: got {len(conditions)} for {len(self.seeds)} seeds; give one for all or one for each"
            )
        if self.edit is not None and self.edit.drops_source and any(each.text_only is None for each in conditions):
            raise RequestError("conditions: strength below 1 and blend need texts encoded with the edit's task")

    @property
    def retake_variance(self) -> float:
        """Variance of the retake, from 0 (the noise of `seeds`) to 1 (the noise of `retake_seeds`)."""
        return 0.0 if self.retake is None else self.retake[1]

    @property
    def retake_seeds(self) -> Sequence[int]:
        """One seed per song for the retake noise, or the seeds of the songs without a retake."""
        return batch_seeds(self.retake[0], len(self.seeds)) if self.retake and self.retake[1] else self.seeds


def check_items(name: str, items: int, songs: int) -> None:
    """Raise RequestError unless an input has one item for all songs of the batch, or one per song."""
    if items not in (1, songs):
        raise RequestError(f"{name} is for {items} songs, the batch has {songs}; give one for all or one for each")


def source_frames(edit: Edit | None, morph: Morph | None) -> int:
    """Return the latent frames of the source, which the result has as well. 0 without a source."""
    if morph is not None:
        return morph.frames
    return 0 if edit is None or edit.source is None else edit.frames


def frames_of(seconds: float) -> int:
    """Return the latent frames of a duration, at least 1. Raises RequestError for a duration out of range."""
    if not isinstance(seconds, Real) or not math.isfinite(seconds) or not 0 < seconds <= MAX_SECONDS:
        raise RequestError(f"duration must be above 0 and at most {MAX_SECONDS} seconds, got {seconds!r}")
    return max(1, round(FRAME_RATE * seconds))


def _result_frames(seconds: float | None, edit: Edit | None, morph: Morph | None) -> int:
    source = source_frames(edit, morph)
    if seconds is None:
        if edit is None and not source:
            raise RequestError("seconds: needed, as there is no source to take the duration from")
        return edit.frames if edit is not None and not source else source
    frames = frames_of(seconds)
    if source and abs(seconds * FRAME_RATE - source) >= 1:  # the last frame of a recording may be partial
        raise RequestError(
            f"seconds: the result is as long as its source, {source / FRAME_RATE:g} seconds, not {seconds:g}; leave "
            "the duration open, or extend the source first"
        )
    return source or frames


def _check_retake(retake: object, songs: int) -> None:
    if retake is None:
        return
    if not isinstance(retake, Sequence) or len(retake) != 2:
        raise RequestError(f"retake must be a seed and a variance, such as (5, 0.2), got {retake!r}")
    seed, variance = retake
    batch_seeds(seed, songs)
    if not isinstance(variance, Real) or not 0 <= float(variance) <= 1:
        raise RequestError(f"variance of a retake must be from 0 (the same take) to 1 (another take), got {variance!r}")


def _check_timbre(timbre: Sequence[Tensor] | None, channels: int) -> None:
    if isinstance(timbre, Tensor):
        raise RequestError("timbre must be a list of latents, one for each recording, got a tensor")
    for latents in timbre or ():
        if not isinstance(latents, Tensor) or latents.ndim != 3 or 0 in latents.shape or latents.shape[2] != channels:
            given = list(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
            raise RequestError(f"timbre: a reference must be latents [1, frames, {channels}], got {given}")
        if len(latents) != 1:
            raise RequestError(f"timbre: a reference must be one recording, got a batch of {len(latents)}; split it")
        if not torch.isfinite(latents).all() or not latents.count_nonzero():
            raise RequestError("timbre: a reference is empty, or contains NaN or infinity; encode the recording again")
