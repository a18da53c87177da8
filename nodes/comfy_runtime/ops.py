"""ComfyUI's layers under our networks."""

from __future__ import annotations

import comfy.model_management as mm
import comfy.ops
import torch

from ..versions import linear_with_weights


class _Castable:
    """What the core asks of a layer whose weight it slices; see `acestep_core.models.layers.weight_and_bias`."""

    def weight_and_bias(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return comfy.ops.cast_bias_weight(self, like)


def comfy_ops(storage: torch.dtype, compute: torch.dtype) -> type:
    """ComfyUI's layers, so that partial loading, fp8 storage and weight patches work, as the core's `ops` namespace."""
    base = comfy.ops.pick_operations(storage, compute, load_device=mm.get_torch_device())

    class Ops:
        class Linear(_Castable, linear_with_weights(base.Linear)):
            pass

        class Conv1d(_Castable, base.Conv1d):
            pass

        class ConvTranspose1d(_Castable, base.ConvTranspose1d):
            pass

    return Ops
