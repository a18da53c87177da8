"""Write and read ComfyUI's CONDITIONING: a list of `[caption states [1, L, width], data]`.

Lyrics and timbre have the keys of ComfyUI's own ACE-Step 1.5. Song, lyric tokens, edit and morph have keys of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ...acestep_core.errors import RequestError
from ...acestep_core.song.song import Song
from ...acestep_core.text.encoder import TextCondition

if TYPE_CHECKING:
    from ...acestep_core.edit.edit import Edit
    from ...acestep_core.edit.morph import Morph, MorphSettings
    from ...acestep_core.text.lyric_tokens import LyricTokens

SONG_KEY = "acestep_song"
EDIT_KEY = "acestep_edit"
MORPH_KEY = "acestep_morph"
TEXT_ONLY_KEY = "acestep_text_only"  # caption states under the text-to-music instruction
BATCH_KEY = "acestep_batch"  # true if the entry is a song of its own, not part of a mix
LYRICS_KEY = "conditioning_lyrics"
LYRIC_TOKENS_KEY = "acestep_lyric_tokens"  # their places, for lyric times
TIMBRE_KEY = "reference_audio_timbre_latents"  # as of ReferenceTimbreAudio: a list of [1, 64, T]
NATIVE_CODES_KEY = "audio_codes"  # as of ComfyUI's own text encoder: a list of lists
END_TOKENS = 2  # after the lyrics: those of the template and of every text

Conditioning = list[list[Any]]


@dataclass(frozen=True)
class SongEntry:
    """One entry of a CONDITIONING. Only Encode Song sets `song`."""

    text: TextCondition
    song: Song | None
    edit: Edit | None
    morph: Morph | None
    timbre: tuple[torch.Tensor, ...]  # [1, 64, T] each

    def batches_with(self, other: SongEntry) -> bool:
        """Return True if one sampling can serve both entries. An edit of several sources needs one of its own."""
        same_timbre = [id(latents) for latents in self.timbre] == [id(latents) for latents in other.timbre]
        same_edit = self.edit is other.edit and (self.edit is None or self.edit.items == 1)
        return same_timbre and same_edit and self.morph is None and other.morph is None

    @property
    def rows(self) -> int:
        return condition_rows(self.text.caption, self.text.lyrics, len(self.timbre))


def to_conditioning(text: TextCondition, song: Song, edit: Edit | None, device: torch.device) -> Conditioning:
    data: dict[str, Any] = {
        LYRICS_KEY: text.lyrics.to(device),
        LYRIC_TOKENS_KEY: text.lyric_tokens,
        SONG_KEY: song,
    }
    if edit is not None:
        data[EDIT_KEY] = edit
    if text.text_only is not None:
        data[TEXT_ONLY_KEY] = text.text_only.to(device)
    return [[text.caption.to(device), data]]


def add_timbre(conditioning: Conditioning, references: torch.Tensor) -> Conditioning:
    """Return the conditioning with more timbre references [R, frames, 64]."""
    added = [latents[None].movedim(-1, 1) for latents in references]
    return _update(conditioning, lambda data: {TIMBRE_KEY: [*data.get(TIMBRE_KEY, ()), *added]})


def add_morph(
    target: Conditioning, origin: Conditioning, source: torch.Tensor, settings: MorphSettings
) -> Conditioning:
    """Return `target` as a morph of `source` [1 or B, T, 64], which `origin` describes."""
    from ...acestep_core.edit.morph import Morph

    if len(origin) != 1:
        raise RequestError(f"origin: {len(origin)} combined conditionings. Connect the one that describes the source.")
    ((caption, data),) = origin
    text = text_condition(caption, data.get(LYRICS_KEY), 0 if caption is None else caption.shape[-1])
    return _update(target, lambda _: {MORPH_KEY: Morph((text,), source, settings)})


def batch_conditionings(songs: Mapping[str, Conditioning]) -> Conditioning:
    """Join songs and batches of songs, given by input name. Raises RequestError for a mix of conditionings."""
    for name, conditioning in songs.items():
        if not _is_unmixed(conditioning):
            raise RequestError(f"{name}: {len(conditioning)} combined conditionings. Connect one song.")
    return [entry for song in songs.values() for entry in _update(song, lambda _: {BATCH_KEY: True})]


def _update(conditioning: Conditioning, changes: Callable[[dict[str, Any]], dict[str, Any]]) -> Conditioning:
    return [[caption, {**data, **changes(data)}] for caption, data in conditioning]


def _is_unmixed(conditioning: Conditioning) -> bool:
    return len(conditioning) == 1 or all(BATCH_KEY in data for _, data in conditioning)


def read_entries(conditioning: Conditioning, width: int) -> list[SongEntry]:
    """Return the songs of a conditioning for a model of that text width.

    Raises RequestError for a mix, which only KSampler supports, and for conditioning of another model.
    """
    if not _is_unmixed(conditioning):
        raise RequestError(
            f"conditioning: {len(conditioning)} combined conditionings, Sample Song takes one song. KSampler mixes "
            "them; Batch Songs keeps them apart."
        )
    return [_read_entry(caption, data, width) for caption, data in conditioning]


def read_negative(conditioning: Conditioning | None, width: int) -> SongEntry | None:
    """Return the song that guidance leads away from, None without one. ConditioningZeroOut's is none.

    Raises RequestError for several songs and for conditioning of another model.
    """
    zeroed = [caption is not None and not caption.count_nonzero() for caption, _ in conditioning or ()]
    if conditioning is None or all(zeroed):
        return None
    if len(conditioning) > 1:
        raise RequestError(f"negative: {len(conditioning)} combined conditionings. Connect one, for all songs.")
    ((caption, data),) = conditioning
    return _read_entry(caption, data, width, "negative")


def _read_entry(
    caption: torch.Tensor | None, data: dict[str, Any], width: int, name: str = "conditioning"
) -> SongEntry:
    if caption is not None and not caption.count_nonzero():
        raise RequestError(
            "conditioning: this is a zeroed (negative) conditioning. Connect the positive one; Sample Song computes "
            "the unconditional pass itself."
        )
    tokens = data.get(LYRIC_TOKENS_KEY)
    text = text_condition(caption, data.get(LYRICS_KEY), width, data.get(TEXT_ONLY_KEY), tokens, name)
    return SongEntry(text, data.get(SONG_KEY), edit_of(data), data.get(MORPH_KEY), tuple(data.get(TIMBRE_KEY) or ()))


def edit_of(data: Mapping[str, Any]) -> Edit | None:
    """Return the edit of an entry. Audio codes of ComfyUI's own text encoder become a cover."""
    from ...acestep_core.edit.edit import Edit
    from ...acestep_core.edit.tasks import TEXT2MUSIC

    codes = data.get(NATIVE_CODES_KEY)
    if data.get(EDIT_KEY) is not None or not codes:
        return data.get(EDIT_KEY)
    return Edit(TEXT2MUSIC, codes=tuple(map(tuple, codes)))


