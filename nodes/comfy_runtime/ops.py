"""ComfyUI's layers as the core's `ops` namespaces."""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.model_management as mm
import comfy.ops
import torch

from ...acestep_core.models.ops import QuantizedLinear
from .versions import embedding_with_weights, is_borrowed, linear_with_weights


def _cast(layer: Any, like: torch.Tensor | None = None, **options: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return weight and bias of a layer, cast, which stay valid.

    An offloaded weight is copied on a stream of its own, while the previous layer computes, into a buffer.
    """
    weight, bias, source = comfy.ops.cast_bias_weight(layer, like, offloadable=True, **options)
    if is_borrowed(source):
        weight, bias = weight.clone(), None if bias is None else bias.clone()
    comfy.ops.uncast_bias_weight(layer, weight, bias, source)
    return weight, bias


class _Castable:
    """A layer that returns its weights cast; see `acestep_core.models.layers.weight_and_bias`."""

    def weight_and_bias(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return _cast(self, like)


class _Quantized(QuantizedLinear, comfy.ops.CastWeightBiasOp):
    """The core's quantized layer. ComfyUI may keep its weight on another device and copy it for each use."""

    def stored_weight(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return _cast(self, dtype=self.weight.dtype, device=like.device, bias_dtype=like.dtype)


def quantized_layers(storage: torch.dtype) -> type:
    """Return an `ops` namespace whose matrices are int8 or fp8 with a scale per row, under partial loading."""

    class Layers:
        Linear = partial(_Quantized, storage=storage)

    return Layers


def comfy_ops(storage: torch.dtype, compute: torch.dtype, wide: bool = False) -> Any:
    """Return ComfyUI's layers, which support partial loading, fp8 storage and weight patches.

    wide: activations exceed 448, the range of fp8 products, so `--fast` must not use them.
    """
    base = comfy.ops.pick_operations(storage, compute, load_device=mm.get_torch_device(), disable_fast_fp8=wide)

    class Ops:
        class Linear(_Castable, linear_with_weights(base.Linear)):  # type: ignore[misc]
            def weight_and_bias(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
                # For the CPU plug-in, which multiplies by itself. ComfyUI's own layers check before each product, too.
                mm.throw_exception_if_processing_interrupted()
                return super().weight_and_bias(like)

        class Embedding(_Castable, embedding_with_weights(base.Embedding)):  # type: ignore[misc]
            pass

        class Conv1d(_Castable, base.Conv1d):  # type: ignore[name-defined]
            pass

        class ConvTranspose1d(_Castable, base.ConvTranspose1d):  # type: ignore[name-defined]
            pass

    return Ops


def stored_layers(ops: Any, storage: torch.dtype) -> type:
    """Return an `ops` namespace for transformer layers, whose matrices are loaded in `storage`."""

    class Layers(ops):
        class Linear(ops.Linear):
            weight: torch.nn.Parameter

            def __init__(self, *sizes: int, bias: bool = True, device: Any = None, dtype: torch.dtype | None = None):
                super().__init__(*sizes, bias=bias, device=device, dtype=dtype)
                self.weight = torch.nn.Parameter(self.weight.to(storage), requires_grad=False)

    return Layers
