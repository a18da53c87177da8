"""Initialise an Oobleck autoencoder as a working MDCT codec, so that training starts from sound instead of silence.

A strided convolution with kernel 2·stride can be an MDCT: `stride` bands from windows of 2·stride samples. The
transposed convolution with the same weights inverts the transform, and a cascade of them is a filter bank. If a stage
has fewer channels than bands, the channels are the bands' principal components over real audio. Residual units start
near zero and Snake activations near the identity. The remaining channels start with small random weights.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep_core.models.oobleck import OobleckVAE
from acestep_core.models.snake import Snake

from .initialization import init_autoencoder
from .losses import middle_and_side

SPARE = 0.3  # scale of the random weights on the channels that the MDCT does not use


def mdct_basis(bands: int) -> Tensor:
    """Return the orthonormal MDCT with a sine window, `[bands, 2 * bands]`."""
    n = torch.arange(2 * bands, dtype=torch.float64) + 0.5
    k = torch.arange(bands, dtype=torch.float64)[:, None] + 0.5
    window = torch.sin(math.pi / (2 * bands) * n)
    return (math.sqrt(2 / bands) * window * torch.cos(math.pi / bands * (n + bands / 2) * k)).float()


def principal_components(rows: Tensor, count: int) -> Tensor:
    """Return the strongest directions `[count, dims]` of `rows` `[samples, dims]`."""
    _, vectors = torch.linalg.eigh((rows.T @ rows).double())
    return vectors.flip(1)[:, :count].T.float()


@torch.no_grad()
def init_as_mdct(
    vae: OobleckVAE, audio: Tensor, generator: torch.Generator, residual: float = 0.05, emphasis: float = 0.2
) -> None:
    """Set all weights of `vae`. `audio` `[B, 2, samples]` is some minutes of music for the principal components."""
    init_autoencoder(vae, generator, residual)
    for module in vae.modules():
        if isinstance(module, Snake):
            module.beta.fill_(2.0)
    encoder, decoder = vae.encoder, vae.decoder
    _middle_and_side(encoder.conv1.weight, decoder.conv2.weight)
    # High frequencies are weak but audible, so the principal components see audio with emphasised highs.
    audio = audio - emphasis * F.pad(audio, (1, 0))[..., :-1]
    signal = middle_and_side(audio)
    for block, mirror in zip(encoder.block, decoder.block[::-1], strict=True):
        signal = _stage(block.conv1, mirror.conv_t1, signal)
    _bottleneck(encoder.conv2, decoder.conv1, signal)


def _middle_and_side(into: Tensor, out: Tensor) -> None:
    """Rotate left and right to middle and side in the first two channels."""
    rotation = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) * 0.5**0.5
    into[2:] *= SPARE
    into[:2] = 0
    into[:2, :, 3] = rotation
    out[:, 2:] *= SPARE * 0.1
    out[:, :2] = 0
    out[:, :2, 3] = rotation.T


def _stage(down: nn.Conv1d, up: nn.ConvTranspose1d, signal: Tensor) -> Tensor:
    """Set one MDCT and its inverse on the linear channels. Return these channels after the MDCT, with an rms of 1."""
    channels, stride = signal.shape[1], down.stride[0]
    width = down.out_channels
    mdct = mdct_basis(stride)
    full = torch.zeros(channels * stride, channels, 2 * stride)
    for channel in range(channels):
        full[channel * stride : (channel + 1) * stride, channel] = mdct
    bands = F.conv1d(signal, full, stride=stride, padding=down.padding[0])
    if len(full) > width:
        basis = principal_components(bands.transpose(1, 2).reshape(-1, len(full)), width)
        full = torch.einsum("oi,ick->ock", basis, full)
        bands = torch.einsum("oi,bit->bot", basis, bands)
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
    """Set the latents to the strongest components, with half-way equalised sizes, and their deviations to 0.1."""
    latents = into.out_channels // 2
    basis = principal_components(signal.transpose(1, 2).reshape(-1, signal.shape[1]), latents)
    sizes = torch.einsum("oi,bit->bot", basis, signal).square().mean((0, 2)).sqrt()
    gain = 1 / (sizes.sqrt() * sizes.square().mean().sqrt().sqrt())
    into.weight[latents:] *= 0.1
    into.weight[:latents] = 0
    into.weight[:latents, : signal.shape[1], 1] = basis * gain[:, None]
    into.bias[latents:] = math.log(math.expm1(0.1))
    out.weight[:] = 0
    out.weight[: signal.shape[1], :, 3] = (basis / gain[:, None]).T
