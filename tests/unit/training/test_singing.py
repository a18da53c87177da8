"""The voice of a composed piece has a syllable of the lyrics for each note."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from acestep_core.lyrics.structure import parse_lyrics
from acestep_core.text.lyric_tokens import LyricTokens
from training.composer import compose
from training.instruments import sing
from training.latents import LatentPool
from training.lyric_heads import Shares, config_value, rows_of
from training.lyric_places import patch_places, token_rows
from training.piece import Constraints, Piece
from training.pool import make_shard, sung_seeds
from training.singing import line_starts, sung_syllables, syllables
from training.styles import BEATS


@pytest.fixture(scope="module")
def pieces() -> list[Piece]:
    return [compose(seed, Constraints(sung=True, solo="")) for seed in range(7000, 7060)]


@pytest.mark.parametrize(
    ("text", "vowels"),
    [
        ("The river is singing", "e ie i ii"),
        ("Oh, carry me home", "o ai e o"),
        ("through the open door", "u e oe u"),
        ("at the break of dawn", "a e i o a"),
    ],
)
def test_syllables_have_the_vowels_of_the_letters(text, vowels):
    found = syllables(parse_lyrics(text).lines[0])
    assert "".join(syllable.vowel for syllable in found) == vowels.replace(" ", "")
    assert "".join(text[syllable.first : syllable.last] for syllable in found) == text.replace(" ", "")


def test_each_note_of_the_voice_has_a_syllable(pieces):
    for piece in pieces:
        for note in piece.notes:
            assert bool(note.places) == (note.part == "voice")
            if note.places:
                first, last = note.places
                assert note.vowel in tuple("aeiou") and 0 <= first < last <= len(piece.lyrics)


def test_only_the_first_note_of_a_syllable_has_its_consonant(pieces):
    sounds = {"s": "sfhzvcjx", "t": "ptkbdgq"}
    for piece in pieces:
        before = None
        for note in piece.notes:
            if note.places:
                letter = piece.lyrics[note.places[0]].lower()
                expected = next((sound for sound, letters in sounds.items() if letter in letters), "")
                assert note.consonant == ("" if note.places == before else expected), piece.seed
                before = note.places
    hiss, plain = (sing(200.0, 0.4, "a", consonant) for consonant in ("s", ""))
    assert np.abs(np.diff(hiss[:2000])).mean() > 5 * np.abs(np.diff(plain[:2000])).mean()
    assert np.allclose(hiss[6000:], plain[6000:], atol=1e-5)


def test_syllables_are_sung_in_the_order_of_the_lyrics(pieces):
    for piece in pieces:
        sung = sung_syllables(piece)
        assert all(a.first < b.first and a.start < b.start for a, b in pairwise(sung)), piece.seed
        assert max(syllable.end for syllable in sung) <= piece.seconds


def test_each_line_starts_in_its_section(pieces):
    for piece in pieces:
        lines, bar = parse_lyrics(piece.lyrics).lines, piece.beat_seconds * BEATS[piece.meter]
        starts = line_starts(piece)
        assert list(starts) == list(range(len(lines))) and list(starts.values()) == sorted(starts.values())
        for line, start in zip(lines, starts.values(), strict=True):
            section = piece.sections[line.section]
            assert section.bar * bar - 0.02 <= start < (section.bar + section.bars) * bar


def test_most_syllables_of_a_line_are_sung(pieces):
    wanted = sum(len(syllables(line)) for piece in pieces for line in parse_lyrics(piece.lyrics).lines)
    assert sum(len(sung_syllables(piece)) for piece in pieces) > 0.95 * wanted


def test_targets_are_the_tokens_that_are_sung(pieces):
    """Each character is a token here."""
    for piece in pieces[:20]:
        tokens = LyricTokens(piece.lyrics, 5, tuple((i, i + 1) for i in range(len(piece.lyrics))))
        targets = token_rows(patch_places(piece, int(piece.seconds / 0.08), 0.08), tokens, 999)
        for syllable in sung_syllables(piece):
            inside = targets[int(syllable.start / 0.08) + 1 : int(syllable.end / 0.08) - 1]
            assert (inside == 5 + syllable.first).all()
        rows = targets[targets != 999]
        assert (np.diff(rows) >= 0).all(), "the targets are in the order of the lyrics"
        tags = {5 + section.place for section in parse_lyrics(piece.lyrics).sections}
        unsung = [i for i, section in enumerate(piece.sections) if "voice" not in section.parts]
        assert not unsung or tags & set(rows.tolist())


def test_a_pool_of_sung_pieces_has_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr("training.pool.PIECES_PER_SHARD", 2)
    make_shard(tmp_path, 1, 0, sung=True)
    seeds = [seed for seed, _, _ in json.loads((tmp_path / "shard_0001.json").read_text())]
    assert seeds == sung_seeds(1000, 2)
    assert all("voice" in compose(seed).instruments for seed in seeds)


def test_latents_of_subfolders_are_read(tmp_path):
    for number, folder in enumerate(("own", "free")):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "shard_0000.npy", np.full((50, 64), number, np.float16))
        (tmp_path / folder / "shard_0000.json").write_text(json.dumps([(number, 0, 50)]))
    rows = LatentPool(tmp_path).by_frames[50]
    assert {seed: latents.mean() for seed, latents in rows} == {0: 0.0, 1: 1.0}


def test_heads_are_listed_by_layer():
    heads = [(layer, head) for layer in range(3) for head in range(4)]
    listed = config_value([(2, 3), (1, 0), (2, 1)])
    assert listed == {"1": [0], "2": [1, 3]}
    assert [heads[row] for row in rows_of({1: (0,), 2: (1, 3)}, heads)] == [(1, 0), (2, 1), (2, 3)]
    assert Shares.of([0.0, 0.3, 0.5, 2.0]) == Shares(0.5, 0.75, 0.4)
