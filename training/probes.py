"""The output of layers and the attention of some heads during training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep_core.models.dit import CrossState

UNTIMED = -100  # target of a patch without one


class LayerOutput:
    """The last output of a layer. A probed layer's hooks do not run, so that its `forward` is replaced."""

    def __init__(self, layer: nn.Module):
        self.rows: Tensor | None = None
        self._forward = layer.forward
        layer.forward = self._store

    def _store(self, *inputs: Any) -> Tensor:
        self.rows = self._forward(*inputs)
        return self.rows


class HeadProbe:
    """A probe that stores the queries of one layer's cross-attention. state: the layer's input, with the probe."""

    def __init__(self, state: CrossState, heads: Sequence[int]):
        self.keys, self.heads = state.keys, heads
        self.queries: Tensor | None = None
        self.state = replace(state, probe=self._store)

    def _store(self, queries: Tensor) -> None:
        self.queries = queries

    def error(self, targets: Tensor, mask: Tensor | None, sharpness: float) -> Tensor:
        """Return the mean cross-entropy of the heads at each patch, [B, P]. It is 0 at an untimed one."""
        assert self.queries is not None
        errors = []
        for head in self.heads:
            group, own = divmod(head, self.queries.shape[2])
            keys = self.keys[:, group].float()
            scores = self.queries[:, group, own].float() @ keys.mT / (math.sqrt(keys.shape[-1]) * sharpness)
            if mask is not None:
                scores = scores.masked_fill(~mask[:, 0], -torch.inf)
            errors.append(F.cross_entropy(scores.mT, targets, reduction="none", ignore_index=UNTIMED))
        return torch.stack(errors).mean(0)


@dataclass(frozen=True)
class Result:
    """A velocity [B, T, 64] with the attention that led to it. rows: of the conditions. mask: of the stacked rows."""

    velocity: Tensor
    rows: list[Tensor]
    probes: list[HeadProbe]
    mask: Tensor | None

    def errors(self, targets: Tensor, sharpness: float) -> Tensor:
        """Return the error of each probed layer at each patch, [layers, B, P]."""
        return torch.stack([probe.error(targets, self.mask, sharpness) for probe in self.probes])
