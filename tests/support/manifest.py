"""Names and shapes of all tensors of the released networks, from the published tables and not from our code."""

from __future__ import annotations

from dataclasses import dataclass

Manifest = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """Sizes that differ between the 2B and the XL checkpoint."""

    h: int  # width of the DiT
    layers: int
    q: int  # heads x 128
    inner: int


TWO_B = Sizes(h=2048, layers=24, q=2048, inner=6144)
XL = Sizes(h=2560, layers=32, q=4096, inner=9728)

E, KV, HEAD, E_INNER = 2048, 1024, 128, 6144  # sizes of the encoders, equal in both


def _linear(name: str, rows: int, columns: int) -> Manifest:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _attention(name: str, width: int, q: int) -> Manifest:
    return {
        f"{name}.q_proj.weight": (q, width),
        f"{name}.k_proj.weight": (KV, width),
        f"{name}.v_proj.weight": (KV, width),
        f"{name}.o_proj.weight": (width, q),
        f"{name}.q_norm.weight": (HEAD,),
        f"{name}.k_norm.weight": (HEAD,),
    }


def _mlp(name: str, width: int, inner: int) -> Manifest:
    return {
        f"{name}.gate_proj.weight": (inner, width),
        f"{name}.up_proj.weight": (inner, width),
        f"{name}.down_proj.weight": (width, inner),
    }


def _encoder_layers(name: str, count: int) -> Manifest:
    manifest: Manifest = {}
    for layer in range(count):
        place = f"{name}.layers.{layer}"
        manifest |= {f"{place}.input_layernorm.weight": (E,), f"{place}.post_attention_layernorm.weight": (E,)}
        manifest |= _attention(f"{place}.self_attn", E, 2048) | _mlp(f"{place}.mlp", E, E_INNER)
    return manifest | {f"{name}.norm.weight": (E,)}


def decoder(size: Sizes) -> Manifest:
    h = size.h
    manifest: Manifest = {
        "decoder.proj_in.1.weight": (h, 192, 2),
        "decoder.proj_in.1.bias": (h,),
        "decoder.proj_out.1.weight": (h, 64, 2),
        "decoder.proj_out.1.bias": (64,),
        "decoder.norm_out.weight": (h,),
        "decoder.scale_shift_table": (1, 2, h),
    }
    manifest |= _linear("decoder.condition_embedder", h, E)
    for embedder in ("decoder.time_embed", "decoder.time_embed_r"):
        manifest |= _linear(f"{embedder}.linear_1", h, 256)
        manifest |= _linear(f"{embedder}.linear_2", h, h)
        manifest |= _linear(f"{embedder}.time_proj", 6 * h, h)
    for layer in range(size.layers):
        place = f"decoder.layers.{layer}"
        manifest[f"{place}.scale_shift_table"] = (1, 6, h)
        for norm in ("self_attn_norm", "cross_attn_norm", "mlp_norm"):
            manifest[f"{place}.{norm}.weight"] = (h,)
        manifest |= _attention(f"{place}.self_attn", h, size.q) | _attention(f"{place}.cross_attn", h, size.q)
        manifest |= _mlp(f"{place}.mlp", h, size.inner)
    return manifest


def encoder() -> Manifest:
    manifest: Manifest = {"encoder.text_projector.weight": (E, 1024), "encoder.timbre_encoder.special_token": (1, 1, E)}
    for part, inputs, layers in (("lyric", 1024, 8), ("timbre", 64, 4)):
        manifest |= _linear(f"encoder.{part}_encoder.embed_tokens", E, inputs)
        manifest |= _encoder_layers(f"encoder.{part}_encoder", layers)
    return manifest


def tokenizer() -> Manifest:
    manifest: Manifest = {"tokenizer.attention_pooler.special_token": (1, 1, E)}
    manifest |= _linear("tokenizer.audio_acoustic_proj", E, 64)
    manifest |= _linear("tokenizer.attention_pooler.embed_tokens", E, E)
    manifest |= _encoder_layers("tokenizer.attention_pooler", 2)
    return manifest | _linear("tokenizer.quantizer.project_in", 6, E) | _linear("tokenizer.quantizer.project_out", E, 6)


def detokenizer() -> Manifest:
    manifest: Manifest = {"detokenizer.special_tokens": (1, 5, E)}
    manifest |= _linear("detokenizer.embed_tokens", E, E) | _linear("detokenizer.proj_out", 64, E)
    return manifest | _encoder_layers("detokenizer", 2)


def network(size: Sizes) -> Manifest:
    """The whole diffusion model: 677 tensors for 2B, 829 for XL."""
    return decoder(size) | encoder() | tokenizer() | detokenizer() | {"null_condition_emb": (1, 1, E)}


def _snake(name: str, channels: int) -> Manifest:
    return {f"{name}.alpha": (1, channels, 1), f"{name}.beta": (1, channels, 1)}


def _convolution(name: str, first: int, second: int, kernel: int, outputs: int) -> Manifest:
    return {f"{name}.weight": (first, second, kernel), f"{name}.bias": (outputs,)}


def _residual_unit(name: str, channels: int) -> Manifest:
    manifest: Manifest = {}
    for index, kernel in ((1, 7), (2, 1)):
        manifest |= _snake(f"{name}.snake{index}", channels)
        manifest |= _convolution(f"{name}.conv{index}", channels, channels, kernel, channels)
    return manifest


def vae() -> Manifest:
    """The 48 kHz Oobleck with folded weight norm."""
    manifest = _convolution("encoder.conv1", 128, 2, 7, 128)
    widths, strides = (128, 128, 256, 512, 1024, 2048), (2, 4, 4, 6, 10)
    for block in range(5):
        place, c, c_out, stride = f"encoder.block.{block}", widths[block], widths[block + 1], strides[block]
        for unit in (1, 2, 3):
            manifest |= _residual_unit(f"{place}.res_unit{unit}", c)
        manifest |= _snake(f"{place}.snake1", c) | _convolution(f"{place}.conv1", c_out, c, 2 * stride, c_out)
    manifest |= _snake("encoder.snake1", 2048) | _convolution("encoder.conv2", 128, 2048, 3, 128)

    manifest |= _convolution("decoder.conv1", 2048, 64, 7, 2048)
    widths, strides = (2048, 1024, 512, 256, 128, 128), (10, 6, 4, 4, 2)
    for block in range(5):
        place, c, c_out, stride = f"decoder.block.{block}", widths[block], widths[block + 1], strides[block]
        manifest |= _snake(f"{place}.snake1", c) | _convolution(f"{place}.conv_t1", c, c_out, 2 * stride, c_out)
        for unit in (1, 2, 3):
            manifest |= _residual_unit(f"{place}.res_unit{unit}", c_out)
    return manifest | _snake("decoder.snake1", 128) | {"decoder.conv2.weight": (2, 128, 7)}
