"""Training losses and evaluation metrics of the autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor

from .analysis import log_mel

SCALES = (128, 256, 512, 1024, 2048, 4096)
FLOOR = 1e-3
TEXTURE = 1.0  # weight relative to the log distance; from 1 on, decoded instruments are recognisable


def _magnitudes(wave: Tensor, size: int) -> Tensor:
    """Return STFT magnitudes `[N, bins, frames]` of `[N, samples]`. A full-scale sine is about `sqrt(size) / 4`."""
    window = torch.hann_window(size, device=wave.device)
    spectrum = torch.stft(wave, size, size // 4, window=window, return_complex=True, normalized=True)
    return (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()


def _weights(size: int, rate: int, device) -> Tensor:
    """Return mel-like weights of the bins with a mean of 1. Otherwise the top octave is half of the loss."""
    frequency = torch.linspace(0, rate / 2, size // 2 + 1, device=device)
    weights = 1 / (800 + frequency)
    return (weights / weights.mean())[:, None]


def spectral_loss(decoded: Tensor, target: Tensor, rate: int = 48_000, scales: tuple[int, ...] = SCALES) -> Tensor:
    """Return the multi-resolution STFT distance of `[B, 2, samples]`.

    Its terms are the relative magnitude error, the weighted log distance and the texture. The error is relative to both
    channels together, so that a faint side signal counts less than the middle. Texture is the mean and deviation of
    each bin over time. Without this term, the decoder blurs every detail that the latents do not determine.
    """
    total = decoded.new_zeros(())
    for size in scales:
        a, b = (_magnitudes(wave.flatten(0, 1), size).unflatten(0, wave.shape[:2]) for wave in (decoded, target))
        weights = _weights(size, rate, decoded.device)
        convergence = torch.linalg.vector_norm(a - b, dim=(1, 2, 3)) / (
            torch.linalg.vector_norm(b, dim=(1, 2, 3)) + 0.1
        )
        a, b = a.clamp_min(FLOOR).log(), b.clamp_min(FLOOR).log()
        texture = sum((x - y).abs() for x, y in zip(_moments(a), _moments(b), strict=True))
        total = total + convergence.mean() + ((a - b).abs() * weights).mean() + TEXTURE * (texture * weights).mean()
    return total / len(scales)


def _moments(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation over time, each `[B, 2, bins, 1]`."""
    mean = logs.mean(-1, keepdim=True)
    return mean, ((logs - mean).square().mean(-1, keepdim=True) + 1e-4).sqrt()


def wave_loss(decoded: Tensor, target: Tensor) -> Tensor:
    """Return the norm of the error relative to the target's, over `[B, 2, samples]`."""
    error = torch.linalg.vector_norm(decoded - target, dim=(1, 2))
    return (error / (torch.linalg.vector_norm(target, dim=(1, 2)) + 0.5)).mean()


def kl_loss(mean: Tensor, std: Tensor) -> Tensor:
    """Return the KL divergence from the standard normal, per element."""
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()


def middle_and_side(wave: Tensor) -> Tensor:
    """Rotate left and right `[B, 2, N]` to middle and side of the same energy."""
    return torch.stack((wave[:, 0] + wave[:, 1], wave[:, 0] - wave[:, 1]), 1) * 0.5**0.5


def si_sdr(decoded: Tensor, target: Tensor) -> float:
    """Return the scale-invariant signal-to-distortion ratio in dB of `[2, N]`."""
    decoded, target = decoded.flatten().double(), target.flatten().double()
    scaled = target * (decoded @ target) / (target @ target + 1e-12)
    return float(10 * torch.log10((scaled @ scaled + 1e-12) / ((decoded - scaled) @ (decoded - scaled) + 1e-12)))


def mel_distance(decoded: Tensor, target: Tensor) -> float:
    """Return the mean absolute difference of 80-band log-mel spectrograms (natural log, floor 1e-3) of `[2, N]`."""
    size = min(decoded.shape[-1], target.shape[-1])
    a, b = log_mel(decoded[:, :size].numpy()), log_mel(target[:, :size].numpy())
    return float(abs(a - b).mean())
