"""The decoding loop: prompts in, token ids out, for any number of rows at once.

Rows that make audio codes know how many, so their loop never looks at a token on the host. Rows that write text are led
by a grammar each, on the host, and advance by different numbers of tokens: what the grammar forces goes through the
network in one forward.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from ..callbacks import Callbacks
from ..errors import NonFiniteError, RequestError
from ..runtime.cuda_graphs import Pace, can_capture
from .decode_graph import Recorded, in_buckets
from .grammar import Grammar, State, free_text
from .network import PREFILL, ROOM, PlannerNetwork, logits
from .random_numbers import Dice, exponential, rolls
from .token_sampling import Sampling, choose, guide
from .vocabulary import Vocabulary

log = logging.getLogger("acestep")

LOOK_EVERY = 32  # tokens: how often the code loop asks whether all is well


@dataclass(frozen=True)
class Row:
    """One answer to make. With `codes`: exactly that many audio codes. With a `grammar`: what it allows. With neither:
    plain text.

    seed: decides every choice of this row, whatever other rows there are.
    negative: the prompt to be guided away from, where `Sampling.guidance` is above 1.
    limit: most tokens of free text.
    """

    prompt: list[int]
    seed: int
    grammar: Grammar | None = None
    codes: int | None = None
    negative: list[int] | None = None
    limit: int = 4096


@dataclass(frozen=True)
class Ways:
    """How to run, never what comes out.

    together: guided rows and their unguided twins in one forward. Some ROCm cards are faster with two.
    graphs: record the code loop's step where there are CUDA graphs.
    """

    together: bool = True
    graphs: bool = True


@dataclass(frozen=True)
class Run:
    """What every part of one call needs to know."""

    network: PlannerNetwork
    vocabulary: Vocabulary
    sampling: Sampling
    callbacks: Callbacks
    ways: Ways
    device: torch.device
    stage: str

    def check(self) -> None:
        self.callbacks.check(self.stage)

    def report(self, step: int, total: int, tokens: int) -> None:
        self.callbacks.report(self.stage, step, total, tokens=tokens)


@torch.no_grad()
def generate(
    network: PlannerNetwork,
    vocabulary: Vocabulary,
    rows: Sequence[Row],
    *,
    sampling: Sampling | None = None,
    callbacks: Callbacks | None = None,
    ways: Ways | None = None,
    device: torch.device | None = None,
    stage: str = "plan",
) -> list[list[int]]:
    """The new token ids of each row: audio codes as ids, text without the end of its turn.

    `device`: where to compute; by default where the network's weights are. The callbacks run before and
    after every token; `stage` is what they call it. Raises RequestError for a row that the context does not hold,
    NonFiniteError when the network gives NaN or infinity, Cancelled.
    """
    run = Run(
        network,
        vocabulary,
        sampling or Sampling(),
        callbacks or Callbacks(),
        ways or Ways(),
        device or network.embed_tokens.weight.device,
        stage,
    )
    groups: dict[tuple[bool, bool], list[int]] = {}
    for index, row in enumerate(rows):
        _check(row, network)
        guided = run.sampling.guided and row.negative is not None
        groups.setdefault((row.codes is not None, guided), []).append(index)
    done: dict[int, list[int]] = {}
    for (codes, guided), indices in groups.items():
        made = (_codes if codes else _texts)(run, [rows[i] for i in indices], guided)
        done |= zip(indices, made, strict=True)
    return [done[i] for i in range(len(rows))]


def _check(row: Row, network: PlannerNetwork) -> None:
    if row.codes is not None and (row.grammar is not None or row.codes < 1):
        raise RequestError(f"a row makes text, or at least one audio code; got {row.codes} codes")
    if not row.prompt or row.negative == []:
        raise RequestError("a prompt for the planner needs at least one token")
    new = row.codes if row.codes is not None else 1 if row.grammar is None else row.grammar.longest
    if _longest_prompt(row) + new > network.config.max_position_embeddings:
        raise RequestError(
            f"the planner's context holds {network.config.max_position_embeddings} tokens, but the prompt has "
            f"{_longest_prompt(row)} and {new} more are to come; shorten the text or the song"
        )


def _longest_prompt(row: Row) -> int:
    return max(len(row.prompt), len(row.negative or ()))


class Batch:
    """Rows in one cache: those of the prompts first, then, where guided, those of the negative prompts.

    lengths: tokens of each row in the cache. hidden: final state of each row's last token, [rows, h].
    """

    def __init__(self, run: Run, prompts: list[list[int]], parts: int, room: int):
        self._run = run
        self.lengths = [len(prompt) for prompt in prompts]
        size = len(prompts) // parts if not run.ways.together else len(prompts)
        self._parts = [slice(start, start + size) for start in range(0, len(prompts), size)]
        self.cache = run.network.cache(len(prompts), max(self.lengths) + room, run.device)
        self.hidden = self._prefill(prompts)

    def _prefill(self, prompts: list[list[int]]) -> Tensor:
        """Each different prompt goes through the network once and alone, so none is padded; its rows get copies."""
        different = list(dict.fromkeys(map(tuple, prompts)))
        hidden = torch.cat([self._prefill_row(row, list(prompt)) for row, prompt in enumerate(different)])
        sources = [different.index(tuple(prompt)) for prompt in prompts]
        if sources != list(range(len(prompts))):
            self.cache.copy_rows(sources, max(self.lengths))
        return hidden[sources]

    def _prefill_row(self, row: int, prompt: list[int]) -> Tensor:
        run, cache = self._run, self.cache.rows(slice(row, row + 1))
        for start in range(0, len(prompt), PREFILL):
            run.check()
            tokens = torch.tensor([prompt[start : start + PREFILL]], device=run.device)
            at = torch.tensor([start], device=run.device)
            hidden = run.network(tokens, at, cache, start + tokens.shape[1])
        return hidden[:, -1]

    def forward(self, tokens: Tensor, starts: Tensor, extent: int) -> Tensor:
        """Final states [rows, P, h] of tokens [rows, P] that stand at `starts` [rows]; see PlannerNetwork.forward."""
        network, cache = self._run.network, self.cache
        return torch.cat([network(tokens[part], starts[part], cache.rows(part), extent) for part in self._parts])

    def extent(self, length: int) -> int:
        """How many slots to look at for so many tokens; those beyond a row's own are masked."""
        return length if self._run.device.type == "cpu" else in_buckets(length, self.cache.capacity)

    def feed(self, tokens: list[list[int]]) -> None:
        """Appends to each row its own number of tokens; an empty list leaves a row alone, its state meaningless."""
        device, longest = self._run.device, max(map(len, tokens))
        extent = max(self.lengths) + longest
        self.cache.reserve(extent)
        padded = torch.tensor([new + [0] * (longest - len(new)) for new in tokens], device=device)
        hidden = self.forward(padded, torch.tensor(self.lengths, device=device), self.extent(extent))
        last = torch.tensor([max(len(new), 1) - 1 for new in tokens], device=device)
        self.hidden = hidden[torch.arange(len(tokens), device=device), last]
        self.lengths = [length + len(new) for length, new in zip(self.lengths, tokens, strict=True)]


