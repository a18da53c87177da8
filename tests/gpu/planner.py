"""The planner (5 Hz LM): the same text and codes on every device, with and without CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from acestep_core import Metadata, Song
from acestep_core.planner.decode_batch import CodeRow
from acestep_core.planner.decoding import generate_tokens
from acestep_core.planner.load_planner import Planner, load_planner
from acestep_core.planner.planning import plan
from acestep_core.planner.token_sampling import TokenSampling

from .bounds import name_of
from .context import Context
from .registry import Line, NotHere, at_least, check, is_true, measured

SAMPLING = TokenSampling(temperature=0.85, top_p=0.9, guidance=2.0)


def equal_share(found: list[int] | tuple[int, ...], expected: list[int] | tuple[int, ...]) -> float:
    """Return the share of tokens before the first difference. After it, other tokens are no error."""
    if len(found) != len(expected):
        return 0.0
    for index, (a, b) in enumerate(zip(found, expected, strict=True)):
        if a != b:
            return index / len(expected)
    return 1.0


def code_rows(count: int, *seeds: int) -> list[CodeRow]:
    """Return rows of `count` audio codes, guided. Any ids are a prompt."""
    return [CodeRow(list(range(1, 30)), seed, count, negative_prompt=[1, 2, 3]) for seed in seeds]


def codes_of(planner: Planner, rows: list[CodeRow], graphs: bool = True) -> list[list[int]]:
    return generate_tokens(replace(planner, graphs=graphs), rows, SAMPLING, "codes")


@check("planner.codes", "the planner's audio codes on the device and on the CPU", 15)
def codes(context: Context) -> Iterator[Line]:
    rows = code_rows(6 if context.quick else 150, 3, 4)
    found, expected = (codes_of(each, rows) for each in (context.planner(), context.reference_planner))
    for row, ours, theirs in zip(rows, found, expected, strict=True):
        share = equal_share(ours, theirs)
        yield at_least(f"seed {row.seed}, float32: equal up to the first difference", share, 1.0)
    share = equal_share(codes_of(context.planner(), rows[:1])[0], found[0])
    yield at_least("a song alone and in a batch: equal up to the first difference", share, 1.0)


@check("planner.text", "the planner's text on the device and on the CPU", 15)
def text(context: Context) -> Iterator[Line]:
    song = Song("slow jazz with a warm saxophone", metadata=Metadata(duration=20.0))
    rewrite = not context.quick
    found, expected = (
        plan(each, song, [5], rewrite_caption=rewrite) for each in (context.planner(), context.reference_planner)
    )
    yield is_true("metadata and caption, float32", found[0] == expected[0], no=f"{found[0].block} {expected[0].block}")


@check("planner.graphs", "CUDA graphs give the same audio codes and text", 20)
def graphs(context: Context) -> Iterator[Line]:
    if not context.device.has_graphs:
        raise NotHere(f"CUDA graphs need an NVIDIA GPU, and this is {context.torch_device}")
    rows = code_rows(6 if context.quick else 400, 1, 2)  # more than one length of the KV cache
    for dtype in dict.fromkeys((torch.float32, context.dtype)):
        with_graphs, without = (codes_of(context.planner(dtype=dtype), rows, graphs) for graphs in (True, False))
        share = min(equal_share(a, b) for a, b in zip(with_graphs, without, strict=True))
        yield at_least(f"{name_of(dtype)}: equal up to the first difference", share, 1.0)
    yield measured("different codes in a song", float(len(set(without[0]))))
    song = Song("slow jazz with a warm saxophone", metadata=Metadata(duration=20.0))
    planner = context.planner(dtype=context.dtype)
    found, expected = (
        plan(replace(planner, graphs=graphs), song, [5], rewrite_caption=not context.quick) for graphs in (True, False)
    )
    yield is_true("the text is the same", found == expected, no=f"{found[0].block} {expected[0].block}")


@check("planner.storage", "planner weights in int8 and fp8", 15)
def storage(context: Context) -> Iterator[Line]:
    rows = code_rows(4 if context.quick else 50, 3)
    for kind in ("int8", "fp8"):
        (expected,) = codes_of(load_planner("nano", device="cpu", dtype="float32", storage=kind), rows)
        (found,) = codes_of(context.planner(storage=kind), rows)
        share = equal_share(found, expected)
        yield at_least(f"{kind}, against the CPU: equal up to the first difference", share, 1.0)
