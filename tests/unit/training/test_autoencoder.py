"""The stages of the autoencoder and of the audio codes on tiny networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acestep_core.config import SAMPLE_RATE
from acestep_core.models.oobleck import OobleckVAE
from tests.support import tiny
from tests.support.tiny_training import MODEL, VAE
from training import fsq, vae
from training.composer import compose
from training.discriminator import Adversary
from training.export import silence_of
from training.latents import LatentPool
from training.losses import mel_distance, si_sdr
from training.mdct_init import init_as_mdct, mdct_basis
from training.piece import Constraints
from training.pool import Pool
from training.styles import BEAT_FRAMES
from training.synth import render


def test_mdct_is_orthonormal():
    for bands in (2, 4, 6, 10):
        basis = mdct_basis(bands)
        assert torch.allclose(basis @ basis.T, torch.eye(bands), atol=1e-5)
        assert torch.allclose(basis[:, :bands] @ basis[:, bands:].T, torch.zeros(bands, bands), atol=1e-5)


def test_autoencoder_starts_as_a_codec():
    music = torch.stack([torch.from_numpy(render(compose(seed, Constraints(seconds=10)))) for seed in range(4)])
    network = OobleckVAE(VAE)
    init_as_mdct(network, music, torch.Generator().manual_seed(0))
    wave = torch.from_numpy(render(compose(99, Constraints(seconds=10))))[:, : 3 * SAMPLE_RATE]
    with torch.no_grad():
        decoded = network.decode(network.encode(wave[None]))[0]
        untrained = tiny.randomise(OobleckVAE(VAE), gain=0.5)
        other = untrained.decode(untrained.encode(wave[None]))[0]
    assert si_sdr(decoded, wave) > 2
    assert mel_distance(decoded, wave) < mel_distance(other, wave)


def test_autoencoder_resumes_exactly(folders, tmp_path):
    def trainer() -> vae.VAETrainer:
        return vae.VAETrainer(VAE, vae.VAERecipe(batch=1, frames=4), Pool(folders["pool"]), tmp_path, compiled=False)

    straight = trainer()
    for _ in range(2):
        straight.train_step()
    straight.save()
    third = straight.train_step()
    again = trainer()
    assert again.step == 2
    assert again.train_step() == pytest.approx(third, rel=1e-4)


def test_a_frozen_encoder_keeps_the_latents(folders, tmp_path):
    recipe = vae.VAERecipe(batch=1, frames=4, freeze_encoder=True)
    trainer = vae.VAETrainer(VAE, recipe, Pool(folders["pool"]), tmp_path, compiled=False)
    before = [p.clone() for p in trainer.vae.encoder.parameters()]
    trainer.train_step()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.vae.encoder.parameters(), strict=True))


def test_discriminators_and_autoencoder_learn_from_each_other(folders, tmp_path):
    torch.manual_seed(0)
    adversary = Adversary(rate=3e-3, sizes=(256,), width=8)
    real, blurred = torch.randn(2, 2, 4096) * 0.1, torch.randn(2, 2, 4096).cumsum(-1) * 0.01
    first = adversary.train_step(blurred, real)
    for _ in range(15):
        last = adversary.train_step(blurred, real)
    assert last < 0.6 * first
    adversarial, distance = adversary.losses(blurred, real)
    lowest, zero = adversary.losses(real, real)
    assert adversarial > lowest and distance > zero == 0

    recipe = vae.VAERecipe(batch=1, frames=4, adversarial=0.1)
    trainer = vae.VAETrainer(VAE, recipe, Pool(folders["pool"]), tmp_path, compiled=False)
    before = [p.clone() for p in trainer.adversary.parameters()]
    result = trainer.train_step()
    assert {"adversary", "adversarial", "features"} <= result.keys() and all(np.isfinite(list(result.values())))
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.adversary.parameters(), strict=True))
    trainer.save()
    again = vae.VAETrainer(VAE, recipe, Pool(folders["pool"]), tmp_path, compiled=False)
    assert all(
        torch.equal(a, b) for a, b in zip(trainer.adversary.parameters(), again.adversary.parameters(), strict=True)
    )


def test_audio_codes_learn_and_match_the_core(folders):
    trainer = fsq.FSQTrainer(MODEL, LatentPool(folders["latents"]), folders["fsq"])
    assert trainer.step == 3
    first = trainer.train_step()["loss"]
    for _ in range(15):
        last = trainer.train_step()["loss"]
    assert last < first
    latents = torch.randn(2, 20, 64)
    decoded, codes, _ = fsq.round_trip(trainer.model, latents)
    trainer.model.silence_latent = torch.zeros(1, 5, 64)
    assert torch.equal(codes, trainer.model.tokenize(latents))
    assert torch.allclose(decoded, trainer.model.detokenize(codes), atol=1e-4)


def test_silence_has_a_clock_for_every_tempo(folders):
    silence = silence_of(vae.load_trained(folders["vae"], VAE), frames=200)
    assert silence.shape == (1, 200, 64)
    for pair, frames in enumerate(BEAT_FRAMES):
        clock = silence[0, :, 2 * pair]
        beats = torch.arange(0, 200, int(2 * frames))
        torch.testing.assert_close(clock[beats], clock[:1].expand(len(beats)), atol=1e-4, rtol=0)
        assert clock[0] - clock[round(frames / 2)] > 0.9
