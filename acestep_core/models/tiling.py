"""Encode and decode long audio tile by tile, equal to the untiled result up to rounding.

Tiles are whole frames. Each is computed with `overlap` more frames on either side, which are then discarded. The
overlap must cover the network's reach.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from ..callbacks import Callbacks
from ..config import VAEConfig
from ..errors import RequestError
from .layers import TORCH
from .oobleck import Float16OverflowError, OobleckVAE, WideWeights, sample_latents

MPS_TILE_FRAMES = 32  # for convolutions of at most 65 536 samples


@dataclass(frozen=True)
class Tile:
    """A range of frames: `first`..`last` are computed, `start`..`end` of them are used."""

    start: int
    end: int
    first: int
    last: int

    def used(self, hop: int = 1) -> slice:
        """Return the range of used frames within the computed ones, in units of 1 / `hop` frame."""
        return slice((self.start - self.first) * hop, (self.end - self.first) * hop)


@dataclass(frozen=True)
class TileLayout:
    """The tiles of `frames` frames. Each has at most `size` frames, of which `overlap` on each side are discarded."""

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
            yield self._tile(start, end)

    def halves(self, tile: Tile) -> Iterator[Tile]:
        """Yield both halves of a tile, for work that takes twice the memory."""
        middle = (tile.start + tile.end + 1) // 2
        yield self._tile(tile.start, middle)
        if middle < tile.end:
            yield self._tile(middle, tile.end)

    def _tile(self, start: int, end: int) -> Tile:
        return Tile(start, end, max(0, start - self.overlap), min(self.frames, end + self.overlap))

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
    """Decode latents [B, T, 64] to a waveform [B, 2, 1920 T] on the CPU, float32, one tile in memory at a time.

    device: where to compute; the device of the VAE by default.
    Raises RequestError if the overlap is too small for an exact result, and Cancelled.
    """
    layout = _layout(latents.shape[1], tile_frames, overlap_frames, decoder_reach(vae.config))
    batch, hop, device = len(latents), vae.config.hop, device or vae.device
    result = torch.empty(batch, vae.config.audio_channels, layout.frames * hop)

    def compute(item: int, tile: Tile, wide: WideWeights) -> None:
        waveform = vae.decode(latents[item : item + 1, tile.first : tile.last].to(device), wide)
        result[item, :, tile.start * hop : tile.end * hop] = waveform[0, :, tile.used(hop)]

    _for_each_tile(layout, batch, compute, "decode", callbacks or Callbacks())
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
    """Encode a waveform [B, 2, N] to latents [B, ceil(N / 1920), 64] on the CPU, float32.

    Returns the mean of the posterior, or a sample if there is a `generator`. The sample does not depend on the tile
    size. Other parameters and errors: see `decode_tiled`.
    """
    hop, device = vae.config.hop, device or vae.device
    layout = _layout(-(-waveform.shape[-1] // hop), tile_frames, overlap_frames, encoder_reach(vae.config))
    mean = torch.empty(len(waveform), layout.frames, vae.config.decoder_input_channels)
    std = torch.empty_like(mean)

    def compute(item: int, tile: Tile, wide: WideWeights) -> None:
        window = waveform[item : item + 1, :, tile.first * hop : tile.last * hop].to(device)
        for result, computed in zip((mean, std), vae.posterior(window, wide), strict=True):
            result[item, tile.start : tile.end] = computed[0, tile.used()]

    _for_each_tile(layout, len(waveform), compute, "encode", callbacks or Callbacks())
    return sample_latents(mean, std, generator)


def decoder_reach(config: VAEConfig) -> int:
    """Return how many latent frames on each side a decoded frame depends on: 9 for the released VAE."""
    first, last = -3, config.hop - 1 + 3  # samples that the last convolution (kernel 7) reads for frame 0
    for stride in config.downsampling_ratios:
        first, last = first - _UNITS_REACH, last + _UNITS_REACH
        padding = (stride + 1) // 2
        first, last = -((2 * stride - 1 - first - padding) // stride), (last + padding) // stride
    return max(3 - first, last + 3)


def encoder_reach(config: VAEConfig) -> int:
    """Return how many frames of samples on each side a latent frame depends on: 7 for the released VAE."""
    first, last = -1, 1  # frames that the last convolution (kernel 3) reads for frame 0
    for stride in reversed(config.downsampling_ratios):
        padding = (stride + 1) // 2
        first, last = first * stride - padding, last * stride - padding + 2 * stride - 1
        first, last = first - _UNITS_REACH, last + _UNITS_REACH
    samples = max(3 - first, last + 3 - (config.hop - 1))
    return -(-samples // config.hop)


_UNITS_REACH = 3 * (1 + 3 + 9)  # three residual units: kernel 7, dilations 1, 3, 9


def _layout(frames: int, size: int, overlap: int, reach: int) -> TileLayout:
    if overlap < reach:
        raise RequestError(f"overlap_frames: {overlap} is too few for an exact result; this VAE needs at least {reach}")
    if size <= 2 * overlap:
        raise RequestError(
            f"tile_frames: {size} leaves nothing between two overlaps of {overlap}; use at least {2 * overlap + 1}"
        )
    return TileLayout(frames, size, overlap)


def _for_each_tile(
    layout: TileLayout, batch: int, compute: Callable[[int, Tile, WideWeights], None], stage: str, callbacks: Callbacks
) -> None:
    """Compute the items one after another, so that memory does not grow with the batch.

    From the first overflow of float16 on, half a tile at a time is computed in float32, which takes as much memory.
    """
    work = [(item, tile) for item in range(batch) for tile in layout]
    wide = WideWeights()
    for done, (item, tile) in enumerate(work, 1):
        callbacks.check(stage)
        if not wide:
            with suppress(Float16OverflowError):
                compute(item, tile, wide)
        if wide:
            for half in layout.halves(tile):
                compute(item, half, wide)
        callbacks.report(stage, done, len(work))


def fitting_tile(device: torch.device, frames: int) -> int:
    """Return the frames of a tile, at most MPS_TILE_FRAMES where Metal fails with longer ones.

    Those are systems before macOS 15.1, and torch before 2.6, which refuses them on all systems (pytorch#140726).
    """
    if device.type != "mps":
        return frames
    system = tuple(int(part) for part in platform.mac_ver()[0].split(".")[:2] if part.isdigit())
    return frames if system >= (15, 1) and TORCH >= (2, 6) else min(frames, MPS_TILE_FRAMES)
