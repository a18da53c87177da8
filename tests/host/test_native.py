"""Our MODEL, VAE, CONDITIONING and LATENT in ComfyUI's own nodes, and theirs in ours."""

from __future__ import annotations

import json
import re
from uuid import uuid4

import pytest
import torch
from safetensors.torch import load, save_file

from .graph import find, load_workflow, to_prompt, with_inputs
from .server import REPO, ComfyServer

FRAMES = 150  # 6 s
SEED = 11
MODEL, SONG, CONDITIONING, VAE = ["1", 0], ["2", 0], ["3", 0], ["1", 2]  # as the shipped workflow has them


class Graph:
    """A prompt under construction. `add` returns the first output of the new node."""

    def __init__(self, nodes: dict[str, dict]):
        self.nodes = dict(nodes)

    def add(self, class_type: str, **inputs: object) -> list:
        node_id = f"x{len(self.nodes)}"
        self.nodes[node_id] = {"class_type": class_type, "inputs": inputs}
        return [node_id, 0]

    def sample(self, model: list = MODEL, **changes: object) -> list:
        """Add Sample Song."""
        usual = {"seed": SEED, "batch_size": 1, "steps": 8, "guidance": 0.0, "shift": 0.0, "solver": "euler"}
        inputs = {"model": model, "conditioning": CONDITIONING, "guidance_method": "cfg", **usual, **changes}
        return self.add("AS15_Sample", **inputs)

    def ksampler(self, model: list = MODEL, **changes: object) -> list:
        """Add KSampler."""
        usual = {"seed": SEED, "steps": 8, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
        inputs = {"model": model, "positive": CONDITIONING, "negative": self.negative(), "latent_image": self.empty()}
        return self.add("KSampler", **{**inputs, **usual, **changes})

    def negative(self) -> list:
        return self.add("ConditioningZeroOut", conditioning=CONDITIONING)

    def empty(self) -> list:
        return self.add("AS15_EmptyLatent", song=SONG, batch_size=1)

    def latents(self, server: ComfyServer, *samples: list) -> list[torch.Tensor]:
        """Run the graph and return the saved latents [B, 64, T] of each of `samples`."""
        name = f"latents/{uuid4().hex}"  # cached outputs are not listed
        saved = [self.add("SaveLatent", samples=s, filename_prefix=name)[0] for s in samples]
        run = server.play(self.nodes)
        return [load(server.fetch(run.outputs[node_id]["latents"][0]))["latent_tensor"] for node_id in saved]


@pytest.fixture(scope="module")
def song(server: ComfyServer) -> dict[str, dict]:
    """Load Model, Song and Encode Song of the shipped workflow, for 6 s."""
    shipped = to_prompt(load_workflow(REPO / "workflows" / "01 Text to music.json"), server.object_info())
    shipped = with_inputs(shipped, "AS15_Song", duration=FRAMES / 25)
    return {key: shipped[key] for key in (find(shipped, f"AS15_{n}") for n in ("LoadModel", "Song", "Encode"))}


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def test_ksampler_equals_sample_song(server: ComfyServer, song: dict) -> None:
    graph = Graph(song)
    ours, theirs = graph.latents(server, graph.sample(), graph.ksampler())
    assert ours.shape == (1, 64, FRAMES)
    assert difference(ours, theirs) <= 1e-4


def test_ksampler_equals_sample_song_with_guidance(server: ComfyServer, song: dict) -> None:
    graph = Graph(with_inputs(song, "AS15_LoadModel", variant="base"))
    scale = 4.0
    ours, theirs, unguided = graph.latents(
        server, graph.sample(guidance=scale), graph.ksampler(cfg=scale), graph.ksampler(cfg=1.0)
    )
    assert difference(ours, theirs) <= scale * 1e-4  # guidance multiplies the rounding
    assert difference(theirs, unguided) > 1e-3


def test_a_negative_text_equals_ksamplers(server: ComfyServer, song: dict) -> None:
    graph = Graph(with_inputs(song, "AS15_LoadModel", variant="base"))
    other = graph.add("AS15_Song", **{**song["2"]["inputs"], "caption": "distorted noise", "lyrics": ""})
    negative = graph.add("AS15_Encode", text_encoder=["1", 1], song=other)
    zeroed = graph.add("ConditioningZeroOut", conditioning=negative)
    ours, theirs, usual, none = graph.latents(
        server,
        graph.sample(guidance=4.0, negative=negative),
        graph.ksampler(cfg=4.0, negative=negative),
        graph.sample(guidance=4.0),
        graph.sample(guidance=4.0, negative=zeroed),
    )
    assert difference(ours, theirs) <= 4e-4
    assert difference(ours, usual) > 1e-3
    assert difference(usual, none) <= 1e-6


def test_sampler_custom_advanced(server: ComfyServer, song: dict) -> None:
    graph = Graph(song)
    sigmas = graph.add("BasicScheduler", model=MODEL, scheduler="simple", steps=5, denoise=1.0)
    noise = graph.add("RandomNoise", noise_seed=SEED)
    guider = graph.add("BasicGuider", model=MODEL, conditioning=CONDITIONING)
    sampler = graph.add("KSamplerSelect", sampler_name="euler")
    theirs = graph.add(
        "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=graph.empty()
    )
    ours, theirs = graph.latents(server, graph.sample(steps=0, sigmas=sigmas), theirs)
    assert difference(ours, theirs) <= 1e-4


@pytest.mark.parametrize("node", ["ModelSamplingAuraFlow", "ModelSamplingSD3"])
def test_shift_of_a_model_sampling_node(server: ComfyServer, song: dict, node: str) -> None:
    graph = Graph(song)
    shifted = graph.add(node, model=MODEL, shift=1.5)
    both, theirs, given, unshifted = graph.latents(
        server, graph.sample(shifted), graph.ksampler(shifted), graph.sample(shift=1.5), graph.sample()
    )
    assert difference(both, theirs) <= 1e-4
    assert difference(both, given) <= 1e-6
    assert difference(both, unshifted) > 1e-2


def test_batch_of_ksampler(server: ComfyServer, song: dict) -> None:
    """KSampler draws its second item from the same generator, not from seed + 1. The first equals ours."""
    graph = Graph(song)
    pair = graph.add("RepeatLatentBatch", samples=graph.empty(), amount=2)
    ours, theirs = graph.latents(server, graph.sample(), graph.ksampler(latent_image=pair))
    assert theirs.shape == (2, 64, FRAMES)
    assert difference(ours, theirs[:1]) <= 1e-4


def test_combined_conditionings(server: ComfyServer, song: dict) -> None:
    graph = Graph(song)
    other = graph.add("AS15_Song", **{**song["2"]["inputs"], "caption": "a slow waltz"})
    encoded = graph.add("AS15_Encode", text_encoder=["1", 1], song=other)
    both = graph.add("ConditioningCombine", conditioning_1=CONDITIONING, conditioning_2=encoded)
    positives = (CONDITIONING, encoded, both)
    first, second, mixed = graph.latents(server, *(graph.ksampler(steps=2, positive=p) for p in positives))
    assert difference(first, mixed) > 1e-3
    assert difference(second, mixed) > 1e-3
    assert "KSampler mixes them" in server.run({**graph.nodes, **sampling_of(both)}).error


def sampling_of(conditioning: list) -> dict[str, dict]:
    graph = Graph({f"y{i}": {} for i in range(100)})
    latent = graph.sample(conditioning=conditioning)
    graph.add("SaveLatent", samples=latent, filename_prefix="latents/test")
    return {key: node for key, node in graph.nodes.items() if node}


def test_lora_under_the_original_names(server: ComfyServer, song: dict) -> None:
    module = "diffusion_model.decoder.layers.0.self_attn.q_proj"
    width, rows = layer_shape()
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"{module}.lora_A.weight": torch.randn(4, width, generator=generator),
        f"{module}.lora_B.weight": torch.randn(rows, 4, generator=generator),
        "lora_unet_decoder_layers_1_mlp_down_proj.lora_down.weight": torch.randn(4, layer_shape("down_proj")[0]),
        "lora_unet_decoder_layers_1_mlp_down_proj.lora_up.weight": torch.randn(layer_shape("down_proj")[1], 4),
    }
    folder = server.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "test.safetensors")
    logged = len(server.log)
    graph = Graph(song)
    with_lora, without = (
        graph.add("LoraLoaderModelOnly", model=MODEL, lora_name="test.safetensors", strength_model=strength)
        for strength in (1.0, 0.0)
    )
    ours, theirs, off, plain = graph.latents(
        server, graph.sample(with_lora), graph.ksampler(with_lora), graph.ksampler(without), graph.ksampler()
    )
    assert difference(ours, theirs) <= 1e-4
    assert difference(theirs, plain) > 1e-2
    assert difference(off, plain) == 0
    assert "not loaded" not in server.log[logged:].lower()


