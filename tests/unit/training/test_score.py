"""Targets of training: texture, the instruments of the score, and classifier features."""

import numpy as np
import torch

from training import losses
from training.classifier import INSTRUMENTS, features
from training.composer import compose
from training.fsq import ScoreHead
from training.piece import Constraints
from training.score import ROW, STROKE, WHOLE, score_rows
from training.synth import render


def _bursts(seed: int) -> torch.Tensor:
    """Return noise `[1, 2, 48000]` whose level changes at random by some 20 dB every 40 ms."""
    generator = torch.Generator().manual_seed(seed)
    loud = (torch.rand(25, generator=generator) > 0.5).float().repeat_interleave(1920)
    return torch.randn(1, 2, 48_000, generator=generator) * (0.01 + 0.1 * loud)


def test_similar_texture_is_closer_than_a_blur(monkeypatch):
    target, other = _bursts(1), _bursts(2)
    blur = torch.randn(1, 2, 48_000, generator=torch.Generator().manual_seed(3)) * (0.01 * 0.11) ** 0.5
    losses_with_texture = [float(losses.spectral_loss(decoded, target)) for decoded in (other, blur)]
    assert losses_with_texture[0] < losses_with_texture[1]
    monkeypatch.setattr(losses, "TEXTURE", 0.0)
    losses_without = [float(losses.spectral_loss(decoded, target)) for decoded in (other, blur)]
    assert losses_without[1] < losses_without[0]


def test_score_has_the_instruments_that_sound():
    seed = next(seed for seed in range(50) if "drums" in compose(seed).instruments.values())
    piece, rows = compose(seed), score_rows(seed)
    present = rows[:, ROW:]
    assert rows.shape[1] == WHOLE == ROW + len(INSTRUMENTS)
    assert {INSTRUMENTS[k] for k in present.any(0).nonzero()[0]} == set(piece.instruments.values())
    stroke = next(note for note in piece.notes if note.part == "drums")
    start = int(stroke.start * 25)
    assert present[start : start + STROKE, INSTRUMENTS.index("drums")].all()


def test_audio_codes_have_no_instrument_targets():
    score = torch.from_numpy(score_rows(0)[None, :50])
    hidden = torch.randn(1, 50, 16)
    head = ScoreHead(16, patch=1, whole=False)
    without = score.clone()
    without[..., ROW:] = 1 - without[..., ROW:]
    assert torch.equal(head(hidden, score), head(hidden, without))
    whole = ScoreHead(16, patch=1)
    assert not torch.equal(whole(hidden, score), whole(hidden, without))


def test_features_ignore_faint_noise():
    wave = render(compose(3, Constraints(seconds=10)))
    level = float(np.sqrt(np.mean(wave**2)))
    noise = np.random.default_rng(0).standard_normal(wave.shape).astype(np.float32)
    near = (features(wave + 0.001 * level * noise) - features(wave)).abs().mean()
    far = (features(wave + 0.1 * level * noise) - features(wave)).abs().mean()
    assert near < 0.01 < 0.1 < far
