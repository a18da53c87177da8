"""Decode rows of audio codes. The number of codes is known, so the host never waits for a token."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ..runtime.cuda_graphs import Pace
from .decode_batch import CodeRow, DecodeBatch, DecodeRun, all_prompts
from .rng import ChoiceNoise
from .token_sampling import choose_tokens, guide, numbers_per_choice

CHECK_EVERY = 32  # codes between two checks that all logits were finite


class CodeLoop:
    """The state of rows that receive codes: tensors on the device, changed in place by each step.

    codes: the codes so far, [rows, longest count].
    """

    def __init__(self, run: DecodeRun, batch: DecodeBatch, counts: list[int], noise: ChoiceNoise):
        device = run.device
        self._run, self._batch, self._noise = run, batch, noise
        self._starts = torch.tensor(batch.lengths, device=device)
        self._tokens = torch.zeros_like(self._starts)
        self._index = torch.zeros(1, dtype=torch.long, device=device)
        self._finite = torch.ones((), dtype=torch.bool, device=device)
        self._finite_copy = torch.ones((), dtype=torch.bool, pin_memory=device.type == "cuda")
        self._finite_on_host = self._finite_copy.numpy()  # shares the memory: reading it does not wait for the GPU
        self.codes = torch.zeros(len(counts), max(counts), dtype=torch.long, device=device)
        self._choose(batch.hidden)

    def step(self, extent: int) -> None:
        """Add a code to every row. Attention covers the first `extent` slots of the cache."""
        hidden = self._batch.forward(self._tokens[:, None], self._starts, extent)[:, 0]
        self._starts += 1
        self._choose(hidden)

    def _choose(self, hidden: Tensor) -> None:
        scores = self._batch.logits(hidden)
        self._finite &= torch.isfinite(scores).all()
        if self._run.guided:
            conditional, unconditional = scores.chunk(2)
            scores = guide(conditional, unconditional, self._run.sampling.guidance)
        chosen = choose_tokens(scores, self._run.sampling, self._noise.numbers(self._index))
        self.codes.index_copy_(1, self._index, chosen[:, None])
        self._tokens.copy_(chosen.repeat(len(self._tokens) // len(chosen)))
        self._index += 1

    def poll_finite(self) -> None:
        """Raise NonFiniteError if earlier logits were not finite. Does not wait for the device.

        A later call reads the copy that starts here.
        """
        self._finite_copy.copy_(self._finite, non_blocking=True)
        self._run.require_finite(bool(self._finite_on_host))

    def require_finite(self) -> None:
        """Raise NonFiniteError if logits were not finite. Waits for the device."""
        self._run.require_finite(bool(self._finite))


def decode_codes(run: DecodeRun, rows: Sequence[CodeRow]) -> list[list[int]]:
    """Return the token ids of each row's audio codes."""
    counts = [row.count for row in rows]
    base = run.vocabulary.audio_base
    count, started = max(counts), time.perf_counter()
    batch = DecodeBatch(run, all_prompts(rows, run.guided), count, slice(base, base + run.vocabulary.codes))
    prefilled, pace = time.perf_counter(), Pace(run.device)
    seeds = [row.seed for row in rows] if run.sampling.temperature else []
    noise = ChoiceNoise(seeds, numbers_per_choice(run.vocabulary.codes), run.device)
    noise.prepare(0)
    loop = CodeLoop(run, batch, counts, noise)
    loop.require_finite()
    run.report(1, count, len(rows))
    length = max(batch.lengths)
    for i in range(1, count):
        run.check()
        noise.prepare(i)
        extent = batch.extent(length + i)
        batch.run(extent, partial(loop.step, extent))
        pace()
        run.report(i + 1, count, sum(min(each, i + 1) for each in counts))
        if i % CHECK_EVERY == 0:
            loop.poll_finite()
    loop.require_finite()
    answers = [[base + code for code in codes[:n]] for codes, n in zip(loop.codes.tolist(), counts, strict=True)]
    run.log_speed("codes", sum(counts), len(rows), prefilled - started, time.perf_counter() - prefilled)
    return answers
