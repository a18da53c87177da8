"""GGUF files as acestep.cpp writes them, in every quantisation that is released."""

from __future__ import annotations

import builtins
import random
import re
import struct
from dataclasses import asdict, replace

import gguf
import pytest
import torch

from acestep_core.callbacks import Callbacks
from acestep_core.checkpoints import gguf_values
from acestep_core.checkpoints.build import load_network, load_text_encoder, load_vae
from acestep_core.checkpoints.catalog import NANO, Kind
from acestep_core.checkpoints.find import find_checkpoint, find_part, find_planner
from acestep_core.checkpoints.gguf_header import TYPES, gguf_kind
from acestep_core.checkpoints.installed import list_gguf_files
from acestep_core.checkpoints.layouts import Layout
from acestep_core.checkpoints.network_layouts import open_network
from acestep_core.checkpoints.reader import TensorReader, read_index
from acestep_core.config import PlannerConfig, TextEncoderConfig
from acestep_core.errors import CheckpointError
from acestep_core.load import load_model
from acestep_core.models.ops import quantized_ops
from acestep_core.pipeline import generate
from acestep_core.planner.load_planner import load_planner_network
from acestep_core.planner.network import PlannerNetwork
from acestep_core.song.song import Metadata, Song
from acestep_core.text.encoder import build_qwen3
from acestep_core.text.tokenizer import Tokenizer
from tests.support import layouts, tiny, tiny_checkpoint
from tests.support.gguf_files import QUANTS, write_gguf
from tests.support.tiny_text import random_weights

# Wide enough for the blocks of 256 values.
NETWORK = replace(
    tiny.STANDARD, hidden_size=256, intermediate_size=256, num_hidden_layers=2, encoder_hidden_size=256,
    encoder_intermediate_size=256, num_lyric_encoder_hidden_layers=1, num_timbre_encoder_hidden_layers=1,
    text_hidden_dim=256, fsq_dim=256, head_dim=64, model_version="base", is_turbo=False,
)  # fmt: skip
TOKENIZER = NANO / "Qwen3-Embedding-0.6B"
TEXT = TextEncoderConfig(1300, 256, 256, 1, 4, 2, 64)


@pytest.fixture(scope="module")
def network():
    model = tiny.model(NETWORK)
    model.silence_latent = tiny.draw(1, 50, 64, seed=1)
    return model


def state_of(model) -> layouts.State:
    return model.state_dict() | {"silence_latent": model.silence_latent}


def write_network(file, model, quant="BF16", **options):
    return write_gguf(file, "network", state_of(model), asdict(model.config), quant, **options)


def write_text_encoder(file, quant="BF16", config=TEXT):
    module = random_weights(build_qwen3(config, "cpu"))
    return write_gguf(file, "text", module.state_dict(), asdict(config), quant, TOKENIZER)


def refused(call, *args) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500, message
    return message


def test_types_are_those_of_ggml():
    for number, (name, values, size) in TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (name, (values, size))


@pytest.mark.parametrize("quant", QUANTS)
def test_a_network_has_the_values_of_its_file(tmp_path, network, quant):
    file = tmp_path / f"acestep-v15-turbo-{quant}.gguf"
    stored = write_network(file, network, quant)
    loaded, report = load_network(file)
    assert report.layout is Layout.GGUF and not report.unexpected
    assert report.variant.name == "base"  # the config in the file wins over its name
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, stored[name]), name
    assert torch.equal(loaded.silence_latent, stored["silence_latent"])
    rounded, _ = load_network(file, dtype=torch.bfloat16)
    for name, tensor in rounded.state_dict().items():
        assert torch.equal(tensor, stored[name].bfloat16()), name


@pytest.mark.parametrize("storage", [torch.int8, torch.float8_e4m3fn])
def test_a_network_is_stored_in_int8_and_fp8(tmp_path, network, storage):
    file = tmp_path / "acestep-v15-base-Q6_K.gguf"
    stored = write_network(file, network, "Q6_K")
    loaded, _ = load_network(file, dtype=torch.bfloat16, ops=quantized_ops(storage))
    layer, name = loaded.decoder.layers[0].mlp.up_proj, "decoder.layers.0.mlp.up_proj.weight"
    assert layer.weight.dtype == storage
    weight, _ = layer.weight_and_bias(torch.zeros(1))
    assert (weight - stored[name]).abs().max() <= 0.07 * stored[name].abs().max()


def test_a_tensor_is_dequantised_some_rows_at_a_time(tmp_path, network, monkeypatch):
    file = tmp_path / "a.gguf"
    stored = write_network(file, network, "Q5_K_M")
    monkeypatch.setattr(gguf_values, "CHUNK", 1000)
    sizes, dequantize = [], gguf.quants.dequantize

    def counting(rows, kind):
        values = dequantize(rows, kind)
        sizes.append(values.size)
        return values

    monkeypatch.setattr(gguf.quants, "dequantize", counting)
    name = "decoder.layers.0.mlp.up_proj.weight"
    value = TensorReader().read_as(read_index(file).entries[name], torch.bfloat16)
    assert torch.equal(value, stored[name].bfloat16()) and value.dtype == torch.bfloat16
    assert len(sizes) > 10 and max(sizes) <= 1000