def layer_shape(name: str = "q_proj") -> tuple[int, int]:
    """Return (inputs, outputs) of a matrix of nano."""
    config = json.loads((REPO / "acestep_core/nano/acestep-v15-nano/config.json").read_text())
    if name == "down_proj":
        return config["intermediate_size"], config["hidden_size"]
    return config["hidden_size"], config["num_attention_heads"] * config["head_dim"]


def test_core_vae_nodes(server: ComfyServer, song: dict) -> None:
    """ComfyUI's nodes assume 44.1 kHz. The samples equal ours, their rate does not."""
    graph = Graph(song)
    latent = graph.sample(steps=2)
    theirs = graph.add("VAEDecodeAudio", vae=VAE, samples=latent)
    ours = graph.add("AS15_Decode", vae=VAE, latent=latent, normalize=False)
    again = graph.add("VAEEncodeAudio", vae=VAE, audio=theirs)
    once = graph.add("AS15_EncodeAudio", vae=VAE, audio=ours)
    (back, reference) = graph.latents(server, again, once)
    assert difference(back, reference) <= 1e-4


def test_latents_survive_a_file(server: ComfyServer, song: dict) -> None:
    """ComfyUI's nodes save the numbers, but no edits."""
    graph = Graph(song)
    latent = graph.sample(steps=2)
    saved, _ = graph.add("SaveLatent", samples=latent, filename_prefix=f"latents/{uuid4().hex}")
    (file,) = server.play(graph.nodes).outputs[saved]["latents"]
    (server.base / "input" / "kept.latent").write_bytes(server.fetch(file))
    loaded = graph.add("LoadLatent", latent="kept.latent")
    sounds = [graph.add("AS15_Decode", vae=VAE, latent=latent, normalize=False) for latent in (latent, loaded)]
    encoded = [graph.add("AS15_EncodeAudio", vae=VAE, audio=sound) for sound in sounds]
    before, after, audio_before, audio_after = graph.latents(server, latent, loaded, *encoded)
    assert before.std() > 0.1 and difference(before, after) == 0
    assert difference(audio_before, audio_after) == 0


def test_unload_models_frees_everything(server: ComfyServer, song: dict) -> None:
    """Each network is loaded once, stays loaded from song to song, and is unloaded by the button."""

    def play(seed: int) -> tuple[torch.Tensor, list[str]]:
        graph, logged = Graph(with_inputs(song, "AS15_Song", caption=f"take {seed}")), len(server.log)
        latent = graph.sample(steps=2, seed=seed)
        sound = graph.add("AS15_Decode", vae=VAE, latent=latent, normalize=False)
        (encoded,) = graph.latents(server, graph.add("AS15_EncodeAudio", vae=VAE, audio=sound))
        return encoded, sorted(re.findall(r"Requested to load (\w+)", server.log[logged:]))

    def unload() -> None:
        server.unload_models(forget=True)
        idle = Graph({})  # the server may start a prompt before it unloads
        idle.latents(server, idle.add("EmptyLatentAudio", seconds=1.0, batch_size=1))

    unload()
    first, loads = play(1)
    assert len(loads) == 3 and "AceStep15" in loads
    assert play(2)[1] == []
    unload()
    again, loads_again = play(1)
    assert loads_again == loads
    assert difference(first, again) == 0
