"""What is asked for beyond a song from text: work on a source (`Edit`), or a walk away from one (`Morph`).

Both are checked once, when they are made; all times are seconds from the start of the (padded) source.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..config import FRAME_RATE, FRAMES_PER_CODE, SAMPLE_RATE, ModelConfig, samples_of
from ..errors import RequestError
from ..song.codes import check_codes, seconds_of
from .source import Regions, check_latents, check_mask, check_source_waveform, frame_of, spans
from .tasks import COVER, TEXT2MUSIC, Region, SourceContext, Task, find_task, instruction, untrained

if TYPE_CHECKING:
    pass

# How much of the kept part's own course is left to the model, 0–1: None stands for `mode_strength`.
MODES: dict[str, float | None] = {"conservative": 0.0, "balanced": None, "aggressive": 1.0}
CROSSFADE_FRAMES, CROSSFADE_SECONDS = 25, 0.05  # at freedom 0; both shrink with it, as in the original
AUTO_MASK = 2.0  # the mask's third value: the model decides


@dataclass(frozen=True, eq=False)
class Edit:
    """One edit of one source, or of as many as there are songs in the batch. Raises RequestError.

    task: a row of `tasks.TASKS`, or its name: cover, repaint, extract, lego, complete. A song from text with `codes` is
        a cover.
    source: latents [1 or B, T, 64] of the source, padded by `extend` where the song is to go on.
    codes: for a cover, one tuple of audio codes per song or one for all, instead of those that the source has. A song
        without any has an empty tuple, and is one from text. Where there is a source too, that gives the length; else
        all have one.
    regions: (start, end) of what to make; an end of None is the end of the song. Or
    mask: [T] or [B, T], from 0.5 on generate.
    tracks: what the task is about, of `tasks.TRACKS`.
    strength: of the steps, the fraction that follows the source; the later ones follow the text alone.
    blend: instead of that, the share of the text alone in the velocity of every step.
    noise_strength: for a cover, how near to the source's own sound it begins; 1 hardly leaves it.
    use_codes: for a cover; False shows the model the source itself instead of its audio codes.
    mode: how strictly what lies outside of the regions stays as it is: conservative, balanced (by `mode_strength`, from
        0 = conservative to 1 = aggressive), or aggressive, where the model plays everything anew.
    auto_mask: leave it to the model what to make (mask value 2).
    waveform: [1 or B, 2, samples], 48 kHz, what `source` was encoded from, so that `decode` can put the kept parts
        back sample for sample.
    allow_untrained: go on with a model that was not trained for the task.
    """

    task: Task | str
    source: Tensor | None = None
    codes: tuple[tuple[int, ...], ...] = ()
    regions: Sequence[tuple[float, float | None]] = ()
    mask: Tensor | None = None
    tracks: tuple[str, ...] = ()
    strength: float = 1.0
    blend: float = 0.0
    noise_strength: float = 0.0
    use_codes: bool = True
    mode: str = "balanced"
    mode_strength: float = 0.5
    auto_mask: bool = False
    waveform: Tensor | None = None
    allow_untrained: bool = False

    def __post_init__(self) -> None:
        self._set("task", find_task(self.task))
        codes = tuple(check_codes(item) for item in _each(self.codes))
        if self.task is TEXT2MUSIC and any(codes):
            self._set("task", COVER)
        if not self.task.needs_source:
            raise RequestError(
                f"{self.task.name} has no source and so nothing to edit; give it audio codes, or choose another task"
            )
        self._set("codes", codes if any(codes) else ())
        instruction(self.task, self.tracks)
        self._set("tracks", (self.tracks,) if isinstance(self.tracks, str) else tuple(self.tracks))
        for name in ("strength", "blend", "noise_strength", "mode_strength"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
                raise RequestError(f"{name.replace('_', ' ')} is a number from 0 to 1, got {value!r}")
        if self.blend and self.strength < 1:
            raise RequestError("strength and blend are two ways to weaken a source: set one of them, not both")
        if self.mode not in MODES:
            raise RequestError(f"unknown mode {self.mode!r}; known: {', '.join(MODES)}")
        self._check_source()
        self._check_waveform()
        self._check_regions()
        self._check_items()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_source(self) -> None:
        if self.codes and (self.task.source is not SourceContext.CODES or not self.use_codes):
            raise RequestError(
                f"{self.task.name} takes no audio codes" if self.use_codes else "codes are given, and use_codes is off"
            )
        if self.source is None and not self.codes:
            what = "source audio or audio codes" if self.task.source is SourceContext.CODES else "source audio"
            raise RequestError(f"{self.task.name} needs {what}")
        if self.source is None and self.noise_strength and self.task.source is SourceContext.CODES:
            raise RequestError("noise strength needs source audio: audio codes alone have no sound to begin with")
        if self.source is not None:
            self._set("source", check_latents(self.source))

    def _check_waveform(self) -> None:
        if self.waveform is None:
            return
        if self.source is None:
            raise RequestError("a source waveform is given without the latents that belong to it")
        self._set("waveform", check_source_waveform(self.waveform, self.source.shape[1]))

    def _check_regions(self) -> None:
        given = bool(len(self.regions)) + (self.mask is not None)
        if given and self.task.region is Region.NEVER:
            raise RequestError(f"{self.task.name} works on the whole song: it takes no regions and no mask")
        if not given and self.task.region is Region.ALWAYS:
            raise RequestError(
                f"{self.task.name} needs to know where: give regions (start and end in seconds) or a mask"
            )
        if given == 2:
            raise RequestError("regions and a mask are given: set one of them, not both")
        self._set("regions", tuple(self._region(region) for region in self.regions))
        if self.mask is not None:
            self._set("mask", check_mask(self.mask, self.frames))

    def _region(self, region: tuple[float, float | None]) -> tuple[float, float]:
        longest = self.frames / FRAME_RATE
        try:
            start, end = region
            start, end = float(start), longest if end is None else float(end)
        except (TypeError, ValueError):
            raise RequestError(f"a region is a start and an end in seconds, got {region!r}") from None
        if not (math.isfinite(start) and math.isfinite(end)):
            raise RequestError(f"a region's start and end are seconds, got {start} and {end}")
        if end <= start:
            raise RequestError(f"a region ends after it starts, got {start:g} to {end:g} seconds")
        if start < 0 or start >= self.seconds or end > longest + 1e-6:
            raise RequestError(
                f"the region from {start:g} to {end:g} seconds reaches out of the song, which is {self.seconds:g} "
                "seconds long; Extend makes it longer"
            )
        # A recording may end within its last frame. Who asks for all of its samples means that frame, too: what would
        # be left of it to keep has no sound.
        last = samples_of(end) >= samples_of(self.seconds)
        return start, longest if last else end

    def _check_items(self) -> None:
        counts = {
            "sources": 0 if self.source is None else len(self.source),
            "waveforms": 0 if self.waveform is None else len(self.waveform),
            "lists of codes": len(self.codes),
            "masks": 1 if self.mask is None else len(self.mask),
        }
        several = {name: count for name, count in counts.items() if count > 1}
        if len(set(several.values())) > 1:
            given = " and ".join(f"{count} {name}" for name, count in several.items())
            raise RequestError(f"an edit has one of each for all songs, or one for each song, got {given}")
        lengths = {len(codes) for codes in self.codes if codes}
        if self.source is None and len(lengths) > 1:
            given = ", ".join(f"{seconds_of(range(count)):g}" for count in sorted(lengths))
            raise RequestError(
                f"the songs of one batch must have one length, got codes for {given} seconds: make them one by one"
            )
        if counts["waveforms"] not in (0, counts["sources"]):
            raise RequestError(
                f"an edit has a waveform for each source, or none, got {counts['waveforms']} for {counts['sources']}"
            )

    @property
    def items(self) -> int:
        """How many different songs the edit is for; 1 serves a batch of any size."""
        sizes = [len(each) for each in (self.source, self.mask) if each is not None]
        return max(1, len(self.codes), *sizes)

    @property
    def frames(self) -> int:
        """Latent frames of the result, which is as long as the source."""
        if self.source is not None:
            return self.source.shape[1]
        return FRAMES_PER_CODE * max(len(codes) for codes in self.codes)

    @property
    def seconds(self) -> float:
        """How long the source is: what the prompt has to say."""
        return self.frames / FRAME_RATE if self.waveform is None else self.waveform.shape[-1] / SAMPLE_RATE

    def task_of(self, item: int) -> Task:
        """What one song's words are encoded with: where it has no codes and others have some, it is one from text."""
        return TEXT2MUSIC if self.codes and not self.codes[item % len(self.codes)] else self.task

    @property
    def instruction(self) -> str:
        return instruction(self.task, self.tracks)

    @property
    def is_partial(self) -> bool:
        """Whether only some of the song is to be made."""
        return bool(self.regions) or self.mask is not None

    def generated(self) -> Tensor:
        """True where the song is to be made, [1 or items, T]."""
        if self.mask is not None:
            return self.mask
        made = torch.full((1, self.frames), not self.regions)
        for start, end in self.regions:
            first = min(frame_of(start), self.frames - 1)
            made[:, first : max(first + 1, min(frame_of(end), self.frames))] = True
        return made

    def regions_of(self, item: int) -> Regions:
        """The regions of one song, in seconds."""
        if self.mask is None:
            return self.regions
        return tuple((a / FRAME_RATE, b / FRAME_RATE) for a, b in spans(self.mask[item % len(self.mask)]))

    @property
    def freedom(self) -> float:
        """How freely the model treats what lies outside of the regions, 0–1."""
        fixed = MODES[self.mode]
        return self.mode_strength if fixed is None else fixed

    @property
    def crossfade_frames(self) -> int:
        return round(CROSSFADE_FRAMES * (1 - self.freedom))

    @property
    def crossfade_seconds(self) -> float:
        return CROSSFADE_SECONDS * (1 - self.freedom)

    @property
    def keeps_source(self) -> bool:
        """Whether the result holds the source itself outside of the regions, beyond a crossfade.

        Near full freedom the crossfade of latents rounds to none. The original then puts back the sound alone; here the
        latents are, too, so that an edit of latents keeps its source as well.
        """
        return self.is_partial and self.freedom < 1 and not bool(self.generated().all())

    @property
    def restores_source(self) -> bool:
        """Whether the source's sound itself comes back there; without its waveform it is decoded like the rest."""
        return self.waveform is not None and self.keeps_source

    @property
    def drops_source(self) -> bool:
        """Whether the text alone has a say, for which the text's `plain` states are needed."""
        return not self.is_partial and (self.strength < 1 or self.blend > 0)

    @property
    def start_noise(self) -> float:
        """The time that sampling begins at; 1 is pure noise."""
        return 1 - self.noise_strength if self.task.source is SourceContext.CODES else 1.0

    def ignored_options(self) -> list[str]:
        """What was asked for and has no effect on this task, as sentences for the user."""
        cover, said = self.task.source is SourceContext.CODES, []
        if self.is_partial and (self.strength < 1 or self.blend):
            said.append("strength and blend are ignored: letting go of the source would lose the part that is kept")
        if not cover and self.noise_strength:
            said.append(f"noise strength is ignored: {self.task.name} begins with noise, only a cover need not")
        if not cover and not self.use_codes:
            said.append(f"use_codes is ignored: {self.task.name} never goes through audio codes")
        if self.codes and self.source is not None:
            sound = " and the sound to begin with" if self.noise_strength else ""
            said.append(f"the source gives only the length{sound}: what is followed are the audio codes beside it")
        if not self.is_partial and (self.mode, self.mode_strength) != ("balanced", 0.5):
            said.append("mode and mode strength are ignored: the whole song is made, there is nothing to keep")
        if self.is_partial and self.mode != "balanced" and self.mode_strength != 0.5:
            said.append(f"mode strength is ignored: it belongs to the mode balanced, this one is {self.mode}")
        return said

    def unsupported_by_ksampler(self) -> list[str]:
        """What a sampler cannot follow that only shows the edit's context to the model, as KSampler does."""
        said = []
        if self.drops_source:
            said.append("strength and blend")
        if self.start_noise < 1:
            said.append("noise strength")
        if self.keeps_source:
            said.append("keeping what is outside of the regions exactly as it is")
        return said

    def check_model(self, config: ModelConfig) -> str | None:
        """A warning when the model was not trained for the task; RequestError unless that is allowed."""
        sentence = untrained(self.task, config)
        if sentence and not self.allow_untrained:
            raise RequestError(sentence)
        return sentence

    def repeated(self, times: int) -> Edit:
        """The edit for `times` versions of each of its songs, one after the other."""
        if times == 1 or self.items == 1:
            return self
        many = {
            name: value.repeat_interleave(times, 0)
            for name in ("source", "mask", "waveform")
            if (value := getattr(self, name)) is not None and len(value) > 1
        }
        if len(self.codes) > 1:
            many["codes"] = tuple(codes for codes in self.codes for _ in range(times))
        return replace(self, **many)


def _each(codes: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    """Codes song by song."""
    if isinstance(codes, str) or not isinstance(codes, Sequence) or not all(isinstance(c, Sequence) for c in codes):
        raise RequestError("audio codes are one list of numbers for each song, or one list in a list for all")
    return codes
