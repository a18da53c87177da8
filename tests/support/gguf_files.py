"""Write GGUF files as acestep.cpp does: tensors of the original checkpoint, its config, its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

from .layouts import State

ARCHITECTURES = {"network": "acestep-dit", "planner": "acestep-lm", "text": "acestep-text-enc", "vae": "acestep-vae"}
KEPT = ("scale_shift_table", "null_condition_emb", "silence_latent")
# Type of most matrices, and that of the values and down projections. The package quantises only Q8_0 itself.
QUANTS = {
    "BF16": (Type.BF16, Type.BF16),
    "Q8_0": (Type.Q8_0, Type.Q8_0),
    "Q6_K": (Type.Q6_K, Type.Q6_K),
    "Q5_K_M": (Type.Q5_K, Type.Q6_K),
    "Q4_K_M": (Type.Q4_K, Type.Q6_K),
}
_SCALES = {Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208,)}  # places of float16 numbers in a block


def write_gguf(
    file: Path,
    part: str,
    state: State,
    config: dict,
    quant: str = "BF16",
    tokenizer: Path | None = None,
    edit: Callable[[gguf.GGUFWriter], object] = lambda writer: None,
) -> State:
    """Write a file and return the values that it stands for, by gguf's own dequantisation.

    edit: changes the writer before it writes.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(file, ARCHITECTURES.get(part, part))
    writer.add_name(file.stem)
    writer.add_string("acestep.config_json", json.dumps(config, separators=(",", ":")))
    writer.add_array("acestep.fsq_input_levels", [8, 8, 8, 5])
    if tokenizer is not None:
        content = json.loads((tokenizer / "tokenizer.json").read_text("utf-8"))["model"]
        writer.add_token_list(sorted(content["vocab"], key=content["vocab"].get))
        writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in content["merges"]])
    stored = {}
    for name, tensor in sorted(state.items()):
        kind, array = _packed(name, tensor, quant, part)
        writer.add_tensor(name, array, raw_dtype=kind)
        stored[name] = torch.from_numpy(np.array(dequantize(array, kind))).reshape(tensor.shape)
    edit(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


def _packed(name: str, tensor: torch.Tensor, quant: str, part: str) -> tuple[Type, np.ndarray]:
    """Return the type and the bytes of a tensor. A quantised file lacks the leading axes of one, as ggml drops them."""
    array = tensor.float().numpy()
    if quant != "BF16":
        array = array.reshape(array.shape[next((i for i, n in enumerate(array.shape) if n > 1), -1) :])
    if name == "silence_latent":
        return Type.F32, array.reshape(array.shape[-2:])
    most, important = QUANTS[quant]
    kind = important if name.endswith(("v_proj.weight", "down_proj.weight")) else most
    if part == "vae" or array.ndim < 2 or name.endswith(KEPT) or array.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        kind = Type.F32 if array.ndim < 2 and quant != "BF16" else Type.BF16
    if kind is Type.F32:
        return kind, array
    return kind, _random_blocks(array.shape, kind) if kind in _SCALES else quantize(array, kind)


def _random_blocks(shape: tuple[int, ...], kind: Type) -> np.ndarray:
    """Return random blocks of small values."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng([kind.value, *shape])
    blocks = rng.integers(0, 256, (int(np.prod(shape)) // values, size), dtype=np.uint8)
    for place in _SCALES[kind]:
        scale = rng.uniform(1e-5, 2e-4, (len(blocks), 1)).astype(np.float16)
        blocks[:, place : place + 2] = scale.view(np.uint8)
    return blocks.reshape(*shape[:-1], shape[-1] // values * size)
