"""Places in the lyrics as targets of hidden rows: which syllables are near, in which line, how far into the lyrics.

`training.alignment` predicts them from the lyric encoder's rows and from layers of the transformer. The same features
on both sides make the attention between them easy to learn. The heads are not shipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from acestep_core.lyrics.structure import parse_lyrics
from acestep_core.text.lyric_tokens import LyricTokens

from .piece import Piece
from .singing import sung_syllables, syllables
from .styles import BEATS

PAUSE = 0.15  # seconds that a syllable sounds after its note
VOWELS = "aeiou"
AROUND = 3  # syllables before and after that are predicted, too
LINES = 16
SYLLABLE, TAG, LINE_BREAK, NOTHING = KINDS = range(4)
WAVELENGTHS = 6.0 * 2.0 ** np.arange(6)  # syllables
NOWHERE = -1  # the place of a patch without lyrics
FEATURES = (2 * AROUND + 1) * (1 + len(VOWELS)) + LINES + len(KINDS) + 2 * len(WAVELENGTHS)


def patch_places(piece: Piece, patches: int, patch_seconds: float) -> NDArray[np.integer]:
    """Return the first character of what is sung at each patch, [patches].

    A section's patches have its tag until the first syllable. A pause after a line has the line break. Patches after
    the last line are `NOWHERE`.
    """
    places = np.full(patches, NOWHERE)
    centres = (np.arange(patches) + 0.5) * patch_seconds

    def fill(start: float, end: float, place: int) -> None:
        places[(centres >= start) & (centres < end)] = place

    bar_seconds = piece.beat_seconds * BEATS[piece.meter]
    structure, sung = parse_lyrics(piece.lyrics), sung_syllables(piece)
    ends = [(section.bar + section.bars) * bar_seconds for section in piece.sections]
    for section, text, end in zip(piece.sections, structure.sections, ends, strict=True):
        fill(section.bar * bar_seconds, end, text.place)
    section_of = [structure.lines[syllable.line].section or 0 for syllable in sung]
    for index, syllable in enumerate(sung):
        after = sung[index + 1] if section_of[index + 1 : index + 2] == [section_of[index]] else None
        end = ends[section_of[index]] if after is None else after.start
        if after is None or after.line != syllable.line:
            pause = min(syllable.end + PAUSE, end)
            fill(pause, end, piece.lyrics.find("\n", syllable.last))
            end = pause
        fill(syllable.start, end, syllable.first)
    return places


def token_rows(places: NDArray[np.integer], tokens: LyricTokens, nothing: int) -> NDArray[np.integer]:
    """Return the condition row of the token at each place. nothing: the row of `NOWHERE`."""
    first_characters = np.array([start for start, _ in tokens.spans])
    rows = tokens.first + np.searchsorted(first_characters, places, side="right") - 1
    return np.where(places == NOWHERE, nothing, rows)


@dataclass(frozen=True)
class Features:
    """Features of places. vowels: [n, 7], 0 for none. lines, kinds: [n]. waves: [n, 12]."""

    vowels: NDArray[np.integer]
    lines: NDArray[np.integer]
    kinds: NDArray[np.integer]
    waves: NDArray[np.floating]


def features(lyrics: str, places: NDArray[np.integer]) -> Features:
    """Return the features of places. A place between syllables has those of the next syllable, and its own kind."""
    lines = parse_lyrics(lyrics).lines
    sung = [syllable for line in lines for syllable in syllables(line)]
    vowels = np.array([0] * AROUND + [1 + VOWELS.index(each.vowel) for each in sung] + [0] * (AROUND + 1))
    index = np.searchsorted([each.last for each in sung], places, side="right")
    starts = [line.words[0][1][0] for line in lines]
    angles = 2 * np.pi * index[:, None] / WAVELENGTHS
    tags = np.cumsum([(c == "[") - (p == "]") for p, c in zip(" " + lyrics, lyrics, strict=False)])
    kinds = np.where(
        np.array([c == "\n" for c in lyrics])[places], LINE_BREAK, np.where((tags > 0)[places], TAG, SYLLABLE)
    )
    return Features(
        vowels[index[:, None] + np.arange(2 * AROUND + 1)],
        np.clip(np.searchsorted(starts, places, side="right"), 0, LINES - 1),
        np.where(places == NOWHERE, NOTHING, kinds),
        np.concatenate((np.cos(angles), np.sin(angles)), axis=1),
    )


def joined(found: Sequence[Features]) -> Features:
    """Return the features of several songs as one."""
    names = ("vowels", "lines", "kinds", "waves")
    return Features(*(np.concatenate([getattr(each, name) for each in found]) for name in names))


class PlaceHead(nn.Module):
    """A linear head that predicts the features of places from hidden rows."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, FEATURES)

    def forward(self, hidden: Tensor, found: Features) -> Tensor:
        """Return the mean error of rows [n, width] against the features of n places."""
        sizes = ((2 * AROUND + 1) * (1 + len(VOWELS)), LINES, len(KINDS), 2 * len(WAVELENGTHS))
        vowels, lines, kinds, waves = self.out(self.norm(hidden.float())).split(sizes, dim=-1)

        def target(values: NDArray) -> Tensor:
            return torch.from_numpy(values).to(hidden.device)

        timed = found.kinds != NOTHING
        return (
            F.cross_entropy(vowels.unflatten(-1, (2 * AROUND + 1, -1))[timed].mT, target(found.vowels[timed]))
            + 0.5 * F.cross_entropy(lines[timed], target(found.lines[timed]))
            + F.mse_loss(waves[timed], target(found.waves[timed]).float())
            + 0.5 * F.cross_entropy(kinds, target(found.kinds))
        )


class PlaceHeads(nn.Module):
    """Heads that predict places in the lyrics: the first from the lyric encoder, the others from layers."""

    def __init__(self, widths: Sequence[int], rate: float = 1e-3):
        super().__init__()
        self.heads = nn.ModuleList(PlaceHead(width) for width in widths)
        self.optimiser = torch.optim.AdamW(self.parameters(), lr=rate)

    def step(self) -> None:
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
