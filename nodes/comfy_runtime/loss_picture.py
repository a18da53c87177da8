"""The loss curve of a training, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from ...acestep_core.train.train_state import LossRow

AVERAGED = 50  # steps; single losses vary with their times and crops
WIDTH, HEIGHT, MARGIN = 512, 256, 14
BACKGROUND, GRID, CURVE, TEXT = "#16181f", "#2c303b", "#7ff0b2", "#c8ccd8"
LINES = 4
STROKE = 3


def mean_losses(rows: Sequence[LossRow]) -> list[float]:
    """Return the mean loss of the last steps at each step."""
    losses = [row.loss for row in rows]
    spans = (losses[max(0, end - AVERAGED) : end] for end in range(1, len(losses) + 1))
    return [sum(span) / len(span) for span in spans]


def draw_losses(means: Sequence[float]) -> Image.Image:
    """Draw two or more losses as a curve, with the highest and the lowest value in numbers."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    low, high = min(means), max(means)
    span = max(high - low, 1e-6)
    inner = HEIGHT - 2 * MARGIN
    for number in range(LINES + 1):
        y = MARGIN + inner * number / LINES
        draw.line((MARGIN, y, WIDTH - MARGIN, y), fill=GRID)
    points = [
        (MARGIN + (WIDTH - 2 * MARGIN) * step / (len(means) - 1), MARGIN + inner * (high - mean) / span)
        for step, mean in enumerate(means)
    ]
    draw.line(points, fill=CURVE, width=STROKE, joint="curve")
    draw.text((WIDTH - MARGIN, MARGIN + 3), f"{high:.3f}", fill=TEXT, anchor="ra")
    draw.text((MARGIN, HEIGHT - MARGIN - 3), f"{low:.3f}", fill=TEXT, anchor="ls")
    return picture
