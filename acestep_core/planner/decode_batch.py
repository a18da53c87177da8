"""Rows to decode, and the KV cache that they share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from ..callbacks import Callbacks
from ..errors import NonFiniteError
from ..runtime.cuda_graphs import StepGraphs, can_capture
from ..runtime.devices import send
from .grammar import Grammar
from .network import CACHE_GROWTH, PREFILL_CHUNK, PlannerNetwork
from .token_sampling import TokenSampling
from .vocabulary import Vocabulary

log = logging.getLogger("acestep")

Result = TypeVar("Result")

SMALLEST_EXTENT = 256


@dataclass(frozen=True)
class CodeRow:
    """An answer of exactly `count` audio codes.

    prompt, negative_prompt: token ids. Guidance moves away from the negative prompt.
    seed: decides every choice of this row, independently of other rows.
    """

    prompt: list[int]
    seed: int
    count: int
    negative_prompt: list[int] | None = None


@dataclass(frozen=True)
class TextRow:
    """An answer of text that `grammar` allows. See CodeRow for the other fields.

    max_lyrics: the most tokens of free text after the reasoning block. Training lyrics have up to 4096.
    """

    prompt: list[int]
    seed: int
    grammar: Grammar
    negative_prompt: list[int] | None = None
    max_lyrics: int = 4096


@dataclass(frozen=True)
class DecodeRun:
    """The settings of one decoding run.

    stage: the run's name in progress reports and in the log.
    guided: the negative prompts are decoded as well, as additional rows.
    """

    network: PlannerNetwork
    vocabulary: Vocabulary
    sampling: TokenSampling
    callbacks: Callbacks
    device: torch.device
    stage: str
    guided: bool
    graphs: bool

    def check(self) -> None:
        self.callbacks.check(self.stage)

    def report(self, step: int, total: int, tokens: int) -> None:
        self.callbacks.report(self.stage, step, total, tokens=tokens)

    def require_finite(self, finite: bool) -> None:
        if not finite:
            raise NonFiniteError(
                f"planner: NaN or infinity in {self.network.dtype}; use bfloat16 or float32. If the error "
                "remains, download the file again"
            )

    def log_speed(self, kind: str, tokens: int, rows: int, prefill: float, seconds: float) -> None:
        """Log the speed of a finished run: `prefill` seconds for the prompts, `seconds` for the new tokens."""
        speed = f"{seconds:.2f} s, {tokens / max(seconds, 1e-9):.1f} tokens/s, after {prefill:.2f} s for the prompts"
        dtype = str(self.network.dtype).removeprefix("torch.")
        log.info(
            "%s: %d tokens of %s in %d rows: %s, %s, %s", self.stage, tokens, kind, rows, speed, self.device, dtype
        )


def prompt_length(row: CodeRow | TextRow) -> int:
    """Return the number of tokens of a row's longer prompt."""
    return max(len(row.prompt), len(row.negative_prompt or ()))


def all_prompts(rows: Sequence[CodeRow] | Sequence[TextRow], guided: bool) -> list[list[int]]:
    """Return the prompts of all rows. If `guided`, their negative prompts follow."""
    negative = [row.negative_prompt for row in rows if row.negative_prompt] if guided else []
    return [row.prompt for row in rows] + negative


