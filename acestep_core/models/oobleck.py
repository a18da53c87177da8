"""Oobleck, the autoencoder between stereo 48 kHz audio and latents. A latent frame is 1920 samples."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..config import VAEConfig
from .layers import ComputeDtype, Ops
from .snake import Snake

log = logging.getLogger("acestep")


class ResidualUnit(nn.Module):
    """x + conv(snake(conv(snake(x)))), with a dilated convolution of kernel 7 and one of kernel 1."""

    def __init__(self, channels: int, dilation: int, ops: Ops, device, dtype):
        super().__init__()
        options = {"device": device, "dtype": dtype}
        self.snake1 = Snake(channels, device, dtype)
        self.conv1 = ops.Conv1d(channels, channels, 7, padding=3 * dilation, dilation=dilation, **options)
        self.snake2 = Snake(channels, device, dtype)
        self.conv2 = ops.Conv1d(channels, channels, 1, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum in the dtype of x [B, C, N], the compute dtype or a wider one. May overwrite a wider x."""
        added = self.conv2(self.snake2(self.conv1(self.snake1(_narrow(x, self.snake1)))))
        if added.dtype == x.dtype:
            return added.add_(x)
        return x + added if torch.is_grad_enabled() else x.add_(added)


class EncoderBlock(nn.Module):
    """Three residual units and a strided convolution."""

    def __init__(self, channels: int, out_channels: int, stride: int, ops: Ops, device, dtype):
        super().__init__()
        self.res_unit1 = ResidualUnit(channels, 1, ops, device, dtype)
        self.res_unit2 = ResidualUnit(channels, 3, ops, device, dtype)
        self.res_unit3 = ResidualUnit(channels, 9, ops, device, dtype)
        self.snake1 = Snake(channels, device, dtype)
        self.conv1 = ops.Conv1d(
            channels, out_channels, 2 * stride, stride=stride, padding=(stride + 1) // 2, device=device, dtype=dtype
        )

    def forward(self, x: Tensor) -> Tensor:
        for unit in (self.res_unit1, self.res_unit2, self.res_unit3):
            x = unit(x)
        return self.conv1(self.snake1(_narrow(x, self.snake1)))


