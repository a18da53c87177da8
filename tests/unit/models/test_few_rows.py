"""Matrix products with few rows on a processor."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from acestep_core.models import ops
from acestep_core.planner.network import PlannerNetwork, logits
from tests.support import tiny_planner
from tests.support.tiny import draw


def assert_near(got, wanted, dtype):
    torch.testing.assert_close(got, wanted, atol=1e-5 if dtype == torch.float32 else 0.05, rtol=0)


@pytest.mark.parametrize("shape", [(64,), (1, 64), (2, 1, 64), (ops.FEW_ROWS, 64), (ops.FEW_ROWS + 1, 64), (0, 64)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_rows_are_multiplied_as_any(shape, bias, dtype, monkeypatch):
    plain = torch.nn.Linear(64, 32, bias=bias, dtype=dtype).requires_grad_(False)
    x = draw(*shape, seed=1).to(dtype)
    turned = x.mT.contiguous().mT if x.dim() > 1 else x
    with torch.no_grad():
        for each, piece in ((x, ops.PIECE), (turned, ops.PIECE), (x, 1), (turned, 1)):
            monkeypatch.setattr(ops, "PIECE", piece)
            assert_near(ops.linear(each, plain.weight, plain.bias), plain(x), dtype)


def test_a_layer_for_few_rows_can_be_trained():
    layer = ops.FewRowsOps.Linear(64, 32)
    layer(draw(2, 64, seed=1)).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_every_product_of_the_planner_is_one_of_few_rows(monkeypatch):
    assert ops._onednn_linear is not None or not (
        torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    )
    taken = []

    def watched(x, weight, bias, *rest):
        taken.append(len(x))
        return F.linear(x, weight, bias)

    monkeypatch.setattr(ops, "_onednn_linear", watched)
    network = PlannerNetwork(tiny_planner.CONFIG)
    with torch.no_grad():
        cache = network.cache(2, 8, torch.device("cpu"))
        hidden = network(torch.tensor([[1], [2]]), torch.tensor([0, 0]), cache, 8)
        logits(hidden, network.head(slice(0, 10), torch.device("cpu")))
    assert taken == [2] * (7 * len(network.layers) + 1)
