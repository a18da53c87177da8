"""The number of kernels that a GPU launches for one step of the transformer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from acestep_core.models.dit import DiT
from tests.support import tiny
from tests.support.tiny import draw

DEPTH_2B = 24
LAUNCHES = 1000  # guidance takes 24 more, one concatenation a layer


class Launches(TorchDispatchMode):
    """Counts operations other than views and allocations, which launch nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        aliases = [result.alias_info for result in function._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in aliases)
        self.count += not (is_view or "empty" in str(function) or "_unsafe_view" in str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("guided", [False, True])
def test_launches_of_a_step(guided, monkeypatch):
    """Norms and attention count as one kernel each. Before torch 2.9 each of the 145 norms is some six kernels."""
    monkeypatch.setattr(F, "rms_norm", lambda x, *_: torch.ones_like(x))
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, *_, **__: torch.ones_like(q))
    config = replace(tiny.STANDARD, num_hidden_layers=DEPTH_2B)
    decoder, null = DiT(config, dtype=torch.bfloat16), draw(1, 1, config.encoder_hidden_size)
    x = draw(2 if guided else 1, 96, 64)
    t = torch.ones(len(x))
    with torch.no_grad():
        condition = draw(1, 9, config.encoder_hidden_size)
        prepared = decoder.prepare(draw(1, 96, 128), condition, null=null if guided else None)
        with Launches() as launches:
            decoder(x, t, prepared)
    assert prepared.band.blocks and launches.count <= LAUNCHES


def test_a_step_reads_no_small_parameter():
    """A host may keep these in host memory, from which each read would wait for a copy."""
    decoder = tiny.model().decoder
    x, t = draw(2, 31, 64, seed=1), torch.tensor([0.8, 0.3])
    prepared = decoder.prepare(draw(2, 31, 128, seed=2), draw(2, 9, tiny.STANDARD.encoder_hidden_size, seed=3))
    expected = decoder(x, t, prepared)
    for name, parameter in decoder.named_parameters():
        if name.endswith(("scale_shift_table", "self_attn_norm.weight", "mlp_norm.weight", "norm_out.weight")):
            parameter.fill_(float("nan"))
    assert torch.equal(decoder(x, t, prepared), expected)