class DecoderBlock(nn.Module):
    """A transposed convolution and three residual units.

    wide: the residual units add in float32.
    """

    def __init__(self, channels: int, out_channels: int, stride: int, wide: bool, ops: Ops, device, dtype):
        super().__init__()
        self.wide = wide
        self.snake1 = Snake(channels, device, dtype)
        self.conv_t1 = ops.ConvTranspose1d(
            channels, out_channels, 2 * stride, stride=stride, padding=(stride + 1) // 2, device=device, dtype=dtype
        )
        self.res_unit1 = ResidualUnit(out_channels, 1, ops, device, dtype)
        self.res_unit2 = ResidualUnit(out_channels, 3, ops, device, dtype)
        self.res_unit3 = ResidualUnit(out_channels, 9, ops, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_t1(self.snake1(_narrow(x, self.snake1)))
        if self.wide:
            x = _widen(x)
        for unit in (self.res_unit1, self.res_unit2, self.res_unit3):
            x = unit(x)
        return x


class OobleckEncoder(nn.Module):
    """Waveform [B, 2, N] to means and scales of the latents, [B, 2 * 64, N / 1920]."""

    def __init__(self, config: VAEConfig, ops: Ops, device, dtype):
        super().__init__()
        options = {"device": device, "dtype": dtype}
        base = config.encoder_hidden_size
        widths = [base * multiple for multiple in (1, *config.channel_multiples)]
        self.conv1 = ops.Conv1d(config.audio_channels, base, 7, padding=3, **options)
        self.block = nn.ModuleList(
            EncoderBlock(width, out, stride, ops, device, dtype)
            for width, out, stride in zip(widths[:-1], widths[1:], config.downsampling_ratios, strict=True)
        )
        self.snake1 = Snake(widths[-1], device, dtype)
        self.conv2 = ops.Conv1d(widths[-1], 2 * config.decoder_input_channels, 3, padding=1, **options)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for block in self.block:
            x = block(_widen(x))
        return self.conv2(self.snake1(x))


class OobleckDecoder(nn.Module):
    """Latents [B, 64, T] to a waveform [B, 2, 1920 T]."""

    def __init__(self, config: VAEConfig, ops: Ops, device, dtype):
        super().__init__()
        options = {"device": device, "dtype": dtype}
        base = config.decoder_channels
        widths = [base * multiple for multiple in (1, *config.channel_multiples)][::-1]
        strides = config.downsampling_ratios[::-1]
        self.conv1 = ops.Conv1d(config.decoder_input_channels, widths[0], 7, padding=3, **options)
        self.block = nn.ModuleList(
            # The last two blocks have most of the samples: float32 sums would cost memory and gain next to nothing.
            DecoderBlock(width, out, stride, index < len(strides) - 2, ops, device, dtype)
            for index, (width, out, stride) in enumerate(zip(widths[:-1], widths[1:], strides, strict=True))
        )
        self.snake1 = Snake(base, device, dtype)
        self.conv2 = ops.Conv1d(base, config.audio_channels, 7, padding=3, bias=False, **options)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for block in self.block:
            x = block(x)
        return self.conv2(self.snake1(x))


def _widen(x: Tensor) -> Tensor:
    """Cast to at least float32, in which residual units add.

    With nano's weights in float16 this lowers errors from -60 to -62 dB in the decoder, from -57 to -64 dB in the
    encoder.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _narrow(x: Tensor, snake: Snake) -> Tensor:
    """Cast a wider x to the dtype of the weights."""
    dtype = snake.alpha.dtype
    return x.to(dtype) if x.dtype.itemsize > dtype.itemsize else x


class Float16OverflowError(ArithmeticError):
    """A result of the VAE exceeds the range of float16."""


class WideWeights(dict[str, Tensor]):
    """The float32 weights of the encoder or decoder. Empty until a result has overflowed float16."""


class OobleckVAE(ComputeDtype):
    """Waveform [B, 2, N] to latents [B, T, 64] and back, T = ceil(N / 1920). Results are float32.

    If a float16 result overflows, it is computed again in float32. With `wide` the first overflow fills `wide` and
    raises Float16OverflowError instead; all later calls with this `wide` compute in float32.
    """

    def __init__(self, config: VAEConfig, ops: Ops = nn, device=None, dtype=None):
        super().__init__()
        self._overflow_reported = False
        self.config = config
        self.encoder = OobleckEncoder(config, ops, device, dtype)
        self.decoder = OobleckDecoder(config, ops, device, dtype)

    @property
    def device(self) -> torch.device:
        return self.decoder.conv1.weight.device

    def posterior(self, waveform: Tensor, wide: WideWeights | None = None) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the latents, each [B, T, 64]. The last frame is padded with zeros."""
        padded = F.pad(waveform, (0, -waveform.shape[-1] % self.config.hop))
        mean, scale = self._run(self.encoder, padded, wide).transpose(1, 2).chunk(2, dim=-1)
        return mean, F.softplus(scale) + 1e-4

    def encode(self, waveform: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean of the latents [B, T, 64], or a sample if there is a `generator` (on the CPU)."""
        return sample_latents(*self.posterior(waveform), generator)

    def decode(self, latents: Tensor, wide: WideWeights | None = None) -> Tensor:
        """Decode latents [B, T, 64] to a waveform [B, 2, 1920 T]."""
        return self._run(self.decoder, latents.transpose(1, 2), wide)

    def _run(self, network: nn.Module, x: Tensor, wide: WideWeights | None) -> Tensor:
        if wide:
            return functional_call(network, wide, (x.float(),))
        result = network(x.to(self.dtype)).float()
        # The host waits here, as it does for the result itself, which is the next thing to be copied.
        if self.dtype != torch.float16 or x.is_meta or result.isfinite().all() or not x.isfinite().all():
            return result
        if not self._overflow_reported:
            log.warning("VAE: a result overflows float16. The song is computed in float32, which takes longer")
            self._overflow_reported = True
        weights = {name: parameter.float() for name, parameter in network.named_parameters()}
        if wide is not None:
            wide.update(weights)
            raise Float16OverflowError
        return functional_call(network, weights, (x.float(),))


def sample_latents(mean: Tensor, std: Tensor, generator: torch.Generator | None) -> Tensor:
    """Sample the posterior, or return its mean if there is no generator.

    The noise is drawn on the CPU, so that it is the same for any device.
    """
    if generator is None:
        return mean
    return mean + std * torch.randn(mean.shape, generator=generator).to(mean)
