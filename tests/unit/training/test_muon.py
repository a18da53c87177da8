"""Muon against `torch.optim.Muon`, which computes in bfloat16."""

import pytest
import torch

from training.muon import Muon, orthogonalize


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9 has no Muon")
@pytest.mark.parametrize("shape", [(64, 32), (32, 64), (48, 48)])
def test_steps_match_torch(shape):
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, peer = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimisers = (
        Muon([ours], lr=0.01, weight_decay=0.05),
        torch.optim.Muon([peer], lr=0.01, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(5):
        gradient = torch.randn(shape)
        for parameter, optimiser in zip((ours, peer), optimisers, strict=True):
            parameter.grad = gradient.clone()
            optimiser.step()
    moved = (peer - start).abs().max()
    assert (ours - peer).abs().max() < 0.03 * moved


def test_singular_values_are_near_one():
    values = torch.linalg.svdvals(orthogonalize(torch.randn(2, 40, 20, generator=torch.Generator().manual_seed(1))))
    assert values.min() > 0.5 and values.max() < 1.3
