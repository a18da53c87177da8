"""Planners in every file layout, and errors for other files."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from acestep_core.checkpoints import catalog, find
from acestep_core.checkpoints.find import find_planner
from acestep_core.checkpoints.layouts import Layout
from acestep_core.checkpoints.qwen3_layouts import open_planner, open_text_encoder
from acestep_core.config import PLANNER_VOCAB_SIZE, PlannerConfig
from acestep_core.errors import CheckpointError, RequestError
from acestep_core.models.layers import weight_and_bias
from acestep_core.models.ops import QuantizedLinear
from acestep_core.planner.load_planner import load_planner
from acestep_core.planner.network import PlannerNetwork
from acestep_core.planner.planning import plan_codes
from acestep_core.song.song import Metadata, Song
from tests.support import layouts, qwen, tiny, tiny_planner, tiny_text

qwen_tokenizer_dir = qwen.qwen_tokenizer_dir
tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder
vocabulary, planner = tiny_planner.vocabulary, tiny_planner.planner

# The vocabulary of the released planners, but tiny layers.
RELEASED = PlannerConfig(
    hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=4
)


@pytest.fixture(scope="module")
def released() -> PlannerNetwork:
    return tiny.randomise(PlannerNetwork(RELEASED))


def save(folder: Path, network: PlannerNetwork, tokenizer: Path | None, prefix: str = "", **config) -> Path:
    layouts.save(folder / "model.safetensors", layouts.prefixed(prefix, network.state_dict()))
    layouts.save_config(folder, config)
    if tokenizer is not None:
        shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


def load(path: Path, **options):
    return load_planner(path, device="cpu", dtype="float32", **options)


def assert_same(network: PlannerNetwork, expected: PlannerNetwork) -> None:
    got, state = network.state_dict(), expected.state_dict()
    assert list(got) == list(state)
    assert all(torch.equal(got[name], state[name]) for name in got)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_number_of_codes_is_in_the_config(tmp_path, planner, tiny_tokenizer_dir, prefix):
    save(tmp_path, planner, tiny_tokenizer_dir, prefix, audio_codes=307)  # all rows
    loaded = load(tmp_path)
    assert_same(loaded.network, planner)
    assert (loaded.vocabulary.codes, loaded.network.config.audio_codes) == (307, 307)
    assert loaded.vocabulary.audio_base == loaded.network.config.audio_base == planner.config.audio_base
    config = asdict(planner.config)
    save(tmp_path, planner, None, prefix, **config)
    loaded = load(tmp_path)
    assert loaded.network.config == planner.config and loaded.vocabulary.codes == 300


def test_shards_and_a_redundant_head(tmp_path, planner, tiny_tokenizer_dir, caplog):
    state = layouts.prefixed("model.", planner.state_dict()) | {"lm_head.weight": planner.embed_tokens.weight}
    layouts._save_shards(tmp_path, state, 3)
    shutil.copytree(tiny_tokenizer_dir, tmp_path, dirs_exist_ok=True)
    layouts.save_config(tmp_path, asdict(planner.config))
    assert_same(load(tmp_path).network, planner)
    save(tmp_path / "bare", planner, tiny_tokenizer_dir, **asdict(planner.config))
    layouts.save(tmp_path / "bare" / "model.safetensors", planner.state_dict() | {"lm_head.weight": torch.ones(2, 2)})
    assert_same(load(tmp_path / "bare").network, planner)
    assert "lm_head" not in caplog.text


def test_single_file_of_comfyui(tmp_path, released, qwen_tokenizer_dir):
    file = tmp_path / "text_encoders" / "qwen_1.7b_ace15.safetensors"
    layouts.save(file, layouts.prefixed("model.", released.state_dict()))
    source = open_planner(file)
    assert (source.layout, source.config) == (Layout.COMFY_SPLIT, RELEASED)
    with pytest.raises(CheckpointError, match="tokenizer"):
        load(file)
    loaded = load(file, tokenizer=qwen_tokenizer_dir)
    assert_same(loaded.network, released)
    assert (loaded.vocabulary.audio_base, loaded.vocabulary.codes) == (151_669, 64_000)
    shutil.copytree(qwen_tokenizer_dir, tmp_path / "Qwen3-Embedding-0.6B")
    for name in (file, "lm-1.7b", "comfy-lm-1.7b", file.name):
        assert find_planner(name, [tmp_path]) == (file, tmp_path / "Qwen3-Embedding-0.6B")
    assert_same(load_planner("lm-1.7b", device="cpu", dtype="float32", models_dir=str(tmp_path)).network, released)


def test_all_in_one_file(tmp_path, released, tiny_encoder):
    file = tmp_path / "checkpoints" / "ace_step_1.5_turbo_aio.safetensors"
    text = layouts.prefixed("text_encoders.qwen3_06b.transformer.model.", tiny_encoder.module.state_dict())
    inside = layouts.prefixed("text_encoders.qwen3_2b.transformer.model.", released.state_dict())
    layouts.save(file, text | inside)
    source = open_planner(file)
    assert (source.layout, source.config) == (Layout.COMFY_ALL_IN_ONE, RELEASED)
    assert open_text_encoder(file).config.hidden_size == tiny_encoder.module.config.hidden_size
    assert find_planner("lm-1.7b", [tmp_path])[0] == file
    layouts.save(file, text)
    with pytest.raises(CheckpointError, match="text encoder"):
        open_planner(file)


def rows(count: int) -> dict[str, torch.Tensor]:
    """Return the tensors that identify a Qwen3 model with a vocabulary of that size."""
    state = PlannerNetwork(RELEASED).state_dict()
    return state | {"embed_tokens.weight": torch.zeros(count, 4, dtype=torch.bfloat16)}


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (151_669, "text encoder.*151669.*217204"),
        (151_936, "Qwen3.*151936.*217204"),
        (217_000, "217000.*217204"),
    ],
)
def test_vocabulary_identifies_a_planner(tmp_path, count, message):
    file = layouts.save(tmp_path / "x.safetensors", rows(count))
    with pytest.raises(CheckpointError, match=message):
        load(file)


def test_planner_is_not_a_text_encoder(tmp_path, planner, tiny_tokenizer_dir):
    save(tmp_path, planner, tiny_tokenizer_dir, **asdict(planner.config))
    with pytest.raises(CheckpointError, match="planner"):
        open_text_encoder(tmp_path)
    file = layouts.save(tmp_path / "x.safetensors", rows(PLANNER_VOCAB_SIZE))
    with pytest.raises(CheckpointError, match="planner.*217204"):
        open_text_encoder(file)


def test_other_files_are_refused(tmp_path):
    file = layouts.save(tmp_path / "x.safetensors", tiny.vae().state_dict())
    with pytest.raises(CheckpointError, match="VAE"):
        load(file)
    with pytest.raises(CheckpointError, match="VAE.*lm-0.6b"):
        find_planner("vae", [tmp_path])
    with pytest.raises(CheckpointError, match="lm-4b.*acestep download lm-4b"):
        find_planner("lm-4b", [tmp_path])
    with pytest.raises(CheckpointError, match="nothing"):
        find_planner("nothing", [tmp_path])


def test_sizes_that_do_not_fit(tmp_path, planner, tiny_tokenizer_dir, qwen_tokenizer_dir):
    save(tmp_path, planner, tiny_tokenizer_dir, **asdict(planner.config))
    with pytest.raises(CheckpointError, match="tokenizer"):
        load(tmp_path, tokenizer=qwen_tokenizer_dir)
    config = json.loads((tmp_path / "config.json").read_text())
    layouts.save_config(tmp_path, config | {"intermediate_size": 60})
    with pytest.raises(CheckpointError, match="intermediate_size is 60"):
        load(tmp_path)
    layouts.save_config(tmp_path, config | {"audio_codes": 309})
    with pytest.raises(CheckpointError, match="309"):
        load(tmp_path)
    layouts.save(
        tmp_path / "model.safetensors", {k: v for k, v in planner.state_dict().items() if "layers.1." not in k}
    )
    with pytest.raises(CheckpointError, match="layers.1 is missing"):
        layouts.save_config(tmp_path, config)
        load(tmp_path)


def test_nano_is_part_of_the_package(tmp_path, monkeypatch, planner, tiny_tokenizer_dir):
    assert catalog.NANO_PLANNER.parent == catalog.NANO
    monkeypatch.setattr(find, "NANO_PLANNER", save(tmp_path, planner, tiny_tokenizer_dir, **asdict(planner.config)))
    assert_same(load_planner(device="cpu", dtype="float32").network, planner)


def distance(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("storage", "dtype", "bound"), [("int8", torch.int8, 0.01), ("fp8", torch.float8_e4m3fn, 0.03)]
)
def test_quantized_planner_is_nearly_the_same(tmp_path, planner, tiny_tokenizer_dir, storage, dtype, bound):
    """Released planners have small weights, which fp8 without scales rounds most coarsely."""
    small = tiny_planner.network(planner.config, seed=4)
    for layer in small.layers:
        for module in layer.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight *= 0.01 / module.weight.std()
    save(tmp_path, small, tiny_tokenizer_dir, **asdict(planner.config))
    exact, quantized = load(tmp_path), load(tmp_path, storage=storage)
    network = quantized.network
    assert network.dtype == torch.float32 and torch.equal(network.embed_tokens.weight, small.embed_tokens.weight)
    matrices = [module for module in network.layers.modules() if isinstance(module, QuantizedLinear)]
    assert len(matrices) == 7 * planner.config.num_hidden_layers and {m.weight.dtype for m in matrices} == {dtype}
    for name, module in exact.network.layers.named_modules():
        if isinstance(module, torch.nn.Linear):
            restored = weight_and_bias(network.layers.get_submodule(name), module.weight)[0]
            plain = module.weight.to(torch.float8_e4m3fn).float()
            assert 0 < distance(restored, module.weight) < bound < distance(plain, module.weight)
    tokens = torch.arange(40)[None] + 5
    states = [
        each(tokens, torch.tensor([0]), each.cache(1, 40, torch.device("cpu")), 40) for each in (exact.network, network)
    ]
    assert 0 < distance(states[1], states[0]) < 2 * bound
    song = Song("river", metadata=Metadata(duration=10))
    assert len(plan_codes(quantized, song, [1])[0]) == 50
    assert plan_codes(load(tmp_path, storage=storage), song, [1]) == plan_codes(quantized, song, [1])


def test_unknown_storage(tmp_path):
    with pytest.raises(RequestError, match="storage.*int4"):
        load(tmp_path, storage="int4")
