"""Hostile checkpoints: headers, indexes of shards, configs, silence latents and tokenizers."""

from __future__ import annotations

import functools
import json
import math
import random
import struct
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from acestep_core.checkpoints.build import load_network, load_text_encoder, load_vae
from acestep_core.checkpoints.find import find_checkpoint
from acestep_core.checkpoints.qwen3_layouts import open_text_encoder
from acestep_core.checkpoints.shards import weight_files
from acestep_core.config import HOP, PlannerConfig, VAEConfig
from acestep_core.planner.load_planner import load_planner_network
from acestep_core.planner.network import PlannerNetwork
from acestep_core.text.tokenizer import Tokenizer
from tests.support import layouts, tiny, tiny_planner
from training.nano_tokenizer import train_nano_tokenizer

from .mutations import mutate_bytes, mutate_json, mutate_value, odd_value
from .run import Work

NETWORK = replace(
    tiny.STANDARD, hidden_size=32, intermediate_size=32, num_hidden_layers=2, encoder_hidden_size=32,
    encoder_intermediate_size=32, num_lyric_encoder_hidden_layers=1, num_timbre_encoder_hidden_layers=1, fsq_dim=32,
    num_attention_pooler_hidden_layers=1, text_hidden_dim=16,
)  # fmt: skip
VAE = VAEConfig(encoder_hidden_size=4, decoder_channels=4, decoder_input_channels=64, channel_multiples=(1, 1, 1, 1, 1))
TEXT = PlannerConfig(
    vocab_size=420, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, head_dim=8, max_position_embeddings=512,
)  # fmt: skip
TEXTS = ("slow piano, 日本語\n", "[Verse]  I'm 123", "<|endoftext|>")
DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "U8", "F4", "", "f32\n")

Files = dict[str, bytes]


