"""Files of `acestep train` in ComfyUI's LoRA loader: on our MODEL, and on ComfyUI's own network for ACE-Step 1.5."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import comfy.lora
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch
from pack_under_test.acestep_core.adapters.adapter_file import read_adapter
from pack_under_test.acestep_core.train.train_adapter import train_adapter
from pack_under_test.acestep_core.train.train_settings import TrainSettings

from .song_training import write_song
from .world import World, network_of

KINDS = ({"kind": "lora", "modules": "all", "rank_stabilized": True}, {"kind": "lokr"})


def trained_files(folder: Path) -> Iterator[Path]:
    """Train on a song with nano, and yield the file of each kind."""
    songs = folder / "songs"
    songs.mkdir()
    write_song(songs / "one.wav", 3)
    (songs / "one.txt").write_text("slow jazz")
    for values in KINDS:
        settings = TrainSettings(**values, rank=4, steps=3, accumulation=1, crop=5.2, learning_rate=1e-2)
        target = folder / f"{values['kind']}.safetensors"
        yield train_adapter(songs, target, settings=settings, device="cpu", dtype="float32").path


def compare_difference(patcher, path: Path) -> None:
    """Compare what ComfyUI's loader adds to each weight with what the adapter means."""
    adapter = read_adapter(path)
    state = comfy.utils.load_torch_file(str(path))
    patched, _ = comfy.sd.load_lora_for_models(patcher, None, state, 1.0, 0.0)
    assert len(patched.patches) == len(adapter.modules) > 0, path.name
    for module in adapter.modules.values():
        key = f"diffusion_model.{module.path}.weight"
        weight = comfy.utils.get_attr(patcher.model, key).detach().float()
        theirs = comfy.lora.calculate_weight(patched.patches[key], weight.clone(), key)
        ours = weight + module.delta(weight)
        assert (ours - weight).abs().max() > 0, (path.name, key)
        assert (theirs - ours).abs().max() <= 1e-5 * (ours - weight).abs().max(), (path.name, key)


def native_model(network):
    """Return ComfyUI's own MODEL for ACE-Step 1.5, with the size and the weights of a network of ours."""
    config = asdict(network.config)
    sizes = {
        name: config[name]
        for name in ("hidden_size", "intermediate_size", "head_dim", "encoder_hidden_size", "patch_size")
    }
    sizes |= {"num_dit_layers": config["num_hidden_layers"], "num_heads": config["num_attention_heads"]}
    sizes |= {"num_kv_heads": config["num_key_value_heads"]}
    description = comfy.supported_models.ACEStep15({"audio_model": "ace1.5", **sizes})
    description.set_inference_dtype(torch.float32, None)
    model = description.get_model({}, "", device=torch.device("cpu"))
    own, weights = model.diffusion_model.decoder, network.decoder.state_dict()
    assert own.state_dict().keys() >= weights.keys()
    own.load_state_dict(weights, strict=False)
    return comfy.model_patcher.ModelPatcher(model, mm.get_torch_device(), mm.unet_offload_device())


def check_trained_files_have_the_same_difference_in_core(world: World) -> None:
    network = network_of(world.model)
    with tempfile.TemporaryDirectory() as name:
        for path in trained_files(Path(name)):
            compare_difference(world.model, path)
            if hasattr(comfy.model_base, "ACEStep15"):  # earlier versions have no such network
                compare_difference(native_model(network), path)
