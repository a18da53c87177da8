"""Merge adapters into a network, with strengths."""

import pytest
import torch

from acestep_core.adapters.adapter_file import read_adapter
from acestep_core.adapters.merge import AdapterUse, merge
from acestep_core.adapters.module_paths import Group
from acestep_core.errors import RequestError
from acestep_core.models.cpu.plugins import install_cpu_plugins
from acestep_core.models.model import AceStepModel
from acestep_core.models.ops import quantize_rows, quantized_ops
from tests.support import tiny
from tests.support.adapter_files import LINEAR, comfyui_file, factors
from tests.support.layouts import save


@pytest.fixture(scope="module")
def network():
    return tiny.model()


@pytest.fixture
def stack(tmp_path):
    """Three adapters of the same modules."""
    files = [comfyui_file(tmp_path / f"{seed}.safetensors", factors(seed=seed)) for seed in (0, 100, 200)]
    return [read_adapter(file) for file in files]


def weights(network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_the_given_network_stays_and_untouched_tensors_are_shared(network, stack):
    before = weights(network)
    merged = merge(network, [AdapterUse(stack[0])])
    after, touched = network.state_dict(), {f"decoder.{name}.weight" for name in LINEAR}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    own, theirs = (dict(each.named_parameters()) for each in (network, merged))
    assert {name for name in own if own[name] is not theirs[name]} == touched
    assert merged.silence_latent is network.silence_latent
    for name in touched:
        delta = stack[0].delta(name.removesuffix(".weight"), own[name])
        assert torch.equal(theirs[name], own[name] + delta)


def test_a_stack_is_the_sum_in_any_order(network, stack):
    strengths = (1.0, -0.5, 0.3)
    uses = [AdapterUse(adapter, strength) for adapter, strength in zip(stack, strengths, strict=True)]
    merged, turned = merge(network, uses), merge(network, uses[::-1])
    for name in LINEAR:
        path = f"decoder.{name}"
        weight = network.get_submodule(path).weight
        total = sum(use.strength * use.adapter.delta(path, weight).double() for use in uses)
        for each in (merged, turned):
            assert tiny.relative_error(each.get_submodule(path).weight, weight.double() + total) < 1e-6


def test_strength_0_is_the_plain_model(network, stack):
    merged = merge(network, [AdapterUse(stack[0], 0.0), AdapterUse(stack[1], 1, {group: 0 for group in Group})])
    assert all(own is other for own, other in zip(network.parameters(), merged.parameters(), strict=True))


def test_groups_have_strengths_of_their_own(network, stack):
    merged = merge(network, [AdapterUse(stack[0], 2.0, {"mlp": 0.25, Group.TIME: 0})])
    for name in LINEAR:
        path = f"decoder.{name}"
        weight = network.get_submodule(path).weight
        strength = 0 if name.startswith("time") else 0.5 if ".mlp." in name else 2
        expected = weight + strength * stack[0].delta(path, weight)
        assert tiny.relative_error(merged.get_submodule(path).weight, expected) < 1e-6


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 101, "1", True, None])
def test_a_strength_is_a_finite_number(stack, strength):
    with pytest.raises(RequestError, match="strength"):
        AdapterUse(stack[0], strength)
    with pytest.raises(RequestError, match="strength"):
        AdapterUse(stack[0], 1, {"mlp": strength})


def test_an_unknown_group_is_refused(stack):
    with pytest.raises(RequestError, match="drums.*self_attention"):
        AdapterUse(stack[0], 1, {"drums": 1})


def test_biases_and_dtypes(network, tmp_path):
    path = "decoder.time_embed.linear_2"
    state = {f"{path}.diff_b": tiny.draw(48), f"{path}.diff": tiny.draw(48, 48)}
    adapter = read_adapter(save(tmp_path / "a.safetensors", state))
    half = merge(tiny.model().to(torch.bfloat16), [AdapterUse(adapter, 0.5)]).get_submodule(path)
    own = tiny.model().to(torch.bfloat16).get_submodule(path)
    assert half.weight.dtype == half.bias.dtype == torch.bfloat16
    assert torch.equal(half.bias, (own.bias.float() + 0.5 * state[f"{path}.diff_b"]).bfloat16())
    assert torch.equal(half.weight, (own.weight.float() + 0.5 * state[f"{path}.diff"]).bfloat16())


@pytest.mark.parametrize("storage", [torch.int8, torch.float8_e4m3fn])
def test_quantised_weights_are_merged_and_quantised_again(network, stack, storage):
    quantized = AceStepModel(tiny.STANDARD, quantized_ops(storage))
    for name, parameter in network.named_parameters():
        path, _, leaf = name.rpartition(".")
        layer = quantized.get_submodule(path)
        if hasattr(layer, "store") and leaf == "weight":
            layer.store(parameter)
        else:
            setattr(layer, leaf, torch.nn.Parameter(parameter.clone(), requires_grad=False))
    install_cpu_plugins(quantized, torch.device("cpu"))
    merged = merge(quantized, [AdapterUse(stack[0])])
    like = torch.empty(0)
    for name in LINEAR[:3]:
        path = f"decoder.{name}"
        layer, own = merged.get_submodule(path), quantized.get_submodule(path)
        base = own.weight_and_bias(like)[0]
        expected, scale = quantize_rows(base + stack[0].delta(path, base), storage)
        assert type(layer) is type(own) and layer.weight.dtype == storage
        assert torch.equal(layer.weight.float(), expected.float()) and torch.equal(layer.scale, scale)
        assert not torch.equal(layer.weight.float(), own.weight.float())
