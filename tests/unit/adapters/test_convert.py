"""Write adapters for other programs and read them back."""

import json

import pytest
import torch
from safetensors import safe_open

from acestep_core.adapters.adapter_file import read_adapter
from acestep_core.adapters.convert import convert_adapter
from acestep_core.errors import RequestError
from tests.support import tiny
from tests.support.adapter_files import LINEAR, comfyui_file, factors, peft_folder
from tests.support.layouts import save

NAME = "diffusion_model.decoder.layers.0.mlp.up_proj"  # [80, 48]


@pytest.fixture(scope="module")
def network():
    return tiny.model()


def same(network, one, other) -> bool:
    return one.modules.keys() == other.modules.keys() and all(
        tiny.relative_error(one.delta(path, weight), other.delta(path, weight)) < 1e-6
        for path in one.modules
        for weight in [network.get_submodule(path).weight]
    )


def tensors(**values) -> dict[str, torch.Tensor]:
    return {f"{NAME}.{name}": value for name, value in values.items()}


KINDS = {
    "LoHa": tensors(
        hada_w1_a=tiny.draw(80, 3), hada_w1_b=tiny.draw(3, 48), hada_w2_a=tiny.draw(80, 3, seed=1),
        hada_w2_b=tiny.draw(3, 48, seed=1), alpha=torch.tensor(2.0),
    ),
    "LoKr": tensors(
        lokr_w1=tiny.draw(4, 6), lokr_w2_a=tiny.draw(20, 2), lokr_w2_b=tiny.draw(2, 8), alpha=torch.tensor(1.5)
    ),
    "whole LoKr": tensors(lokr_w1=tiny.draw(4, 6), lokr_w2=tiny.draw(20, 8), alpha=torch.tensor(7.0)),
    "LoKr of pairs": tensors(
        lokr_w1_a=tiny.draw(4, 2), lokr_w1_b=tiny.draw(2, 6), lokr_w2_a=tiny.draw(20, 2), lokr_w2_b=tiny.draw(2, 8)
    ),
    "DoRA by input": tensors(dora_scale=1 + tiny.draw(1, 48).abs(), diff=tiny.draw(80, 48))
    | {f"{NAME}.lora_up.weight": tiny.draw(80, 2), f"{NAME}.lora_down.weight": tiny.draw(2, 48)},
    "difference": tensors(diff=tiny.draw(80, 48)),
}  # fmt: skip


@pytest.mark.parametrize("state", KINDS.values(), ids=KINDS.keys())
def test_a_single_file_of_every_kind_reads_back(tmp_path, network, state):
    adapter = read_adapter(save(tmp_path / "a.safetensors", state))
    assert same(network, adapter, read_adapter(convert_adapter(adapter, tmp_path / "b.safetensors")))
    with pytest.raises(RequestError, match="safetensors"):
        convert_adapter(adapter, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_scale_that_readers_ignore_goes_into_the_matrix(tmp_path, network):
    header = {"lokr_config": json.dumps({"linear_dim": 14, "linear_alpha": 7})}
    adapter = read_adapter(save(tmp_path / "a.safetensors", KINDS["whole LoKr"], header))
    assert adapter.summary().scales == (0.5,)
    again = read_adapter(convert_adapter(adapter, tmp_path / "b.safetensors"))
    assert again.summary().scales == (1.0,) and same(network, adapter, again)


@pytest.mark.parametrize("config", [{}, {"alpha_pattern": {"o_proj": 3, "q_proj": 2.5}}, {"use_rslora": True}])
def test_peft_to_comfyui_and_back(tmp_path, network, config):
    adapter = read_adapter(peft_folder(tmp_path / "style", factors(), **config))
    file = convert_adapter(adapter, tmp_path / "style.safetensors")
    with safe_open(file, "pt") as opened:
        header, names = opened.metadata(), list(opened.keys())
    assert header["modelspec.title"] == "style" and header["modelspec.architecture"].startswith("ace-step-1.5")
    assert all(name.startswith("diffusion_model.decoder.") for name in names)
    assert sum(name.endswith(".alpha") for name in names) == len(LINEAR)
    single = read_adapter(file)
    folder = read_adapter(convert_adapter(single, tmp_path / "again"))
    assert same(network, adapter, single) and same(network, adapter, folder)
    assert folder.summary().scales == pytest.approx(adapter.summary().scales)


def test_trigger_words_survive(tmp_path):
    words = {"hot_step_trigger": "neon drums"}
    adapter = read_adapter(comfyui_file(tmp_path / "a.safetensors", factors(), metadata=words))
    for path in ("b.safetensors", "folder"):
        assert read_adapter(convert_adapter(adapter, tmp_path / path)).trigger == ("neon drums",)


def test_nothing_is_overwritten_or_left_half_written(tmp_path):
    adapter = read_adapter(comfyui_file(tmp_path / "a.safetensors", factors()))
    (tmp_path / "folder").mkdir()
    with pytest.raises(RequestError, match="exists"):
        convert_adapter(adapter, tmp_path / "folder")
    with pytest.raises(RequestError, match="nowhere"):
        convert_adapter(adapter, tmp_path / "nowhere" / "b.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "folder"]
