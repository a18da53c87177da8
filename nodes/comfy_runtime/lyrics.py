"""Lyric times and scores of the songs in a LATENT, read from the network in a MODEL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ...acestep_core.config import FRAMES_PER_CODE
from ...acestep_core.edit.edit import Edit
from ...acestep_core.errors import RequestError
from ...acestep_core.lyrics.capture import lyric_times
from ...acestep_core.lyrics.structure import parse_lyrics
from ...acestep_core.lyrics.times import LyricTimes
from ...acestep_core.sampling.settings import SamplingSettings
from .conditioning import Conditioning, SongEntry, core_references, read_entries
from .latents import from_latent
from .model import extract_codes, model_for_sampling, song_model
from .progress import node_callbacks

if TYPE_CHECKING:
    import comfy.model_patcher

    from ...acestep_core.lyrics.scores import LyricScore
    from ...acestep_core.planner.scoring import Score
    from .planner import PlacedPlanner


@dataclass(frozen=True)
class EntryItems:
    """The items of a latent that belong to one entry of its conditioning: `count` of them from `first` on."""

    entry: SongEntry
    first: int
    count: int

    def edit(self, frames: int) -> Edit | None:
        """Return the edit of these items, or None if they are songs of another length, such as a recording."""
        edit = self.entry.edit
        if edit is None:
            return None
        tolerance = 0 if edit.source is not None else FRAMES_PER_CODE - 1  # codes last whole 0.2 s
        return edit.repeated(self.count // edit.items) if abs(edit.frames - frames) <= tolerance else None

    @property
    def is_sung(self) -> bool:
        """True if the lyrics have lines, not only tags."""
        tokens = self.entry.text.lyric_tokens
        return tokens is not None and bool(parse_lyrics(tokens.text).lines)


def items_of(entries: Sequence[SongEntry], songs: int) -> list[EntryItems]:
    """Return the items of each entry, as Sample Song orders them. Raises RequestError if the numbers do not fit."""
    counts = [max(entry.edit.items if entry.edit else 1, entry.morph.items if entry.morph else 1) for entry in entries]
    takes, rest = divmod(songs, sum(counts))
    if rest and len(entries) == 1:  # a part of a batch of edits
        return [EntryItems(_without_edit(entries[0]), 0, songs)]
    if rest or not takes:
        raise RequestError(
            f"conditioning: for {sum(counts)} songs, and the latent has {songs}. Connect the conditioning that the "
            "latent was sampled from."
        )
    found, first = [], 0
    for entry, count in zip(entries, counts, strict=True):
        found.append(EntryItems(entry, first, count * takes))
        first += count * takes
    return found


def _without_edit(entry: SongEntry) -> SongEntry:
    return SongEntry(entry.text, entry.song, None, None, entry.timbre)


def song_items(
    model: comfy.model_patcher.ModelPatcher, conditioning: Conditioning, latent: dict
) -> tuple[torch.Tensor, list[EntryItems]]:
    """Return latents [B, T, 64] and the items of each entry. Raises RequestError for lyrics without tokens."""
    entries = read_entries(conditioning, song_model(model).diffusion_model.config.text_hidden_dim)
    for entry in entries:
        if entry.text.lyric_tokens is None:
            raise RequestError(
                "conditioning: without the places of its lyrics. Connect Encode Song of the ACE-Step 1.5 nodes, with "
                "the lyrics that are sung."
            )
    latents = from_latent(latent)
    return latents, items_of(entries, len(latents))


def times_of_items(
    model: comfy.model_patcher.ModelPatcher, latents: torch.Tensor, items: EntryItems, item: int | None = None
) -> Iterator[LyricTimes]:
    """Yield the times of an entry's items, or of the item with that number in the latent."""
    entry, edit = items.entry, items.edit(latents.shape[1])
    first, end = items.first, items.first + items.count
    if item is not None and (edit is None or edit.items == 1):
        first, end, item = item, item + 1, None
    model_options = SamplingSettings(guidance_scale=1.0)
    placed = model_for_sampling(model, model_options, 1, latents.shape[1], entry.rows, len(entry.timbre), edit)
    placed.network = song_model(model).diffusion_model  # a compiled one would be compiled again
    with node_callbacks() as callbacks:
        times = lyric_times(
            placed,
            latents[first:end],
            entry.text,
            edit=edit,
            timbre=core_references(entry.timbre),
            callbacks=callbacks,
        )
    yield from times if item is None else [times[item - first]]


@dataclass(frozen=True)
class TakeScore:
    """The scores of one take: of its lyrics, if they have lines, and of its audio codes, if a planner is there."""

    times: LyricTimes | None = None
    codes: Score | None = None

    @property
    def lyrics(self) -> LyricScore | None:
        return None if self.times is None else self.times.score

    @property
    def value(self) -> float | None:
        """The mean of both scores, from 0 to 1, or None without any."""
        given = []
        if self.lyrics is not None:
            given.append(self.lyrics.value)
        if self.codes is not None:
            given.append(self.codes.reward)
        return sum(given) / len(given) if given else None


def score_takes(
    model: comfy.model_patcher.ModelPatcher, conditioning: Conditioning, latent: dict, planner: PlacedPlanner | None
) -> list[TakeScore]:
    """Return the scores of each take of a latent. Raises RequestError."""
    latents, entries = song_items(model, conditioning, latent)
    takes: list[TakeScore] = []
    for items in entries:
        times = times_of_items(model, latents, items) if items.is_sung else [None] * items.count
        codes = [None] * items.count if planner is None else _code_scores(model, planner, latents, items)
        takes += [TakeScore(*scores) for scores in zip(times, codes, strict=True)]
    return takes


def _code_scores(
    model: comfy.model_patcher.ModelPatcher, planner: PlacedPlanner, latents: torch.Tensor, items: EntryItems
) -> Sequence[Score | None]:
    """Score the audio codes of an entry's items: those that they were sampled from, else those that they have."""
    from ...acestep_core.planner.scoring import POSITIONS, score_codes

    song, edit = items.entry.song, items.edit(latents.shape[1])
    if song is None:
        return [None] * items.count
    own = () if edit is None else edit.codes
    if len(own) != items.count or not all(own):
        own = extract_codes(model, latents[items.first : items.first + items.count])
    scoring = 4 * 4 * POSITIONS * planner.network.config.vocab_size
    placed = planner.with_room(song.caption, song.lyrics, new_tokens=len(own[0]), extra_bytes=scoring)
    with node_callbacks() as callbacks:
        return score_codes(placed, own, song, callbacks=callbacks)
