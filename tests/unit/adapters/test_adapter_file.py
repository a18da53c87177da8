"""Read adapters of every dialect, and refuse what is none."""

import json
import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from acestep_core.adapters.adapter_file import open_adapter, read_adapter
from acestep_core.adapters.module_paths import Group, find_module_path
from acestep_core.errors import CheckpointError, NonFiniteError, RequestError
from tests.support import tiny
from tests.support.adapter_files import ALPHA, DIALECTS, LINEAR, RANK, comfyui_file, factors, peft_folder
from tests.support.layouts import save


@pytest.fixture(scope="module")
def network():
    return tiny.model()


@pytest.mark.parametrize("write", DIALECTS.values(), ids=DIALECTS.keys())
def test_every_dialect_is_the_same_adapter(tmp_path, network, write):
    lora = factors()
    adapter = read_adapter(write(tmp_path, lora))
    assert set(adapter.modules) == {f"decoder.{name}" for name in LINEAR} and not adapter.unmatched
    for name, (down, up) in lora.items():
        weight = network.decoder.get_submodule(name).weight
        assert torch.equal(adapter.delta(f"decoder.{name}", weight), (up @ down) * (ALPHA / RANK)), name


def test_every_module_is_found_by_each_spelling(network):
    paths = [name for name, module in network.named_modules() if getattr(module, "weight", None) is not None]
    for path in paths:
        inner = path.removeprefix("decoder.")
        assert find_module_path(path) == find_module_path(path.replace(".", "_")) == path
        for name in (f"diffusion_model.{path}", f"lora_unet_{path.replace('.', '_')}", f"base_model.model.{inner}"):
            if name.startswith("base_model") and inner == path:
                continue
            assert find_module_path(name) == path, name
    assert find_module_path("layers.12.mlp.up_proj") == "decoder.layers.12.mlp.up_proj"
    for name in ("layers.0.mlp", "blocks.0.q_proj", "", "layers.x.mlp.up_proj", "layers_99999_mlp_up_proj"):
        assert find_module_path(name) is None


def test_alpha_comes_from_the_tensor_the_pattern_the_config_or_the_rank(tmp_path, network):
    lora = factors(modules=LINEAR[:2])
    first, second = (f"decoder.{name}" for name in LINEAR[:2])
    config = {"alpha_pattern": {"o_proj": 2}, "rank_pattern": {"o_proj": RANK}}
    folder = peft_folder(tmp_path / "a", lora, **config)
    adapter = read_adapter(folder)
    assert (adapter.modules[first].scale, adapter.modules[second].scale) == (ALPHA / RANK, 2 / RANK)
    assert "alpha_pattern" in adapter.modules[second].source and "adapter_config.json" in adapter.modules[first].source
    assert read_adapter(peft_folder(tmp_path / "b", lora, use_rslora=True)).modules[first].scale == ALPHA / RANK**0.5
    bare = read_adapter(comfyui_file(tmp_path / "bare.safetensors", lora, alpha=None)).modules[first]
    assert (bare.scale, bare.alpha, bare.source) == (1.0, RANK, "none: the rank")
    tensor = read_adapter(comfyui_file(tmp_path / "tensor.safetensors", lora, alpha=3)).modules[first]
    assert (tensor.scale, tensor.source) == (3 / RANK, "tensor")


def test_the_report(tmp_path, network):
    metadata = {"modelspec.trigger_phrase": "neon \n drums", "hot_step_trigger": "neon drums"}
    file = comfyui_file(tmp_path / "style.safetensors", factors(), metadata=metadata)
    state = load_file(file) | {
        "lora_te_text_model.lora_down.weight": torch.ones(2, 3),
        "lora_te_text_model.lora_up.weight": torch.ones(3, 2),
        "step": torch.ones(1),
    }
    report = read_adapter(save(file, state, metadata)).report(network)
    assert (report.kinds, report.ranks, report.alphas, report.scales) == (("LoRA",), (RANK,), (ALPHA,), (2.5,))
    assert (report.matched, report.total, report.trigger) == (6, 7, ("neon drums",))
    assert report.groups == {
        Group.SELF_ATTENTION: 1, Group.CROSS_ATTENTION: 1, Group.MLP: 1, Group.CONDITIONING: 1, Group.TIME: 2
    }  # fmt: skip
    assert len(report.unmatched) == 3 and "step" in report.unmatched
    for words in ("style.safetensors", "rank 4", "alpha 10 (tensor)", "6 of 7", "MLP 1", "neon drums", "3 unmatched"):
        assert words in str(report)


