"""Audio codes per second with guidance, against transformers' `generate` with the same random weights.

    python -m benchmarks.planner                  0.6B in the CPU's fast dtype: about 5 minutes on 2 cores, 8 GB
    python -m benchmarks.planner --size 1.7b --codes 100 --songs 2

The planner is ACE-Step 1.5's 5 Hz LM. Ours runs in the given dtype, in int8, in fp8, and with two forwards per token
(guided and unguided rows apart). One peer is `generate` with its own guidance, which makes two forwards. The other peer
is `generate` guided over one batch of prompts and negative prompts. All choose among the audio codes at temperature
0.85 and top-p 0.9. Times include the prompts and are medians of alternating runs.

On CUDA a second table has the time of a token and its share of the memory bandwidth, which is measured by copying.
`--limit` prints this table alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from acestep_core.config import PlannerConfig
from acestep_core.models.cpu.plugins import install_cpu_plugins
from acestep_core.models.ops import QuantizedLinear, quantized_ops
from acestep_core.planner.decode_batch import CodeRow, DecodeBatch
from acestep_core.planner.decoding import generate_tokens
from acestep_core.planner.load_planner import Planner
from acestep_core.planner.network import PlannerNetwork
from acestep_core.planner.token_sampling import TokenSampling
from acestep_core.planner.vocabulary import Vocabulary
from acestep_core.runtime.devices import DTYPES, pick_device, pick_dtype
from acestep_core.runtime.placement import Resident

from .common import alternate, table

PROMPT, NEGATIVE = 250, 33  # tokens: caption, lyrics and metadata; the unconditional prompt
LARGE = PlannerConfig()
SIZES = {
    "tiny": replace(
        LARGE, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=16, head_dim=64
    ),
    "0.6b": replace(LARGE, hidden_size=1024, intermediate_size=3072),
    "1.7b": LARGE,
    "4b": replace(LARGE, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32),
}
SAMPLING = TokenSampling(temperature=0.85, top_p=0.9, guidance=2.0)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def ours(config: PlannerConfig, device: torch.device, dtype: torch.dtype) -> PlannerNetwork:
    """Return our network with random weights."""
    torch.manual_seed(0)
    network = PlannerNetwork(config, device=device, dtype=dtype).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.normal_(0, 0.02) if parameter.dim() > 1 else parameter.fill_(1)
    install_cpu_plugins(network, device)
    return network


def quantized(network: PlannerNetwork, storage: torch.dtype) -> PlannerNetwork:
    """Return a copy whose layers store their matrices in `storage`. Other tensors are shared."""
    with torch.device("meta"):
        copy = PlannerNetwork(network.config, quantized_ops(storage))
    copy.load_state_dict(network.state_dict(), assign=True, strict=False)
    for module in copy.modules():
        if isinstance(module, QuantizedLinear):
            module.store(module.weight)
    install_cpu_plugins(copy, network.embed_tokens.weight.device)
    return copy.eval()


def theirs(network: PlannerNetwork):
    """Return transformers' network, sharing our tensors."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config, weight = network.config, network.embed_tokens.weight
    peer_config = Qwen3Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        rope_theta=config.rope_theta,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    with torch.device("meta"):
        peer = Qwen3ForCausalLM(peer_config)
    state = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    peer.load_state_dict(state | {"lm_head.weight": weight}, assign=True)
    peer.model.rotary_emb = type(peer.model.rotary_emb)(peer_config).to(weight.device)  # buffers are not in the state
    return peer.eval()


class OnlyCodes:
    """A logits processor for transformers that masks all tokens but the audio codes."""

    def __init__(self, config: PlannerConfig):
        self._codes = slice(config.audio_base, config.audio_base + config.audio_codes)

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        out = torch.full_like(scores, float("-inf"))
        out[:, self._codes] = scores[:, self._codes]
        return out


class BatchedGuidance:
    """A logits processor for transformers that guides the first half of the rows by the second half."""

    def __init__(self, scale: float):
        self._scale = scale

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        conditional, unconditional = scores.float().chunk(2)
        return (unconditional + self._scale * (conditional - unconditional)).repeat(2, 1)


def their_run(peer, config: PlannerConfig, rows: list[CodeRow], batched: bool) -> Callable[[], object]:
    """Return a call of `generate` that makes as many codes."""
    from transformers import GenerationConfig, LogitsProcessorList

    device, songs, row = peer.device, len(rows), rows[0]
    settings = GenerationConfig(
        max_new_tokens=row.count, min_new_tokens=row.count, do_sample=True, eos_token_id=0, pad_token_id=0
    )
    settings.temperature, settings.top_p, settings.top_k = SAMPLING.temperature, SAMPLING.top_p, 0
    padding = len(row.prompt) - len(row.negative_prompt)
    if batched:
        ids = torch.tensor([row.prompt] * songs + [[0] * padding + row.negative_prompt] * songs, device=device)
        mask = torch.ones_like(ids)
        mask[songs:, :padding] = 0
        processors = LogitsProcessorList([BatchedGuidance(SAMPLING.guidance), OnlyCodes(config)])
        # Conditional and unconditional rows draw different tokens there; the time is the same.
        return lambda: peer.generate(ids, generation_config=settings, attention_mask=mask, logits_processor=processors)
    ids = torch.tensor([row.prompt] * songs, device=device)
    settings.guidance_scale = SAMPLING.guidance
    return lambda: peer.generate(
        ids,
        generation_config=settings,
        attention_mask=torch.ones_like(ids),
        negative_prompt_ids=torch.tensor([row.negative_prompt] * songs, device=device),
        logits_processor=LogitsProcessorList([OnlyCodes(config)]),
    )


