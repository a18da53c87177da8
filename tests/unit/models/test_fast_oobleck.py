"""The fast way on a processor against the plain layers, in float64."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from acestep_core.config import VAEConfig
from acestep_core.models.cpu import fast_oobleck as oobleck_cpu
from acestep_core.models.layers import weight_and_bias
from acestep_core.models.oobleck import OobleckVAE
from tests.support import tiny
from tests.support.tiny import draw, relative_error

WIDE = VAEConfig(32, 32, 4, channel_multiples=(1, 1, 2, 1), downsampling_ratios=(2, 4, 2, 6))
LIMIT = 3e-5  # -90 dB


@pytest.fixture(scope="module")
def vae():
    return tiny.vae(WIDE)


def assert_equal_to_layers(vae, frames):
    exact, latents, waveform = copy.deepcopy(vae).double(), draw(2, frames, 4), draw(2, 2, frames * WIDE.hop)
    wanted = exact.decoder(latents.double().transpose(1, 2))
    assert relative_error(vae.decode(latents), wanted) <= LIMIT
    wanted = exact.encoder(waveform.double())[:, :4].transpose(1, 2)
    assert relative_error(vae.encode(waveform), wanted) <= LIMIT


@pytest.mark.parametrize("frames", [1, 2, 7, 30])
def test_is_what_the_layers_give(vae, frames):
    assert_equal_to_layers(vae, frames)


@pytest.mark.parametrize(("piece", "window"), [(1, 32 * 96 * 3), (100, 32 * 300), (10_000, 32 * 96 * 5)])
def test_pieces_and_windows_do_not_show(vae, monkeypatch, piece, window):
    monkeypatch.setattr(oobleck_cpu, "PIECE", piece)
    monkeypatch.setattr(oobleck_cpu, "WINDOW", window)
    assert_equal_to_layers(vae, 11)


def test_transforms_are_exact_but_for_the_rounding_of_their_matrices():
    kernel, input, output = (part.double() for part in oobleck_cpu.transforms())
    x, w = draw(oobleck_cpu.M + 6).double(), draw(7, seed=1).double()
    wanted = torch.stack([(x[i : i + 7] * w).sum() for i in range(oobleck_cpu.M)])
    assert relative_error(output @ ((kernel @ w) * (input @ x)), wanted) <= 2e-5


def test_is_taken_and_sees_changed_weights(vae):
    vae, latents = copy.deepcopy(vae), draw(1, 5, 4)
    before = vae.decode(latents)
    assert torch.equal(before, oobleck_cpu.decode(vae.decoder, latents.transpose(1, 2)))
    assert not torch.equal(before, vae.decoder(latents.transpose(1, 2)))
    vae.decoder.block[1].res_unit2.conv1.weight.mul_(1.5)
    assert relative_error(vae.decode(latents), before) > 0.001
    assert relative_error(vae.decode(latents), vae.decoder(latents.transpose(1, 2))) <= LIMIT


def test_is_left_alone_where_it_does_not_apply(vae):
    decoder, latents = vae.decoder, draw(1, 4, 5)
    assert oobleck_cpu.applies(decoder, latents)
    assert not oobleck_cpu.applies(decoder, latents.bfloat16())
    assert not oobleck_cpu.applies(decoder, latents.to("meta"))
    assert not oobleck_cpu.applies(decoder, latents.clone().requires_grad_())
    assert not oobleck_cpu.applies(tiny.vae(replace(WIDE, decoder_channels=16)).decoder, latents)

    hooked = copy.deepcopy(decoder)
    hooked.conv1.register_forward_hook(lambda *_: None)
    assert not oobleck_cpu.applies(hooked, latents)

    class Adapter(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base

    wrapped = copy.deepcopy(decoder)
    wrapped.block[0].res_unit1.conv1 = Adapter(wrapped.block[0].res_unit1.conv1)
    assert not oobleck_cpu.applies(wrapped, latents)

    class Other(nn.Conv1d):
        pass

    foreign = copy.deepcopy(decoder)
    foreign.conv2 = Other(32, 2, 7, padding=3, bias=False)
    assert not oobleck_cpu.applies(foreign, latents)


def test_layers_of_a_host_tell_their_weights(vae):
    class Doubled:
        def weight_and_bias(self, like):
            return 2 * self.weight.to(like), None if self.bias is None else self.bias.to(like)

    class Ops:
        class Conv1d(Doubled, nn.Conv1d):
            pass

        class ConvTranspose1d(Doubled, nn.ConvTranspose1d):
            pass

    host, plain = OobleckVAE(WIDE, Ops).requires_grad_(False), copy.deepcopy(vae)
    host.load_state_dict(vae.state_dict())
    for layer in plain.modules():
        if hasattr(layer, "kernel_size"):
            layer.weight.copy_(weight_and_bias(layer, layer.weight)[0] * 2)
    latents, waveform = draw(1, 5, 4), draw(1, 2, 5 * WIDE.hop)
    assert torch.equal(host.decode(latents), plain.decode(latents))
    assert torch.equal(host.encode(waveform), plain.encode(waveform))
