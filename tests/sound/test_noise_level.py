"""The noise level of lyric times. The original's is one over the number of steps."""

from __future__ import annotations

import pytest
import torch

from acestep_core import Metadata, Song, encode, generate
from acestep_core.callbacks import Callbacks
from acestep_core.lyrics import capture
from acestep_core.sampling.conditions import encode_conditions
from acestep_core.sampling.context import context_latents, frames_to_run

LYRICS = "[Verse]\nStreetlights hum along the water\n[Chorus]\nOh, we sing it to the morning"
SONG = Song("upbeat indie pop, warm voice", LYRICS, Metadata(language="en", duration=12))


@pytest.fixture(scope="module")
def sung(nano):
    """Return what the capture takes of a song: places of the tokens, latents, context and condition rows."""
    latents, text = generate(nano, SONG, seed=3).latents, encode(nano, SONG)
    with torch.inference_mode():
        (rows,) = encode_conditions(nano.network, [text], "cpu")
        frames = frames_to_run(latents.shape[1])
        context = context_latents(nano.network, None, 1, frames, torch.device("cpu"), Callbacks())
    return text.lyric_tokens, latents, context, rows


def attention_to_lyrics(nano, sung) -> torch.Tensor:
    return capture.lyric_attention(nano.network, capture.lyric_heads(nano.network.config), *sung)


def test_attention_depends_on_the_noise_level(nano, sung, monkeypatch):
    """With the original's level, attention would depend on the number of steps."""
    own = attention_to_lyrics(nano, sung)
    monkeypatch.setattr(capture, "TIME", 1 / 50)
    other = attention_to_lyrics(nano, sung)
    assert (own - other).abs().sum() > 0.1 * own.sum()


def test_the_noise_level_is_an_eighth_for_every_model(nano, sung):
    times: list[torch.Tensor] = []
    handle = nano.network.decoder.register_forward_pre_hook(lambda _, inputs: times.append(inputs[1]))
    try:
        attention_to_lyrics(nano, sung)
    finally:
        handle.remove()
    assert [time.tolist() for time in times] == [[0.125]]