def test_a_vae_and_a_text_encoder(tmp_path):
    vae = tiny.vae(tiny_checkpoint.VAE)
    state = layouts.vae_state(vae, layouts.pair, stable_audio=False)
    stored = write_gguf(tmp_path / "vae-BF16.gguf", "vae", state, asdict(tiny_checkpoint.VAE))
    expected, _ = load_vae(layouts.save(tmp_path / "vae.safetensors", stored))
    loaded, _ = load_vae(tmp_path / "vae-BF16.gguf")
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name

    for quant in ("BF16", "Q8_0"):
        stored = write_text_encoder(tmp_path / "text.gguf", quant)
        encoder, _ = load_text_encoder(tmp_path / "text.gguf")
        assert all(torch.equal(tensor, stored[name]) for name, tensor in encoder.module.state_dict().items())
        own = Tokenizer.from_folder(TOKENIZER)
        text = "Warm lo-fi 夜 café\n\n[Verse] it's"
        assert encoder.tokenizer.encode(text) == own.encode(text)
        assert encoder.tokenizer.end_id == own.end_id


@pytest.mark.parametrize(("quant", "warned"), [("Q8_0", False), ("Q5_K_M", False), ("Q4_K_M", True)])
def test_a_planner_of_four_bits_is_warned_of(tmp_path, quant, warned):
    own = Tokenizer.from_folder(TOKENIZER)
    base = max(own.control_ids.values()) + 1
    config = PlannerConfig(base + 300, 256, 256, 1, 4, 2, 64, audio_codes=300, audio_base=base)
    state = tiny.randomise(PlannerNetwork(config)).state_dict()
    file = tmp_path / f"acestep-5Hz-lm-4B-{quant}.gguf"
    stored = write_gguf(file, "planner", layouts.prefixed("model.", state), asdict(config), quant, TOKENIZER)
    warnings: list[str] = []
    network, vocabulary, _ = load_planner_network(
        file, tokenizer=TOKENIZER, callbacks=Callbacks(warning=warnings.append)
    )
    assert all(torch.equal(tensor, stored[f"model.{name}"]) for name, tensor in network.state_dict().items())
    assert [("Q4_K" in text and "Q5_K_M" in text) for text in warnings] == [True] * warned
    assert find_planner(file) == (file, None)


def test_a_folder_of_gguf_files_makes_a_song(tmp_path, network):
    write_network(tmp_path / "acestep-v15-base-Q8_0.gguf", network, "Q8_0")
    write_text_encoder(tmp_path / "Qwen3-Embedding-0.6B-Q8_0.gguf", "Q8_0")
    vae = layouts.vae_state(tiny.vae(tiny_checkpoint.VAE), layouts.pair, stable_audio=False)
    write_gguf(tmp_path / "vae-BF16.gguf", "vae", vae, asdict(tiny_checkpoint.VAE))
    write_gguf(tmp_path / "llama.gguf", "llama", {"a": torch.ones(2, 2)}, {})
    found = find_checkpoint(tmp_path)
    assert found.network == find_checkpoint("acestep-v15-base-Q8_0.gguf", [tmp_path]).network
    assert found.text_encoder == tmp_path / "Qwen3-Embedding-0.6B-Q8_0.gguf" and found.vae.name == "vae-BF16.gguf"
    assert find_part(Kind.VAE, "vae-BF16.gguf", [tmp_path]) == found.vae
    kinds = {file.name: kind for file, kind in list_gguf_files([tmp_path])}
    assert len(kinds) == 3 and kinds["vae-BF16.gguf"] is Kind.VAE
    model = load_model(tmp_path, device="cpu", dtype="float32")
    assert model.origin["model"] == str(tmp_path)
    result = generate(model, Song("piano", metadata=Metadata(duration=1)), seed=1)
    assert torch.isfinite(result.waveform).all() and result.waveform.abs().max() > 0.1


def test_the_variant_is_read_from_config_or_name(tmp_path):
    turbo = replace(NETWORK, is_turbo=True, model_version="turbo", num_hidden_layers=1)
    write_gguf(
        tmp_path / "acestep-v15-turbo-shift3-BF16.gguf", "network", tiny.model(turbo).state_dict(), asdict(turbo)
    )
    source = open_network(tmp_path / "acestep-v15-turbo-shift3-BF16.gguf")
    assert source.variant.name == "turbo-shift3" and not source.guessed and source.config.is_turbo


def test_a_missing_package_is_named(tmp_path, network, monkeypatch):
    write_network(tmp_path / "a-Q8_0.gguf", network, "Q8_0")
    write_network(tmp_path / "a-BF16.gguf", network)
    real = builtins.__import__

    def without(name, *args, **options):
        if name.partition(".")[0] == "gguf":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install gguf" in refused(open_network, tmp_path / "a-Q8_0.gguf")
    assert gguf_kind(tmp_path / "a-Q8_0.gguf") is Kind.NETWORK  # still listed
    load_network(tmp_path / "a-BF16.gguf")  # nothing to dequantise


