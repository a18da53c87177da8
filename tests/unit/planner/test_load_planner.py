"""Planners in every packing; files that are something else are refused in one sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from acestep_core.checkpoints import catalog, find
from acestep_core.checkpoints.find import find_planner
from acestep_core.checkpoints.layouts import Layout, open_planner, open_text_encoder
from acestep_core.config import PLANNER_VOCAB_SIZE, PlannerConfig
from acestep_core.errors import CheckpointError, RequestError
from acestep_core.models.layers import weight_and_bias
from acestep_core.models.ops import StoredLinear
from acestep_core.planner.functions import codes
from acestep_core.planner.load_planner import load_planner
from acestep_core.planner.network import PlannerNetwork
from acestep_core.song.song import Metadata, Song
from tests.support import layouts, qwen, tiny, tiny_planner, tiny_text

qwen_tokenizer_dir = qwen.qwen_tokenizer_dir
tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder
vocabulary, planner = tiny_planner.vocabulary, tiny_planner.planner

# As many rows as the released planners have, and next to nothing in each.
RELEASED = PlannerConfig(
    hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=4
)


@pytest.fixture(scope="module")
def released() -> PlannerNetwork:
    return tiny.randomise(PlannerNetwork(RELEASED))


def put(folder: Path, network: PlannerNetwork, tokenizer: Path | None, prefix: str = "", **config) -> Path:
    layouts.save(folder / "model.safetensors", layouts.prefixed(prefix, network.state_dict()))
    layouts.save_config(folder, config)
    if tokenizer is not None:
        shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


def load(path: Path, **options):
    return load_planner(path, device="cpu", dtype="float32", **options)


def assert_same(network: PlannerNetwork, wanted: PlannerNetwork) -> None:
    for (name, tensor), (other, expected) in zip(
        network.state_dict().items(), wanted.state_dict().items(), strict=True
    ):
        assert name == other and torch.equal(tensor, expected)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_small_planner_says_how_many_codes_it_has(tmp_path, planner, tiny_tokenizer_dir, prefix, caplog):
    put(tmp_path, planner, tiny_tokenizer_dir, prefix, audio_codes=307)  # all the rows there are
    loaded = load(tmp_path)
    assert_same(loaded.network, planner)
    assert (loaded.vocabulary.codes, loaded.network.config.audio_codes) == (307, 307)
    assert loaded.vocabulary.audio_base == loaded.network.config.audio_base == planner.config.audio_base
    assert loaded.origin == {"planner": str(tmp_path)}
    config = asdict(planner.config)
    put(tmp_path, planner, None, prefix, **config)
    loaded = load(tmp_path)
    assert loaded.network.config == planner.config and loaded.vocabulary.codes == 300


def test_shards_and_a_head_that_repeats_the_embedding(tmp_path, planner, tiny_tokenizer_dir, caplog):
    state = layouts.prefixed("model.", planner.state_dict()) | {"lm_head.weight": planner.embed_tokens.weight}
    layouts._save_shards(tmp_path, state, 3)
    shutil.copytree(tiny_tokenizer_dir, tmp_path, dirs_exist_ok=True)
    layouts.save_config(tmp_path, asdict(planner.config))
    assert_same(load(tmp_path).network, planner)
    put(tmp_path / "bare", planner, tiny_tokenizer_dir, **asdict(planner.config))
    layouts.save(tmp_path / "bare" / "model.safetensors", planner.state_dict() | {"lm_head.weight": torch.ones(2, 2)})
    assert_same(load(tmp_path / "bare").network, planner)
    assert "nothing uses" not in caplog.text


def test_the_single_file_of_comfyui(tmp_path, released, qwen_tokenizer_dir):
    file = tmp_path / "text_encoders" / "qwen_1.7b_ace15.safetensors"
    layouts.save(file, layouts.prefixed("model.", released.state_dict()))
    source = open_planner(file)
    assert (source.layout, source.config) == (Layout.COMFY_SPLIT, RELEASED)
    with pytest.raises(CheckpointError, match="is a single file and holds no tokenizer"):
        load(file)
    loaded = load(file, tokenizer=qwen_tokenizer_dir)
    assert_same(loaded.network, released)
    assert (loaded.vocabulary.audio_base, loaded.vocabulary.codes) == (151_669, 64_000)
    shutil.copytree(qwen_tokenizer_dir, tmp_path / "Qwen3-Embedding-0.6B")
    for name in (file, "lm-1.7b", "comfy-lm-1.7b", file.name):  # the tokenizer is found, too
        assert find_planner(name, [tmp_path]) == (file, tmp_path / "Qwen3-Embedding-0.6B")
    assert_same(load_planner("lm-1.7b", device="cpu", dtype="float32", models_dir=str(tmp_path)).network, released)


def test_inside_the_all_in_one_file(tmp_path, released, tiny_encoder):
    file = tmp_path / "checkpoints" / "ace_step_1.5_turbo_aio.safetensors"
    text = layouts.prefixed("text_encoders.qwen3_06b.transformer.model.", tiny_encoder.module.state_dict())
    inside = layouts.prefixed("text_encoders.qwen3_2b.transformer.model.", released.state_dict())
    layouts.save(file, text | inside)
    source = open_planner(file)
    assert (source.layout, source.config) == (Layout.COMFY_ALL_IN_ONE, RELEASED)
    assert open_text_encoder(file).config.hidden_size == tiny_encoder.module.config.hidden_size
    assert find_planner("lm-1.7b", [tmp_path])[0] == file
    layouts.save(file, text)
    with pytest.raises(CheckpointError, match="is a text encoder; wanted here: a planner LM"):
        open_planner(file)


def rows(count: int) -> dict[str, torch.Tensor]:
    """As little of a Qwen3 model as it takes to see what it is."""
    state = PlannerNetwork(RELEASED).state_dict()
    return state | {"embed_tokens.weight": torch.zeros(count, 4, dtype=torch.bfloat16)}


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (151_669, "is the text encoder, Qwen3-Embedding-0.6B: its vocabulary has 151669 rows; a planner LM has 217204"),
        (151_936, "is a plain Qwen3 model: its vocabulary has 151936 rows; a planner LM has 217204"),
        (217_000, "is no planner LM that is known here: its vocabulary has 217000 rows; a planner LM has 217204"),
    ],
)
def test_a_planner_is_told_by_its_vocabulary(tmp_path, count, message):
    file = layouts.save(tmp_path / "x.safetensors", rows(count))
    with pytest.raises(CheckpointError, match=message):
        load(file)


def test_a_planner_is_no_text_encoder(tmp_path, planner, tiny_tokenizer_dir):
    put(tmp_path, planner, tiny_tokenizer_dir, **asdict(planner.config))
    with pytest.raises(CheckpointError, match="is a planner LM: its vocabulary has"):
        open_text_encoder(tmp_path)
    file = layouts.save(tmp_path / "x.safetensors", rows(PLANNER_VOCAB_SIZE))
    with pytest.raises(CheckpointError, match="is a planner LM: its vocabulary has 217204 rows"):
        open_text_encoder(file)


def test_other_files_are_refused(tmp_path):
    file = layouts.save(tmp_path / "x.safetensors", tiny.vae().state_dict())
    with pytest.raises(CheckpointError, match="is a VAE; wanted here: a planner LM"):
        load(file)
    with pytest.raises(CheckpointError, match="vae is a VAE; name a planner LM: nano, lm-0.6b, lm-1.7b"):
        find_planner("vae", [tmp_path])
    with pytest.raises(
        CheckpointError, match="no planner LM 'lm-4b'; looked for .*`acestep download lm-4b` fetches it"
    ):
        find_planner("lm-4b", [tmp_path])
    with pytest.raises(CheckpointError, match="no planner LM 'nothing'; looked for "):
        find_planner("nothing", [tmp_path])


def test_sizes_that_do_not_fit_are_named(tmp_path, planner, tiny_tokenizer_dir, qwen_tokenizer_dir):
    put(tmp_path, planner, tiny_tokenizer_dir, **asdict(planner.config))
    with pytest.raises(CheckpointError, match="tokenizer and planner do not belong together"):
        load(tmp_path, tokenizer=qwen_tokenizer_dir)
    config = json.loads((tmp_path / "config.json").read_text())
    layouts.save_config(tmp_path, config | {"intermediate_size": 60})
    with pytest.raises(CheckpointError, match="tensors of the wrong shape for this planner LM: layers.0.mlp.down_proj"):
        load(tmp_path)
    layouts.save_config(tmp_path, config | {"audio_codes": 309})
    with pytest.raises(CheckpointError, match="309 audio codes from row .* on do not fit into .* rows"):
        load(tmp_path)
    layouts.save(
        tmp_path / "model.safetensors", {k: v for k, v in planner.state_dict().items() if "layers.1." not in k}
    )
    with pytest.raises(CheckpointError, match="lacks 11 of the 35 tensors of the planner LM"):
        layouts.save_config(tmp_path, config)
        load(tmp_path)


def test_nano_is_the_one_of_the_package(tmp_path, monkeypatch, planner, tiny_tokenizer_dir):
    assert catalog.NANO_PLANNER.parent == catalog.NANO
    monkeypatch.setattr(find, "NANO_PLANNER", put(tmp_path, planner, tiny_tokenizer_dir, **asdict(planner.config)))
    assert_same(load_planner(device="cpu", dtype="float32").network, planner)


def distance(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("storage", "kept", "most"), [("int8", torch.int8, 0.01), ("fp8", torch.float8_e4m3fn, 0.03)])
def test_a_planner_in_half_the_memory_thinks_nearly_the_same(
    tmp_path, planner, tiny_tokenizer_dir, storage, kept, most
):
    """Small weights, as released ones are: what fp8 without a factor for each row rounds most coarsely."""
    small = tiny_planner.network(planner.config, seed=4)
    for layer in small.layers:
        for module in layer.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight *= 0.01 / module.weight.std()
    put(tmp_path, small, tiny_tokenizer_dir, **asdict(planner.config))
    exact, stored = load(tmp_path), load(tmp_path, storage=storage)
    assert stored.origin == {"planner": str(tmp_path), "storage": storage}
    network = stored.network
    assert network.dtype == torch.float32 and torch.equal(network.embed_tokens.weight, small.embed_tokens.weight)
    matrices = [module for module in network.layers.modules() if isinstance(module, StoredLinear)]
    assert len(matrices) == 7 * planner.config.num_hidden_layers and {m.weight.dtype for m in matrices} == {kept}
    for name, module in exact.network.layers.named_modules():
        if isinstance(module, torch.nn.Linear):
            restored = weight_and_bias(network.layers.get_submodule(name), module.weight)[0]
            plain = module.weight.to(torch.float8_e4m3fn).float()
            assert 0 < distance(restored, module.weight) < most < distance(plain, module.weight)
    tokens = torch.arange(40)[None] + 5
    states = [
        each(tokens, torch.tensor([0]), each.cache(1, 40, torch.device("cpu")), 40) for each in (exact.network, network)
    ]
    assert 0 < distance(states[1], states[0]) < 2 * most
    song = Song("river", metadata=Metadata(duration=10))
    assert len(codes(stored, song, [1])[0]) == 50
    assert codes(load(tmp_path, storage=storage), song, [1]) == codes(stored, song, [1])


def test_a_storage_that_does_not_exist(tmp_path):
    with pytest.raises(RequestError, match="storage 'int4' is unknown; choose int8, fp8 or none"):
        load(tmp_path, storage="int4")
