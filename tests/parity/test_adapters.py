"""Adapters against the libraries that train them: PEFT and LyCORIS wrap the same tiny transformer."""

from __future__ import annotations

import copy
import logging

import lycoris
import peft
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from acestep_core.adapters.adapter_file import read_adapter
from acestep_core.adapters.convert import convert_adapter
from acestep_core.adapters.merge import AdapterUse, merge
from acestep_core.models.model import AceStepModel
from tests.support import tiny
from tests.support.tiny import draw, relative_error

WEIGHT_LIMIT, OUTPUT_LIMIT = 1e-6, 1e-5
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EVERYWHERE = [*ATTENTION, "gate_proj", "up_proj", "down_proj", "condition_embedder", "linear_1", "time_proj"]


@pytest.fixture(scope="module")
def network() -> AceStepModel:
    return tiny.model()


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give the adapter's own tensors, some of which start as zeros, random values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if any(mark in name for mark in ("lora_", "hada_", "lokr_")):
                noise = torch.randn(parameter.shape, generator=generator)
                magnitude = "magnitude" in name
                parameter.copy_(parameter * (1 + 0.2 * noise.abs()) if magnitude else 0.3 * noise)
            elif "dora_scale" in name:
                parameter.mul_(1 + 0.2 * torch.rand(parameter.shape, generator=generator))
    return module.eval()


@torch.no_grad()
def velocity(network: AceStepModel, decoder: nn.Module) -> torch.Tensor:
    """Return one step in float64: the difference of the weights shows, not the rounding of a processor."""
    decoder = copy.deepcopy(decoder).double()
    context, encoded = draw(1, 30, 128), draw(1, 9, network.config.encoder_hidden_size, seed=1)
    prepared = decoder.prepare(context.double(), encoded.double())
    return decoder(draw(1, 30, 64, seed=2).double(), torch.tensor([0.6], dtype=torch.float64), prepared)


def compare(network: AceStepModel, file, theirs: nn.Module, differences: dict[str, torch.Tensor]) -> None:
    """Compare weight differences, by module of the decoder, and one step of the transformer."""
    adapter = read_adapter(file)
    assert adapter.report(network).matched == len(differences) and not adapter.unmatched
    for path, expected in differences.items():
        layer = network.decoder.get_submodule(path)
        assert relative_error(adapter.delta(f"decoder.{path}", layer.weight), expected) < WEIGHT_LIMIT, path
    merged = merge(network, [AdapterUse(adapter)])
    assert relative_error(velocity(network, merged.decoder), velocity(network, theirs)) < OUTPUT_LIMIT
    assert relative_error(velocity(network, network.decoder), velocity(network, theirs)) > 1e-3


# --- PEFT -------------------------------------------------------------------------------------------------------------

PEFT = {
    "LoRA": peft.LoraConfig(r=4, lora_alpha=8, target_modules=ATTENTION),
    "LoRA everywhere": peft.LoraConfig(r=4, lora_alpha=3, target_modules=EVERYWHERE),
    "rsLoRA": peft.LoraConfig(r=6, lora_alpha=8, target_modules=ATTENTION, use_rslora=True),
    "patterns": peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=EVERYWHERE,
        rank_pattern={"layers.1.self_attn.q_proj": 2, "down_proj": 7},
        alpha_pattern={r"layers\.[02]\.self_attn\.q_proj": 5, "^layers.1.mlp.down_proj": 3, "k_proj": 1, "q_proj": 9},
    ),
    "patterns of rsLoRA": peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=ATTENTION, use_rslora=True, rank_pattern={"v_proj": 9}
    ),
    "DoRA": peft.LoraConfig(r=4, lora_alpha=8, target_modules=ATTENTION, use_dora=True),
    "DoRA everywhere": peft.LoraConfig(r=4, lora_alpha=8, target_modules=EVERYWHERE, use_dora=True, use_rslora=True),
    "LoHa": peft.LoHaConfig(r=4, alpha=8, target_modules=EVERYWHERE),
    "LoKr": peft.LoKrConfig(r=2, alpha=6, target_modules=EVERYWHERE),
    "LoKr of two pairs": peft.LoKrConfig(r=2, alpha=6, target_modules=ATTENTION, decompose_both=True),
    "LoKr of whole matrices": peft.LoKrConfig(r=64, alpha=16, target_modules=ATTENTION),
}