# --- hostile files ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory, network) -> bytes:
    file = tmp_path_factory.mktemp("whole") / "a.gguf"
    write_network(file, network, "Q8_0")
    return file.read_bytes()


def test_another_architecture_is_refused(tmp_path):
    write_gguf(tmp_path / "a.gguf", "llama", {"token_embd.weight": torch.ones(4, 32)}, {})
    assert "'llama'" in refused(load_network, tmp_path / "a.gguf")
    write_text_encoder(tmp_path / "text.gguf")
    assert "text encoder" in refused(load_network, tmp_path / "text.gguf")


def test_a_cut_file_is_refused(tmp_path, whole):
    start = random.Random(0)
    cuts = [4, 8, 16, 23, 24, 40, len(whole) - 1, *(start.randrange(4, len(whole)) for _ in range(60))]
    for cut in cuts:
        (tmp_path / f"{cut}.gguf").write_bytes(whole[:cut])
        assert "truncated" in refused(load_network, tmp_path / f"{cut}.gguf"), cut


def test_a_changed_header_ends_in_a_sentence_or_a_network(tmp_path, whole):
    start = random.Random(1)
    size = whole.index(b"silence_latent") + 60
    for index in range(150):
        changed = bytearray(whole)
        for _ in range(start.choice((1, 1, 4))):
            changed[start.randrange(4, size)] = start.choice((0, 1, 127, 255, start.randrange(256)))
        file = tmp_path / f"{index}.gguf"
        file.write_bytes(changed)
        try:
            load_network(file)
        except CheckpointError as error:
            assert "\n" not in str(error) and len(str(error)) < 700
        file.unlink()


def header(tensors: int, settings: bytes = b"", count: int = 0, info: bytes = b"", version: int = 3) -> bytes:
    architecture = text("general.architecture") + struct.pack("<I", 8) + text("acestep-dit")
    return b"GGUF" + struct.pack("<IQQ", version, tensors, count + 1) + architecture + settings + info + bytes(256)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def tensor(name="a", shape=(32,), kind=0, start=0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, start)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (header(0, version=1), "version 1"),
        (header(0, version=0x03000000), "version"),  # of another byte order
        (header(2**62), "corrupt|truncated"),
        (header(0, text("x") + struct.pack("<IIQ", 9, 8, 2**62), 1), "truncated"),
        (header(0, text("x") + struct.pack("<IIQ", 9, 4, 2**62), 1), "truncated"),
        (header(0, (text("x") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 9, 1) * 2), 1), "corrupt"),
        (header(0, text("x") + struct.pack("<I", 77), 1), "corrupt"),
        (header(0, text("acestep.config_json") + struct.pack("<II", 4, 4), 1), "config_json"),
        (header(0, text("general.alignment") + struct.pack("<II", 4, 3), 1), "alignment"),
        (header(1, info=tensor(shape=(2**40, 2**40))), "shape"),
        (header(1, info=tensor(shape=(0, 4))), "shape"),
        (header(1, info=tensor(shape=(30,), kind=8)), "shape"),
        (header(1, info=tensor(shape=(1, 1, 1, 1, 1))), "axes"),
        (header(1, info=tensor(kind=23)), "type 23"),
        (header(1, info=tensor(start=5)), "bytes"),
        (header(1, info=tensor(start=2**40)), "truncated"),
        (header(2, info=tensor() * 2), "one name"),
        (header(2, info=tensor() + tensor("b")), "inside another"),
        (header(1, info=tensor("a\nb")), "named"),
    ],
)
def test_a_lying_header_is_refused(tmp_path, content, word):
    (tmp_path / "a.gguf").write_bytes(content)
    assert re.search(word, refused(read_index, tmp_path / "a.gguf"))


def test_lying_settings_are_refused(tmp_path, network):
    file = tmp_path / "a.gguf"
    for config, word in (("[" * 50_000, "JSON"), ("5", "object"), ("{", "JSON")):
        write_gguf(file, "network", {"a": torch.ones(2, 2)}, {})
        content = file.read_bytes()
        old = text("{}")
        assert content.count(old) == 1
        padded = content.replace(old, text(config))
        file.write_bytes(padded + bytes(64))
        assert re.search(f"{word}|expected|alignment", refused(open_network, file))
    narrow = asdict(network.config) | {"hidden_size": 64}
    write_gguf(file, "network", state_of(network), narrow)
    assert "hidden_size" in refused(load_network, file)


def test_tokens_that_are_no_vocabulary_are_refused(tmp_path):
    def without_bytes(writer):
        writer.add_token_list(["a", "b", "b"])
        writer.add_token_merges(["a b"])

    config = asdict(TEXT)
    state = random_weights(build_qwen3(TEXT, "cpu")).state_dict()
    write_gguf(tmp_path / "a.gguf", "text", state, config, edit=without_bytes)
    assert "two ids" in refused(load_text_encoder, tmp_path / "a.gguf")
    write_gguf(tmp_path / "b.gguf", "text", state, config)
    assert "tokenizer.json" in refused(load_text_encoder, tmp_path / "b.gguf")
    assert load_text_encoder(tmp_path / "b.gguf", tokenizer=TOKENIZER)
