import logging

import pytest
import torch

from acestep_core import load_model
from acestep_core.models.oobleck import OobleckDecoder
from tests.support import tiny
from tests.support.tiny import draw


@pytest.mark.parametrize("samples", [1, 1919, 1920, 1921, 5000])
def test_the_last_frame_is_padded_with_zeros(samples):
    vae, waveform = tiny.vae(), draw(1, 2, samples)
    frames = -(-samples // 1920)
    latents = vae.encode(waveform)
    assert latents.shape == (1, frames, 8)
    padded = torch.cat((waveform, torch.zeros(1, 2, frames * 1920 - samples)), dim=-1)
    assert torch.equal(latents, vae.encode(padded))
    assert vae.decode(latents).shape == (1, 2, frames * 1920)


def test_encode_returns_the_mean_or_a_seeded_sample():
    vae, waveform = tiny.vae(), draw(1, 2, 9600)
    mean, std = vae.posterior(waveform)
    assert torch.equal(vae.encode(waveform), mean) and (std > 0).all()
    first, second, other = (vae.encode(waveform, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(first, mean + std * noise)


def changed(before, after):
    """Return the first and last position along the second-last axis that differ."""
    where = (before != after).any(dim=-1)[0].nonzero()
    return where.min().item(), where.max().item()


def test_a_latent_frame_affects_nine_frames_of_audio_on_each_side():
    vae, latents = tiny.vae(), draw(1, 41, 8)
    other = latents.clone()
    other[:, 20] += 1
    before, after = (
        vae.decode(x).double().unflatten(-1, (-1, 1920)).movedim(1, 2).flatten(2) for x in (latents, other)
    )
    assert changed(before, after) == (11, 29)


@pytest.mark.parametrize(("sample", "frames"), [(20 * 1920, (13, 26)), (20 * 1920 + 1919, (14, 27))])
def test_a_sample_affects_seven_latent_frames_on_each_side(sample, frames):
    """In float64, as the outermost changes are small."""
    vae, waveform = tiny.vae().double(), draw(1, 2, 41 * 1920).double()
    other = waveform.clone()
    other[..., sample] += 10
    before, after = (vae.encoder(x).transpose(1, 2) for x in (waveform, other))
    assert changed(before, after) == frames


def test_all_weights_have_gradients():
    vae = tiny.vae().requires_grad_()
    vae.decode(vae.encode(draw(1, 2, 3840))).square().mean().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name == "encoder.conv2.bias", name


def error(got, expected):
    """Return the power of the error over that of `expected`, in dB."""
    return 10 * ((got.double() - expected).square().mean() / expected.square().mean()).log10().item()


def test_float16_is_more_exact_than_bfloat16():
    """With nano's trained weights, whose activations have a realistic range."""
    torch.manual_seed(0)
    vae, latents, waveform = load_model("nano", device="cpu").vae, torch.randn(1, 24, 64), torch.rand(1, 2, 46080) - 0.5
    exact = (vae.double().decoder(latents.double().mT), vae.encoder(waveform.double()).chunk(2, dim=1)[0].mT)
    for dtype, limits in ((torch.float16, (-59, -62)), (torch.bfloat16, (-39, -41))):
        vae.to(dtype)
        errors = [error(*pair) for pair in zip((vae.decode(latents), vae.encode(waveform)), exact, strict=True)]
        assert all(found < limit for found, limit in zip(errors, limits, strict=True)), (dtype, errors)
    assert min(errors) > -52


def test_float16_overflow_is_recomputed_in_float32(caplog):
    vae, latents, waveform = tiny.vae(), draw(1, 3, 8), draw(1, 2, 3 * 1920)
    for part, gain in ((vae.decoder, 3e5), (vae.encoder, 1e5)):
        part.conv1.weight.mul_(gain).clamp_(-6e4, 6e4)
    vae.half()
    with caplog.at_level(logging.WARNING, "acestep"):
        decoded, encoded = vae.decode(latents), vae.encode(waveform)
    [record] = caplog.records  # one warning for all overflows
    assert "float16" in record.message
    assert not OobleckDecoder.forward(vae.decoder, latents.half().mT).isfinite().all()
    assert vae.dtype == torch.float16
    vae.float()
    for got, expected in ((decoded, vae.decode(latents)), (encoded, vae.encode(waveform))):
        assert torch.allclose(got, expected, rtol=1e-3)


@pytest.mark.parametrize("mode", ["autocast", "half"])
def test_the_encoder_has_gradients_in_half_precision(mode):
    vae = tiny.vae().requires_grad_()
    if mode == "half":
        vae.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        vae.encode(draw(1, 2, 3840)).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in vae.encoder.parameters())


def test_nan_latents_cause_no_overflow_warning(caplog):
    vae = tiny.vae().half()
    assert vae.decode(torch.full((1, 2, 8), torch.nan)).isnan().any()
    assert not caplog.records
