"""The fast VAE on a CPU, in ComfyUI's layers. Nano's VAE is too narrow for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from comfy.ldm.audio.autoencoder import AudioOobleckVAE
from pack_under_test.acestep_core.checkpoints.build import load_vae
from pack_under_test.acestep_core.config import VAEConfig
from pack_under_test.acestep_core.models.cpu import fast_oobleck
from pack_under_test.acestep_core.models.oobleck import OobleckVAE
from pack_under_test.nodes.comfy_runtime.ops import comfy_ops
from pack_under_test.nodes.comfy_runtime.vae import SongVAE
from safetensors.torch import save_file

from .world import World, difference

WIDE = VAEConfig(fast_oobleck.MIN_WIDTH, fast_oobleck.MIN_WIDTH, channel_multiples=(1, 1, 1, 1, 1))
FRAMES = 12
LIMIT = 3e-5  # -90 dB, of the largest value


def wide_vae() -> SongVAE:
    generator = torch.Generator().manual_seed(0)
    network = OobleckVAE(WIDE, comfy_ops(torch.float32, torch.float32), dtype=torch.float32)
    for name, parameter in network.eval().requires_grad_(False).named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith(("alpha", "beta")):
            parameter.copy_(0.3 * noise)
        elif name.endswith("bias"):
            parameter.copy_(0.2 * noise)
        else:
            inputs = 2 * len(noise) if "conv_t1" in name else noise[0].numel()
            parameter.copy_(0.5 * noise / inputs**0.5)
    return SongVAE(network)


def check_a_saved_vae_loads_in_comfyui_and_here(world: World) -> None:
    """The state dict of VAESave. ComfyUI's network gets nano's width; its loader only knows the released one."""
    state = world.vae.get_sd()
    config, latents = (
        world.vae.first_stage_model.config,
        torch.randn(1, 64, FRAMES, generator=torch.Generator().manual_seed(0)),
    )
    theirs = AudioOobleckVAE(channels=config.decoder_channels, strides=list(config.downsampling_ratios)).eval()
    missing = theirs.load_state_dict(state)
    assert not missing.missing_keys and not missing.unexpected_keys
    file = Path.cwd() / "saved_vae.safetensors"
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, file)
    ours, _ = load_vae(file)
    file.unlink()
    with torch.no_grad():
        expected = world.vae.first_stage_model.decode(latents.movedim(1, -1))
        assert difference(theirs.decode(latents), expected) < LIMIT
        assert difference(ours.decode(latents.movedim(1, -1)), expected) < LIMIT


@contextmanager
def fast_path(allowed: bool) -> Iterator[list[tuple[object, bool]]]:
    """Collect (network, applies). If not `allowed`, the plain layers run."""
    usual, answers = fast_oobleck.applies, []

    def applies(network, x):
        answers.append((network, usual(network, x)))
        return allowed and answers[-1][1]

    fast_oobleck.applies = applies
    try:
        yield answers
    finally:
        fast_oobleck.applies = usual


def check_the_fast_path_runs_and_gives_the_same(world: World) -> None:
    vae = wide_vae()
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 64, FRAMES, generator=generator)
    sound = 0.3 * torch.randn(1, 2, FRAMES * WIDE.hop, generator=generator)
    network = vae.first_stage_model
    for part, work in (
        (network.decoder, lambda: vae.decode(latents)),
        (network.encoder, lambda: vae.encode(sound.movedim(1, -1))),
    ):
        with fast_path(allowed=True) as answers:
            fast = work()
        assert answers == [(part, True)], answers
        with fast_path(allowed=False):
            plain = work()
        assert 0 < difference(fast, plain) <= LIMIT * plain.abs().max().item(), difference(fast, plain)
