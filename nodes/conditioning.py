"""ComfyUI's CONDITIONING, as its own ACE-Step 1.5 has it, plus the song it was made from and what to make it of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..acestep_core.errors import RequestError
from ..acestep_core.song.song import Song
from ..acestep_core.text.encoder import TextCondition

if TYPE_CHECKING:
    from ..acestep_core.edit.edit import Edit
    from ..acestep_core.edit.morph import Morph, MorphSettings

SONG = "acestep_song"
EDIT = "acestep_edit"
MORPH = "acestep_morph"
PLAIN = "acestep_plain"  # caption states under the instruction of a song from text alone
BATCH = "acestep_batch"  # this entry is a song of its own, not to be mixed with its neighbours
LYRICS = "conditioning_lyrics"
TIMBRE = "reference_audio_timbre_latents"  # as ComfyUI's ReferenceTimbreAudio has it: a list of [1, 64, T]

# What ComfyUI's nodes may add to an entry and only its own samplers act on.
KSAMPLER_ONLY = {"area", "control", "end_percent", "callbacks", "mask", "start_percent", "strength"}
# What nodes for other models add to an entry, and what to do instead.
WITHOUT_EFFECT = {
    "guidance": "FluxGuidance changes nothing here: set the guidance of Sample Song or the cfg of KSampler",
    "reference_latents": "ReferenceLatent changes nothing here: use Timbre for the sound of a recording, Cover for its "
    "notes",
}
NATIVE_CODES = "audio_codes"  # those that ComfyUI's own text encoder has planned the song with: a list of lists

Conditioning = list[list[Any]]  # entries of [caption states [1, L, 1024], dict]


@dataclass(frozen=True)
class Entry:
    """What one entry asks for. Only Encode Song adds a song."""

    text: TextCondition
    song: Song | None
    edit: Edit | None
    morph: Morph | None
    timbre: tuple[torch.Tensor, ...]  # [1, 64, T] each

    def goes_with(self, other: Entry) -> bool:
        """Whether both can be sampled in one batch. An edit of several sources makes each entry several songs."""
        same_timbre = [id(latents) for latents in self.timbre] == [id(latents) for latents in other.timbre]
        same_edit = self.edit is other.edit and (self.edit is None or self.edit.items == 1)
        return same_timbre and same_edit and self.morph is None and other.morph is None

    @property
    def rows(self) -> int:
        return condition_rows(self.text.caption, self.text.lyrics, len(self.timbre))


def to_conditioning(text: TextCondition, song: Song, edit: Edit | None, device: torch.device) -> Conditioning:
    data = {LYRICS: text.lyrics.to(device), SONG: song}
    if edit is not None:
        data[EDIT] = edit
    if text.text_only is not None:
        data[PLAIN] = text.text_only.to(device)
    return [[text.caption.to(device), data]]


def with_timbre(conditioning: Conditioning, references: torch.Tensor) -> Conditioning:
    """Every entry with further references [R, frames, 64]."""
    added = [latents[None].movedim(-1, 1) for latents in references]
    return _changed(conditioning, lambda data: {TIMBRE: [*data.get(TIMBRE, ()), *added]})


def with_morph(
    target: Conditioning, origin: Conditioning, source: torch.Tensor, settings: MorphSettings
) -> Conditioning:
    """The target, to be reached from `source` [1 or B, T, 64], which is as the origin says."""
    from ..acestep_core.edit.morph import Morph

    if len(origin) != 1:
        raise RequestError(f"a recording has one description as it is now, got {len(origin)} combined conditionings")
    ((caption, data),) = origin
    text = text_condition(caption, data.get(LYRICS), 0 if caption is None else caption.shape[-1])
    return _changed(target, lambda _: {MORPH: Morph((text,), source, settings)})


def batch_of(conditionings: Sequence[Conditioning]) -> Conditioning:
    """One song after the other. Raises RequestError for a conditioning that is several, mixed."""
    for number, conditioning in enumerate(conditionings, 1):
        if len(conditioning) != 1 and not all(BATCH in data for _, data in conditioning):
            raise RequestError(f"song_{number} is {len(conditioning)} combined conditionings: a song has only one")
    return [entry for conditioning in conditionings for entry in _changed(conditioning, lambda _: {BATCH: True})]


def _changed(conditioning: Conditioning, change) -> Conditioning:
    return [[caption, {**data, **change(data)}] for caption, data in conditioning]


def entries(conditioning: Conditioning, width: int) -> list[Entry]:
    """The song of a CONDITIONING, or the songs of a batch; `width` is the model's. Raises RequestError for a mixture,
    which only KSampler can follow, and for conditioning of another model."""
    if len(conditioning) != 1 and not all(BATCH in data for _, data in conditioning):
        raise RequestError(
            f"Sample Song takes one song, got {len(conditioning)} combined ones; KSampler can mix them, Batch Songs "
            "keeps them apart"
        )
    return [_entry(caption, data, width) for caption, data in conditioning]


def unheard(conditioning: Conditioning) -> list[str]:
    """Which options of a CONDITIONING Sample Song does not follow, as sentences."""
    options = {name for _, data in conditioning for name in data}
    names = ", ".join(sorted(options & KSAMPLER_ONLY))
    ksampler = [f"Sample Song does not follow {names} of its conditioning; KSampler does"] if names else []
    return list(dict.fromkeys([*ksampler, *(said for _, data in conditioning for said in without_effect(data))]))


def without_effect(data: Mapping[str, Any]) -> list[str]:
    """Which options of an entry no sampler follows, as sentences."""
    return [said for name, said in WITHOUT_EFFECT.items() if data.get(name) is not None]


def edit_of(data: Mapping[str, Any]) -> Edit | None:
    """What an entry makes the song of; the codes that ComfyUI's own text encoder planned are a cover of them."""
    from ..acestep_core.edit.edit import Edit
    from ..acestep_core.edit.tasks import TEXT2MUSIC

    codes = data.get(NATIVE_CODES)
    if data.get(EDIT) is not None or not codes:
        return data.get(EDIT)
    return Edit(TEXT2MUSIC, codes=tuple(map(tuple, codes)))