@contextmanager
def two_forwards() -> Iterator[None]:
    """Compute guided and unguided rows one after the other."""

    def forward(batch: DecodeBatch, tokens: Tensor, starts: Tensor, extent: int) -> Tensor:
        parts = [slice(len(tokens) // 2), slice(len(tokens) // 2, None)]
        network = batch._run.network
        caches = [batch.cache.rows(part) for part in parts]
        pairs = zip(parts, caches, strict=True)
        return torch.cat([network(tokens[part], starts[part], cache, extent, batch.head) for part, cache in pairs])

    original, DecodeBatch.forward = DecodeBatch.forward, forward
    try:
        yield
    finally:
        DecodeBatch.forward = original


# --- the time of a token ----------------------------------------------------------------------------------------------


def token_bytes(network: PlannerNetwork, songs: int, codes: int) -> int:
    """Return the bytes that a token has to read: layers, audio rows of the head, KV cache of half a song."""
    config, size = network.config, network.dtype.itemsize
    weights = sum(p.numel() * p.element_size() for p in network.layers.parameters())
    head = config.audio_codes * config.hidden_size * size
    per_position = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * size
    return weights + head + songs * (PROMPT + NEGATIVE + codes) * per_position


def bandwidth(device: torch.device, size: int = 2**30, times: int = 20) -> float:
    """Return the bytes per second that a large copy reads and writes."""
    source, target = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    target.copy_(source)
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(times):
        target.copy_(source)
    torch.cuda.synchronize(device)
    return 2 * size * times / (time.perf_counter() - started)


def token_seconds(planner: Planner, rows: list[CodeRow]) -> float:
    """Return the seconds of one token of all rows, in the second half of a song: without prompts and warm-up."""

    def run(count: int) -> float:
        started = time.perf_counter()
        generate_tokens(planner, [replace(row, count=count) for row in rows], SAMPLING, "codes")
        return time.perf_counter() - started

    codes = rows[0].count
    run(codes)
    half = run(codes // 2)
    return (run(codes) - half) / (codes - codes // 2)


def limits(planner: Planner, device: torch.device, songs: int, codes: int) -> str:
    """Return the second table, for one song and for `songs`."""
    speed, lines = bandwidth(device), []
    for count in sorted({1, songs}):
        token = token_seconds(planner, some_rows(count, codes))
        share = token_bytes(planner.network, count, codes) / speed / token
        lines.append([count, f"{token * 1e3:.2f} ms", f"{share:.0%}"])
    title = f"Time of a token, {device}, {speed / 1e9:.0f} GB/s measured"
    return table(title, ["songs", "token", "share of the bandwidth"], lines)


def some_rows(songs: int, codes: int) -> list[CodeRow]:
    prompt, negative = list(range(1, PROMPT + 1)), list(range(1, NEGATIVE + 1))
    return [CodeRow(prompt, seed, codes, negative) for seed in range(songs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="0.6b")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float32"], default="auto")
    parser.add_argument("--codes", type=int, help="audio codes per song, 5 per second; default 16, on a GPU 150")
    parser.add_argument("--songs", type=int, default=1)
    parser.add_argument("--limit", action="store_true", help="only the time of a token (CUDA)")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    device = pick_device(args.device)
    dtype = DTYPES.get(args.dtype) or pick_dtype(device, "text_encoder")
    codes = args.codes or (16 if device.type == "cpu" else 150)

    config = SIZES[args.size]
    say(f"building the {args.size} planner in {dtype} on {device}")
    network = ours(config, device, dtype)
    vocabulary = Vocabulary(None, {}, config.audio_base, config.audio_codes)

    def run(network: PlannerNetwork) -> object:
        return generate_tokens(Planner(network, vocabulary, Resident(device)), rows, SAMPLING, "codes")

    def run_in_two() -> object:
        with two_forwards():
            return run(network)

    if device.type == "cuda":
        print(limits(Planner(network, vocabulary, Resident(device)), device, args.songs, codes), flush=True)
    if args.limit:
        return
    rows = some_rows(args.songs, codes)
    say("quantising to int8 and fp8, building transformers' network")
    int8, fp8 = (quantized(network, storage) for storage in (torch.int8, torch.float8_e4m3fn))
    peer = theirs(network)
    candidates = {
        "ours": lambda: run(network),
        "ours, int8": lambda: run(int8),
        "ours, fp8": lambda: run(fp8),
        "ours, two forwards": run_in_two,
        "transformers, batched": their_run(peer, config, rows, batched=True),
        "transformers": their_run(peer, config, rows, batched=False),
    }

    def announced(name: str) -> Callable[[], None]:
        def timed() -> None:
            started = time.perf_counter()
            candidates[name]()
            say(f"{name}: {codes * args.songs} codes in {time.perf_counter() - started:.1f} s")

        return timed

    warmup = 0 if args.runs == 1 else 1
    say(f"{warmup + args.runs} rounds, the first {warmup} for warm-up")
    with torch.inference_mode():
        seconds = alternate({name: announced(name) for name in candidates}, args.runs, warmup)
    title = f"{args.size} planner, {str(dtype).removeprefix('torch.')}, {device}, {codes} codes × {args.songs}"
    print(
        table(
            f"Audio codes with guidance, {title}",
            ["", "ours is faster", "tokens/s", "time"],
            [
                [name, f"{each / seconds['ours']:.2f}×", f"{codes * args.songs / each:.2f}", f"{each:.1f} s"]
                for name, each in seconds.items()
            ],
        )
    )


if __name__ == "__main__":
    main()
