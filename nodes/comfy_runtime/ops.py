"""ComfyUI's layers under our networks."""

from __future__ import annotations

import comfy.model_management as mm
import comfy.ops
import torch

from ...acestep_core.models.ops import StoredLinear, linear
from .versions import embedding_with_weights, linear_with_weights


class _Castable:
    """What the core asks of a layer whose weight it slices; see `acestep_core.models.layers.weight_and_bias`."""

    def weight_and_bias(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return comfy.ops.cast_bias_weight(self, like)


class _Stored(StoredLinear, comfy.ops.CastWeightBiasOp):
    """The core's layer of one byte a value. ComfyUI may leave its weight where it is and bring it for each use."""

    def kept(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return comfy.ops.cast_bias_weight(self, dtype=self.weight.dtype, device=like.device, bias_dtype=like.dtype)


def stored_layers(kept: torch.dtype) -> type:
    """As `ops` namespace: matrices in int8 or fp8 with a factor for each row, under ComfyUI's partial loading."""

    class Layers:
        class Linear(_Stored):
            storage = kept

    return Layers


def comfy_ops(storage: torch.dtype, compute: torch.dtype, wide: bool = False) -> type:
    """ComfyUI's layers, so that partial loading, fp8 storage and weight patches work, as the core's `ops` namespace.

    `wide`: activations go beyond what ComfyUI's --fast multiplies in fp8, which is 448.
    """
    base = comfy.ops.pick_operations(storage, compute, load_device=mm.get_torch_device(), disable_fast_fp8=wide)

    class Ops:
        class Linear(_Castable, linear_with_weights(base.Linear)):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if x.device.type != "cpu" or torch.compiler.is_compiling():
                    return super().forward(x)
                mm.throw_exception_if_processing_interrupted()  # as ComfyUI's own layers do
                return linear(x, *self.weight_and_bias(x))

        class Embedding(_Castable, embedding_with_weights(base.Embedding)):
            pass

        class Conv1d(_Castable, base.Conv1d):
            pass

        class ConvTranspose1d(_Castable, base.ConvTranspose1d):
            pass

    return Ops