@functools.cache
def valid(part: str) -> Files:
    """Return the files of a valid model: network, sharded, vae, text_encoder, planner or tokenizer."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        if part in ("network", "sharded"):
            layouts.original(folder, tiny.model(NETWORK), shards=1 if part == "network" else 3)
        elif part == "vae":
            layouts.save(folder / "diffusion_pytorch_model.safetensors", tiny.vae(VAE).state_dict())
            layouts.save_config(folder, asdict(VAE))
        elif part == "planner":
            tiny_planner.write_tiny_planner(folder, codes=20)
        else:
            sentences = ("warm slow piano at night " * 3, "drums and bass, loud guitars " * 3)
            train_nano_tokenizer(sentences * 40, folder, vocab_size=400)
            if part == "text_encoder":
                network = tiny.randomise(PlannerNetwork(TEXT))
                layouts.save(folder / "model.safetensors", network.state_dict())
                layouts.save_config(folder, {k: v for k, v in asdict(TEXT).items() if not k.startswith("audio_")})
        return {file.name: file.read_bytes() for file in folder.iterdir()}


def write(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


# --- what must hold of an accepted model ------------------------------------------------------------------------------


def same_tensors(network: torch.nn.Module, folder: Path, prefix: str = "") -> str | None:
    """Compare a network with the tensors that the safetensors library reads. The library may refuse the file."""
    expected: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        try:
            expected |= load_file(file)
        except Exception as error:
            return f"safetensors refuses {file.name}: {error}"
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            return f"{name} is not finite"
        if not torch.equal(expected[prefix + name].float().reshape(tensor.shape), tensor):
            return f"{name} differs from the file"
    return None


def same_settings(config: Any, part: str) -> str | None:
    """Compare the settings that tensors show with those of the valid model."""
    honest = json.loads(valid(part)["config.json"])
    free = ("rope_theta", "rms_norm_eps", "sliding_window", "timbre_fix_frame", "fsq_input_levels", "is_turbo")
    free += ("model_version", "is_lego_sft", "max_position_embeddings", "tie_word_embeddings", "audio_base")
    free += ("audio_codes",)  # a planner may have unused rows
    for name, value in asdict(config).items():
        if name not in free and (list(value) if isinstance(value, tuple) else value) != honest.get(name, value):
            return f"{name} is {value}, not {honest.get(name)}"
    return None


def finite(*results: torch.Tensor) -> str | None:
    return None if all(result.isfinite().all() for result in results) else "the result is not finite"


@torch.no_grad()
def network_result(network: Any) -> str | None:
    condition = network.encoder(tiny.draw(1, 3, 16), tiny.draw(1, 4, 16), network.silence(30)[:, None])
    velocity = network.decoder(
        tiny.draw(1, 9, 64), torch.tensor([0.5]), network.decoder.prepare(tiny.draw(1, 9, 128), condition)
    )
    codes = network.tokenize(tiny.draw(1, 10, 64))
    return finite(velocity, network.detokenize(codes)) or (None if codes.max() < 64_000 else "a code above 63999")


@torch.no_grad()
def vae_result(vae: Any) -> str | None:
    waveform, latents = vae.decode(tiny.draw(1, 2, 64)), vae.encode(torch.zeros(1, 2, 2 * HOP))
    if waveform.shape != (1, 2, 2 * HOP) or latents.shape != (1, 2, 64):
        return f"the result has the shape {list(waveform.shape)}"
    return finite(waveform, latents)


@torch.no_grad()
def planner_result(network: Any, vocabulary: Any) -> str | None:
    ids = torch.tensor([vocabulary.encode("slow piano")])
    cache = network.cache(1, 64, torch.device("cpu"))
    return finite(network(ids, torch.zeros(1, dtype=torch.long), cache, ids.shape[1]))


def tokenizer_result(tokenizer: Tokenizer) -> str | None:
    for text in TEXTS:
        ids = tokenizer.encode(text)
        if tokenizer.decode(ids) != text or not all(0 <= i < tokenizer.text_size for i in ids):
            return f"{text!r} becomes {ids}"
    return None if len(tokenizer.pieces()) == tokenizer.text_size else "another number of pieces"


# --- targets ----------------------------------------------------------------------------------------------------------


def mutate_header(rng: random.Random, data: bytes) -> bytes:
    """Mutate the header of a safetensors file, and at times the size of its tensors."""
    length = struct.unpack("<Q", data[:8])[0]
    raw, tensors = data[8 : 8 + length], data[8 + length :]
    choice = rng.random()
    if choice < 0.15:
        return mutate_bytes(rng, data)
    if choice < 0.25:
        raw = mutate_bytes(rng, raw)
    else:
        header = json.loads(raw)
        names = [name for name in header if name != "__metadata__"]
        name, other = rng.choice(names), rng.choice(names)
        entry = header[name]
        change = rng.randrange(10)
        if change == 0:
            entry["data_offsets"] = list(header[other]["data_offsets"])
        elif change == 1:
            shift = rng.choice((-8, -1, 1, 4, 1 << 40))
            entry["data_offsets"] = [offset + shift for offset in entry["data_offsets"]]
        elif change == 2:
            entry["dtype"] = rng.choice(DTYPES)
        elif change == 3:
            entry["shape"] = rng.choice([entry["shape"][::-1], [*entry["shape"], 1], [0], [], header[other]["shape"]])
        elif change == 4:
            header["__metadata__"] = rng.choice([{"a": odd_value(rng)}, odd_value(rng), {"model_version": "base"}])
        elif change == 5:
            header[rng.choice([name + ".bias", "decoder.layers.7.x", "x\n", "x" * 300, "\ud800"])] = header.pop(name)
        elif change == 6:
            end = max(header[each]["data_offsets"][1] for each in names)
            extra = rng.choice([name + "_scale", name.removesuffix(".weight") + ".comfy_quant", "scaled_fp8", "x"])
            header[extra] = {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}
            tensors += struct.pack("<f", rng.choice((1.0, 0.0, float("nan"))))
        elif change == 7:
            header.pop(name)
        else:
            header = mutate_value(rng, header)
        raw = json.dumps(header).encode("utf-8", "surrogatepass")
    if rng.random() < 0.05:
        tensors = rng.choice((tensors[:-1], tensors + b"\0", b""))
    return struct.pack("<Q", len(raw)) + raw + tensors


def damage_value(rng: random.Random, data: bytes) -> bytes:
    """Overwrite one value in the tensors of a safetensors file."""
    length = struct.unpack("<Q", data[:8])[0]
    raw, tensors = data[8 : 8 + length], bytearray(data[8 + length :])
    place = 4 * rng.randrange(len(tensors) // 4)
    value = rng.choice((math.nan, math.inf, -math.inf, 3e38, -1e18, 1e-40, 0.0))
    tensors[place : place + 4] = struct.pack("<f", value)
    return struct.pack("<Q", len(raw)) + raw + tensors


def network_header(rng: random.Random, folder: Path) -> Work:
    files = valid("network")
    write(folder, files | {"model.safetensors": mutate_header(rng, files["model.safetensors"])})

    def work() -> str | None:
        network, _ = load_network(folder)
        return same_tensors(network, folder) or same_settings(network.config, "network")

    return work


def network_values(rng: random.Random, folder: Path) -> Work:
    files = valid("network")
    write(folder, files | {"model.safetensors": damage_value(rng, files["model.safetensors"])})

    def work() -> str | None:
        network, _ = load_network(folder)
        return same_tensors(network, folder) or network_result(network)

    return work


def shard_index(rng: random.Random, folder: Path) -> Work:
    files, name = valid("sharded"), "model.safetensors.index.json"
    files = files | {name: mutate_json(rng, files[name])}
    if rng.random() < 0.3:
        files.pop(rng.choice(sorted(files)))
    write(folder, files)

    def work() -> str | None:
        network, _ = load_network(folder)
        return same_tensors(network, folder) or same_settings(network.config, "sharded")

    return work


def network_config(rng: random.Random, folder: Path) -> Work:
    files = valid("network")
    bundle = folder / "acestep-v15-turbo"
    bundle.mkdir()
    write(bundle, files | {"config.json": mutate_json(rng, files["config.json"])})

    def work() -> str | None:
        network, _ = load_network(find_checkpoint(folder).network)
        return same_settings(network.config, "network") or same_tensors(network, bundle) or network_result(network)

    return work


def vae_config(rng: random.Random, folder: Path) -> Work:
    files, name = valid("vae"), "diffusion_pytorch_model.safetensors"
    changed = "config.json" if rng.random() < 0.6 else name
    mutate = mutate_json if changed == "config.json" else mutate_header
    write(folder, files | {changed: mutate(rng, files[changed])})

    def work() -> str | None:
        vae, _ = load_vae(folder)
        wrong = same_settings(vae.config, "vae") or same_tensors(vae, folder)
        return wrong or (vae_result(vae) if changed == "config.json" else None)

    return work


def planner_config(rng: random.Random, folder: Path) -> Work:
    files = valid("planner")
    changed = "config.json" if rng.random() < 0.7 else "model.safetensors"
    mutate = mutate_json if changed == "config.json" else mutate_header
    write(folder, files | {changed: mutate(rng, files[changed])})

    def work() -> str | None:
        network, vocabulary, _ = load_planner_network(folder)
        wrong = same_settings(network.config, "planner") or same_tensors(network, folder, "model.")
        return wrong or (planner_result(network, vocabulary) if changed == "config.json" else None)

    return work


def text_encoder_config(rng: random.Random, folder: Path) -> Work:
    files = valid("text_encoder")
    changed = rng.choice(("config.json", "config.json", "model.safetensors"))
    mutate = mutate_json if changed == "config.json" else mutate_header
    write(folder, files | {changed: mutate(rng, files[changed])})
    return lambda: same_settings(open_text_encoder(folder).config, "text_encoder")


def text_encoder(rng: random.Random, folder: Path) -> Work:
    """Load it with its tokenizer. Slow to start: imports transformers."""
    text_encoder_config(rng, folder)

    def work() -> str | None:
        encoder, _ = load_text_encoder(folder)
        return same_settings(open_text_encoder(folder).config, "text_encoder") or same_tensors(encoder.module, folder)

    return work


def tokenizer_files(rng: random.Random, folder: Path) -> Work:
    files = dict(valid("tokenizer"))
    if rng.random() < 0.5:
        files.pop("tokenizer.json")
        changed = rng.choice(("vocab.json", "merges.txt", "tokenizer_config.json"))
    else:
        changed = "tokenizer.json"
    mutate = mutate_bytes if changed == "merges.txt" else mutate_json
    write(folder, files | {changed: mutate(rng, files[changed])})
    return lambda: tokenizer_result(Tokenizer.from_folder(folder))


def silence_latent(rng: random.Random, folder: Path) -> Work:
    files = valid("network")
    write(folder, files | {"silence_latent.pt": mutate_bytes(rng, files["silence_latent.pt"])})

    def work() -> str | None:
        silence = load_network(folder)[0].silence_latent
        return f"silence of {list(silence.shape)}" if silence.shape[2] != 64 else finite(silence)

    return work


TARGETS = {
    "network_header": network_header,
    "network_values": network_values,
    "shard_index": shard_index,
    "network_config": network_config,
    "vae_config": vae_config,
    "planner_config": planner_config,
    "text_encoder_config": text_encoder_config,
    "tokenizer_files": tokenizer_files,
    "silence_latent": silence_latent,
}
SLOW_TARGETS = {"text_encoder": text_encoder}
