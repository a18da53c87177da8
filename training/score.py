"""Auxiliary targets from a piece's score, and the linear heads that predict them. No head is shipped.

With these targets, the networks need not discover beats, chords and tempo in the latents by themselves.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep_core.config import FRAME_RATE
from acestep_core.song.song import Song

from .composer import compose
from .piece import Piece
from .styles import BEATS, DRUMS, INSTRUMENT_NAMES, STYLES, TEMPI, TONICS, nearest_tempo

STROKES = (("kick",), ("snare", "rim"), ("hat", "open_hat", "shaker", "ride"), ("crash", "tom"))
VOICES = (("bass",), ("chords", "pad"), ("melody", "voice"))
PHASES = 4  # cosine and sine of the position in the beat and in the bar
MARKS = len(STROKES) + len(VOICES) + 24  # onsets, pitch classes of the bass, pitch classes of everything else
ROW = PHASES + MARKS  # audio codes have only the MARKS as targets
TIMBRES = len(INSTRUMENT_NAMES)  # presence of each instrument
WHOLE = ROW + TIMBRES
ONSETS = 4.0  # weight of an onset relative to a pitch class, because onsets are rare
RHYTHM = 2.0  # weight of the phases, which are learned last

STYLE_NAMES, INSTRUMENTS = tuple(STYLES), tuple(INSTRUMENT_NAMES)
METERS = (3, 4, 6)
BPM = tuple(TEMPI)
STROKE = 8  # assumed length of a drum stroke in frames


@lru_cache(maxsize=20_000)
def score_rows(seed: int) -> np.ndarray:
    """Return the score of a piece, `[frames, WHOLE]` int8: 100 times the phases, then 0 or 1."""
    piece = compose(seed)
    frames = piece.seconds * FRAME_RATE
    out = np.zeros((frames, WHOLE), np.int8)
    out[:, :PHASES] = 100 * beat_phases(piece, np.arange(frames))
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


def beat_phases(piece: Piece, frames: np.ndarray) -> np.ndarray:
    """Return cosine and sine of the position in the beat and in the bar, `[frames, PHASES]` float32."""
    beats = frames / FRAME_RATE / piece.beat_seconds
    angle = 2 * np.pi * np.stack((beats, beats / BEATS[piece.meter]), axis=1)
    return np.stack((np.cos(angle), np.sin(angle)), axis=2).reshape(len(frames), PHASES).astype(np.float32)


class ScoreHead(nn.Module):
    """A linear head that predicts the score from hidden rows.

    `whole` adds phases and instruments, which do not fit into audio codes.
    """

    def __init__(self, width: int, patch: int, whole: bool = True):
        super().__init__()
        self.patch, self.whole, self.size = patch, whole, WHOLE if whole else ROW
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, patch * self.size)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, -1.0)

    def predict(self, hidden: Tensor) -> Tensor:
        """Return predictions `[B, P * patch, size]` from `hidden` `[B, P, width]`."""
        return self.out(self.norm(hidden.float())).unflatten(-1, (self.patch, self.size)).flatten(1, 2)

    def forward(self, hidden: Tensor, score: Tensor) -> Tensor:
        """Return the error per item `[B]` of `hidden` `[B, P, width]` against `score_rows` `[B, T, WHOLE]`."""
        predicted = self.predict(hidden)[:, : score.shape[1]]
        target = score[..., PHASES : self.size].float()
        errors = F.binary_cross_entropy_with_logits(predicted[..., PHASES:], target, reduction="none")
        errors, timbres = errors[..., :MARKS], errors[..., MARKS:]
        marks = errors.mean((1, 2)) + (ONSETS - 1) * errors[..., : len(STROKES) + len(VOICES)].sum(-1).mean(1) / MARKS
        if not self.whole:
            return marks
        phases = (predicted[..., :PHASES] - score[..., :PHASES].float() / 100).square().mean((1, 2))
        return RHYTHM * phases + marks + timbres.mean((1, 2))


def metadata_labels(pieces: list[Piece]) -> dict[str, Tensor]:
    """Return class indices `[B]` of the metadata, and the presence of instruments `[B, instruments]`."""
    return {
        "tempo": torch.tensor([BPM.index(nearest_tempo(p.bpm)) for p in pieces]),
        "key": torch.tensor([TONICS.index(p.tonic) + 12 * (p.mode == "minor") for p in pieces]),
        "meter": torch.tensor([METERS.index(p.meter) for p in pieces]),
        "style": torch.tensor([STYLE_NAMES.index(p.style) for p in pieces]),
        "instruments": torch.tensor([[float(n in p.instruments.values()) for n in INSTRUMENTS] for p in pieces]),
    }


class MetadataHead(nn.Module):
    """Linear heads that predict metadata, style and instruments from the last condition row of a caption."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.tempo = nn.Linear(width, len(BPM))
        self.key = nn.Linear(width, 24)
        self.meter = nn.Linear(width, len(METERS))
        self.style = nn.Linear(width, len(STYLE_NAMES))
        self.instruments = nn.Linear(width, len(INSTRUMENTS))

    def forward(self, rows: Tensor, pieces: list[Piece], songs: list[Song]) -> dict[str, Tensor]:
        """Return the mean error of each label from `rows` `[B, width]`. Songs without a label are masked."""
        labels = {name: value.to(rows.device) for name, value in metadata_labels(pieces).items()}
        rows = self.norm(rows.float())
        errors = {
            "tempo": F.cross_entropy(self.tempo(rows), labels["tempo"], reduction="none"),
            "key": F.cross_entropy(self.key(rows), labels["key"], reduction="none"),
            "meter": F.cross_entropy(self.meter(rows), labels["meter"], reduction="none"),
            "style": F.cross_entropy(self.style(rows), labels["style"], reduction="none"),
            "instruments": F.binary_cross_entropy_with_logits(
                self.instruments(rows), labels["instruments"], reduction="none"
            ).mean(1),
        }
        given = {
            "tempo": [song.metadata.bpm is not None for song in songs],
            "key": [song.metadata.key is not None for song in songs],
            "meter": [song.metadata.time_signature is not None for song in songs],
        }
        result = {}
        for name, error in errors.items():
            mask = torch.tensor(given.get(name, [True] * len(songs)), device=rows.device).float()
            result[name] = (error * mask).sum() / mask.sum().clamp_min(1)
        return result
