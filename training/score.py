"""What a piece's score says of each moment and of the whole: known to the composer, taught to the networks beside the
sound, so that they need not discover beats, chords and tempo in the latents by themselves. Nothing of it is shipped.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep_core.config import FRAME_RATE
from acestep_core.song.song import Song

from .composer import Piece, compose
from .styles import BEATS, DRUMS, INSTRUMENT_NAMES, STYLES, TEMPI, TONICS, nearest_tempo

STROKES = (("kick",), ("snare", "rim"), ("hat", "open_hat", "shaker", "ride"), ("crash", "tom"))
VOICES = (("bass",), ("chords", "pad"), ("melody", "voice"))
PHASES = 4  # cosine and sine of the place in the beat and in the bar
MARKS = len(STROKES) + len(VOICES) + 24  # onsets, pitch classes of the bass, pitch classes of everything else
ROW = PHASES + MARKS  # what audio codes shall tell, the phases apart
TIMBRES = len(INSTRUMENT_NAMES)  # which instruments sound
WHOLE = ROW + TIMBRES
ONSETS = 4.0  # weight of an onset, of a pitch class's: few of many, and the harder to hear
RHYTHM = 2.0  # weight of the phases, which are learned last

STYLE_NAMES, INSTRUMENTS = tuple(STYLES), tuple(INSTRUMENT_NAMES)
METERS = (3, 4, 6)
BPM = tuple(TEMPI)
STROKE = 8  # frames that drums are taken to sound after a stroke


@lru_cache(maxsize=20_000)
def rows_of(seed: int) -> np.ndarray:
    """The score of piece `seed` frame by frame, `[frames, WHOLE]` int8: phases times 100, then 0 or 1."""
    piece = compose(seed)
    frames = piece.seconds * FRAME_RATE
    out = np.zeros((frames, WHOLE), np.int8)
    out[:, :PHASES] = 100 * phases_of(piece, np.arange(frames))
    for note in piece.notes:
        start = int(note.start * FRAME_RATE)
        if start >= frames:
            continue
        length = STROKE if note.part == "drums" else max(1, int(note.seconds * FRAME_RATE))
        out[start : start + length, ROW + INSTRUMENTS.index(piece.instruments[note.part])] = 1
        if note.part == "drums":
            kind = next(k for k, names in enumerate(STROKES) if DRUMS[note.pitch] in names)
            out[start, PHASES + kind] = 1
            continue
        kind = next(k for k, names in enumerate(VOICES) if note.part in names)
        out[start, PHASES + len(STROKES) + kind] = 1
        chroma = PHASES + len(STROKES) + len(VOICES) + (0 if note.part == "bass" else 12)
        out[start : start + length, chroma + note.pitch % 12] = 1
    return out


def phases_of(piece: Piece, frames: np.ndarray) -> np.ndarray:
    """Cosine and sine of the place in the beat and in the bar, `[frames, PHASES]` float32."""
    beats = frames / FRAME_RATE / piece.beat_seconds
    angle = 2 * np.pi * np.stack((beats, beats / BEATS[piece.meter]), axis=1)
    return np.stack((np.cos(angle), np.sin(angle)), axis=2).reshape(len(frames), PHASES).astype(np.float32)


class ScoreReader(nn.Module):
    """Reads the score from hidden rows of the diffusion transformer: one linear map, for training alone.

    `whole`: phases and instruments too, for which audio codes have no room.
    """

    def __init__(self, width: int, patch: int, whole: bool = True):
        super().__init__()
        self.patch, self.whole, self.size = patch, whole, WHOLE if whole else ROW
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, patch * self.size)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, -1.0)

    def read(self, hidden: Tensor) -> Tensor:
        """What it makes of `hidden` `[B, P, width]`: `[B, P * patch, size]`."""
        return self.out(self.norm(hidden.float())).unflatten(-1, (self.patch, self.size)).flatten(1, 2)

    def forward(self, hidden: Tensor, score: Tensor) -> Tensor:
        """Error per item `[B]`; `hidden` `[B, P, width]`, `score` `[B, T, WHOLE]` as `rows_of` gives it."""
        read = self.read(hidden)[:, : score.shape[1]]
        wanted = score[..., PHASES : self.size].float()
        errors = F.binary_cross_entropy_with_logits(read[..., PHASES:], wanted, reduction="none")
        errors, timbres = errors[..., :MARKS], errors[..., MARKS:]
        marks = errors.mean((1, 2)) + (ONSETS - 1) * errors[..., : len(STROKES) + len(VOICES)].sum(-1).mean(1) / MARKS
        if not self.whole:
            return marks
        phases = (read[..., :PHASES] - score[..., :PHASES].float() / 100).square().mean((1, 2))
        return RHYTHM * phases + marks + timbres.mean((1, 2))


def facts_of(pieces: list[Piece]) -> dict[str, Tensor]:
    """What the words shall tell: numbers of classes `[B]`, and which instruments there are `[B, instruments]`."""
    return {
        "tempo": torch.tensor([BPM.index(nearest_tempo(p.bpm)) for p in pieces]),
        "key": torch.tensor([TONICS.index(p.tonic) + 12 * (p.mode == "minor") for p in pieces]),
        "meter": torch.tensor([METERS.index(p.meter) for p in pieces]),
        "style": torch.tensor([STYLE_NAMES.index(p.style) for p in pieces]),
        "instruments": torch.tensor([[float(n in p.instruments.values()) for n in INSTRUMENTS] for p in pieces]),
    }


class FactReader(nn.Module):
    """Reads the facts from the last row of a caption's condition: one linear map each, for training alone."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.tempo = nn.Linear(width, len(BPM))
        self.key = nn.Linear(width, 24)
        self.meter = nn.Linear(width, len(METERS))
        self.style = nn.Linear(width, len(STYLE_NAMES))
        self.instruments = nn.Linear(width, len(INSTRUMENTS))

    def forward(self, rows: Tensor, pieces: list[Piece], songs: list[Song]) -> dict[str, Tensor]:
        """Mean errors by fact of `rows` `[B, width]`. What the song leaves out is not asked."""
        facts = {name: value.to(rows.device) for name, value in facts_of(pieces).items()}
        rows = self.norm(rows.float())
        errors = {
            "tempo": F.cross_entropy(self.tempo(rows), facts["tempo"], reduction="none"),
            "key": F.cross_entropy(self.key(rows), facts["key"], reduction="none"),
            "meter": F.cross_entropy(self.meter(rows), facts["meter"], reduction="none"),
            "style": F.cross_entropy(self.style(rows), facts["style"], reduction="none"),
            "instruments": F.binary_cross_entropy_with_logits(
                self.instruments(rows), facts["instruments"], reduction="none"
            ).mean(1),
        }
        told = {
            "tempo": [song.metadata.bpm is not None for song in songs],
            "key": [song.metadata.key is not None for song in songs],
            "meter": [song.metadata.time_signature is not None for song in songs],
        }
        result = {}
        for name, error in errors.items():
            asked = torch.tensor(told.get(name, [True] * len(songs)), device=rows.device).float()
            result[name] = (error * asked).sum() / asked.sum().clamp_min(1)
        return result
