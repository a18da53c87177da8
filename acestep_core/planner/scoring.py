"""Score how well audio codes fit a song, with the planner's understanding prompt.

A text's likelihood given the codes is compared with its likelihood without codes. Otherwise common text would win.
Formulas and weights are those of ACE-Step 1.5's test-time scaling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..callbacks import Callbacks
from ..errors import RequestError
from ..runtime.phase import phase
from ..song.codes import Codes
from ..song.song import Song
from . import chat_prompts as prompts
from .load_planner import Planner
from .metadata_text import Block, song_block, write_block
from .network import PREFILL_CHUNK, KVCache, PlannerNetwork
from .planning import CODING, SongPlan, plan_codes
from .token_sampling import TokenSampling
from .vocabulary import Vocabulary

CAPTION_WEIGHT, LYRICS_WEIGHT, METADATA_WEIGHT = 0.5, 0.3, 0.2  # scaled to sum to 1 over the parts that a song has
PMI_SCALE = 0.1
RECALL_RANKS = 10  # a token scores if it is among this many likeliest tokens
STAGE = "score"
POSITIONS = 64  # tokens whose logits over the whole vocabulary are in memory at once


@dataclass(frozen=True)
class Score:
    """The fit of audio codes to a song, from 0 to 1. None stands for a part that the song does not have.

    caption, lyrics: rise of the text's likelihood by the codes; 0.5 is no change.
    metadata: recall of each value, by the planner's field names.
    """

    caption: float | None
    lyrics: float | None
    metadata: Mapping[str, float] = field(default_factory=dict)

    @property
    def reward(self) -> float:
        """The weighted mean of all parts; 0 if the song has none."""
        metadata = sum(self.metadata.values()) / len(self.metadata) if self.metadata else None
        parts = [(CAPTION_WEIGHT, self.caption), (LYRICS_WEIGHT, self.lyrics), (METADATA_WEIGHT, metadata)]
        weight = sum(share for share, value in parts if value is not None)
        return sum(share * value for share, value in parts if value is not None) / weight if weight else 0.0


@dataclass(frozen=True)
class RankedCodes:
    """Audio codes and their score.

    seed: generates the codes again.
    song: the planned song that the codes belong to.
    """

    codes: Codes
    seed: int
    score: Score
    song: Song


def best_codes(
    planner: Planner,
    songs: Song | SongPlan | Sequence[SongPlan],
    seeds: Sequence[int],
    *,
    sampling: TokenSampling = CODING,
    negative_prompt: str = "",
    callbacks: Callbacks | None = None,
) -> list[RankedCodes]:
    """Return codes for each seed, the best first. The codes are those of `plan_codes`.

    songs: one song, or one plan of the same song for each seed. The scored text is the user's, not the planner's.

    Raises the errors of `plan_codes`.
    """
    codes = plan_codes(planner, songs, seeds, sampling=sampling, negative_prompt=negative_prompt, callbacks=callbacks)
    plans = list(songs) if isinstance(songs, Sequence) else [songs] * len(seeds)
    request = plans[0].request if isinstance(plans[0], SongPlan) else plans[0]
    scores = score_codes(planner, codes, request, callbacks=callbacks)
    planned = [item.song if isinstance(item, SongPlan) else item for item in plans]
    ranked = [RankedCodes(*item) for item in zip(codes, seeds, scores, planned, strict=True)]
    return sorted(ranked, key=lambda item: -item.score.reward)


def score_codes(
    planner: Planner, candidates: Sequence[Codes], song: Song, *, callbacks: Callbacks | None = None
) -> list[Score]:
    """Return the score of each candidate as the codes of `song`.

    Raises RequestError for a candidate without codes or a song that exceeds the planner's context, and Cancelled.
    """
    if not all(candidates):
        raise RequestError("candidates: one of them has no audio codes; only codes can be scored")
    vocabulary, callbacks = planner.vocabulary, callbacks or Callbacks()
    texts, values = _text_targets(vocabulary, song), _metadata_targets(vocabulary, song)
    network = planner.network
    with torch.inference_mode(), planner.placement.use(network) as device, phase(STAGE, device, network.dtype):
        evaluator = _Evaluator(network, device, callbacks)
        prior = evaluator.measure(prompts.understand_prompt(vocabulary, ()), texts)
        scores = []
        for i, candidate in enumerate(candidates):
            found = evaluator.measure(prompts.understand_prompt(vocabulary, candidate), {**texts, **values})
            pmi = {name: _sigmoid((found[name].likelihood - prior[name].likelihood) / PMI_SCALE) for name in texts}
            recall = {name: found[name].recall for name in values}
            scores.append(Score(pmi.get("caption"), pmi.get("lyrics"), recall))
            callbacks.report(STAGE, i + 1, len(candidates))
    return scores


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-max(min(x, 500.0), -500.0)))


def _text_targets(vocabulary: Vocabulary, song: Song) -> dict[str, list[int]]:
    """Return the token ids of the caption and the lyrics, if the song has them."""
    targets = {}
    if song.caption.strip():
        targets["caption"] = _reasoning(vocabulary, {"caption": song.caption})
    if song.lyrics.strip():
        targets["lyrics"] = _reasoning(vocabulary, {}, f"\n# Lyric\n{song.lyrics}\n")
    return targets


def _metadata_targets(vocabulary: Vocabulary, song: Song) -> dict[str, list[int]]:
    """Return the token ids of each metadata value, by the planner's field names."""
    return {name: _reasoning(vocabulary, {name: value}) for name, value in song_block(song).items()}


