"""An fp8 weight is refused if its scale is missing or unusable: without it the song would be wrong."""

from __future__ import annotations

import pytest
import torch

from acestep_core.checkpoints.build import load_network
from acestep_core.checkpoints.network_layouts import open_network
from acestep_core.errors import CheckpointError
from tests.support import layouts, tiny


def refused(call, *args) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*args)
    return str(caught.value)


FP8 = "decoder.layers.1.mlp.up_proj"


def fp8_state(*also: str) -> dict[str, torch.Tensor]:
    """Return a state with two fp8 weights. The first has its scale."""
    state = tiny.model().state_dict()
    for name in (FP8, FP8.replace("up", "gate")):
        state[f"{name}.weight"] = state[f"{name}.weight"].to(torch.float8_e4m3fn)
    markers = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn), f"{FP8}.comfy_quant": torch.zeros(5).byte()}
    markers[f"{FP8}.scale_weight"] = torch.tensor(0.5)
    return state | {name: markers[name] for name in also}


def test_an_fp8_weight_without_its_scale(tmp_path):
    file = tmp_path / "acestep_turbo_fp8.safetensors"
    load_network(layouts.save(file, fp8_state()))  # no scales at all: the values are the weights
    for markers, name in (
        (["scaled_fp8"], "up_proj"),
        ([f"{FP8}.comfy_quant"], "up_proj"),
        ([f"{FP8}.scale_weight"], "gate_proj"),
        (["scaled_fp8", f"{FP8}.scale_weight"], "gate_proj"),
    ):
        message = refused(open_network, layouts.save(file, fp8_state(*markers)))
        assert "without its scale" in message and (name in message or "gate_proj" in message)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_scale_that_is_none(tmp_path, scale):
    state = fp8_state(f"{FP8}.scale_weight") | {f"{FP8}.scale_weight": torch.tensor(scale)}
    state.pop(f"{FP8.replace('up', 'gate')}.weight")
    state[f"{FP8.replace('up', 'gate')}.weight"] = tiny.model().state_dict()[f"{FP8.replace('up', 'gate')}.weight"]
    message = refused(load_network, layouts.save(tmp_path / "acestep_turbo_fp8.safetensors", state))
    assert "scale_weight" in message and "positive" in message


def test_a_scale_of_whole_numbers(tmp_path):
    state = fp8_state(f"{FP8}.scale_weight") | {f"{FP8}.scale_weight": torch.ones(80, dtype=torch.uint8)}
    assert "scale_weight as U8" in refused(open_network, layouts.save(tmp_path / "a.safetensors", state))
