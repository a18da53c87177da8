"""The planner's memory, and its estimates for ComfyUI."""

from __future__ import annotations

from functools import partial

import comfy.model_management as mm
import torch
from pack_under_test.acestep_core.models.layers import weight_and_bias
from pack_under_test.acestep_core.models.ops import QuantizedLinear
from pack_under_test.acestep_core.song.codes import parse_codes

from .estimates import peak, required_memory
from .partial import keep_partly
from .planner import CODES, codes, load, planner, write
from .world import World, shown

STORAGE = {"fp8_e4m3fn": (torch.float8_e4m3fn, 0.03), "int8": (torch.int8, 0.01)}  # with the largest error of a weight


def check_quantised_layers_are_small_and_close(world: World) -> None:
    exact = planner()
    for dtype, (kind, most) in STORAGE.items():
        placed = load(dtype)
        kept = {name: weight.dtype for name, weight in placed.network.named_parameters()}
        assert {kind for name, kind in kept.items() if "_proj" in name} == {kind}
        assert {kind for name, kind in kept.items() if "_proj" not in name} == {torch.float32}
        assert placed.patcher.model_size() < exact.patcher.model_size()
        for name, matrix in exact.network.layers.named_modules():
            if name.endswith("_proj"):
                stored = weight_and_bias(placed.network.layers.get_submodule(name), matrix.weight)[0]
                assert 0 < (stored - matrix.weight).norm() / matrix.weight.norm() < most, (dtype, name)
        written = codes(placed=placed)
        assert len(parse_codes(written)) == CODES and codes(placed=placed) == written
        assert not any(parameter.is_inference() for parameter in placed.network.parameters())


def check_quantised_layers_may_be_partly_loaded(world: World) -> None:
    """Weights without room on the device are copied for each use, with the same result."""
    for dtype in STORAGE:
        placed = load(dtype)
        written = codes(placed=placed)
        mm.unload_all_models()
        whole, table = placed.patcher.model_size(), placed.network.embed_tokens.weight.nbytes
        keep_partly(placed.patcher, (table + (whole - table) / 2) / whole)  # the embedding table is then copied as well
        assert codes(placed=placed) == written
        assert 0 < placed.patcher.loaded_size() < placed.patcher.model_size()
        copied = [module for module in placed.network.layers.modules() if hasattr(module, "prev_comfy_cast_weights")]
        assert copied and all(isinstance(module, QuantizedLinear) for module in copied)


def check_the_estimate_includes_one_dequantised_matrix(world: World) -> None:
    placed = load("int8")
    codes(placed=placed)
    with required_memory() as required:
        taken = peak(lambda: codes(placed=placed))
        codes()
    stored, exact = required
    config = placed.network.config
    assert stored - exact == config.hidden_size * config.intermediate_size * 4 and taken <= stored


def check_a_partly_loaded_planner_gives_the_same_and_a_note(world: World) -> None:
    placed = load()
    placed.patcher.offload_device = torch.device("meta")  # another device than it runs on, as with a GPU
    keep_partly(placed.patcher, 0.8)
    with shown() as texts:
        written = codes(placed=placed)
    placed.patcher.offload_device = torch.device("cpu")
    assert 0 < placed.patcher.loaded_size() < placed.patcher.model_size()
    assert written == codes()
    assert any("slow" in text for text in texts)


def check_the_estimates_of_a_plan_are_sufficient(world: World) -> None:
    codes()
    with required_memory() as required:
        taken = [peak(partial(codes, **change)) for change in ({}, {"batch_size": 4}, {"best_of": 2})]
        taken.append(peak(write))
    one, four, best, scored, text = required
    for estimate, measured in zip((one, four, max(best, scored), text), taken, strict=True):
        print(f"estimated {estimate / 2**20:.1f} MiB, took {measured / 2**20:.1f} MiB, {estimate / measured:.2f}")
        assert measured <= estimate
    assert one < four
