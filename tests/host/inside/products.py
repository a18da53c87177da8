"""Matrix products on a CPU, in ComfyUI's layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from pack_under_test.acestep_core.models.cpu import products
from pack_under_test.acestep_core.models.cpu.plugins import install_cpu_plugins
from pack_under_test.nodes.comfy_runtime.ops import comfy_ops

from .planner import CODES, codes, load
from .world import World


@contextmanager
def onednn_rows() -> Iterator[list[int]]:
    """Collect the number of rows of each product by oneDNN."""
    usual, rows = products.ONEDNN, []

    def onednn(x, weight, bias, *rest):
        rows.append(x.numel() // x.shape[-1])
        return F.linear(x, weight, bias)

    products.ONEDNN = onednn
    try:
        yield rows
    finally:
        products.ONEDNN = usual


def check_the_planner_uses_the_faster_product(world: World) -> None:
    for dtype in ("float32", "int8"):
        placed = load(dtype)
        with onednn_rows() as rows:
            codes(placed=placed)
        matrices = sum(name.endswith("_proj") for name, _ in placed.network.named_modules())
        assert rows.count(2) >= (matrices + 1) * (CODES - 1), (
            dtype,
            rows.count(2),
        )  # a song and its unconditional half


def check_weight_functions_apply_to_the_faster_product(world: World) -> None:
    layer = comfy_ops(torch.bfloat16, torch.float32).Linear(64, 32, dtype=torch.bfloat16).requires_grad_(False)
    layer.weight.copy_(torch.randn(32, 64, generator=torch.Generator().manual_seed(1)))
    layer.bias.zero_()
    install_cpu_plugins(layer, torch.device("cpu"))
    layer.weight_function = [lambda weight: 3 * weight]
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), onednn_rows() as rows:
        torch.testing.assert_close(layer(x), F.linear(x, 3 * layer.weight.float(), layer.bias.float()))
    assert rows == [2]
