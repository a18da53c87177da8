"""Preview images of latents during sampling.

Time runs from left to right and rows are latent channels. Brightness is the distance of a value from the mean of its
channel. Noise is an even grain. Beats, phrases and pauses emerge step by step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH, HEIGHT = 512, 192
MAX_ITEMS = 4  # items of a batch, stacked from top to bottom
_GAP = 4  # dark rows between items

# sRGB, from dark to bright in even steps of lightness.
_COLOURS = (
    (6, 5, 20),
    (30, 17, 70),
    (74, 22, 112),
    (122, 33, 122),
    (172, 46, 112),
    (218, 68, 90),
    (244, 110, 66),
    (252, 163, 58),
    (250, 214, 98),
    (252, 252, 214),
)


@torch.no_grad()
def draw_preview(latents: Tensor, width: int = WIDTH, height: int = HEIGHT) -> Tensor:
    """Draw latents [B, T, 64] as an image [height, width, 3], uint8, on their device. Takes a few milliseconds.

    Latents on MPS are drawn on the CPU, as adaptive pooling on MPS needs sizes that divide evenly.
    """
    latents = latents.cpu() if latents.device.type == "mps" else latents
    items = latents[:MAX_ITEMS].float().nan_to_num()
    share = (height - _GAP * (len(items) - 1)) // len(items)
    strips = _colour(F.pad(_brightness(items, width, share), (0, 0, 0, _GAP))).flatten(0, 1)
    return F.pad(strips[:height], (0, 0, 0, 0, 0, max(0, height - len(strips))))


def _brightness(items: Tensor, width: int, height: int) -> Tensor:
    """Return the brightness 0–1 of latents [B, T, C], [B, height, width]."""
    energy = (items - items.mean(dim=1, keepdim=True)).square().transpose(1, 2)
    rows, columns = min(energy.shape[1], height), min(energy.shape[2], width)
    loudness = F.adaptive_avg_pool2d(energy, (rows, columns)).sqrt()
    # Relative to the quietest and loudest values, so that every song fills the scale.
    flat = loudness.flatten(1).sort(dim=1).values
    low, high = (flat[:, int(share * (flat.shape[1] - 1)), None, None] for share in (0.02, 0.995))
    scaled = ((loudness - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return F.interpolate(scaled[:, None], (height, width), mode="bilinear")[:, 0]


def _colour(brightness: Tensor) -> Tensor:
    """Map values 0–1 to colours [..., 3], uint8."""
    anchors = torch.tensor(_COLOURS, dtype=torch.float32, device=brightness.device)
    palette = F.interpolate(anchors.T[None], 256, mode="linear", align_corners=True)[0].T.round().byte()
    return palette[(brightness * 255).round().long()]