# --- audio codes ------------------------------------------------------------------------------------------------------


class CodeLoop:
    """The state of rows that make codes, in tensors on the device that each step changes in place."""

    def __init__(self, run: Run, batch: Batch, rows: Sequence[Row], guided: bool, rolled: Iterator[Tensor]):
        base, count, device = run.vocabulary.audio_base, max(row.codes for row in rows), run.device
        self._batch, self._sampling, self._guided, self._base = batch, run.sampling, guided, base
        self._head = run.network.head(slice(base, base + run.vocabulary.codes), device)
        self._rolled = rolled
        self._uniform = next(rolled).to(device, copy=True)
        self._starts = torch.tensor(batch.lengths, device=device)
        self._tokens = torch.zeros_like(self._starts)
        self._index = torch.zeros(1, dtype=torch.long, device=device)
        self._finite = torch.ones((), dtype=torch.bool, device=device)
        self._told = torch.ones((), dtype=torch.bool, pin_memory=device.type == "cuda")
        self._heard = self._told.numpy()  # the same memory; reading it asks nobody
        self.codes = torch.zeros(len(rows), count, dtype=torch.long, device=device)
        self.choose(batch.hidden)

    def roll(self) -> None:
        """Random numbers for the next code, on their way while the device is at the last one."""
        self._uniform.copy_(next(self._rolled), non_blocking=True)

    def step(self, extent: int) -> None:
        """One more code for every row; the cache is looked at up to slot `extent`."""
        hidden = self._batch.forward(self._tokens[:, None], self._starts, extent)[:, 0]
        self._starts += 1
        self.choose(hidden)

    def choose(self, hidden: Tensor) -> None:
        scores = logits(hidden, self._head)
        self._finite &= torch.isfinite(scores).all()
        if self._guided:
            scores = guide(*scores.chunk(2), self._sampling.guidance)
        chosen = choose(scores, self._sampling, exponential(self._uniform))
        self.codes.index_copy_(1, self._index, chosen[:, None])
        self._tokens.copy_((chosen + self._base).repeat(len(self._tokens) // len(chosen)))
        self._index += 1

    def look(self) -> None:
        """Raises NonFiniteError when the device was known to have met one by the last look, without waiting for it:
        what it tells now may arrive a token later."""
        self._told.copy_(self._finite, non_blocking=True)
        _require_finite(bool(self._heard), self._batch.hidden.dtype)

    def require_finite(self) -> None:
        _require_finite(bool(self._finite), self._batch.hidden.dtype)


def _codes(run: Run, rows: Sequence[Row], guided: bool) -> list[list[int]]:
    prompts = [row.prompt for row in rows] + [row.negative for row in rows if guided]
    counts = [row.codes for row in rows]
    count, started = max(counts), time.perf_counter()
    batch = Batch(run, prompts, 1 + guided, room=count)
    prefilled, pace = time.perf_counter(), Pace(run.device)
    seeds, device = [row.seed for row in rows] if run.sampling.temperature else [], run.device.type
    drawn = rolls(seeds, run.vocabulary.codes, count, ahead=device != "cpu", pinned=device == "cuda")
    with closing(drawn):
        loop = CodeLoop(run, batch, rows, guided, drawn)
        loop.require_finite()
        run.report(1, count, len(rows))
        step = loop.step
        if run.ways.graphs and can_capture(run.device, run.network):
            step = Recorded(step, run.device)
        length = max(batch.lengths)
        for i in range(1, count):
            run.check()
            loop.roll()
            step(batch.extent(length + i))
            pace()
            run.report(i + 1, count, sum(min(each, i + 1) for each in counts))
            if i % LOOK_EVERY == 0:
                loop.look()
    loop.require_finite()
    base = run.vocabulary.audio_base
    made = [[base + code for code in codes[:n]] for codes, n in zip(loop.codes.tolist(), counts, strict=True)]
    _log_speed(run, "codes", sum(counts), len(rows), prefilled - started, time.perf_counter() - prefilled)
    return made


# --- text -------------------------------------------------------------------------------------------------------------


class Writer:
    """One row that writes text: its grammar's state, what it has written, and its dice."""

    def __init__(self, state: State, seed: int, most: int):
        self.state = state
        self.written = list(state.forced)
        self.most = most
        self._dice = Dice(seed)

    @property
    def done(self) -> bool:
        return self.state.choice is None

    def write(self, given: Tensor, negative: Tensor | None, sampling: Sampling) -> list[int]:
        """Chooses among logits [text rows]; returns the tokens to go on with: the choice and what it entails."""
        token = self.state.choice.pick(given, negative, sampling, self._dice)
        self.state.take(token)
        new = [*([] if token is None else [token]), *self.state.forced]
        self.written += new
        return new


def _writer(run: Run, row: Row) -> Writer:
    block = 0 if row.grammar is None else row.grammar.longest
    limit = min(row.limit, run.network.config.max_position_embeddings - _longest_prompt(row) - block)
    state = free_text(run.vocabulary, limit) if row.grammar is None else row.grammar.start(limit)
    free = limit if row.grammar is None or row.grammar.then_lyrics else 0
    return Writer(state, row.seed, block + free)


def _texts(run: Run, rows: Sequence[Row], guided: bool) -> list[list[int]]:
    writers = [_writer(run, row) for row in rows]
    # What the grammar begins with goes along with the prompt.
    prompts = [row.prompt for row in rows] + [row.negative for row in rows if guided]
    prompts = [prompt + writer.written for prompt, writer in zip(prompts, writers * (1 + guided), strict=True)]
    total, started = max(writer.most for writer in writers), time.perf_counter()
    batch = Batch(run, prompts, 1 + guided, room=ROOM)
    head = run.network.head(slice(0, run.vocabulary.text_rows), run.device)
    prefilled, count = time.perf_counter(), len(rows)
    while not all(writer.done for writer in writers):
        run.check()
        scores = logits(batch.hidden, head)
        new: list[list[int]] = [[] for _ in batch.lengths]
        for b, writer in enumerate(writers):
            if not writer.done:
                _require_finite(bool(torch.isfinite(scores[b::count]).all()), batch.hidden.dtype)
                new[b] = writer.write(scores[b], scores[count + b] if guided else None, run.sampling)
        if guided:
            new[count:] = new[:count]
        if not all(writer.done for writer in writers):
            batch.feed(new)
            run.report(_longest(writers), total, _tokens(writers))
    tokens = _tokens(writers)
    run.report(_longest(writers), _longest(writers), tokens)  # text ends when it likes, and all of it is there
    _log_speed(run, "text", tokens, count, prefilled - started, time.perf_counter() - prefilled)
    return [_without_end(writer.written, run.vocabulary.turn_end) for writer in writers]


def _longest(writers: Sequence[Writer]) -> int:
    return max(len(writer.written) for writer in writers)


def _tokens(writers: Sequence[Writer]) -> int:
    return sum(len(writer.written) for writer in writers)


def _without_end(tokens: list[int], turn_end: int) -> list[int]:
    return tokens[:-1] if tokens[-1:] == [turn_end] else tokens


def _require_finite(finite: bool, dtype: torch.dtype) -> None:
    if not finite:
        raise NonFiniteError(
            f"the planner gave NaN or infinity in {dtype}: run it in bfloat16 or float32, or load the file again if it "
            "may be damaged"
        )


def _log_speed(run: Run, what: str, tokens: int, rows: int, prefill: float, seconds: float) -> None:
    log.info(
        "%s: %d tokens of %s in %d rows: %.2f s, %.1f tokens/s, after %.2f s for the prompts, %s, %s",
        run.stage,
        tokens,
        what,
        rows,
        seconds,
        tokens / max(seconds, 1e-9),
        prefill,
        run.device,
        str(run.network.dtype).removeprefix("torch."),
    )
