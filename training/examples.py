"""Training examples: the song that requests a composed piece, in the prompts of inference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from acestep_core.edit.tasks import COVER, TEXT2MUSIC
from acestep_core.song.song import Metadata, Song
from acestep_core.text.prompts import caption_prompt, lyric_prompt

from .composer import compose
from .piece import Piece
from .styles import TEMPI, nearest_tempo

ENHARMONIC = {"C#": "Db", "Eb": "D#", "F#": "Gb", "Ab": "G#", "Bb": "A#"}


def song_of(piece: Piece, rng: np.random.Generator | None = None, dropout: float = 0.0) -> Song:
    """Return the request for `piece`, augmented if there is an `rng`.

    Augmentation leaves out BPM, key and time signature with a probability of `dropout` each and respells some keys.
    Half of the tempi become another BPM whose nearest tempo is the piece's.
    """
    tonic, bpm = piece.tonic, piece.bpm
    included = dict.fromkeys(("bpm", "key", "time_signature"), True)
    if rng is not None:
        included = {name: bool(rng.random() >= dropout) for name in included}
        if tonic in ENHARMONIC and rng.random() < 0.4:
            tonic = ENHARMONIC[tonic]
        if bpm in TEMPI and rng.random() < 0.5:
            bpm = int(rng.choice([near for near in range(55, 185) if nearest_tempo(near) == bpm]))
    return Song(
        caption=piece.caption,
        lyrics=piece.lyrics,
        metadata=Metadata(
            bpm=bpm if included["bpm"] else None,
            key=f"{tonic} {piece.mode}" if included["key"] else None,
            time_signature=str(piece.meter) if included["time_signature"] else None,
            language=piece.language,
            duration=piece.seconds,
        ),
    )


def texts(pieces: int, first_seed: int = 0) -> Iterator[str]:
    """Yield the prompts of that many pieces, as training data for the tokenizer."""
    for seed in range(first_seed, first_seed + pieces):
        song = song_of(compose(seed), np.random.default_rng(seed), dropout=0.1)
        yield caption_prompt(song, COVER if seed % 4 == 0 else TEXT2MUSIC).body
        yield lyric_prompt(song).body