@pytest.mark.parametrize("config", PEFT.values(), ids=PEFT.keys())
def test_peft(network, tmp_path, config):
    wrapped = randomised(peft.get_peft_model(copy.deepcopy(network.decoder), copy.deepcopy(config)))
    wrapped.save_pretrained(tmp_path)
    exact = copy.deepcopy(wrapped).double().merge_and_unload()
    changed = {name for name, module in wrapped.base_model.model.named_modules() if hasattr(module, "base_layer")}
    differences = {
        name: exact.get_submodule(name).weight - network.decoder.get_submodule(name).weight.double() for name in changed
    }
    compare(network, tmp_path, wrapped.base_model.model, differences)


@pytest.mark.parametrize("dora", [False, True])
def test_peft_on_a_convolution(network, tmp_path, dora):
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["proj_in.1"], use_dora=dora)
    wrapped = randomised(peft.get_peft_model(copy.deepcopy(network.decoder), config))
    wrapped.save_pretrained(tmp_path)
    exact = copy.deepcopy(wrapped).double().merge_and_unload().proj_in[1].weight
    weight = network.decoder.proj_in[1].weight
    delta = read_adapter(tmp_path).delta("decoder.proj_in.1", weight)
    assert relative_error(delta, exact - weight.double()) < WEIGHT_LIMIT


@pytest.mark.parametrize("name", ["LoRA everywhere", "patterns", "patterns of rsLoRA", "DoRA everywhere"])
def test_peft_reads_converted_folders(network, tmp_path, name):
    wrapped = randomised(peft.get_peft_model(copy.deepcopy(network.decoder), copy.deepcopy(PEFT[name])))
    wrapped.save_pretrained(tmp_path / "trained")
    convert_adapter(read_adapter(tmp_path / "trained"), tmp_path / "converted")
    again = peft.PeftModel.from_pretrained(copy.deepcopy(network.decoder), str(tmp_path / "converted")).eval()
    expected, result = (velocity(network, each.base_model.model) for each in (wrapped, again))
    assert relative_error(result, expected) < OUTPUT_LIMIT


# --- LyCORIS ----------------------------------------------------------------------------------------------------------

LYCORIS = {
    "LoRA": {"algo": "lora"},
    "LoRA with a core": {"algo": "lora", "use_tucker": True},
    "DoRA": {"algo": "lora", "dora_wd": True},
    "DoRA by input": {"algo": "lora", "dora_wd": True, "wd_on_output": False},
    "LoHa": {"algo": "loha"},
    "LoHa with cores": {"algo": "loha", "use_tucker": True},
    "LoHa with DoRA": {"algo": "loha", "dora_wd": True},
    "LoKr": {"algo": "lokr", "factor": 4},
    "LoKr with a core": {"algo": "lokr", "use_tucker": True, "factor": 4},
    "LoKr of two pairs": {"algo": "lokr", "decompose_both": True},
    "LoKr of whole matrices": {"algo": "lokr", "full_matrix": True},
    "LoKr with DoRA": {"algo": "lokr", "dora_wd": True, "wd_on_output": False},
}


@pytest.mark.parametrize("options", LYCORIS.values(), ids=LYCORIS.keys())
def test_lycoris(network, tmp_path, options):
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    decoder = copy.deepcopy(network.decoder)
    wrapper = lycoris.create_lycoris(decoder, 1.0, linear_dim=2, linear_alpha=3.0, warn_on_unmatched=False, **options)
    wrapper.apply_to()
    randomised(wrapper)
    file = tmp_path / "adapter.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in wrapper.state_dict().items()}, file)
    paths = {name.replace(".", "_"): name for name, _ in decoder.named_modules()}
    names = [paths[lora.lora_name.removeprefix("lycoris_")] for lora in wrapper.loras]
    differences = {
        name: exact_difference(lora, network.decoder.get_submodule(name).weight.double())
        for name, lora in zip(names, wrapper.loras, strict=True)
    }
    convolution = decoder.proj_in[1]  # `prepare` uses its weight and never calls it
    convolution.weight.data.add_(differences["proj_in.1"])
    compare(network, file, decoder, differences)


@torch.no_grad()
def exact_difference(lora: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """Return the difference that the forward pass of LyCORIS uses, in float64."""
    twin = copy.deepcopy(lora).double()
    low_rank = hasattr(twin, "make_weight")
    difference = twin.make_weight() * twin.scale if low_rank else twin.get_weight(twin.shape) * twin.scalar
    return twin.apply_weight_decompose(weight + difference) - weight if twin.wd else difference
