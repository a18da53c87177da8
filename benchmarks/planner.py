"""Audio codes a second, with guidance, against transformers' `generate` on the same random weights.

    python -m benchmarks.planner                  0.6B, the dtype that the processor is fast in
    python -m benchmarks.planner --size 1.7b --codes 100 --songs 2

Beside ours in the dtype asked for, in int8, in fp8 and in two forwards a token, two peers: `generate` as it comes,
whose guidance makes two forwards; and guided over one batch of prompts and negative prompts. All choose among the
audio codes alone, at temperature 0.85 and top-p 0.9. Time is that of the whole call, prompts included; medians of
alternating runs.

A second table says what a token takes, for one song and for several: random numbers drawn in series and ahead, and on
CUDA the whole token, how much of it the host is at work (rather than waiting), and its share of what the memory's
bandwidth allows, which is measured by copying. `--limit` prints that table alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from acestep_core.config import PlannerConfig
from acestep_core.models.ops import QuantizedLinear, quantized_ops
from acestep_core.planner import decode
from acestep_core.planner.decode import Row, Ways, generate
from acestep_core.planner.network import PlannerNetwork
from acestep_core.planner.random_numbers import rolls
from acestep_core.planner.token_sampling import Sampling
from acestep_core.planner.vocabulary import Vocabulary
from acestep_core.runtime.cuda_graphs import Pace
from acestep_core.runtime.devices import DTYPES, pick_device, pick_dtype

from .common import alternate, table

PROMPT, NEGATIVE = 250, 33  # tokens: caption, lyrics and metadata; the constant negative prompt
LARGE = PlannerConfig()
SIZES = {
    "tiny": replace(
        LARGE, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=16, head_dim=64
    ),
    "0.6b": replace(LARGE, hidden_size=1024, intermediate_size=3072),
    "1.7b": LARGE,
    "4b": replace(LARGE, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32),
}
SAMPLING = Sampling(temperature=0.85, top_p=0.9, guidance=2.0)


def ours(config: PlannerConfig, device: torch.device, dtype: torch.dtype) -> PlannerNetwork:
    torch.manual_seed(0)
    network = PlannerNetwork(config, device=device, dtype=dtype).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.normal_(0, 0.02) if parameter.dim() > 1 else parameter.fill_(1)
    return network


def stored(network: PlannerNetwork, kind: torch.dtype) -> PlannerNetwork:
    """The same, its layers' matrices in that dtype; what is not one of these is shared."""
    with torch.device("meta"):
        copy = PlannerNetwork(network.config, quantized_ops(kind))
    copy.load_state_dict(network.state_dict(), assign=True, strict=False)
    for module in copy.modules():
        if isinstance(module, QuantizedLinear):
            module.store(module.weight)
    return copy.eval()


def theirs(network: PlannerNetwork):
    """transformers' network sharing our tensors."""
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
    peer.model.rotary_emb = type(peer.model.rotary_emb)(peer_config).to(weight.device)  # has no weights, but buffers
    return peer.eval()


class OnlyCodes:
    """What transformers calls a logits processor: rules out all but the audio codes."""

    def __init__(self, config: PlannerConfig):
        self._codes = slice(config.audio_base, config.audio_base + config.audio_codes)

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        out = torch.full_like(scores, float("-inf"))
        out[:, self._codes] = scores[:, self._codes]
        return out


class BatchedGuidance:
    """Guides the first half of the rows by the second."""

    def __init__(self, scale: float):
        self._scale = scale

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        given, negative = scores.float().chunk(2)
        return (negative + self._scale * (given - negative)).repeat(2, 1)


def their_run(
    peer, config: PlannerConfig, prompt: list[int], negative: list[int], codes: int, songs: int, batched: bool
):
    """A call of `generate` that makes as many codes."""
    from transformers import GenerationConfig, LogitsProcessorList

    device = peer.device
    settings = GenerationConfig(
        max_new_tokens=codes, min_new_tokens=codes, do_sample=True, eos_token_id=0, pad_token_id=0, use_cache=True
    )
    settings.temperature, settings.top_p, settings.top_k = SAMPLING.temperature, SAMPLING.top_p, 0
    longer = len(prompt) - len(negative)
    if batched:
        ids = torch.tensor([prompt] * songs + [[0] * longer + negative] * songs, device=device)
        mask = torch.ones_like(ids)
        mask[songs:, :longer] = 0
        processors = LogitsProcessorList([BatchedGuidance(SAMPLING.guidance), OnlyCodes(config)])
        # Guided rows and their twins draw numbers of their own there; the time is the same.
        return lambda: peer.generate(ids, generation_config=settings, attention_mask=mask, logits_processor=processors)
    ids = torch.tensor([prompt] * songs, device=device)
    settings.guidance_scale = SAMPLING.guidance
    return lambda: peer.generate(
        ids,
        generation_config=settings,
        attention_mask=torch.ones_like(ids),
        negative_prompt_ids=torch.tensor([negative] * songs, device=device),
        logits_processor=LogitsProcessorList([OnlyCodes(config)]),
    )


# --- what a token takes -----------------------------------------------------------------------------------------------


def drawing_seconds(songs: int, count: int, ahead: bool, tokens: int = 64) -> float:
    """Random numbers for one token of so many songs, when nothing else is waited for."""
    started = time.perf_counter()
    for _ in rolls(range(songs), count, tokens, ahead=ahead):
        pass
    return (time.perf_counter() - started) / tokens


