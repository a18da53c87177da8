"""What a device has to do for a song at the least: products, bytes and launches of each stage, counted without one.

    python -m benchmarks.floor                                   2B in bfloat16 on an H200, by its data sheet
    python -m benchmarks.floor --size small --dtype float32 --tflops 0.14 --gigabytes 20 --seconds 30 600

The real code runs on the meta device, on shapes alone. Of each operation the floor is the longer of two times: its
products at the device's peak, its inputs and results through the memory at full bandwidth. Their sum is the floor of
the code as it is: what fuses operations, or keeps their results in a cache, can be below it; what launches them from
Python can be above, so their number is told, too. Attention, RMSNorm and Snake count as one operation each, as they
are on CUDA. Sampling is eight steps without guidance and what they share.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from acestep_core.config import FRAME_RATE
from acestep_core.models import snake
from acestep_core.models.model import AceStepModel
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.models.tiling import TileLayout, decoder_reach
from acestep_core.text.encoder import build_qwen3

from .common import table
from .memory import TILE_FRAMES
from .stages import CAPTION_ROWS, LYRIC_ROWS, STEPS, Size, size

H200 = (989.0, 4800.0)  # TFLOP/s in bfloat16 without sparsity, GB/s: NVIDIA's data sheet
aten = torch.ops.aten
SHAPES = {aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default}  # no work at all
SHAPES |= {aten.detach.default, aten._unsafe_view.default}


@dataclass
class Work:
    flops: float = 0.0
    bytes: float = 0.0
    launches: int = 0
    seconds: float = 0.0  # at the least

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def __mul__(self, times: int) -> Work:
        return Work(*(getattr(self, name) * times for name in self.__dataclass_fields__))


class Counter(TorchDispatchMode):
    """Inside: `work` is that of all operations since, on a device of `peak` FLOP/s and `bandwidth` B/s."""

    def __init__(self, peak: float, bandwidth: float) -> None:
        super().__init__()
        self.work, self._peak, self._bandwidth = Work(), peak, bandwidth

    def add(self, flops: float, tensors: Iterable[Tensor]) -> None:
        moved = sum(min(tensor.nbytes, tensor.untyped_storage().nbytes()) for tensor in tensors)
        self.work += Work(flops, moved, 1, max(flops / self._peak, moved / self._bandwidth))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not function.is_view and function not in SHAPES:
            count = flop_registry.get(function.overloadpacket)
            flops = count(*args, **(kwargs or {}), out_val=result) if count else 0
            # Of a table only the rows that are looked up are read.
            touched = (result, result) if function is aten.embedding.default else (args, kwargs, result)
            self.add(flops, (leaf for leaf in tree_leaves(touched) if isinstance(leaf, Tensor)))
        return result


@contextmanager
def counted(peak: float, bandwidth: float):
    """A Counter at work; attention, RMSNorm and Snake are single operations."""

    def fused_norm(x: Tensor, shape: object, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
        result = torch.empty_like(x)
        counter.add(0, (x, result) if weight is None else (x, weight, result))
        return result

    def fused_snake(*given: Tensor) -> Tensor:
        result = torch.empty_like(given[0])
        counter.add(0, (*given, result))
        return result

    def fused(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
        result = torch.empty((*query.shape[:-1], value.shape[-1]), dtype=query.dtype, device=query.device)
        pairs = query[..., 0].numel() * key.shape[-2]
        counter.add(2 * pairs * (query.shape[-1] + value.shape[-1]), (query, key, value, result))
        return result

    made = [(F, "scaled_dot_product_attention", fused), (F, "rms_norm", fused_norm), (snake, "eager_snake", fused_snake)]
    with ExitStack() as stack:
        for owner, name, function in made:
            stack.enter_context(mock.patch.object(owner, name, function))
        stack.enter_context(torch.no_grad())  # in inference mode convolutions are not seen as such
        yield (counter := stack.enter_context(Counter(peak, bandwidth)))


def encode(size: Size, dtype: torch.dtype, *limits: float) -> Work:
    text = build_qwen3(size.text, "meta", dtype).eval()
    network = AceStepModel(size.network, device="meta", dtype=dtype)
    tokens = torch.zeros(1, CAPTION_ROWS, dtype=torch.long, device="meta")
    lyrics = torch.empty(1, LYRIC_ROWS, size.network.text_hidden_dim, dtype=dtype, device="meta")
    timbre = torch.empty(1, 1, size.network.timbre_fix_frame, size.network.timbre_hidden_dim, device="meta")
    with counted(*limits) as counter:
        # Of one prompt nothing is masked; told so, transformers does not look into the tokens, of which there are none.
        caption = text(input_ids=tokens, attention_mask={"full_attention": None}, use_cache=False).last_hidden_state
        network.encoder(caption, lyrics, timbre)
    return counter.work


def sample(size: Size, dtype: torch.dtype, seconds: int, *limits: float) -> Work:
    network, frames = AceStepModel(size.network, device="meta", dtype=dtype), seconds * FRAME_RATE
    rows = CAPTION_ROWS + LYRIC_ROWS + 1
    condition = torch.empty(1, rows, size.network.encoder_hidden_size, dtype=dtype, device="meta")
    x, context = (torch.empty(1, frames, width, device="meta") for width in (64, 128))
    with counted(*limits) as shared:
        prepared = network.decoder.prepare(context, condition)
    with counted(*limits) as step:
        network(x, torch.ones(1, device="meta"), prepared)
    return shared.work + step.work * STEPS


def decode(size: Size, dtype: torch.dtype, seconds: int, *limits: float) -> Work:
    vae, done = OobleckVAE(size.vae, device="meta", dtype=dtype), {}
    result = Work()
    for tile in TileLayout(seconds * FRAME_RATE, TILE_FRAMES, decoder_reach(size.vae)):
        frames = tile.last - tile.first
        if frames not in done:
            with counted(*limits) as counter:
                vae.decode(torch.empty(1, frames, size.vae.decoder_input_channels, device="meta"))
            done[frames] = counter.work
        result += done[frames]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("small", "2b", "xl"), default="2b")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--seconds", type=int, nargs="+", default=[30, 120, 240, 600])
    parser.add_argument("--tflops", type=float, default=H200[0], help="the device's peak in that dtype")
    parser.add_argument("--gigabytes", type=float, default=H200[1], help="its memory's bandwidth, a second")
    args = parser.parse_args()
    limits, made, dtype = (args.tflops * 1e12, args.gigabytes * 1e9), size(args.size), getattr(torch, args.dtype)
    rows = []
    for seconds in args.seconds:
        works = {
            "encode": encode(made, dtype, *limits),
            "sample": sample(made, dtype, seconds, *limits),
            "decode": decode(made, dtype, seconds, *limits),
        }
        works["whole song"] = sum(works.values(), Work())
        rows += [
            [f"{seconds} s", stage, f"{work.seconds * 1e3:.1f} ms", f"{work.flops / args.tflops / 1e9:.1f} ms",
             f"{work.flops / 1e12:.2f}", f"{work.bytes / 1e9:.1f} GB", work.launches]
            for stage, work in works.items()
        ]  # fmt: skip
    what = f"{args.size} model, {args.dtype}, {args.tflops:g} TFLOP/s, {args.gigabytes:g} GB/s"
    header = ["music", "stage", "floor", "of it products", "TFLOP", "moved", "launches"]
    print(table(f"Floor: {what} (counted, on no machine)", header, rows))


if __name__ == "__main__":
    main()
