"""Weights that ComfyUI copies to the GPU while the previous layer computes, into a buffer that it uses again."""

from __future__ import annotations

from unittest import mock

import comfy.ops
import torch
from pack_under_test.nodes.comfy_runtime.ops import comfy_ops, quantized_layers

from .world import World


def check_weights_stay_valid_after_the_next_cast(world: World) -> None:
    ops, x = comfy_ops(torch.float32, torch.float32), torch.zeros(1, 8)
    quantized = [quantized_layers(torch.int8).Linear(8, 8) for _ in range(2)]
    for layer in quantized:
        layer.store(torch.randn(8, 8))
    stream = object()
    for layers in ([ops.Linear(8, 8) for _ in range(2)], [ops.Conv1d(8, 8, 1) for _ in range(2)], quantized):
        for layer in layers:
            layer.bias = torch.nn.Parameter(torch.randn(8))
            if layers is not quantized:
                layer.weight = torch.nn.Parameter(torch.randn(layer.weight.shape))
        weight, bias = torch.empty_like(layers[0].weight), torch.empty(8)
        for source in (
            stream,
            (stream, weight, bias),
            (None, torch.device("cpu"), None),
        ):  # of early and later versions
            returned: list[tuple] = []

            def cast(layer, *_, weight=weight, bias=bias, source=source, offloadable=False, **__):
                assert offloadable
                return weight.copy_(layer.weight), bias.copy_(layer.bias), source

            cast_and_return = {
                "cast_bias_weight": cast,
                "uncast_bias_weight": lambda *given, to=returned: to.append(given),
            }
            with mock.patch.multiple(comfy.ops, **cast_and_return), torch.no_grad():
                given = [layer.weight_and_bias(x) for layer in layers]
            assert [one[0] for one in returned] == layers and all(one[3] is source for one in returned)
            for layer, (own_weight, own_bias) in zip(layers, given, strict=True):
                scale = getattr(layer, "scale", None)
                assert torch.equal(own_weight, layer.weight if scale is None else layer.weight * scale)
                assert torch.equal(own_bias, layer.bias)


def check_resident_weights_are_not_copied(world: World) -> None:
    layer = comfy_ops(torch.float32, torch.float32).Linear(8, 8)
    weight, bias = layer.weight_and_bias(torch.zeros(1, 8))
    assert (weight.data_ptr(), bias.data_ptr()) == (layer.weight.data_ptr(), layer.bias.data_ptr())