@contextmanager
def waits() -> Iterator[list[float]]:
    """Seconds that the host waits for the device at each token meanwhile."""
    waited: list[float] = []

    class Timed(Pace):
        def __call__(self) -> None:
            started = time.perf_counter()
            super().__call__()
            waited.append(time.perf_counter() - started)

    original, decode.Pace = decode.Pace, Timed
    try:
        yield waited
    finally:
        decode.Pace = original


def token_bytes(network: PlannerNetwork, songs: int, codes: int) -> int:
    """What a token cannot but read: layers, the head's rows of codes, and the keys and values of half a song."""
    config, size = network.config, network.dtype.itemsize
    weights = sum(p.numel() * p.element_size() for p in network.layers.parameters())
    head = config.audio_codes * config.hidden_size * size
    known = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * size
    return weights + head + songs * (PROMPT + NEGATIVE + codes) * known


def bandwidth(device: torch.device, size: int = 2**30, times: int = 20) -> float:
    """Bytes a second that a large copy reads and writes."""
    source, target = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    target.copy_(source)
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(times):
        target.copy_(source)
    torch.cuda.synchronize(device)
    return 2 * size * times / (time.perf_counter() - started)


def token_seconds(network: PlannerNetwork, vocabulary: Vocabulary, rows: list[Row]) -> tuple[float, float]:
    """Seconds of one token of all rows, without prompts and warm-up: the second half of a song; and of these the
    seconds that the host was at work."""

    def run(codes: int) -> float:
        started = time.perf_counter()
        generate(network, vocabulary, [replace(row, codes=codes) for row in rows], sampling=SAMPLING)
        return time.perf_counter() - started

    codes = rows[0].codes
    run(codes)
    half = run(codes // 2)
    with waits() as waited:
        whole = run(codes)
    count = codes - codes // 2
    seconds = (whole - half) / count
    return seconds, seconds - sum(waited[-count:]) / count


def limits(network: PlannerNetwork, vocabulary: Vocabulary, device: torch.device, songs: int, codes: int) -> str:
    """The second table, for one song and for `songs`."""
    fast = device.type == "cuda"
    header = ["songs", "numbers in series", "numbers ahead"]
    header += ["a token", "of it the host works", "share of the bandwidth's limit"] if fast else []
    speed, lines = bandwidth(device) if fast else 0.0, []
    for count in sorted({1, songs}):
        drawn = [drawing_seconds(count, vocabulary.codes, ahead) for ahead in (False, True)]
        line = [count, *(f"{seconds * 1e3:.2f} ms" for seconds in drawn)]
        if fast:
            token, host = token_seconds(network, vocabulary, some_rows(count, codes))
            least = token_bytes(network, count, codes) / speed
            line += [f"{token * 1e3:.2f} ms", f"{host * 1e3:.2f} ms", f"{least / token:.0%}"]
        lines.append(line)
    measured = f", {speed / 1e9:.0f} GB/s measured" if fast else ""
    return table(f"What a token takes, {device}{measured}", header, lines)


def some_rows(songs: int, codes: int) -> list[Row]:
    prompt, negative = list(range(1, PROMPT + 1)), list(range(1, NEGATIVE + 1))
    return [Row(prompt, seed, codes=codes, negative=negative) for seed in range(songs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="0.6b")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float32"], default="auto")
    parser.add_argument("--codes", type=int, default=150, help="audio codes a song; 5 are a second of music")
    parser.add_argument("--songs", type=int, default=1)
    parser.add_argument("--limit", action="store_true", help="only what a token takes, without the peers")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    device = pick_device(args.device)
    dtype = DTYPES.get(args.dtype) or pick_dtype(device, "text_encoder")

    config = SIZES[args.size]
    network = ours(config, device, dtype)
    vocabulary = Vocabulary(None, {}, config.audio_base, config.audio_codes)
    print(limits(network, vocabulary, device, args.songs, args.codes))
    if args.limit:
        return
    peer, rows = theirs(network), some_rows(args.songs, args.codes)
    shared = (peer, config, rows[0].prompt, rows[0].negative, args.codes, args.songs)
    in_int8, in_fp8 = (stored(network, kind) for kind in (torch.int8, torch.float8_e4m3fn))
    runs = {
        "ours": lambda: generate(network, vocabulary, rows, sampling=SAMPLING),
        "ours, int8": lambda: generate(in_int8, vocabulary, rows, sampling=SAMPLING),
        "ours, fp8": lambda: generate(in_fp8, vocabulary, rows, sampling=SAMPLING),
        "ours, two forwards": lambda: generate(network, vocabulary, rows, sampling=SAMPLING, ways=Ways(together=False)),
        "transformers, batched": their_run(*shared, batched=True),
        "transformers": their_run(*shared, batched=False),
    }
    with torch.inference_mode():
        timed = alternate(runs, args.runs, warmup=0 if args.runs == 1 else 1)
    made = args.codes * args.songs
    print(
        table(
            f"Audio codes with guidance, {args.size} planner, {str(dtype).removeprefix('torch.')}, {device}, "
            f"{args.codes} codes × {args.songs}",
            ["way", "ours is faster", "tokens/s", "time"],
            [
                [name, f"{seconds / timed['ours']:.2f}×", f"{made / seconds:.2f}", f"{seconds:.1f} s"]
                for name, seconds in timed.items()
            ],
        )
    )


if __name__ == "__main__":
    main()