def _reasoning(vocabulary: Vocabulary, block: Block, after: str = "\n") -> list[int]:
    text = write_block(block)
    inner = vocabulary.encode(f"\n{text}\n" if text else "\n")
    return [vocabulary.think, *inner, vocabulary.think_end, *vocabulary.encode(after)]


@dataclass(frozen=True)
class _Measure:
    """likelihood: mean log-probability of the tokens. recall: mean of 1 for the likeliest token, 0.9 for the next, …"""

    likelihood: float
    recall: float


class _Evaluator:
    """Measure texts as answers to a prompt. The prompt is computed once; each text overwrites the cache after it."""

    def __init__(self, network: PlannerNetwork, device: torch.device, callbacks: Callbacks):
        self._network, self._device, self._callbacks = network, device, callbacks
        self._head = network.head(slice(0, network.config.vocab_size), device)

    def measure(self, prompt: list[int], texts: Mapping[str, list[int]]) -> dict[str, _Measure]:
        length = len(prompt) + max(map(len, texts.values()), default=0)
        context = self._network.config.max_position_embeddings
        if length > context:
            raise RequestError(
                f"song: scoring takes {length} tokens, and the planner's context holds {context}; shorten the "
                "lyrics or the codes"
            )
        cache = self._network.cache(1, length, self._device)
        last = self._states(prompt, 0, cache)[:, -1:]
        return {name: self._measure(last, text, len(prompt), cache) for name, text in texts.items()}

    def _states(self, ids: list[int], start: int, cache: KVCache) -> Tensor:
        """Return hidden states [1, P, h] of `ids` from position `start` on."""
        states = []
        for first in range(0, len(ids), PREFILL_CHUNK):
            self._callbacks.check(STAGE)
            tokens = torch.tensor([ids[first : first + PREFILL_CHUNK]], device=self._device)
            position = torch.tensor([start + first], device=self._device)
            states.append(self._network(tokens, position, cache, start + first + tokens.shape[1]))
        return torch.cat(states, dim=1)

    def _measure(self, last: Tensor, text: list[int], start: int, cache: KVCache) -> _Measure:
        states = torch.cat((last, self._states(text, start, cache)[:, :-1]), dim=1)[0]
        targets = torch.tensor(text, device=self._device)[:, None]
        likelihood, recall = 0.0, 0.0
        for rows, ids in zip(states.split(POSITIONS), targets.split(POSITIONS), strict=True):
            self._callbacks.check(STAGE)
            scores = self._network.logits(rows, self._head)
            own = scores.gather(1, ids)
            likelihood += float((own - scores.logsumexp(1, keepdim=True)).sum())
            rank = (scores > own).sum(1)
            recall += float((1 - rank / RECALL_RANKS).clamp(min=0).sum())
        return _Measure(likelihood / len(text), recall / len(text))
