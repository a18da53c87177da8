import pytest
import torch

from tests.support import tiny
from tests.support.tiny import draw


@pytest.mark.parametrize("samples", [1, 1919, 1920, 1921, 5000])
def test_zeros_fill_the_last_frame_up(samples):
    vae, waveform = tiny.vae(), draw(1, 2, samples)
    frames = -(-samples // 1920)
    latents = vae.encode(waveform)
    assert latents.shape == (1, frames, 8)
    filled = torch.cat((waveform, torch.zeros(1, 2, frames * 1920 - samples)), dim=-1)
    assert torch.equal(latents, vae.encode(filled))
    assert vae.decode(latents).shape == (1, 2, frames * 1920)


def test_mean_by_default_and_a_seeded_sample_on_request():
    vae, waveform = tiny.vae(), draw(1, 2, 9600)
    mean, std = vae.posterior(waveform)
    assert torch.equal(vae.encode(waveform), mean) and (std > 0).all()
    first, second, other = (vae.encode(waveform, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(first, mean + std * noise)


def changed(before, after):
    """First and last position along the second-last axis that differ."""
    where = (before != after).any(dim=-1)[0].nonzero()
    return where.min().item(), where.max().item()


def test_a_latent_frame_reaches_nine_frames_of_sound():
    vae, latents = tiny.vae(), draw(1, 41, 8)
    other = latents.clone()
    other[:, 20] += 1
    before, after = (
        vae.decode(x).double().unflatten(-1, (-1, 1920)).movedim(1, 2).flatten(2) for x in (latents, other)
    )
    assert changed(before, after) == (11, 29)


@pytest.mark.parametrize(("sample", "frames"), [(20 * 1920, (13, 26)), (20 * 1920 + 1919, (14, 27))])
def test_a_sample_reaches_seven_latent_frames(sample, frames):
    """In float64: what arrives at the rim is small."""
    vae, waveform = tiny.vae().double(), draw(1, 2, 41 * 1920).double()
    other = waveform.clone()
    other[..., sample] += 10
    before, after = (vae.encoder(x).transpose(1, 2) for x in (waveform, other))
    assert changed(before, after) == frames


def test_every_weight_learns():
    vae = tiny.vae().requires_grad_()
    vae.decode(vae.encode(draw(1, 2, 3840))).square().mean().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name == "encoder.conv2.bias", name
