"""Long audio through the autoencoder piece by piece, with the result of doing it at once.

Tiles are whole frames. Each is computed with `overlap` more frames on either side, which are then thrown away: where
the overlap covers the network's reach, what is left is what the whole would have given, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..callbacks import Callbacks
from ..config import VAEConfig
from ..errors import RequestError
from .oobleck import OobleckVAE, sample_latents


@dataclass(frozen=True)
class Tile:
    """Frames `start`..`end` are kept; `first`..`last` are computed."""

    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True)
class TileLayout:
    """How `frames` are cut into tiles of at most `size` frames, `overlap` of them on each side to be thrown away."""

    frames: int
    size: int
    overlap: int

    def __len__(self) -> int:
        return 1 if self.frames <= self.size else -(-self.frames // self.stride)

    def __iter__(self) -> Iterator[Tile]:
        if self.frames <= self.size:
            yield Tile(0, self.frames, 0, self.frames)
            return
        for start in range(0, self.frames, self.stride):
            end = min(start + self.stride, self.frames)
            yield Tile(start, end, max(0, start - self.overlap), min(self.frames, end + self.overlap))

    @property
    def stride(self) -> int:
        return self.size - 2 * self.overlap


@torch.no_grad()
def decode_tiled(
    vae: OobleckVAE,
    latents: Tensor,
    tile_frames: int = 512,
    overlap_frames: int = 9,
    callbacks: Callbacks | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Latents [B, T, 64] to a waveform [B, 2, 1920 T] on the CPU, float32, never holding more than one tile.

    `device` is where to compute, by default where the network's weights are. Raises RequestError for an overlap that
    would change the sound, Cancelled when `callbacks` ask for it.
    """
    layout = _layout(latents.shape[1], tile_frames, overlap_frames, decoder_reach(vae.config))
    batch, hop, device = len(latents), vae.config.hop, device or vae.device
    result = torch.empty(batch, vae.config.audio_channels, layout.frames * hop)

    def compute(item: int, tile: Tile) -> None:
        wave = vae.decode(latents[item : item + 1, tile.first : tile.last].to(device))
        result[item, :, tile.start * hop : tile.end * hop] = wave[0, :, _kept(tile, hop)]

    _each_tile(layout, batch, compute, "decode", callbacks or Callbacks())
    return result


@torch.no_grad()
def encode_tiled(
    vae: OobleckVAE,
    waveform: Tensor,
    tile_frames: int = 750,
    overlap_frames: int = 7,
    callbacks: Callbacks | None = None,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Waveform [B, 2, N] to latents [B, ceil(N / 1920), 64] on the CPU, float32.

    Their mean, or with a `generator` a sample, the same for any tile size. Other arguments and errors are as in
    `decode_tiled`.
    """
    hop, device = vae.config.hop, device or vae.device
    layout = _layout(-(-waveform.shape[-1] // hop), tile_frames, overlap_frames, encoder_reach(vae.config))
    mean = torch.empty(len(waveform), layout.frames, vae.config.decoder_input_channels)
    std = torch.empty_like(mean)

    def compute(item: int, tile: Tile) -> None:
        window = waveform[item : item + 1, :, tile.first * hop : tile.last * hop].to(device)
        for result, part in zip((mean, std), vae.posterior(window), strict=True):
            result[item, tile.start : tile.end] = part[0, _kept(tile, 1)]

    _each_tile(layout, len(waveform), compute, "encode", callbacks or Callbacks())
    return sample_latents(mean, std, generator)


def decoder_reach(config: VAEConfig) -> int:
    """How many latent frames before and after its own a decoded frame depends on: 9 for the released VAE."""
    first, last = -3, config.hop - 1 + 3  # samples that the last convolution (kernel 7) reads for frame 0
    for stride in config.downsampling_ratios:
        first, last = first - _UNITS, last + _UNITS
        padding = (stride + 1) // 2
        first, last = -((2 * stride - 1 - first - padding) // stride), (last + padding) // stride
    return max(3 - first, last + 3)


def encoder_reach(config: VAEConfig) -> int:
    """How many frames of samples before and after its own a latent frame depends on: 7 for the released VAE."""
    first, last = -1, 1  # frames that the last convolution (kernel 3) reads for frame 0
    for stride in reversed(config.downsampling_ratios):
        padding = (stride + 1) // 2
        first, last = first * stride - padding, last * stride - padding + 2 * stride - 1
        first, last = first - _UNITS, last + _UNITS
    samples = max(3 - first, last + 3 - (config.hop - 1))
    return -(-samples // config.hop)


_UNITS = 3 * (1 + 3 + 9)  # reach of three residual units: kernel 7, dilations 1, 3, 9


def _layout(frames: int, size: int, overlap: int, reach: int) -> TileLayout:
    if overlap < reach:
        raise RequestError(
            f"an overlap of {overlap} frames changes the sound at the seams; this autoencoder needs at least {reach}"
        )
    if size <= 2 * overlap:
        raise RequestError(
            f"tiles of {size} frames leave nothing between two overlaps of {overlap}; use at least {2 * overlap + 1}"
        )
    return TileLayout(frames, size, overlap)


def _kept(tile: Tile, hop: int) -> slice:
    """Where the frames to keep lie in what was computed."""
    return slice((tile.start - tile.first) * hop, (tile.end - tile.first) * hop)


def _each_tile(
    layout: TileLayout, batch: int, compute: Callable[[int, Tile], None], stage: str, callbacks: Callbacks
) -> None:
    """Items one after another, so that memory is that of one tile whatever the batch."""
    work = [(item, tile) for item in range(batch) for tile in layout]
    for done, (item, tile) in enumerate(work, 1):
        callbacks.check(stage)
        compute(item, tile)
        callbacks.report(stage, done, len(work))
