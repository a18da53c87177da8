"""Matrix products on a processor: by which of torch's libraries, and that they are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from acestep_core.models import ops
from acestep_core.models.dit import DiT
from acestep_core.planner.network import PlannerNetwork, logits
from tests.support import tiny, tiny_planner
from tests.support.tiny import draw

ONEDNN = torch.ops.mkldnn._linear_pointwise if torch.backends.mkldnn.is_available() else None


@pytest.fixture
def products(monkeypatch):
    """How many rows each product by oneDNN has."""
    rows = []

    def watched(x, *rest):
        rows.append(x.numel() // x.shape[-1])
        return F.linear(x, *rest[:2]) if ONEDNN is None else ONEDNN(x, *rest)

    monkeypatch.setattr(ops, "ONEDNN", watched)
    return rows


@pytest.mark.parametrize("shape", [(64,), (1, 64), (2, 1, 64), (3, 64), (2, 200, 64), (0, 64)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_product_is_that_of_torch(shape, bias, dtype, products, monkeypatch):
    plain = torch.nn.Linear(64, 32, bias=bias, dtype=dtype).requires_grad_(False)
    x = draw(*shape, seed=1).to(dtype)
    turned = x.mT.contiguous().mT if x.dim() > 1 else x
    with torch.no_grad():
        for each, piece in ((x, ops.PIECE), (turned, ops.PIECE), (x, 1), (turned, 1)):
            monkeypatch.setattr(ops, "PIECE", piece)
            tolerance = 1e-5 if dtype == torch.float32 else 0.05
            torch.testing.assert_close(ops.linear(each, plain.weight, plain.bias), plain(x), atol=tolerance, rtol=0)
    assert bool(products) == (dtype == torch.float32 and x.numel() > 0)


def test_a_layer_can_be_trained(products):
    layer = ops.PlainOps.Linear(64, 32)
    layer(draw(2, 64, seed=1)).sum().backward()
    assert layer.weight.grad.abs().sum() > 0 and not products


def test_every_product_of_a_step_is_made_by_it(products):
    network = DiT(tiny.STANDARD)
    with torch.no_grad():
        prepared = network.prepare(draw(1, 20, 128), draw(1, 5, tiny.STANDARD.encoder_hidden_size))
        products.clear()
        network(draw(1, 20, 64), torch.tensor([0.5]), prepared)
    # Queries, keys, values, output; queries and output of the conditions; the MLP. And three for the time.
    assert len(products) == 9 * len(network.layers) + 3


def test_every_product_of_the_planner_is_made_by_it(products):
    network = PlannerNetwork(tiny_planner.CONFIG)
    with torch.no_grad():
        cache = network.cache(2, 8, torch.device("cpu"))
        hidden = network(torch.tensor([[1], [2]]), torch.tensor([0, 0]), cache, 8)
        logits(hidden, network.head(slice(0, 10), torch.device("cpu")))
    assert products == [2] * (7 * len(network.layers) + 1)


def test_two_rows_read_a_large_weight_one_after_the_other(products, monkeypatch):
    monkeypatch.setattr(ops, "PIECE", 64 * 32 - 1)
    with torch.no_grad():
        for rows in (1, 2, 3):
            ops.linear(draw(rows, 64), draw(32, 64))
    assert products == [1, 1, 1, 3]


@pytest.mark.parametrize("text, taken", [("vendor_id : AuthenticAMD", True), ("vendor_id : GenuineIntel", False)])
def test_torchs_choice_stays_where_nothing_else_was_measured(text, taken, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *args, **given: text)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert (ops._onednn() is not None) == taken
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert ops._onednn() is None
