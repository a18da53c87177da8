import logging

import pytest
import torch

from acestep_core import load_model
from acestep_core.models import oobleck
from acestep_core.models.oobleck import OobleckDecoder
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


def error(got, wanted):
    """In dB."""
    return 10 * ((got.double() - wanted).square().mean() / wanted.square().mean()).log10().item()


def test_float16_is_far_more_exact_than_bfloat16():
    """With nano's trained weights, whose signals are as wide as they are in use."""
    torch.manual_seed(0)
    vae, latents, waveform = load_model("nano", device="cpu").vae, torch.randn(1, 24, 64), torch.rand(1, 2, 46080) - 0.5
    exact = (vae.double().decoder(latents.double().mT), vae.encoder(waveform.double()).chunk(2, dim=1)[0].mT)
    for dtype, limits in ((torch.float16, (-59, -62)), (torch.bfloat16, (-39, -41))):
        vae.to(dtype)
        errors = [error(*pair) for pair in zip((vae.decode(latents), vae.encode(waveform)), exact, strict=True)]
        assert all(found < limit for found, limit in zip(errors, limits, strict=True)), (dtype, errors)
    assert min(errors) > -52


def test_what_goes_beyond_float16_is_made_in_float32(caplog):
    vae, latents, waveform = tiny.vae(), draw(1, 3, 8), draw(1, 2, 3 * 1920)
    for half, loud in ((vae.decoder, 3e5), (vae.encoder, 1e5)):
        half.conv1.weight.mul_(loud).clamp_(-6e4, 6e4)
    vae.half()
    with caplog.at_level(logging.WARNING, "acestep"):
        decoded, encoded = vae.decode(latents), vae.encode(waveform)
    assert [record.message for record in caplog.records] == [
        "the VAE goes beyond float16: where it does, it is done again in float32, which takes longer"
    ]
    assert not OobleckDecoder.forward(vae.decoder, latents.half().mT).isfinite().all()
    assert vae.dtype == torch.float16
    vae.float()
    for got, wanted in ((decoded, vae.decode(latents)), (encoded, vae.encode(waveform))):
        assert torch.allclose(got, wanted, rtol=1e-3)


@pytest.mark.parametrize("way", ["mixed", "half"])
def test_the_encoder_learns_in_half_precision_too(way):
    vae = tiny.vae().requires_grad_()
    if way == "half":
        vae.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "mixed"):
        vae.encode(draw(1, 2, 3840)).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in vae.encoder.parameters())


def test_of_latents_that_are_not_numbers_nothing_is_said(caplog):
    vae = tiny.vae().half()
    assert vae.decode(torch.full((1, 2, 8), torch.nan)).isnan().any()
    assert not caplog.records


def test_where_onednn_is_slow_at_it_torch_stretches_itself(monkeypatch):
    vae, latents, ways = tiny.vae(), draw(1, 6, 8), []
    for layer in vae.decoder.modules():
        if isinstance(layer, torch.nn.ConvTranspose1d):
            layer.register_forward_pre_hook(lambda *_: ways.append(torch.backends.mkldnn.enabled))
    monkeypatch.setattr(oobleck, "SLOW_ONEDNN", False)
    usual = vae.decode(latents)
    monkeypatch.setattr(oobleck, "SLOW_ONEDNN", True)
    assert torch.allclose(vae.decode(latents), usual, atol=1e-5)
    half = len(ways) // 2
    assert half and all(ways[:half]) and not any(ways[half:]) and torch.backends.mkldnn.enabled
