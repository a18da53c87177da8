"""Decode token ids from prompts, any number of rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from ..callbacks import Callbacks
from ..errors import RequestError
from ..runtime.phase import phase
from .code_loop import decode_codes
from .decode_batch import CodeRow, DecodeRun, TextRow, prompt_length
from .load_planner import Planner
from .text_loop import decode_text
from .token_sampling import TokenSampling


def generate_tokens(
    planner: Planner,
    rows: Sequence[CodeRow] | Sequence[TextRow],
    sampling: TokenSampling,
    stage: str,
    callbacks: Callbacks | None = None,
) -> list[list[int]]:
    """Return the new token ids of each row: audio codes as ids, or text without the end of its turn.

    rows: either all or none have a negative prompt.
    stage: the name of this work in progress reports and in the log.
    callbacks: run before and after every token.

    Raises RequestError for a row that is longer than the context, NonFiniteError for NaN or infinite logits, and
    Cancelled.
    """
    if not rows:
        return []
    network, callbacks = planner.network, callbacks or Callbacks()
    guided = sampling.guided and rows[0].negative_prompt is not None
    callbacks.check(stage)
    for row in rows:
        _check_length(row, network.config.max_position_embeddings)
    with planner.placement.use(network) as device, phase(stage, device, network.dtype), torch.no_grad():
        run = DecodeRun(network, planner.vocabulary, sampling, callbacks, device, stage, guided, planner.graphs)
        if isinstance(rows[0], CodeRow):
            return decode_codes(run, cast("Sequence[CodeRow]", rows))
        return decode_text(run, cast("Sequence[TextRow]", rows))


def _check_length(row: CodeRow | TextRow, context: int) -> None:
    prompt = prompt_length(row)
    new = row.count if isinstance(row, CodeRow) else row.grammar.max_tokens
    if prompt + new > context:
        raise RequestError(
            f"prompt: {prompt} tokens and {new} new ones exceed the planner's context of {context} tokens; shorten the "
            "text or the duration"
        )