def test_differences_of_weights_norms_and_biases(tmp_path, network):
    norm, linear = "decoder.layers.1.mlp_norm", "decoder.time_embed.linear_2"
    state = {
        f"diffusion_model.{norm}.diff": tiny.draw(48),
        f"diffusion_model.{linear}.diff": tiny.draw(48, 48, seed=1),
        f"diffusion_model.{linear}.diff_b": tiny.draw(48, seed=2),
        "diffusion_model.decoder.proj_in.1.diff": tiny.draw(48, 192, 2, seed=3),
    }
    adapter = read_adapter(save(tmp_path / "a.safetensors", state))
    assert adapter.report(network).kinds == ("full difference",)
    for path in (norm, linear, "decoder.proj_in.1"):
        weight = network.get_submodule(path).weight
        assert torch.equal(adapter.delta(path, weight), state[f"diffusion_model.{path}.diff"])
    assert torch.equal(adapter.modules[linear].bias, state[f"diffusion_model.{linear}.diff_b"])


def test_the_two_spellings_of_dora_are_the_same(tmp_path, network):
    lora = factors(modules=LINEAR[:1])
    (name,) = lora
    weight = network.decoder.get_submodule(name).weight
    magnitude = 1 + tiny.draw(len(weight), seed=9).abs()
    spellings = {
        "lora_magnitude_vector": magnitude, "lora_magnitude_vector.weight": magnitude,
        "lora_magnitude_vector.default.weight": magnitude, "dora_scale": magnitude[:, None],
    }  # fmt: skip
    results = []
    for number, (spelling, tensor) in enumerate(spellings.items()):
        file = comfyui_file(tmp_path / f"{number}.safetensors", lora)
        save(file, load_file(file) | {f"diffusion_model.decoder.{name}.{spelling}": tensor})
        adapter = read_adapter(file)
        assert adapter.report(network).kinds == ("DoRA",)
        results.append(adapter.delta(f"decoder.{name}", weight))
    assert all(torch.equal(result, results[0]) for result in results)
    rows = (weight + results[0]).norm(dim=1)
    assert tiny.relative_error(rows, magnitude) < 1e-6