def _entry(caption: torch.Tensor | None, data: dict[str, Any], width: int) -> Entry:
    if caption is not None and not caption.count_nonzero():
        raise RequestError("this conditioning is empty: Sample Song makes the unconditional half of guidance by itself")
    text = text_condition(caption, data.get(LYRICS), width, data.get(PLAIN))
    return Entry(text, data.get(SONG), edit_of(data), data.get(MORPH), tuple(data.get(TIMBRE) or ()))


def references(timbre: Sequence[torch.Tensor] | None) -> list[torch.Tensor]:
    """The timbres of an entry, as the core has them: [1, frames, 64] each."""
    return [latents.movedim(1, -1) for latents in timbre or ()]


def text_condition(
    caption: torch.Tensor | None, lyrics: torch.Tensor | None, width: int, plain: torch.Tensor | None = None
) -> TextCondition:
    """What an entry holds, ours or ComfyUI's own; `width` is the model's. Raises RequestError for any other kind."""
    if any(states is None or len(states) != 1 or states.shape[-1] != width for states in (caption, lyrics)):
        raise RequestError(
            "this conditioning was not made for this model: connect the one from Encode Song, with the text encoder of "
            "the same Load Model"
        )
    return TextCondition(caption, lyrics, caption_prompt="", lyric_prompt="", text_only=plain)


def condition_rows(caption: torch.Tensor, lyrics: torch.Tensor, references: int = 1) -> int:
    """How many rows the network attends to: caption, lyrics and one of each timbre."""
    return caption.shape[1] + lyrics.shape[1] + max(1, references)
