"""How many bytes a piece of work needs beside the weights, from the shapes of its widest moment.

ComfyUI frees that much before the work begins, so an estimate errs upwards, but not by much: what it takes too much
of, weights have to leave the GPU for.
"""

from __future__ import annotations

from ...acestep_core.config import LATENT_CHANNELS, ModelConfig, VAEConfig
from ...acestep_core.models.layers import SCORES
from ...acestep_core.sampling.preview import HEIGHT, WIDTH

MARGIN = 1.2  # what convolutions and attention kernels use as scratch
MAX_CONDITION_ROWS = 2048 + 256 + 1  # lyrics, caption and timbre at their longest
PICTURE = 50 * WIDTH * HEIGHT  # a preview while it is drawn


def sampling_bytes(
    config: ModelConfig,
    rows: int,
    frames: int,
    condition_rows: int,
    itemsize: int,
    references: int = 1,
    codes: int = 0,
    scores: bool = False,
) -> int:
    """Sampling `rows` sequences of latents at once (a guided song is two). `condition_rows` are those of all the
    conditions whose keys and values are kept; `itemsize` is that of the dtype computed in. `references` are the
    timbres that a song has, `codes` the audio codes that its source goes through. `scores`: attention holds what it
    computes, see `holds_scores`."""
    patches = -(-frames // config.patch_size)
    width, attended = config.hidden_size, config.num_attention_heads * config.head_dim
    known = config.num_key_value_heads * config.head_dim
    attention = 2 * width + 6 * attended + 6 * known
    mlp = 3 * width + 2 * config.intermediate_size
    layer = max(attention, mlp) * itemsize
    last = width * (itemsize + 3 * 4)  # the last norm, in float32
    step = rows * patches * max(layer, last)
    if scores:  # in float32, before and after the softmax, and as they are multiplied
        step += 3 * 4 * min(SCORES, rows * config.num_attention_heads * patches**2)
    latents = 8 * config.patch_size * LATENT_CHANNELS * 4
    kept = rows * patches * (width * itemsize + latents)  # with the context half of the patch embedding
    keys_and_values = 2 * config.num_hidden_layers * condition_rows * known * itemsize
    encoding = _encoding(config, condition_rows, references, itemsize)
    widest = max(step, encoding, _tokenizing(config, codes, itemsize), PICTURE)
    return int(MARGIN * (widest + kept + keys_and_values))


def _encoding(config: ModelConfig, condition_rows: int, references: int, itemsize: int) -> int:
    """The condition encoder, which hears all references at once, before the first step."""
    row = (3 * config.encoder_hidden_size + 2 * config.encoder_intermediate_size) * itemsize
    heard = row + 2 * config.timbre_hidden_dim * 4  # as they are given, and side by side
    return max(condition_rows * row, max(1, references) * config.timbre_fix_frame * heard)


def tokenizing_bytes(config: ModelConfig, codes: int, itemsize: int) -> int:
    """Hearing that many audio codes at once."""
    return int(MARGIN * _tokenizing(config, codes, itemsize))


def _tokenizing(config: ModelConfig, codes: int, itemsize: int) -> int:
    """The pooler sees each group of frames behind a row of its own. The way back, from codes to frames, takes less."""
    rows = codes * (config.pool_window_size + 1)
    attended = config.encoder_num_attention_heads * config.head_dim
    known = config.encoder_num_key_value_heads * config.head_dim
    width = 4 * config.encoder_hidden_size + max(3 * attended + 2 * known, 2 * config.encoder_intermediate_size)
    return rows * width * itemsize


def tile_bytes(config: VAEConfig, frames: int, itemsize: int) -> int:
    """Decoding or encoding a tile: its widest moment is at the full sample rate, where a residual unit holds its input
    and two more, and a convolution may copy what it reads and writes into a layout of its own."""
    width = max(config.decoder_channels, config.encoder_hidden_size)
    return int(MARGIN * (3 + 3) * frames * config.hop * width * itemsize)


def reading_bytes(hidden_size: int, intermediate_size: int, tokens: int, itemsize: int) -> int:
    """The text encoder over a prompt: an MLP's inner tensors, and the norms' float32 copies."""
    return int(MARGIN * tokens * (4 * hidden_size * max(itemsize, 4) + 3 * intermediate_size * itemsize))
