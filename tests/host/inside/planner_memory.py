"""What the planner takes of the memory, and what ComfyUI is told of it."""

from __future__ import annotations

from functools import partial

import comfy.model_management as mm
import torch
from pack_under_test.acestep_core.models.layers import weight_and_bias
from pack_under_test.acestep_core.models.ops import StoredLinear
from pack_under_test.acestep_core.song.codes import parse_codes

from .estimates import memory_asked_for, peak
from .partial import keep_partly
from .planner import CODES, codes, load, planner, write
from .world import World, shown

STORED = {"fp8_e4m3fn": (torch.float8_e4m3fn, 0.03), "int8": (torch.int8, 0.01)}  # and how far weights are off


def check_one_byte_a_value_keeps_the_layers_small_and_near(world: World) -> None:
    exact = planner()
    for dtype, (kind, most) in STORED.items():
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


def check_one_byte_a_value_may_be_partly_elsewhere(world: World) -> None:
    """Weights that ComfyUI has no room for are fetched for each use, and write the same."""
    for dtype in STORED:
        placed = load(dtype)
        written = codes(placed=placed)
        mm.unload_all_models()
        whole, table = placed.patcher.model_size(), placed.network.embed_tokens.weight.nbytes
        keep_partly(placed.patcher, (table + (whole - table) / 2) / whole)  # the table, then, is fetched, too
        assert codes(placed=placed) == written
        assert 0 < placed.patcher.loaded_size() < placed.patcher.model_size()
        fetched = [module for module in placed.network.layers.modules() if hasattr(module, "prev_comfy_cast_weights")]
        assert fetched and all(isinstance(module, StoredLinear) for module in fetched)


def check_comfyui_is_told_what_restoring_a_matrix_takes(world: World) -> None:
    placed = load("int8")
    codes(placed=placed)
    with memory_asked_for() as asked:
        taken = peak(lambda: codes(placed=placed))
        codes()
    stored, exact = asked
    config = placed.network.config
    assert stored - exact == config.hidden_size * config.intermediate_size * 4 and taken <= stored


def check_a_planner_that_does_not_fit_writes_the_same_and_says_why_it_is_slow(world: World) -> None:
    placed = load()
    placed.patcher.offload_device = torch.device("meta")  # any other than where it runs, as with a GPU
    keep_partly(placed.patcher, 0.8)
    with shown() as texts:
        written = codes(placed=placed)
    placed.patcher.offload_device = torch.device("cpu")
    assert 0 < placed.patcher.loaded_size() < placed.patcher.model_size()
    assert written == codes()
    assert any("the rest is fetched for every token, which is slow" in text for text in texts)


def check_comfyui_is_told_what_a_plan_takes(world: World) -> None:
    codes()
    with memory_asked_for() as asked:
        taken = [peak(partial(codes, **change)) for change in ({}, {"batch_size": 4}, {"best_of": 2})]
        taken.append(peak(write))
    one, four, best, scored, text = asked
    for estimate, measured in zip((one, four, max(best, scored), text), taken, strict=True):
        print(f"estimated {estimate / 2**20:.1f} MiB, took {measured / 2**20:.1f} MiB, {estimate / measured:.2f}")
        assert measured <= estimate
    assert one < four
