"""The attention that lyric times are read from, and the times that follow from it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from acestep_core import Callbacks
from acestep_core.config import FRAME_RATE
from acestep_core.load import Model
from acestep_core.lyrics.capture import lyric_attention
from acestep_core.lyrics.timing import time_lyrics
from acestep_core.sampling.conditions import encode_conditions
from acestep_core.sampling.context import context_latents, frames_to_run
from acestep_core.text.lyric_tokens import LyricTokens

from .bounds import name_of, relative_rms
from .context import Context
from .registry import Line, at_most, check, measured
from .songs import song_bound


def attention_of(run: Context, model: Model, latents: Tensor) -> tuple[LyricTokens, Tensor]:
    """Return the lyric tokens, and the attention of all heads of nano to them."""
    network, text = model.network, run.text(model)
    assert network is not None and text.lyric_tokens is not None
    heads = tuple(range(network.config.num_attention_heads))
    every = dict.fromkeys(range(len(network.decoder.layers)), heads)
    with torch.inference_mode(), model.placement.use(network) as device:
        (rows,) = encode_conditions(network, [text], device)
        context = context_latents(network, None, 1, frames_to_run(latents.shape[1]), device, Callbacks())
        return text.lyric_tokens, lyric_attention(network, every, text.lyric_tokens, latents, context, rows)


@check("lyrics.attention", "lyric times: the attention on the device and on the CPU", 10)
def lyric_heads(context: Context) -> Iterator[Line]:
    latents = context.reference_latents
    tokens, expected = attention_of(context, context.reference, latents)
    seconds, patch = latents.shape[1] / FRAME_RATE, 2 / FRAME_RATE
    for name in ("float32", "bfloat16"):
        model = context.nano(dtype=name)
        dtype = model.network.decoder.dtype  # type: ignore[union-attr]
        found = attention_of(context, model, latents)[1]
        yield at_most(f"all heads in {name_of(dtype)}", relative_rms(found, expected), song_bound(dtype))
    times = [
        time_lyrics(tokens, each, seconds, patch)
        for each in (attention_of(context, context.nano(), latents)[1], expected)
    ]
    same = "yes" if times[0].lines == times[1].lines else "no"
    yield measured("the times in float32 are those of the CPU", same)  # a rounding may move a border
