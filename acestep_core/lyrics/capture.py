"""Read from the cross-attention of the diffusion transformer when it sings each token of the lyrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..callbacks import Callbacks
from ..config import FRAME_RATE, ModelConfig
from ..edit.edit import Edit
from ..edit.source import check_latents
from ..errors import NonFiniteError, RequestError
from ..models.model import AceStepModel
from ..runtime.phase import phase
from ..sampling.conditions import encode_conditions
from ..sampling.context import context_latents, frames_to_run, pad_with_silence
from ..sampling.noise import draw_noise
from ..sampling.request import check_items
from .times import LyricTimes
from .timing import time_lyrics

if TYPE_CHECKING:
    from ..load import Model
    from ..text.encoder import TextCondition
    from ..text.lyric_tokens import LyricTokens

STAGE = "lyric times"
# The noise level at which the heads follow the lyrics. The last step of a 50-step schedule leaves them flat.
TIME = 1 / 8
NOISE_SEED = 42

# Heads that follow the lyrics, by layers and width: the released 2B and XL models.
RELEASED_HEADS: dict[tuple[int, int], dict[int, tuple[int, ...]]] = {
    (24, 2048): {2: (6,), 3: (10, 11), 4: (3,), 5: (8, 9), 6: (8,)},
    (32, 2560): {3: (18, 27), 4: (22,), 5: (5, 6, 7), 6: (2, 12, 13), 7: (20, 21)},
}


def lyric_times(
    model: Model,
    latents: Tensor,
    conditions: TextCondition | Sequence[TextCondition],
    *,
    edit: Edit | None = None,
    timbre: Sequence[Tensor] | None = None,
    callbacks: Callbacks | None = None,
) -> tuple[LyricTimes, ...]:
    """Return when each word is sung in each of the songs with latents [B, T, 64].

    latents: a result of `sample`, or any recording from `encode_audio`.
    conditions: one encoded text for all songs or one per song, from `encode`.
    edit, timbre: as in `sample`.

    Runs the first layers of the diffusion transformer once per song, at noise level 1/8. Raises RequestError,
    NonFiniteError and Cancelled.
    """
    network, callbacks = model.network, callbacks or Callbacks()
    if network is None:
        raise RequestError("model: loaded without a diffusion model, which lyric times need")
    heads = lyric_heads(network.config)
    latents = check_latents(latents, "latents")
    texts = list(conditions) if isinstance(conditions, Sequence) else [conditions]
    check_items("conditions", len(texts), len(latents))
    if edit is not None:
        check_items("edit", edit.items, len(latents))
    tokens = [_tokens_of(text) for text in texts]
    callbacks.check(STAGE)
    with (
        torch.inference_mode(),
        model.placement.use(network) as device,
        phase(STAGE, device, network.decoder.dtype),
    ):
        rows = encode_conditions(network, texts, device, timbre)
        context = context_latents(network, edit, len(latents), frames_to_run(latents.shape[1]), device, callbacks)
        found = []
        for item, song in enumerate(latents.split(1)):
            callbacks.check(STAGE)
            text = item % len(texts)
            attention = lyric_attention(network, heads, tokens[text], song, context[item : item + 1], rows[text])
            patch_seconds = network.config.patch_size / FRAME_RATE
            found.append(time_lyrics(tokens[text], attention, song.shape[1] / FRAME_RATE, patch_seconds))
            callbacks.report(STAGE, item + 1, len(latents))
    return tuple(found)


def lyric_heads(config: ModelConfig) -> Mapping[int, tuple[int, ...]]:
    """Return the heads that follow the lyrics by layer, from the model's config or of the released models.

    Raises RequestError for any other model.
    """
    size = (config.num_hidden_layers, config.hidden_size)
    heads = config.lyric_alignment_layers_config or RELEASED_HEADS.get(size)
    if not heads:
        raise RequestError(
            f"model: no head is known to follow the lyrics in this model ({size[0]} layers, width {size[1]}); use a "
            "released 2B or XL model, or list the heads as lyric_alignment_layers_config in its config.json"
        )
    return heads


def _tokens_of(text: TextCondition) -> LyricTokens:
    if text.lyric_tokens is None:
        raise RequestError("conditions: these have no lyric tokens; encode the song again with `encode`")
    return text.lyric_tokens


@torch.no_grad()
def lyric_attention(
    network: AceStepModel,
    heads: Mapping[int, tuple[int, ...]],
    tokens: LyricTokens,
    latents: Tensor,
    context: Tensor,
    condition: Tensor,
) -> Tensor:
    """Return how much each patch of a song attends to each lyric token, [heads, tokens, patches], float32 on the CPU.

    heads: as from `lyric_heads`. Layers after the last one do not run.
    latents: [1, T, 64].
    context, condition: as for `DiT.prepare`, of one song.

    Raises NonFiniteError.
    """
    decoder, frames, device = network.decoder, context.shape[1], context.device
    clean = pad_with_silence(latents, network.silence(frames).to(device, torch.float32))
    noisy = TIME * draw_noise([NOISE_SEED], frames).to(device) + (1 - TIME) * clean
    prepared = decoder.prepare(context, condition, depth=max(heads) + 1)
    rows = slice(tokens.first, tokens.first + len(tokens.spans))
    chunks: dict[int, list[Tensor]] = {layer: [] for layer in sorted(heads)}
    cross = list(prepared.cross)
    for layer, parts in chunks.items():
        cross[layer] = replace(cross[layer], probe=_probe(cross[layer].keys, heads[layer], rows, parts))
    decoder(noisy, torch.full((1,), TIME, device=device), replace(prepared, cross=cross))
    attention = torch.cat([torch.cat(parts, dim=1) for parts in chunks.values()])
    if not torch.isfinite(attention).all():
        raise NonFiniteError(
            "lyric times: the attention contains NaN or infinity; the usual causes are float16 overflow (choose "
            "bfloat16 or float32) and damaged weights or adapters"
        )
    patches = -(-latents.shape[1] // network.config.patch_size)  # without the padding of a short song
    return attention[:, :patches].transpose(1, 2).contiguous()


def _probe(keys: Tensor, heads: Sequence[int], rows: slice, parts: list[Tensor]) -> Callable[[Tensor], None]:
    """Return a probe that appends the attention [heads, P, tokens] of its queries to `parts`."""

    def collect(queries: Tensor) -> None:
        attended = []
        for head in heads:
            group, own = divmod(head, queries.shape[2])
            scores = queries[0, group, own].float() @ keys[0, group].float().T / math.sqrt(keys.shape[-1])
            attended.append(scores.softmax(dim=-1)[:, rows].cpu())
        parts.append(torch.stack(attended))

    return collect
