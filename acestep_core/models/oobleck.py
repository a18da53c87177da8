"""Oobleck: the autoencoder between stereo 48 kHz audio and latents, 1920 samples a frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import VAEConfig
from . import oobleck_cpu
from .layers import ComputeDtype, Ops
from .snake import Snake


class ResidualUnit(nn.Module):
    def __init__(self, channels: int, dilation: int, ops: Ops, device, dtype):
        super().__init__()
        made = {"device": device, "dtype": dtype}
        self.snake1 = Snake(channels, device, dtype)
        self.conv1 = ops.Conv1d(channels, channels, 7, padding=3 * dilation, dilation=dilation, **made)
        self.snake2 = Snake(channels, device, dtype)
        self.conv2 = ops.Conv1d(channels, channels, 1, **made)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.snake2(self.conv1(self.snake1(x)))).add_(x)


class EncoderBlock(nn.Module):
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
        return self.conv1(self.snake1(self.res_unit3(self.res_unit2(self.res_unit1(x)))))


class DecoderBlock(nn.Module):
    def __init__(self, channels: int, out_channels: int, stride: int, ops: Ops, device, dtype):
        super().__init__()
        self.snake1 = Snake(channels, device, dtype)
        self.conv_t1 = ops.ConvTranspose1d(
            channels, out_channels, 2 * stride, stride=stride, padding=(stride + 1) // 2, device=device, dtype=dtype
        )
        self.res_unit1 = ResidualUnit(out_channels, 1, ops, device, dtype)
        self.res_unit2 = ResidualUnit(out_channels, 3, ops, device, dtype)
        self.res_unit3 = ResidualUnit(out_channels, 9, ops, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.res_unit3(self.res_unit2(self.res_unit1(self.conv_t1(self.snake1(x)))))


class OobleckEncoder(nn.Module):
    def __init__(self, config: VAEConfig, ops: Ops, device, dtype):
        super().__init__()
        made = {"device": device, "dtype": dtype}
        base = config.encoder_hidden_size
        widths = [base * multiple for multiple in (1, *config.channel_multiples)]
        self.conv1 = ops.Conv1d(config.audio_channels, base, 7, padding=3, **made)
        self.block = nn.ModuleList(
            EncoderBlock(width, out, stride, ops, device, dtype)
            for width, out, stride in zip(widths[:-1], widths[1:], config.downsampling_ratios, strict=True)
        )
        self.snake1 = Snake(widths[-1], device, dtype)
        # Mean and scale of each latent channel.
        self.conv2 = ops.Conv1d(widths[-1], 2 * config.decoder_input_channels, 3, padding=1, **made)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for block in self.block:
            x = block(x)
        return self.conv2(self.snake1(x))


class OobleckDecoder(nn.Module):
    def __init__(self, config: VAEConfig, ops: Ops, device, dtype):
        super().__init__()
        made = {"device": device, "dtype": dtype}
        base = config.decoder_channels
        widths = [base * multiple for multiple in (1, *config.channel_multiples)][::-1]
        strides = config.downsampling_ratios[::-1]
        self.conv1 = ops.Conv1d(config.decoder_input_channels, widths[0], 7, padding=3, **made)
        self.block = nn.ModuleList(
            DecoderBlock(width, out, stride, ops, device, dtype)
            for width, out, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        self.snake1 = Snake(base, device, dtype)
        self.conv2 = ops.Conv1d(base, config.audio_channels, 7, padding=3, bias=False, **made)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for block in self.block:
            x = block(x)
        return self.conv2(self.snake1(x))


class OobleckVAE(ComputeDtype, nn.Module):
    """Waveform [B, 2, N] to latents [B, T, 64] and back, T = ceil(N / 1920). Results are float32."""

    def __init__(self, config: VAEConfig, ops: Ops = nn, device=None, dtype=None):
        super().__init__()
        self.config = config
        self.encoder = OobleckEncoder(config, ops, device, dtype)
        self.decoder = OobleckDecoder(config, ops, device, dtype)

    @property
    def device(self) -> torch.device:
        return self.decoder.conv1.weight.device

    def posterior(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, each [B, T, 64]. Zeros fill the last frame up."""
        padded = F.pad(waveform, (0, -waveform.shape[-1] % self.config.hop))
        padded = padded.to(self.dtype)
        run = oobleck_cpu.encode if oobleck_cpu.applies(self.encoder, padded) else OobleckEncoder.__call__
        mean, scale = run(self.encoder, padded).float().transpose(1, 2).chunk(2, dim=-1)
        return mean, F.softplus(scale) + 1e-4

    def encode(self, waveform: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The mean of the latents [B, T, 64]; with a `generator` (of the CPU) a sample."""
        return sample_latents(*self.posterior(waveform), generator)

    def decode(self, latents: Tensor) -> Tensor:
        """[B, T, 64] to [B, 2, 1920 T]."""
        latents = latents.transpose(1, 2).to(self.dtype)
        run = oobleck_cpu.decode if oobleck_cpu.applies(self.decoder, latents) else OobleckDecoder.__call__
        return run(self.decoder, latents).float()


def sample_latents(mean: Tensor, std: Tensor, generator: torch.Generator | None) -> Tensor:
    """A draw from the posterior, or its mean without a generator. Noise comes from the CPU, the same for any device."""
    if generator is None:
        return mean
    return mean + std * torch.randn(mean.shape, generator=generator).to(mean)
