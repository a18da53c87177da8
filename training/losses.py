"""Distances between waveforms: what the autoencoder is trained on, and what it is judged by."""

from __future__ import annotations

import torch
from torch import Tensor

SCALES = (128, 256, 512, 1024, 2048, 4096)
FLOOR = 1e-3
TEXTURE = 1.0  # weight, beside the log distance's 1: from it on instruments are known in what was decoded


def _magnitudes(wave: Tensor, size: int) -> Tensor:
    """`[N, bins, frames]` of `[N, samples]`; a full-scale sine is about `sqrt(size) / 4`."""
    window = torch.hann_window(size, device=wave.device)
    spectrum = torch.stft(wave, size, size // 4, window=window, return_complex=True, normalized=True)
    return (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()


def _weights(size: int, rate: int, device) -> Tensor:
    """Bins weighted about as a mel scale would, mean 1: otherwise the top octave is half of the loss."""
    frequency = torch.linspace(0, rate / 2, size // 2 + 1, device=device)
    weights = 1 / (800 + frequency)
    return (weights / weights.mean())[:, None]


def spectral_loss(made: Tensor, wanted: Tensor, rate: int = 48_000, scales: tuple[int, ...] = SCALES) -> Tensor:
    """Multi-resolution STFT distance of `[B, 2, samples]`: relative magnitude error, weighted log distance, texture.

    The error is relative to both channels together, so that a faint side signal does not count as much as the middle.
    Texture is how loud each bin is and how much that varies in time: what the latents do not tell would otherwise be
    played as the middle of all that it could be, which is a blur.
    """
    total = made.new_zeros(())
    for size in scales:
        a, b = (_magnitudes(wave.flatten(0, 1), size).unflatten(0, wave.shape[:2]) for wave in (made, wanted))
        weights = _weights(size, rate, made.device)
        convergence = torch.linalg.vector_norm(a - b, dim=(1, 2, 3)) / (
            torch.linalg.vector_norm(b, dim=(1, 2, 3)) + 0.1
        )
        a, b = a.clamp_min(FLOOR).log(), b.clamp_min(FLOOR).log()
        texture = sum((x - y).abs() for x, y in zip(_moments(a), _moments(b), strict=True))
        total = total + convergence.mean() + ((a - b).abs() * weights).mean() + TEXTURE * (texture * weights).mean()
    return total / len(scales)


def _moments(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation in time, each `[B, 2, bins, 1]`."""
    mean = logs.mean(-1, keepdim=True)
    return mean, ((logs - mean).square().mean(-1, keepdim=True) + 1e-4).sqrt()


def wave_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Root of the error's energy relative to the wanted energy, over `[B, 2, samples]`."""
    error = torch.linalg.vector_norm(made - wanted, dim=(1, 2))
    return (error / (torch.linalg.vector_norm(wanted, dim=(1, 2)) + 0.5)).mean()


def kl_loss(mean: Tensor, std: Tensor) -> Tensor:
    """Per element, against the standard normal."""
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()


def middle_and_side(wave: Tensor) -> Tensor:
    """`[B, 2, N]` left and right as middle and side, of the same energy."""
    return torch.stack((wave[:, 0] + wave[:, 1], wave[:, 0] - wave[:, 1]), 1) * 0.5**0.5


def si_sdr(made: Tensor, wanted: Tensor) -> float:
    """Scale-invariant signal to distortion ratio in dB, over the whole of `[2, N]`."""
    made, wanted = made.flatten().double(), wanted.flatten().double()
    target = wanted * (made @ wanted) / (wanted @ wanted + 1e-12)
    return float(10 * torch.log10((target @ target + 1e-12) / ((made - target) @ (made - target) + 1e-12)))


def mel_distance(made: Tensor, wanted: Tensor) -> float:
    """Mean absolute difference of 80-band log-mel spectrograms (natural log, floor 1e-3), `[2, N]`."""
    from .listen import log_mel

    size = min(made.shape[-1], wanted.shape[-1])
    a, b = log_mel(made[:, :size].numpy()), log_mel(wanted[:, :size].numpy())
    return float(abs(a - b).mean())