def test_the_model_size_must_agree(tmp_path, network):
    other = tiny.model(tiny.XL)
    with pytest.raises(RequestError, match="width 48.*width 64"):
        read_adapter(comfyui_file(tmp_path / "a.safetensors", factors())).report(other)
    wide = {"decoder.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(1, 2560)}
    wide["decoder.layers.0.self_attn.q_proj.lora_B.weight"] = torch.zeros(64, 1)
    with pytest.raises(RequestError, match="XL"):
        read_adapter(save(tmp_path / "b.safetensors", wide)).report(network)
    deep = tiny.model(replace(tiny.STANDARD, num_hidden_layers=2))
    with pytest.raises(RequestError, match="4 layers"):
        read_adapter(tmp_path / "a.safetensors").report(deep)
    with pytest.raises(RequestError, match="time_embed.linear_1"):
        odd = {"time_embed.linear_1.lora_A.weight": torch.ones(1, 5)}
        odd["time_embed.linear_1.lora_B.weight"] = torch.ones(48, 1)
        read_adapter(save(tmp_path / "c.safetensors", odd)).report(network)


def names(*modules: str) -> dict[str, torch.Tensor]:
    return {f"{name}.lora_{letter}.weight": torch.ones(2, 2) for name in modules for letter in "AB"}


FOREIGN = {
    "ACE-Step 1.0": names("transformer_blocks.0.cross_attn.to_q", "speaker_embedder"),
    "text encoder": names("text_encoder.layers.0.self_attn.q_proj"),
    "language model": names("base_model.model.model.layers.0.self_attn.q_proj"),
    "another model": names("double_blocks.0.img_attn.qkv"),
    "unsupported kind \\(oft_blocks": {"lora_unet_layers_0_mlp_up_proj.oft_blocks": torch.ones(2, 2, 2)},
    "without tensors": {},
    "an unknown model": {"weight": torch.ones(2)},
}


@pytest.mark.parametrize(("words", "state"), FOREIGN.items(), ids=FOREIGN.keys())
def test_adapters_of_other_models_are_refused(tmp_path, words, state):
    with pytest.raises(CheckpointError, match=words):
        read_adapter(save(tmp_path / "a.safetensors", state))


def test_damaged_files_are_refused(tmp_path):
    file = comfyui_file(tmp_path / "a.safetensors", factors())
    content = file.read_bytes()
    file.write_bytes(content[:-10])
    with pytest.raises(CheckpointError, match="truncated"):
        read_adapter(file)
    file.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="pickle"):
        read_adapter(file)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_adapter(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="adapter_model.safetensors"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_model.bin").touch()
    with pytest.raises(CheckpointError, match="pickle"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"up": torch.full((48, RANK), float("nan"))}, "NaN"),
        ({"up": torch.ones(48, RANK + 1)}, "ranks"),
        ({"up": torch.ones(48, RANK, dtype=torch.int64)}, "I64"),
        ({"alpha": torch.tensor(float("nan"))}, "alpha"),
        ({"alpha": torch.ones(2)}, "alpha"),
        ({"alpha": torch.tensor(1e30)}, "alpha"),
        ({"down": None}, "lora_A"),
        ({"up": torch.ones(48, 0), "down": torch.ones(0, 48)}, "ranks"),
        ({"up": torch.ones(48)}, "matrices"),
        ({"lycoris": torch.ones(48, RANK)}, "twice"),
    ],
)
def test_contradictory_tensors_are_refused(tmp_path, change, words):
    down, up = factors(modules=LINEAR[:1])[LINEAR[0]]
    tensors = {"down": down, "up": up, "alpha": torch.tensor(4.0)} | change
    keys = {
        "down": "layers.0.self_attn.q_proj.lora_A.weight", "up": "layers.0.self_attn.q_proj.lora_B.weight",
        "alpha": "layers.0.self_attn.q_proj.alpha", "lycoris": "layers_0_self_attn_q_proj.diff",
    }  # fmt: skip
    file = save(tmp_path / "a.safetensors", {keys[k]: v for k, v in tensors.items() if v is not None})
    with pytest.raises(CheckpointError, match=words):
        read_adapter(file)


def test_a_difference_that_overflows_is_refused(tmp_path, network):
    lora = {LINEAR[0]: tuple(3e30 * factor for factor in factors()[LINEAR[0]])}
    adapter = read_adapter(comfyui_file(tmp_path / "a.safetensors", lora))
    with pytest.raises(NonFiniteError, match="q_proj"):
        adapter.delta(f"decoder.{LINEAR[0]}", network.decoder.layers[0].self_attn.q_proj.weight)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "OFT"}, "peft_type"),
        ({"lora_alpha": "8"}, "lora_alpha"),
        ({"lora_alpha": 1e300}, "lora_alpha"),
        ({"alpha_pattern": 3}, "alpha_pattern"),
        ({"alpha_pattern": {"q_proj": None}}, "alpha_pattern"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "expression"),
        ({"alpha_pattern": {"(": 1}}, "expression"),
        ({"rank_pattern": {"q_proj": 0.5}}, "rank_pattern"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
    ],
)
def test_unusable_configs_are_refused(tmp_path, config, words):
    with pytest.raises(CheckpointError, match=words):
        read_adapter(peft_folder(tmp_path / "a", factors(modules=LINEAR[:1]), **config))


def test_a_config_that_is_no_json_is_refused(tmp_path):
    folder = peft_folder(tmp_path / "a", factors(modules=LINEAR[:1]))
    for content in (b"{", b"[1]", b"\xff", b"[" * 100_000):
        (folder / "adapter_config.json").write_bytes(content)
        with pytest.raises(CheckpointError, match="adapter_config.json"):
            read_adapter(folder)


def test_the_hash_covers_the_config(tmp_path):
    lora = factors(modules=LINEAR[:1])
    first = open_adapter(peft_folder(tmp_path / "a", lora))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert open_adapter(tmp_path / "b").sha256 == first.sha256
    (tmp_path / "b" / "adapter_config.json").write_text(json.dumps({"lora_alpha": 1}))
    assert open_adapter(tmp_path / "b").sha256 != first.sha256
