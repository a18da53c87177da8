"""Restore the kept parts of an edit's source in generated audio."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from ..audio import anti_clip, is_finite
from ..audio.restore import restore_source
from ..callbacks import Callbacks
from ..config import HOP
from ..errors import NonFiniteError
from .edit import Edit


def restore_kept_parts(waveform: Tensor, edit: Edit, callbacks: Callbacks) -> Tensor:
    """Restore the kept parts of an edit's source in a generated waveform [B, 2, samples]."""
    if math.ceil(waveform.shape[-1] / HOP) != edit.frames or edit.items not in (1, len(waveform)):
        callbacks.warn("edit: its length or number of songs differs from the latents, so its source is not restored")
        return anti_clip(waveform)
    sources = cast(Tensor, edit.waveform)
    items = [
        restore_source(item[None], sources[i % len(sources), None], edit.regions_of(i), edit.crossfade_seconds)
        for i, item in enumerate(waveform)
    ]
    restored = torch.cat(items)
    if not is_finite(restored):
        raise NonFiniteError("decode: restoring the source gave NaN or infinity; decode without the edit")
    return restored