class DecodeBatch:
    """Rows in one KV cache.

    head: the rows of the output head for the tokens that can follow, [n, h].
    lengths: the number of tokens of each row.
    hidden: the final hidden state of each row's last token, [rows, h].
    """

    def __init__(self, run: DecodeRun, prompts: list[list[int]], spare: int, head: slice):
        """Compute the prompts. The cache gets `spare` more slots than the longest prompt needs.

        head: the ids of the tokens that can follow.
        """
        self._run = run
        self.lengths = [len(prompt) for prompt in prompts]
        capacity = max(self.lengths) + spare
        if run.device.type != "cpu":
            capacity += -capacity % CACHE_GROWTH  # then attention can be split into equal chunks up to the end
        self.cache = run.network.cache(len(prompts), capacity, run.device)
        self.hidden = self._prefill(prompts)
        self.head = run.network.head(head, run.device)
        captures = run.graphs and can_capture(run.device, run.network)
        self._graphs = StepGraphs(run.device, run.callbacks.warn) if captures else None
        self._inputs = torch.zeros(len(prompts), 3, dtype=torch.long, device=run.device)

    def _prefill(self, prompts: list[list[int]]) -> Tensor:
        """Compute each distinct prompt once, without padding, and copy its cache to the other rows with that prompt."""
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        hidden = torch.cat([self._prefill_row(row, list(prompt)) for row, prompt in enumerate(distinct)])
        sources = [distinct.index(tuple(prompt)) for prompt in prompts]
        if sources != list(range(len(prompts))):
            self.cache.copy_rows(sources, max(self.lengths))
        return hidden[sources]

    def _prefill_row(self, row: int, prompt: list[int]) -> Tensor:
        run, cache = self._run, self.cache.rows(slice(row, row + 1))
        for start in range(0, len(prompt), PREFILL_CHUNK):
            run.check()
            tokens = send(torch.tensor([prompt[start : start + PREFILL_CHUNK]]), run.device)
            position = torch.full((1,), start, device=run.device)
            hidden = run.network(tokens, position, cache, start + tokens.shape[1])
        return hidden[:, -1]

    def run(self, key: Hashable, step: Callable[[], Result]) -> Result:
        """Run a step, as a CUDA graph if the device can. See StepGraphs.

        A step launches about 500 kernels, and launching them takes most of its time. A graph is one launch.
        """
        return step() if self._graphs is None else self._graphs(key, step)

    def forward(self, tokens: Tensor, starts: Tensor, extent: int) -> Tensor:
        """Return final hidden states [rows, P, h] of tokens [rows, P] at positions from `starts` [rows] on.

        Tokens count from the first row of `head`. Attention covers the first `extent` slots of the cache.
        """
        return self._run.network(tokens, starts, self.cache, extent, self.head)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 logits [rows, n] of hidden states [rows, h] over the rows of `head`."""
        return self._run.network.logits(hidden, self.head)

    def extent(self, length: int) -> int:
        """Return the number of slots that attention covers for rows of up to `length` tokens.

        On an accelerator this is a power of two, as each new extent takes up to half a second: a CUDA graph is
        captured, or cuDNN plans its attention. Attention masks unwritten slots, but reads them: at most as many as
        written ones.
        """
        if self._run.device.type == "cpu":
            return length
        return min(max(SMALLEST_EXTENT, 1 << (length - 1).bit_length()), self.cache.capacity)

    def append(self, tokens: list[list[int]]) -> None:
        """Append `tokens[i]` to row i. Tokens count from the first row of `head`.

        The hidden state of a row without new tokens is meaningless.
        """
        longest = max(map(len, tokens))
        length = max(self.lengths) + longest
        self.cache.reserve(length)
        rows = [
            [start, max(len(new), 1) - 1, *new, *[0] * (longest - len(new))]
            for start, new in zip(self.lengths, tokens, strict=True)
        ]
        sent, extent = send(torch.tensor(rows), self._run.device), self.extent(length)  # one transfer for all
        if longest == 1:
            self._inputs.copy_(sent)
            self.hidden = self.run((extent, self.cache.capacity), partial(self._append_one, extent))
        else:
            hidden = self.forward(sent[:, 2:], sent[:, 0], extent)
            self.hidden = hidden.take_along_dim(sent[:, 1, None, None], 1)[:, 0]
        self.lengths = [length + len(new) for length, new in zip(self.lengths, tokens, strict=True)]

    def _append_one(self, extent: int) -> Tensor:
        return self.forward(self._inputs[:, 2:], self._inputs[:, 0], extent)[:, 0]
