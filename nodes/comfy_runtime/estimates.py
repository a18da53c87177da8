"""Memory estimates for ComfyUI: the bytes that a task needs in addition to the weights.

ComfyUI frees that much before the task starts. Too low runs out of memory; too high moves weights off the GPU.
"""

from __future__ import annotations

import torch

from ...acestep_core.config import LATENT_CHANNELS, ModelConfig, VAEConfig
from ...acestep_core.models.layers import MAX_SCORES
from ...acestep_core.models.oobleck import OobleckVAE
from ...acestep_core.sampling.preview import HEIGHT, WIDTH

MARGIN = 1.2  # scratch memory of convolutions and attention kernels
MAX_CONDITION_ROWS = 2048 + 256 + 1  # lyrics, caption and timbre at their longest
PREVIEW_BYTES = 50 * WIDTH * HEIGHT  # while a preview is drawn


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
    """Return the bytes for sampling `rows` sequences at once. A guided song is two.

    condition_rows: rows of all conditions whose keys and values are in memory. itemsize: of the compute dtype.
    references: timbre references of a song. codes: audio codes of its source. scores: attention materialises them, see
    `materialises_scores`.
    """
    patches = -(-frames // config.patch_size)
    width, attended = config.hidden_size, config.num_attention_heads * config.head_dim
    kv_width = config.num_key_value_heads * config.head_dim
    attention = 2 * width + 6 * attended + 6 * kv_width
    mlp = 3 * width + 2 * config.intermediate_size
    layer = max(attention, mlp) * itemsize
    last_norm = width * (itemsize + 3 * 4)  # in float32
    step = rows * patches * max(layer, last_norm)
    if scores:  # in float32: before and after the softmax, and while they are multiplied
        step += 3 * 4 * min(MAX_SCORES, rows * config.num_attention_heads * patches**2)
    latents = 8 * config.patch_size * LATENT_CHANNELS * 4
    resident = rows * patches * (width * itemsize + latents)  # with the context half of the patch embedding
    keys_and_values = 2 * config.num_hidden_layers * condition_rows * kv_width * itemsize
    encoding = _condition_encoder_bytes(config, condition_rows, references, itemsize)
    widest = max(step, encoding, _tokenizer_bytes(config, codes, itemsize), PREVIEW_BYTES)
    return int(MARGIN * (widest + resident + keys_and_values))


def _condition_encoder_bytes(config: ModelConfig, condition_rows: int, references: int, itemsize: int) -> int:
    """Return the bytes of the condition encoder, which encodes all references at once."""
    row = (3 * config.encoder_hidden_size + 2 * config.encoder_intermediate_size) * itemsize
    reference_row = row + 2 * config.timbre_hidden_dim * 4  # as given, and concatenated
    return max(condition_rows * row, max(1, references) * config.timbre_fix_frame * reference_row)


def tokenizing_bytes(config: ModelConfig, codes: int, itemsize: int) -> int:
    """Return the bytes for extracting that many audio codes at once."""
    return int(MARGIN * _tokenizer_bytes(config, codes, itemsize))


def _tokenizer_bytes(config: ModelConfig, codes: int, itemsize: int) -> int:
    """Return the bytes of the pooler, whose groups of frames have a row more each. Detokenizing takes less."""
    rows = codes * (config.pool_window_size + 1)
    attended = config.encoder_num_attention_heads * config.head_dim
    kv_width = config.encoder_num_key_value_heads * config.head_dim
    width = 4 * config.encoder_hidden_size + max(3 * attended + 2 * kv_width, 2 * config.encoder_intermediate_size)
    return rows * width * itemsize


def tile_bytes(config: VAEConfig, frames: int, itemsize: int) -> int:
    """Return the bytes for decoding or encoding one tile.

    The widest point is at the full sample rate: a residual unit holds three tensors, a convolution copies as many.
    """
    width = max(config.decoder_channels, config.encoder_hidden_size)
    return int(MARGIN * (3 + 3) * frames * config.hop * width * itemsize)


def wide_vae_bytes(vae: OobleckVAE) -> int:
    """Return the bytes of the float32 weights that a float16 VAE uses after an overflow. Its tiles do not grow."""
    if vae.dtype != torch.float16:
        return 0
    return 4 * max(sum(p.numel() for p in part.parameters()) for part in (vae.encoder, vae.decoder))


def text_encoding_bytes(hidden_size: int, intermediate_size: int, tokens: int, itemsize: int) -> int:
    """Return the bytes for encoding a prompt: the MLP's inner tensors, and the norms' float32 copies."""
    return int(MARGIN * tokens * (4 * hidden_size * max(itemsize, 4) + 3 * intermediate_size * itemsize))
