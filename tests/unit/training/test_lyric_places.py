"""Places in the lyrics, as targets of hidden rows, and lyrics in free wording."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acestep_core.lyrics.structure import parse_lyrics
from acestep_core.text.lyric_tokens import LyricTokens
from training.composer import compose
from training.lyric_places import AROUND, NOWHERE, VOWELS, PlaceHead, features, patch_places, token_rows
from training.piece import Constraints
from training.singing import line_starts, sung_syllables
from training.wording import FREE_LYRICS, SUNG_WORDS, free_caption, free_lyrics

LYRICS = "[Verse]\nHold on\nGo\n\n[Outro]"


@pytest.fixture(scope="module")
def pieces():
    return [compose(seed, Constraints(sung=True, solo="")) for seed in (7000, 7001, FREE_LYRICS, FREE_LYRICS + 1)]


def test_a_place_has_the_vowels_around_it():
    found = features(LYRICS, np.array([8, 13, 15, 16, NOWHERE]))  # "H", "o" of "on", the line break, "G", nowhere
    centre = [VOWELS.find(VOWELS[row[AROUND] - 1]) if row[AROUND] else None for row in found.vowels[:4]]
    assert [VOWELS[i] for i in centre] == ["o", "o", "o", "o"]
    assert [row.tolist() for row in found.vowels[:2]] == [[0, 0, 0, 4, 4, 4, 0], [0, 0, 4, 4, 4, 0, 0]]
    assert found.lines[:4].tolist() == [1, 1, 1, 2]
    assert found.kinds.tolist() == [0, 0, 2, 0, 3]
    assert features(LYRICS, np.array([0, 21])).kinds.tolist() == [1, 1]


def test_a_syllable_has_the_same_features_in_the_lyrics_and_in_the_song(pieces):
    for piece in pieces:
        places = patch_places(piece, int(piece.seconds / 0.08), 0.08)
        sung = sung_syllables(piece)
        for syllable in sung:
            assert (places[int(syllable.start / 0.08) + 1 : int(syllable.end / 0.08) - 1] == syllable.first).all()
        found = features(piece.lyrics, np.array([syllable.first for syllable in sung]))
        vowels = {note.places[0]: note.vowel for note in piece.notes if note.places}
        assert [VOWELS[row[AROUND] - 1] for row in found.vowels] == [vowels[syllable.first] for syllable in sung]
        assert found.lines.tolist() == [1 + syllable.line for syllable in sung]
        assert not found.kinds.any()


def test_a_token_of_several_characters_is_attended_to_for_all_of_them():
    tokens = LyricTokens("go home", 5, ((0, 2), (2, 7)))
    assert token_rows(np.array([0, 1, 3, NOWHERE]), tokens, 99).tolist() == [5, 5, 6, 99]


def test_place_heads_learn_features():
    torch.manual_seed(0)
    found = features(LYRICS, np.array([0, 8, 13, 15, 16, NOWHERE]))
    head, hidden = PlaceHead(16), torch.randn(6, 16)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    first = last = head(hidden, found)
    for _ in range(60):
        optimiser.zero_grad()
        last = head(hidden, found)
        last.backward()
        optimiser.step()
    assert last < 0.1 * first


def test_free_lyrics_have_the_sections_and_lines_of_the_composer():
    text = "[Intro]\n\n[Verse]\nMy heart is singing\nThe rain\n\n[Chorus]\nStay\nStay"
    changed = [free_lyrics(text, seed) for seed in range(20)]
    assert len(set(changed)) == 20 and changed[0] == free_lyrics(text, 0)
    for new in changed:
        assert [bool(line) for line in new.splitlines()] == [bool(line) for line in text.splitlines()]
        assert set(" ".join(line.text for line in parse_lyrics(new).lines).lower().split()) <= {
            *map(str.lower, SUNG_WORDS)
        }
    assert 3 < sum(new.splitlines()[-1] == new.splitlines()[-2] for new in changed) < 17


def test_pieces_with_free_lyrics_are_sung(pieces):
    for piece in pieces[2:]:
        assert len(line_starts(piece)) == len(parse_lyrics(piece.lyrics).lines)


def test_free_captions_differ(pieces):
    captions = {free_caption(pieces[0], np.random.default_rng(seed)) for seed in range(50)}
    assert len(captions) > 45 and not any("\n" in caption or "{" in caption for caption in captions)
