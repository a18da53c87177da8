"""The fast VAE on a CPU against the plain layers in float64."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from acestep_core.config import VAEConfig
from acestep_core.models.cpu import fast_oobleck
from acestep_core.models.cpu.plugins import install_cpu_plugins
from acestep_core.models.layers import weight_and_bias
from acestep_core.models.oobleck import OobleckDecoder, OobleckVAE
from tests.support import tiny
from tests.support.tiny import draw, relative_error

WIDE = VAEConfig(32, 32, 4, channel_multiples=(1, 1, 2, 1), downsampling_ratios=(2, 4, 2, 6))
LIMIT = 3e-5  # -90 dB


def with_plugins(vae: OobleckVAE) -> OobleckVAE:
    install_cpu_plugins(vae, torch.device("cpu"))
    return vae


@pytest.fixture(scope="module")
def vae():
    return with_plugins(tiny.vae(WIDE))


def assert_near_exact(vae, frames):
    exact, latents, waveform = tiny.vae(WIDE).double(), draw(2, frames, 4), draw(2, 2, frames * WIDE.hop)
    expected = exact.decoder(latents.double().transpose(1, 2))
    assert relative_error(vae.decode(latents), expected) <= LIMIT
    expected = exact.encoder(waveform.double())[:, :4].transpose(1, 2)
    assert relative_error(vae.encode(waveform), expected) <= LIMIT


@pytest.mark.parametrize("frames", [1, 2, 7, 30])
def test_results_equal_those_of_the_layers(vae, frames):
    assert_near_exact(vae, frames)


@pytest.mark.parametrize(("piece", "window"), [(1, 32 * 96 * 3), (100, 32 * 300), (10_000, 32 * 96 * 5)])
def test_results_do_not_depend_on_pieces_and_windows(vae, monkeypatch, piece, window):
    monkeypatch.setattr(fast_oobleck, "PIECE", piece)
    monkeypatch.setattr(fast_oobleck, "WINDOW", window)
    assert_near_exact(vae, 11)


def test_transforms_are_exact_up_to_rounding():
    kernel, input, output = (part.double() for part in fast_oobleck.transforms())
    x, w = draw(fast_oobleck.M + 6).double(), draw(7, seed=1).double()
    expected = torch.stack([(x[i : i + 7] * w).sum() for i in range(fast_oobleck.M)])
    assert relative_error(output @ ((kernel @ w) * (input @ x)), expected) <= 2e-5


def test_changed_weights_change_the_result(vae):
    vae, latents = copy.deepcopy(vae), draw(1, 5, 4)
    before = vae.decode(latents)
    vae.decoder.block[1].res_unit2.conv1.weight.mul_(1.5)
    after, x = vae.decode(latents), latents.transpose(1, 2)
    assert relative_error(after, before) > 0.001
    assert torch.equal(after, fast_oobleck.decode_rows(vae.decoder, x[0].t()).t()[None])
    plain = OobleckDecoder.forward(vae.decoder, x)
    assert 0 < relative_error(after, plain) <= LIMIT


def test_applies(vae):
    decoder, latents = vae.decoder, draw(1, 4, 5)
    assert fast_oobleck.applies(decoder, latents)
    assert not fast_oobleck.applies(decoder, latents.bfloat16())
    assert not fast_oobleck.applies(decoder, latents.to("meta"))
    assert not fast_oobleck.applies(decoder, latents.clone().requires_grad_())
    assert not fast_oobleck.applies(tiny.vae(replace(WIDE, decoder_channels=16)).decoder, latents)

    hooked = copy.deepcopy(decoder)
    hooked.conv1.register_forward_hook(lambda *_: None)
    assert not fast_oobleck.applies(hooked, latents)

    class Adapter(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base

    wrapped = copy.deepcopy(decoder)
    wrapped.block[0].res_unit1.conv1 = Adapter(wrapped.block[0].res_unit1.conv1)
    assert not fast_oobleck.applies(wrapped, latents)

    class OtherConv(nn.Conv1d):
        pass

    other = copy.deepcopy(decoder)
    other.conv2 = OtherConv(32, 2, 7, padding=3, bias=False)
    assert not fast_oobleck.applies(other, latents)


def test_where_it_does_not_apply_the_layers_run():
    plain, vae, latents = tiny.vae(), with_plugins(tiny.vae()), draw(1, 6, 8)  # too narrow
    waveform = plain.decode(latents)
    assert torch.equal(vae.decode(latents), waveform) and torch.equal(vae.encode(waveform), plain.encode(waveform))


def test_weights_come_from_the_layers_own_method(vae):
    class Doubled:
        def weight_and_bias(self, like):
            return 2 * self.weight.to(like), None if self.bias is None else self.bias.to(like)

    class Ops:
        class Conv1d(Doubled, nn.Conv1d):
            pass

        class ConvTranspose1d(Doubled, nn.ConvTranspose1d):
            pass

    host, plain = with_plugins(OobleckVAE(WIDE, Ops).requires_grad_(False)), copy.deepcopy(vae)
    host.load_state_dict(vae.state_dict())
    for layer in plain.modules():
        if hasattr(layer, "kernel_size"):
            layer.weight.copy_(weight_and_bias(layer, layer.weight)[0] * 2)
    latents, waveform = draw(1, 5, 4), draw(1, 2, 5 * WIDE.hop)
    assert torch.equal(host.decode(latents), plain.decode(latents))
    assert torch.equal(host.encode(waveform), plain.encode(waveform))


def test_transposed_convolutions_without_onednn(monkeypatch):
    """For torch before 2.7, whose oneDNN is slow for them."""
    layer, x, enabled = nn.ConvTranspose1d(4, 3, 8, stride=4), draw(1, 4, 50), []
    expected, original = layer(x), F.conv_transpose1d

    def recording(*inputs):
        enabled.append(torch.backends.mkldnn.enabled)
        return original(*inputs)

    layer.__class__ = fast_oobleck.DirectConvTranspose1d
    monkeypatch.setattr(F, "conv_transpose1d", recording)
    assert torch.allclose(layer(x), expected, atol=1e-5)
    assert enabled == [False] and torch.backends.mkldnn.enabled
