"""Install the CPU plug-ins in a network."""

from __future__ import annotations

import torch
from torch import nn

from .chunked_layer import ChunkedDiTLayer
from .fast_oobleck import SLOW_ONEDNN, DirectConvTranspose1d, FastOobleckDecoder, FastOobleckEncoder
from .products import CpuLinear, CpuQuantizedLinear, CpuTiedHead

# Each replaces its base class. A class comes before its own base class.
PLUGINS: tuple[type[nn.Module], ...] = (
    ChunkedDiTLayer,
    FastOobleckEncoder,
    FastOobleckDecoder,
    CpuQuantizedLinear,
    CpuLinear,
    CpuTiedHead,
    *((DirectConvTranspose1d,) if SLOW_ONEDNN else ()),
)


def install_cpu_plugins(network: nn.Module, device: torch.device) -> None:
    """If `device` is a CPU, give each layer of `network` the class of its plug-in. Otherwise do nothing.

    Names, weights and results stay; only rounding and speed change. A layer of a host's own class keeps that class
    behind the plug-in.
    """
    if device.type != "cpu":
        return
    classes: dict[type, type] = {}
    for module in network.modules():
        layer = type(module)
        if layer not in classes:
            classes[layer] = _with_plugin(layer)
        module.__class__ = classes[layer]


def _with_plugin(layer: type) -> type:
    for plugin in PLUGINS:
        if issubclass(layer, plugin):
            return layer  # installed before
        if layer is plugin.__base__:
            return plugin
        if issubclass(layer, plugin.__bases__):
            return type(plugin.__name__, (plugin, layer), {})
    return layer
