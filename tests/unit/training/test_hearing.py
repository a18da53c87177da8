"""What training listens for: texture, instruments in the score, and ears that no hiss deceives."""

import numpy as np
import torch

from training import losses
from training.composer import Wish, compose
from training.fsq import ScoreReader
from training.listener import INSTRUMENTS, features
from training.score import ROW, STROKE, WHOLE, rows_of
from training.synth import render


def _bursts(seed: int) -> torch.Tensor:
    """Noise `[1, 2, 48000]` that comes and goes, some 20 dB, every 40 ms."""
    generator = torch.Generator().manual_seed(seed)
    loud = (torch.rand(25, generator=generator) > 0.5).float().repeat_interleave(1920)
    return torch.randn(1, 2, 48_000, generator=generator) * (0.01 + 0.1 * loud)


def test_another_texture_of_the_same_kind_is_nearer_than_a_blur(monkeypatch):
    wanted, other = _bursts(1), _bursts(2)
    blur = torch.randn(1, 2, 48_000, generator=torch.Generator().manual_seed(3)) * (0.01 * 0.11) ** 0.5
    nearer = [float(losses.spectral_loss(made, wanted)) for made in (other, blur)]
    assert nearer[0] < nearer[1]
    monkeypatch.setattr(losses, "TEXTURE", 0.0)
    blurred = [float(losses.spectral_loss(made, wanted)) for made in (other, blur)]
    assert blurred[1] < blurred[0]  # which is why texture is counted


def test_the_score_tells_which_instruments_sound():
    seed = next(seed for seed in range(50) if "drums" in compose(seed).instruments.values())
    piece, rows = compose(seed), rows_of(seed)
    heard = rows[:, ROW:]
    assert rows.shape[1] == WHOLE == ROW + len(INSTRUMENTS)
    assert {INSTRUMENTS[k] for k in heard.any(0).nonzero()[0]} == set(piece.instruments.values())
    stroke = next(note for note in piece.notes if note.part == "drums")
    start = int(stroke.start * 25)
    assert heard[start : start + STROKE, INSTRUMENTS.index("drums")].all()


def test_audio_codes_are_not_asked_for_instruments():
    score = torch.from_numpy(rows_of(0)[None, :50])
    hidden = torch.randn(1, 50, 16)
    reader = ScoreReader(16, patch=1, whole=False)
    without = score.clone()
    without[..., ROW:] = 1 - without[..., ROW:]
    assert torch.equal(reader(hidden, score), reader(hidden, without))
    whole = ScoreReader(16, patch=1)
    assert not torch.equal(whole(hidden, score), whole(hidden, without))


def test_faint_hiss_is_not_heard():
    wave = render(compose(3, Wish(seconds=10)))
    level = float(np.sqrt(np.mean(wave**2)))
    hiss = np.random.default_rng(0).standard_normal(wave.shape).astype(np.float32)
    near = (features(wave + 0.001 * level * hiss) - features(wave)).abs().mean()
    far = (features(wave + 0.1 * level * hiss) - features(wave)).abs().mean()
    assert near < 0.01 < 0.1 < far
