"""An edit: what to do with a source song."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, cast

from torch import Tensor

from ..config import FRAME_RATE, FRAMES_PER_CODE, SAMPLE_RATE, ModelConfig
from ..errors import RequestError
from ..song.codes import Codes, check_codes, seconds_of
from .masks import check_mask, mask_spans, region_mask
from .regions import Regions, check_region
from .source import check_latents, check_source_waveform
from .tasks import COVER, TEXT2MUSIC, Region, SourceContext, Task, find_task, instruction, untrained_warning

# Freedom to change the kept parts, from 0 (none) to 1 (full). None: `mode_strength` decides.
MODES: dict[str, float | None] = {"conservative": 0.0, "balanced": None, "aggressive": 1.0}
CROSSFADE_FRAMES, CROSSFADE_SECONDS = 25, 0.05  # at freedom 0. Both shrink with freedom, as in the original.
AUTO_MASK = 2.0  # the trained third mask value: the model decides what to generate


@dataclass(frozen=True, eq=False)
class Edit:
    """One edit of one source, or of one source per song of the batch.

    All inputs are checked here. Raises RequestError.

    task: a row of `tasks.TASKS` or its name: cover, repaint, extract, lego, complete. text2music with `codes` becomes
        a cover.
    source: latents [1 or B, T, 64], padded by `extend` if the song becomes longer.
    codes: audio codes of a cover, one tuple for all songs or one per song. They replace the codes of the source. A
        song with an empty tuple is generated from text. Without a source, all songs have the same number of codes.
    regions: (start, end) of the parts to generate. An end of None is the end of the song.
    mask: [T] or [B, T] instead of regions. Values of 0.5 and above are generated.
    tracks: names from `tasks.TRACKS` that the task is about.
    strength: share of the steps that follow the source. The later steps follow the text alone.
    blend: share of the text alone in the velocity of every step, instead of `strength`.
    noise_strength: share of the source in the starting noise of a cover. 0 is pure noise.
    use_codes: True puts the audio codes of a cover's source into the context, False the source itself.
    mode: how strictly the parts outside of the regions are kept. `conservative` keeps them, `aggressive` lets the
        model change them, `balanced` takes `mode_strength`.
    mode_strength: from 0 (conservative) to 1 (aggressive).
    auto_mask: True lets the model decide what to generate (mask value 2).
    waveform: [1 or B, 2, samples] at 48 kHz, the audio that `source` was encoded from. With it, `decode` restores the
        kept parts sample for sample.
    allow_untrained: True allows a model that was not trained for the task.
    """

    task: Task | str
    source: Tensor | None = None
    codes: Sequence[Codes] = ()
    regions: Sequence[tuple[float, float | None]] = ()
    mask: Tensor | None = None
    tracks: Sequence[str] = ()
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
        codes = tuple(check_codes(item) for item in _by_song(self.codes))
        if self.task is TEXT2MUSIC and any(codes):
            self._set("task", COVER)
        if self.source_context is SourceContext.NONE:
            raise RequestError(f"task: {self.task} has no source to edit; give it audio codes or choose another task")
        self._set("codes", codes if any(codes) else ())
        instruction(self._task, self.tracks)
        self._set("tracks", (self.tracks,) if isinstance(self.tracks, str) else tuple(self.tracks))
        for name in ("strength", "blend", "noise_strength", "mode_strength"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
                raise RequestError(f"{name} must be a number from 0 to 1, got {value!r}")
        if self.blend and self.strength < 1:
            raise RequestError("strength and blend both weaken the source: set one of them, not both")
        if self.mode not in MODES:
            raise RequestError(f"mode: unknown mode {self.mode!r}; known: {', '.join(MODES)}")
        self._check_source()
        self._check_regions()
        self._check_counts()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_source(self) -> None:
        cover = self.source_context is SourceContext.CODES
        if self.codes and not cover:
            raise RequestError(f"codes: {self.task} takes no audio codes")
        if self.codes and not self.use_codes:
            raise RequestError("codes are given, and use_codes is off: turn it on or leave the codes out")
        if self.source is None and not self.codes:
            raise RequestError(f"source: {self.task} needs source audio{' or audio codes' if cover else ''}")
        if self.source is None and self.noise_strength and cover:
            raise RequestError("noise_strength needs source audio: audio codes alone have no sound to start from")
        if self.source is not None:
            self._set("source", check_latents(self.source))
        if self.waveform is not None:
            if self.source is None:
                raise RequestError("waveform: given without the latents of the source")
            self._set("waveform", check_source_waveform(self.waveform, self.frames))

    def _check_regions(self) -> None:
        if not isinstance(self.regions, Sequence):
            raise RequestError(f"regions must be a list of (start, end) in seconds, got {self.regions!r:.80}")
        given = bool(len(self.regions)) + (self.mask is not None)
        if given and self._task.region is Region.NEVER:
            raise RequestError(f"regions: {self.task} works on the whole song and takes no regions and no mask")
        if not given and self._task.region is Region.ALWAYS:
            raise RequestError(f"regions: {self.task} needs regions (start and end in seconds) or a mask")
        if given == 2:
            raise RequestError("regions and mask are both given: set one of them, not both")
        self._set("regions", tuple(check_region(region, self.frames, self.seconds) for region in self.regions))
        if self.mask is not None:
            self._set("mask", check_mask(self.mask, self.frames))

    def _check_counts(self) -> None:
        counts = {
            "sources": 0 if self.source is None else len(self.source),
            "waveforms": 0 if self.waveform is None else len(self.waveform),
            "lists of codes": len(self.codes),
            "masks": 1 if self.mask is None else len(self.mask),
        }
        several = {name: count for name, count in counts.items() if count > 1}
        if len(set(several.values())) > 1:
            given = " and ".join(f"{count} {name}" for name, count in several.items())
            raise RequestError(f"edit: give one of each for all songs or one per song, got {given}")
        if counts["waveforms"] not in (0, counts["sources"]):
            raise RequestError(
                f"waveform: one for each source or none, got {counts['waveforms']} for {counts['sources']}"
            )
        lengths = {len(codes) for codes in self.codes if codes}
        if self.source is None and len(lengths) > 1:
            given = ", ".join(f"{seconds_of(range(count)):g}" for count in sorted(lengths))
            raise RequestError(f"codes: the songs of one batch must have one length, got {given} seconds")

    @property
    def _task(self) -> Task:
        return find_task(self.task)

    @property
    def items(self) -> int:
        """Number of different songs that the edit is for. 1 serves a batch of any size."""
        sizes = [len(each) for each in (self.source, self.mask) if each is not None]
        return max(1, len(self.codes), *sizes)

    @property
    def source_latents(self) -> Tensor:
        """The latents of an edit that has a source."""
        assert self.source is not None
        return self.source

    @property
    def frames(self) -> int:
        """Latent frames of the source, and so of the result."""
        if self.source is not None:
            return self.source.shape[1]
        return FRAMES_PER_CODE * max(len(codes) for codes in self.codes)

    @property
    def seconds(self) -> float:
        """Duration of the source, for the prompt."""
        return self.frames / FRAME_RATE if self.waveform is None else self.waveform.shape[-1] / SAMPLE_RATE

    def task_of(self, item: int) -> Task:
        """Return the task that the text of one song is encoded with. A song without codes is generated from text."""
        return TEXT2MUSIC if self.codes and not self.codes[item % len(self.codes)] else self._task

    @property
    def source_context(self) -> SourceContext:
        """The part of the source that the context latents contain."""
        return self._task.source

    @property
    def is_partial(self) -> bool:
        """True if only a part of the song is generated."""
        return bool(self.regions) or self.mask is not None

    def generated_mask(self) -> Tensor:
        """Return a mask [1 or items, T] that is True where the song is generated."""
        return region_mask(self.regions, self.frames) if self.mask is None else self.mask

    def regions_of(self, item: int) -> Regions:
        """Return the regions of one song, in seconds."""
        if self.mask is None:
            return cast(Regions, self.regions)  # open ends are resolved
        return tuple((a / FRAME_RATE, b / FRAME_RATE) for a, b in mask_spans(self.mask[item % len(self.mask)]))

    @property
    def freedom(self) -> float:
        """Freedom of the model to change the parts outside of the regions, 0–1."""
        fixed = MODES[self.mode]
        return self.mode_strength if fixed is None else fixed

    @property
    def crossfade_frames(self) -> int:
        """Length of the crossfade between generated and kept latents."""
        return round(CROSSFADE_FRAMES * (1 - self.freedom))

    @property
    def crossfade_seconds(self) -> float:
        """Length of the crossfade between generated and kept audio."""
        return CROSSFADE_SECONDS * (1 - self.freedom)

    @property
    def keeps_source(self) -> bool:
        """True if the result contains the source itself outside of the regions, beyond a crossfade.

        Near full freedom the crossfade of latents rounds to 0. The original then restores the audio alone. Here the
        latents are restored as well, so that an edit of latents keeps its source.
        """
        return self.is_partial and self.freedom < 1 and not bool(self.generated_mask().all())

    @property
    def restores_source(self) -> bool:
        """True if `decode` restores the source's audio in the kept parts. Needs `waveform`."""
        return self.waveform is not None and self.keeps_source

    @property
    def drops_source(self) -> bool:
        """True if some velocities follow the text alone. Needs `TextCondition.text_only`."""
        return not self.is_partial and (self.strength < 1 or self.blend > 0)

    @property
    def start_noise(self) -> float:
        """Time that sampling starts at. 1 is pure noise."""
        return 1 - self.noise_strength if self.source_context is SourceContext.CODES else 1.0

    def ignored_options(self) -> list[str]:
        """Return a sentence for each option that this edit ignores."""
        notes = []
        if self.is_partial and (self.strength < 1 or self.blend):
            notes.append("strength and blend are ignored: without the source, the kept part would be lost")
        if self.source_context is not SourceContext.CODES and self.noise_strength:
            notes.append(f"noise_strength is ignored: {self.task} starts from pure noise, only a cover uses it")
        if self.codes and self.source is not None:
            sound = " and the starting sound" if self.noise_strength else ""
            notes.append(f"the source gives only the length{sound}: the cover follows the audio codes")
        if not self.is_partial and (self.mode, self.mode_strength) != ("balanced", 0.5):
            notes.append("mode and mode_strength are ignored: the whole song is generated, no part is kept")
        if self.is_partial and self.mode != "balanced" and self.mode_strength != 0.5:
            notes.append(f"mode_strength is ignored: only the mode balanced uses it, not {self.mode}")
        return notes

    def unsupported_by_ksampler(self) -> list[str]:
        """Return the options that a sampler ignores if it uses the edit's context alone, as KSampler does."""
        options = {
            "strength and blend": self.drops_source,
            "noise_strength": self.start_noise < 1,
            "keeping what is outside of the regions exactly as it is": self.keeps_source,
        }
        return [name for name, used in options.items() if used]

    def check_model(self, config: ModelConfig) -> str | None:
        """Return a warning if the model was not trained for the task. Raises RequestError if that is not allowed."""
        warning = untrained_warning(self._task, config)
        if warning and not self.allow_untrained:
            raise RequestError(warning)
        return warning

    def repeated(self, times: int) -> Edit:
        """Return the edit for `times` versions of each song, one after the other."""
        if times == 1 or self.items == 1:
            return self
        changes: dict[str, Any] = {
            name: value.repeat_interleave(times, 0)
            for name in ("source", "mask", "waveform")
            if (value := getattr(self, name)) is not None and len(value) > 1
        }
        if len(self.codes) > 1:
            changes["codes"] = tuple(codes for codes in self.codes for _ in range(times))
        return replace(self, **changes)

    def of_item(self, item: int) -> Edit:
        """Return the edit of one song of the batch."""
        if self.items == 1:
            return self
        changes: dict[str, Any] = {
            name: value[item : item + 1]
            for name in ("source", "mask", "waveform")
            if (value := getattr(self, name)) is not None and len(value) > 1
        }
        if len(self.codes) > 1:
            changes["codes"] = (self.codes[item],)
        return replace(self, **changes)


def _by_song(codes: Sequence[Codes]) -> Sequence[Codes]:
    if isinstance(codes, str) or not isinstance(codes, Sequence) or not all(isinstance(c, Sequence) for c in codes):
        raise RequestError("codes: give one list of numbers for each song, or one list in a list for all songs")
    return codes
