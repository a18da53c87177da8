"""Decode rows of text. A grammar on the host restricts each row. A run of forced tokens takes one forward pass.

The host waits for the device once per token of all rows, because the grammars need the chosen tokens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from .decode_batch import DecodeBatch, DecodeRun, TextRow, all_prompts, prompt_length
from .network import CACHE_GROWTH
from .rng import ChoiceNoise
from .token_choice import TokenChoice, TokenPicker
from .token_sampling import numbers_per_choice


class TextWriter:
    """One row of text: the state of its grammar and its tokens so far.

    max_tokens: the most tokens that the answer can have.
    """

    def __init__(self, run: DecodeRun, row: TextRow):
        block = row.grammar.max_tokens
        free = run.network.config.max_position_embeddings - prompt_length(row) - block
        max_lyrics = min(row.max_lyrics, free)
        self._state = row.grammar.start(max_lyrics)
        self.tokens = list(self._state.forced)
        self.max_tokens = block + (max_lyrics if row.grammar.then_lyrics else 0)

    @property
    def choice(self) -> TokenChoice | None:
        """The choice that comes next, or None if the text is complete."""
        return self._state.choice

    def write(self, token: int | None) -> list[int]:
        """Append the token of the choice, or end the text. Return it and the forced tokens after it."""
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
    prompts = [prompt + writer.tokens for prompt, writer in starts]
    batch = DecodeBatch(run, prompts, CACHE_GROWTH, slice(0, run.vocabulary.text_rows))
    lengths = [len(writer.tokens) for writer in writers]
    prefilled, step = time.perf_counter(), 0
    picker = TokenPicker(run.vocabulary.text_rows, run.sampling, run.device)
    seeds = [row.seed for row in rows] if run.sampling.temperature else []
    noise = ChoiceNoise(seeds, numbers_per_choice(run.vocabulary.text_rows), run.device)
    while any(choices := [writer.choice for writer in writers]):
        run.check()
        noise.prepare(step)
        tokens, finite = picker.pick(choices, batch.logits(batch.hidden), run.guided, noise.numbers(step))
        run.require_finite(finite)
        new = [writer.write(token) if writer.choice else [] for writer, token in zip(writers, tokens, strict=True)]
        lengths, step = [len(writer.tokens) for writer in writers], step + 1
        if any(writer.choice for writer in writers):
            batch.append(new * (1 + run.guided))
            run.report(max(lengths), total, sum(lengths))
    run.report(max(lengths), max(lengths), sum(lengths))  # only now is the real total known
    run.log_speed("text", sum(lengths), len(rows), prefilled - started, time.perf_counter() - prefilled)
    turn_end = run.vocabulary.turn_end
    return [writer.tokens[:-1] if writer.tokens[-1:] == [turn_end] else writer.tokens for writer in writers]
