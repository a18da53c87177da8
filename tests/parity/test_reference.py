"""What the timbre encoder hears, against diffusers."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import AceStepPipeline

from acestep_core.audio.reference import reference_pieces

RATE = 50  # a second of 50 samples; the function only counts them


@pytest.mark.parametrize("seconds", [0.3, 7, 29.98, 30, 31, 95.3, 240])
def test_the_pieces_are_those_of_diffusers(seconds):
    sound = torch.randn(1, 2, round(seconds * RATE), generator=torch.Generator().manual_seed(0))
    heard = SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda: heard.given), given=None)

    def encode(given):
        heard.given = given
        return heard

    pipe = SimpleNamespace(sample_rate=RATE, vae=SimpleNamespace(dtype=torch.float32, encode=encode))
    AceStepPipeline.prepare_reference_audio_latents(pipe, sound[0], 1, "cpu", torch.float32)
    assert torch.equal(reference_pieces(sound, RATE), heard.given)
