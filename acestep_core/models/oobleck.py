"""Oobleck: the autoencoder between stereo 48 kHz audio and latents, 1920 samples a frame."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..config import VAEConfig
from .cpu import fast_oobleck as oobleck_cpu
from .layers import ComputeDtype, Ops
from .snake import Snake

log = logging.getLogger("acestep")

# The oneDNN of torch 2.5 and 2.6 takes up to a hundred times as long as torch itself for a narrow transposed
# convolution in float32: nano's twenty seconds of music took five minutes.
SLOW_ONEDNN = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7)


class ResidualUnit(nn.Module):
    def __init__(self, channels: int, dilation: int, ops: Ops, device, dtype):
        super().__init__()
        made = {"device": device, "dtype": dtype}
        self.snake1 = Snake(channels, device, dtype)
        self.conv1 = ops.Conv1d(channels, channels, 7, padding=3 * dilation, dilation=dilation, **made)
        self.snake2 = Snake(channels, device, dtype)
        self.conv2 = ops.Conv1d(channels, channels, 1, **made)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, N], of the dtype computed in; or a wider one, which the result then has and takes the place of."""
        added = self.conv2(self.snake2(self.conv1(self.snake1(_narrowed(x, self.snake1)))))
        if added.dtype == x.dtype:
            return added.add_(x)
        return x + added if torch.is_grad_enabled() else x.add_(added)


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
        for unit in (self.res_unit1, self.res_unit2, self.res_unit3):
            x = unit(x)
        return self.conv1(self.snake1(_narrowed(x, self.snake1)))


class DecoderBlock(nn.Module):
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
        x = _stretched(self.conv_t1, self.snake1(_narrowed(x, self.snake1)))
        if self.wide:
            x = _widened(x)
        for unit in (self.res_unit1, self.res_unit2, self.res_unit3):
            x = unit(x)
        return x


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
            x = _widened(x)
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
            # Not the last two, which have most of the samples: there it would take memory and bring next to nothing.
            DecoderBlock(width, out, stride, index < len(strides) - 2, ops, device, dtype)
            for index, (width, out, stride) in enumerate(zip(widths[:-1], widths[1:], strides, strict=True))
        )
        self.snake1 = Snake(base, device, dtype)
        self.conv2 = ops.Conv1d(base, config.audio_channels, 7, padding=3, bias=False, **made)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for block in self.block:
            x = block(x)
        return self.conv2(self.snake1(x))


def _widened(x: Tensor) -> Tensor:
    """Residual units add up in float32: in float16 with nano's weights that takes errors from -60 to -62 dB in the
    decoder, from -57 to -64 dB in the encoder."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _stretched(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)` of a transposed convolution, by the faster of torch's two ways."""
    if not SLOW_ONEDNN or x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return layer(x)
    with torch.backends.mkldnn.flags(enabled=False):
        return layer(x)


def _narrowed(x: Tensor, snake: Snake) -> Tensor:
    """x in the dtype of the weights, where it is in a wider one."""
    dtype = snake.alpha.dtype
    return x.to(dtype) if x.dtype.itemsize > dtype.itemsize else x


class OobleckVAE(ComputeDtype, nn.Module):
    """Waveform [B, 2, N] to latents [B, T, 64] and back, T = ceil(N / 1920). Results are float32.

    In float16 what goes beyond its range is done again in float32.
    """

    def __init__(self, config: VAEConfig, ops: Ops = nn, device=None, dtype=None):
        super().__init__()
        self._told = False
        self.config = config
        self.encoder = OobleckEncoder(config, ops, device, dtype)
        self.decoder = OobleckDecoder(config, ops, device, dtype)

    @property
    def device(self) -> torch.device:
        return self.decoder.conv1.weight.device

    def posterior(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, each [B, T, 64]. Zeros fill the last frame up."""
        padded = F.pad(waveform, (0, -waveform.shape[-1] % self.config.hop))
        mean, scale = self._run(self.encoder, oobleck_cpu.encode, padded).transpose(1, 2).chunk(2, dim=-1)
        return mean, F.softplus(scale) + 1e-4

    def encode(self, waveform: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The mean of the latents [B, T, 64]; with a `generator` (of the CPU) a sample."""
        return sample_latents(*self.posterior(waveform), generator)

    def decode(self, latents: Tensor) -> Tensor:
        """[B, T, 64] to [B, 2, 1920 T]."""
        return self._run(self.decoder, oobleck_cpu.decode, latents.transpose(1, 2))

    def _run(self, network: nn.Module, fast: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> Tensor:
        """The encoder or the decoder."""
        given = x.to(self.dtype)
        run = fast if oobleck_cpu.applies(network, given) else nn.Module.__call__
        result = run(network, given).float()
        if given.dtype != torch.float16 or given.is_meta or result.isfinite().all() or not x.isfinite().all():
            return result
        if not self._told:
            log.warning("the VAE goes beyond float16: where it does, it is done again in float32, which takes longer")
            self._told = True
        weights = {name: parameter.float() for name, parameter in network.named_parameters()}
        return functional_call(network, weights, (x.float(),))


def sample_latents(mean: Tensor, std: Tensor, generator: torch.Generator | None) -> Tensor:
    """A draw from the posterior, or its mean without a generator. Noise comes from the CPU, the same for any device."""
    if generator is None:
        return mean
    return mean + std * torch.randn(mean.shape, generator=generator).to(mean)
