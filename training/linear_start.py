"""Starts an Oobleck autoencoder as a working transform codec, so that training begins from sound instead of silence.

A strided convolution with kernel 2·stride can be a lapped transform (MDCT: `stride` bands from windows of 2·stride),
and the transposed convolution with the same weights undoes it. A cascade of them is a filter bank; where a stage yields
more bands than it has channels, the principal components of real audio are kept. Residual units start near zero, snakes
near the identity. All weights stay trainable; the random channels beside the linear ones give training something to
grow.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep_core.models.oobleck import OobleckVAE, ResidualUnit
from acestep_core.models.snake import Snake

from .losses import middle_and_side

SPARE = 0.3  # strength of the random weights on channels the linear path does not use


def variance_preserving(vae: nn.Module, generator: torch.Generator, residual: float = 0.3) -> None:
    """Random weights through which a signal keeps its size: std 1/√(in·k), transposed 1/√(2·in), zero biases.

    The last convolution of each residual unit is scaled by `residual`.
    """
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
                transposed = isinstance(module, nn.ConvTranspose1d)
                fan = 2 * module.in_channels if transposed else module.in_channels * module.kernel_size[0]
                module.weight.normal_(0, fan**-0.5, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
        for module in vae.modules():
            if isinstance(module, ResidualUnit):
                module.conv2.weight.mul_(residual)


def lapped_basis(bands: int) -> Tensor:
    """Orthonormal MDCT with a sine window, `[bands, 2 * bands]`."""
    n = torch.arange(2 * bands, dtype=torch.float64) + 0.5
    k = torch.arange(bands, dtype=torch.float64)[:, None] + 0.5
    window = torch.sin(math.pi / (2 * bands) * n)
    return (math.sqrt(2 / bands) * window * torch.cos(math.pi / bands * (n + bands / 2) * k)).float()


def principal(rows: Tensor, keep: int) -> Tensor:
    """The `keep` strongest directions of `rows` `[samples, dims]`, as `[keep, dims]`."""
    _, vectors = torch.linalg.eigh((rows.T @ rows).double())
    return vectors.flip(1)[:, :keep].T.float()


@torch.no_grad()
def start_linear(
    vae: OobleckVAE, audio: Tensor, generator: torch.Generator, residual: float = 0.05, emphasis: float = 0.2
) -> None:
    """Sets all weights of `vae`. `audio`: `[B, 2, samples]`, some minutes of music to take principal components of."""
    variance_preserving(vae, generator, residual)
    for module in vae.modules():
        if isinstance(module, Snake):
            module.beta.fill_(2.0)
    encoder, decoder = vae.encoder, vae.decoder
    _middle_and_side(encoder.conv1.weight, decoder.conv2.weight)
    # High frequencies are weak but heard: the principal components are those of the audio with its highs raised.
    audio = audio - emphasis * F.pad(audio, (1, 0))[..., :-1]
    signal = middle_and_side(audio)
    for block, mirror in zip(encoder.block, decoder.block[::-1], strict=True):
        signal = _stage(block.conv1, mirror.conv_t1, signal)
    _bottleneck(encoder.conv2, decoder.conv1, signal)


def _middle_and_side(into: Tensor, out: Tensor) -> None:
    """First two channels: middle and side."""
    rotation = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) * 0.5**0.5
    into[2:] *= SPARE
    into[:2] = 0
    into[:2, :, 3] = rotation
    out[:, 2:] *= SPARE * 0.1
    out[:, :2] = 0
    out[:, :2, 3] = rotation.T


def _stage(down: nn.Conv1d, up: nn.ConvTranspose1d, signal: Tensor) -> Tensor:
    """One lapped transform of the linear channels, and its inverse. Returns the linear channels after it, size 1."""
    channels, stride = signal.shape[1], down.stride[0]
    width = down.out_channels
    basis = lapped_basis(stride)
    full = torch.zeros(channels * stride, channels, 2 * stride)
    for channel in range(channels):
        full[channel * stride : (channel + 1) * stride, channel] = basis
    bands = F.conv1d(signal, full, stride=stride, padding=down.padding[0])
    if len(full) > width:
        keep = principal(bands.transpose(1, 2).reshape(-1, len(full)), width)
        full = torch.einsum("oi,ick->ock", keep, full)
        bands = torch.einsum("oi,bit->bot", keep, bands)
    scale = 1 / (bands.square().mean().sqrt() + 1e-8)
    used = len(full)
    down.weight[:used] = 0
    down.weight[:used, :channels] = full * scale
    down.weight[used:] *= SPARE
    up.weight[:used] = 0
    up.weight[:used, :channels] = full / scale
    up.weight[used:] *= SPARE * 0.1
    return bands * scale


def _bottleneck(into: nn.Conv1d, out: nn.Conv1d, signal: Tensor) -> None:
    """The strongest components become the latents, their sizes brought half-way to equal; the scales start at 0.1."""
    latents = into.out_channels // 2
    keep = principal(signal.transpose(1, 2).reshape(-1, signal.shape[1]), latents)
    sizes = torch.einsum("oi,bit->bot", keep, signal).square().mean((0, 2)).sqrt()
    gain = 1 / (sizes.sqrt() * sizes.square().mean().sqrt().sqrt())
    into.weight[latents:] *= 0.1
    into.weight[:latents] = 0
    into.weight[:latents, : signal.shape[1], 1] = keep * gain[:, None]
    into.bias[latents:] = math.log(math.expm1(0.1))
    out.weight[:] = 0
    out.weight[: signal.shape[1], :, 3] = (keep / gain[:, None]).T
