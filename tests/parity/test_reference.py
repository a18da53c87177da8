"""Input of the timbre encoder against diffusers."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import AceStepPipeline

from acestep_core.audio.reference import reference_pieces

RATE = 50  # samples per second; the function only counts samples


@pytest.mark.parametrize("seconds", [0.3, 7, 29.98, 30, 31, 95.3, 240])
def test_the_pieces_are_those_of_diffusers(seconds):
    sound = torch.randn(1, 2, round(seconds * RATE), generator=torch.Generator().manual_seed(0))
    posterior = SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda: posterior.given), given=None)

    def encode(given):
        posterior.given = given
        return posterior

    pipe = SimpleNamespace(sample_rate=RATE, vae=SimpleNamespace(dtype=torch.float32, encode=encode))
    AceStepPipeline.prepare_reference_audio_latents(pipe, sound[0], 1, "cpu", torch.float32)
    assert torch.equal(reference_pieces(sound, RATE), posterior.given)
