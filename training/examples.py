"""A composed piece as a training example: the song that asks for it, in the words the model will be asked with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from acestep_core.edit.tasks import COVER, TEXT2MUSIC
from acestep_core.song.song import Metadata, Song
from acestep_core.text.prompts import caption_prompt, lyric_prompt

from .composer import Piece, compose
from .styles import TEMPI, nearest_tempo

ENHARMONIC = {"C#": "Db", "Eb": "D#", "F#": "Gb", "Ab": "G#", "Bb": "A#"}


def song_of(piece: Piece, rng: np.random.Generator | None = None, forget: float = 0.0) -> Song:
    """The request that `piece` answers. With `rng`, each musical fact is left to the model with probability `forget`,
    keys are spelled either way, and half of the tempi are told as any number that lies nearest to the one played."""
    tonic, bpm = piece.tonic, piece.bpm
    keep = dict.fromkeys(("bpm", "key", "time_signature"), True)
    if rng is not None:
        keep = {name: bool(rng.random() >= forget) for name in keep}
        if tonic in ENHARMONIC and rng.random() < 0.4:
            tonic = ENHARMONIC[tonic]
        if bpm in TEMPI and rng.random() < 0.5:
            bpm = int(rng.choice([near for near in range(55, 185) if nearest_tempo(near) == bpm]))
    return Song(
        caption=piece.caption,
        lyrics=piece.lyrics,
        metadata=Metadata(
            bpm=bpm if keep["bpm"] else None,
            key=f"{tonic} {piece.mode}" if keep["key"] else None,
            time_signature=str(piece.meter) if keep["time_signature"] else None,
            language=piece.language,
            duration=piece.seconds,
        ),
    )


def texts(pieces: int, first_seed: int = 0) -> Iterator[str]:
    """Prompts of so many pieces, for training the tokenizer."""
    for seed in range(first_seed, first_seed + pieces):
        song = song_of(compose(seed), np.random.default_rng(seed), forget=0.1)
        yield caption_prompt(song, COVER if seed % 4 == 0 else TEXT2MUSIC).body
        yield lyric_prompt(song).body