def core_references(timbre: Sequence[torch.Tensor] | None) -> list[torch.Tensor]:
    """Return the timbre references of an entry in the core's layout, [1, frames, 64] each."""
    return [latents.movedim(1, -1) for latents in timbre or ()]


def text_condition(
    caption: torch.Tensor | None,
    lyrics: torch.Tensor | None,
    width: int,
    text_only: torch.Tensor | None = None,
    lyric_tokens: LyricTokens | None = None,
    name: str = "conditioning",
) -> TextCondition:
    """Return the text states of an entry of input `name`. Raises RequestError if their width is not the model's.

    Lyric tokens of other lyrics, which a node may have left behind, are dropped.
    """
    if caption is None or lyrics is None or any(len(s) != 1 or s.shape[-1] != width for s in (caption, lyrics)):
        raise RequestError(
            f"{name}: made for another model. Connect Encode Song with the text encoder of the same Load Model."
        )
    if lyric_tokens is not None:
        ends = lyrics.shape[1] - lyric_tokens.first - len(lyric_tokens.spans)
        lyric_tokens = lyric_tokens if 0 <= ends <= END_TOKENS else None
    return TextCondition(
        caption, lyrics, caption_prompt="", lyric_prompt="", text_only=text_only, lyric_tokens=lyric_tokens
    )


def condition_rows(caption: torch.Tensor, lyrics: torch.Tensor, references: int = 1) -> int:
    """Return the number of rows that cross-attention sees: caption, lyrics and one per timbre reference."""
    return caption.shape[1] + lyrics.shape[1] + max(1, references)
