"""Decode rows of text. A grammar on the host restricts each row. A run of forced tokens takes one forward pass."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from .decode_batch import DecodeBatch, DecodeRun, TextRow, all_prompts, prompt_length
from .network import CACHE_GROWTH
from .rng import RowRng
from .token_sampling import TokenSampling


class TextWriter:
    """One row of text: the state of its grammar, its tokens so far, and its random numbers.

    max_tokens: the most tokens that the answer can have.
    """

    def __init__(self, run: DecodeRun, row: TextRow):
        block = row.grammar.max_tokens
        free = run.network.config.max_position_embeddings - prompt_length(row) - block
        max_lyrics = min(row.max_lyrics, free)
        self._state = row.grammar.start(max_lyrics)
        self._rng = RowRng(row.seed)
        self.tokens = list(self._state.forced)
        self.max_tokens = block + (max_lyrics if row.grammar.then_lyrics else 0)

    @property
    def done(self) -> bool:
        return self._state.choice is None

    def write(self, scores: Tensor, unconditional: Tensor | None, sampling: TokenSampling) -> list[int]:
        """Choose among logits [text rows]. Return the chosen token and the forced tokens after it."""
        assert self._state.choice is not None
        token = self._state.choice.pick(scores, unconditional, sampling, self._rng)
        self._state.advance(token)
        new = [*([] if token is None else [token]), *self._state.forced]
        self.tokens += new
        return new


def decode_text(run: DecodeRun, rows: Sequence[TextRow]) -> list[list[int]]:
    """Return the token ids of each row's text, without the end of its turn."""
    writers = [TextWriter(run, row) for row in rows]
    # The tokens that the grammar forces at the start are computed with the prompt.
    starts = zip(all_prompts(rows, run.guided), writers * (1 + run.guided), strict=True)
    total, started = max(writer.max_tokens for writer in writers), time.perf_counter()
    batch = DecodeBatch(run, [prompt + writer.tokens for prompt, writer in starts], spare=CACHE_GROWTH)
    lengths = [len(writer.tokens) for writer in writers]
    head = run.network.head(slice(0, run.vocabulary.text_rows), run.device)
    prefilled, count = time.perf_counter(), len(rows)
    while not all(writer.done for writer in writers):
        run.check()
        scores = run.network.logits(batch.hidden, head)
        new: list[list[int]] = [[] for _ in batch.lengths]
        for i, writer in enumerate(writers):
            if not writer.done:
                run.require_finite(bool(torch.isfinite(scores[i::count]).all()))
                new[i] = writer.write(scores[i], scores[count + i] if run.guided else None, run.sampling)
        if run.guided:
            new[count:] = new[:count]
        lengths = [len(writer.tokens) for writer in writers]
        if not all(writer.done for writer in writers):
            batch.append(new)
            run.report(max(lengths), total, sum(lengths))
    run.report(max(lengths), max(lengths), sum(lengths))  # only now is the real total known
    run.log_speed("text", sum(lengths), count, prefilled - started, time.perf_counter() - prefilled)
    turn_end = run.vocabulary.turn_end
    return [writer.tokens[:-1] if writer.tokens[-1:] == [turn_end] else writer.tokens for writer in writers]
