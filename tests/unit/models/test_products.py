"""Matrix products on a CPU: by which of torch's libraries, and their results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from acestep_core.models.cpu import products
from acestep_core.models.cpu.plugins import install_cpu_plugins
from acestep_core.models.dit import DiT
from acestep_core.planner.network import PlannerNetwork
from tests.support import tiny, tiny_planner
from tests.support.tiny import draw

CPU = torch.device("cpu")
ONEDNN = torch.ops.mkldnn._linear_pointwise if torch.backends.mkldnn.is_available() else None


@pytest.fixture
def onednn_rows(monkeypatch):
    """The number of rows of each product by oneDNN."""
    rows = []

    def recording(x, *inputs):
        rows.append(x.numel() // x.shape[-1])
        return F.linear(x, *inputs[:2]) if ONEDNN is None else ONEDNN(x, *inputs)

    monkeypatch.setattr(products, "ONEDNN", recording)
    return rows


@pytest.mark.parametrize("shape", [(64,), (1, 64), (2, 1, 64), (3, 64), (2, 200, 64), (0, 64)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_product_equals_that_of_torch(shape, bias, dtype, onednn_rows, monkeypatch):
    plain = torch.nn.Linear(64, 32, bias=bias, dtype=dtype).requires_grad_(False)
    x = draw(*shape, seed=1).to(dtype)
    strided = x.mT.contiguous().mT if x.dim() > 1 else x
    with torch.no_grad():
        for each, piece in ((x, products.PIECE), (strided, products.PIECE), (x, 1), (strided, 1)):
            monkeypatch.setattr(products, "PIECE", piece)
            tolerance = 1e-5 if dtype == torch.float32 else 0.05
            result = products.product(each, plain.weight, plain.bias)
            torch.testing.assert_close(result, plain(x), atol=tolerance, rtol=0)
    assert bool(onednn_rows) == (dtype == torch.float32 and x.numel() > 0)


def test_a_layer_can_be_trained(onednn_rows):
    layer = torch.nn.Linear(64, 32)
    install_cpu_plugins(layer, CPU)
    layer(draw(2, 64, seed=1)).sum().backward()
    assert layer.weight.grad.abs().sum() > 0 and not onednn_rows


def test_every_product_of_a_step_uses_it(onednn_rows):
    network = DiT(tiny.STANDARD)
    install_cpu_plugins(network, CPU)
    with torch.no_grad():
        prepared = network.prepare(draw(1, 20, 128), draw(1, 5, tiny.STANDARD.encoder_hidden_size))
        onednn_rows.clear()
        network(draw(1, 20, 64), torch.tensor([0.5]), prepared)
    # Four of self-attention, queries and output of cross-attention, three of the MLP. And three of the time embedder.
    assert len(onednn_rows) == 9 * len(network.layers) + 3


def test_every_product_of_the_planner_uses_it(onednn_rows):
    network = PlannerNetwork(tiny_planner.CONFIG)
    install_cpu_plugins(network, CPU)
    with torch.no_grad():
        cache = network.cache(2, 8, CPU)
        hidden = network(torch.tensor([[1], [2]]), torch.tensor([0, 0]), cache, 8)
        network.logits(hidden, network.head(slice(0, 10), CPU))
    assert onednn_rows == [2] * (7 * len(network.layers) + 1)


def test_two_rows_are_multiplied_one_by_one_if_the_weight_is_large(onednn_rows, monkeypatch):
    monkeypatch.setattr(products, "PIECE", 64 * 32 - 1)
    with torch.no_grad():
        for rows in (1, 2, 3):
            products.product(draw(rows, 64), draw(32, 64))
    assert onednn_rows == [1, 1, 1, 3]


@pytest.mark.parametrize(
    ("cpuinfo", "chosen"), [("vendor_id : AuthenticAMD", True), ("vendor_id : GenuineIntel", False)]
)
def test_onednn_is_only_for_amd(cpuinfo, chosen, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *args, **options: cpuinfo)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert (products._onednn() is not None) == chosen
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert products._onednn() is None


@pytest.mark.parametrize("operator", [None, lambda *_: 1 / 0, lambda x, weight, *_: 2 * F.linear(x, weight)])
def test_a_changed_private_operator_is_not_used(operator, monkeypatch):
    monkeypatch.setattr(products.Path, "read_text", lambda *_, **__: "vendor_id : AuthenticAMD")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", operator, raising=False)
    assert products._onednn() is None
