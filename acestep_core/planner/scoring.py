"""How well audio codes say what a song says: the planner's understanding, asked backwards.

Given the codes, how likely are the song's caption, lyrics and facts? A part's likelihood is compared with what it is
without the codes, so that no part wins by being common. Formulas and weights are those of ACE-Step 1.5's own test-time
scaling.
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
from .functions import CODING, Planned, codes
from .load_planner import Planner
from .metadata_text import given_block, write_block
from .network import PREFILL, Cache, PlannerNetwork, logits
from .token_sampling import Sampling
from .vocabulary import Vocabulary

CAPTION, LYRICS, METADATA_FIELDS = 0.5, 0.3, 0.2  # weights of the reward, shared anew among the parts that a song has
PMI_SCALE = 0.1
RECALL = 10  # a token counts when it is among so many likeliest
STAGE = "score"
POSITIONS = 64  # tokens whose logits over the whole vocabulary are in memory at a time


@dataclass(frozen=True)
class Score:
    """Each from 0 to 1, higher is better; None for a part that the song does not have.

    caption, lyrics: how much likelier the codes make them; 0.5 is no difference. facts: how well the codes tell each
    one, by the planner's field names.
    """

    caption: float | None
    lyrics: float | None
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def reward(self) -> float:
        """All in one number; 0 when there was nothing to compare."""
        facts = sum(self.facts.values()) / len(self.facts) if self.facts else None
        parts = [(CAPTION, self.caption), (LYRICS, self.lyrics), (METADATA_FIELDS, facts)]
        weight = sum(share for share, value in parts if value is not None)
        return sum(share * value for share, value in parts if value is not None) / weight if weight else 0.0


@dataclass(frozen=True)
class Ranked:
    """Codes and their score. song: what they are the codes of, planned. seed: makes them again."""

    codes: Codes
    seed: int
    score: Score
    song: Song


def best_codes(
    planner: Planner,
    songs: Song | Planned | Sequence[Planned],
    seeds: Sequence[int],
    *,
    sampling: Sampling = CODING,
    negative: str = "",
    legacy: bool = False,
    callbacks: Callbacks | None = None,
) -> list[Ranked]:
    """Codes for each seed, written in one batch as `codes` does, of one song or of as many plans of it; the best come
    first."""
    written = codes(planner, songs, seeds, sampling=sampling, negative=negative, legacy=legacy, callbacks=callbacks)
    plans = list(songs) if isinstance(songs, Sequence) else [songs] * len(seeds)
    # What was asked for is what the codes are measured by, not the planner's own words for it.
    scores = score(planner, written, plans[0] if isinstance(plans[0], Song) else plans[0].asked, callbacks=callbacks)
    planned = [item if isinstance(item, Song) else item.song for item in plans]
    ranked = [Ranked(*item) for item in zip(written, seeds, scores, planned, strict=True)]
    return sorted(ranked, key=lambda item: -item.score.reward)


def score(
    planner: Planner, candidates: Sequence[Codes], song: Song, *, callbacks: Callbacks | None = None
) -> list[Score]:
    """The score of each candidate's codes as codes of `song`."""
    if not all(candidates):
        raise RequestError("only audio codes can be scored, and one of the candidates has none")
    vocabulary, callbacks = planner.vocabulary, callbacks or Callbacks()
    targets = _targets(vocabulary, song)
    network = planner.network
    with torch.inference_mode(), planner.placement.use(network) as device, phase(STAGE, device, network.dtype):
        reader = _Reader(network, device, callbacks)
        prior = reader.read(prompts.understand_prompt(vocabulary, ()), targets.texts)
        scores = []
        for done, candidate in enumerate(candidates):
            found = reader.read(prompts.understand_prompt(vocabulary, candidate), {**targets.texts, **targets.facts})
            pmi = {
                name: _sigmoid((found[name].likelihood - prior[name].likelihood) / PMI_SCALE) for name in targets.texts
            }
            facts = {name: found[name].recall for name in targets.facts}
            scores.append(Score(pmi.get("caption"), pmi.get("lyrics"), facts))
            callbacks.report(STAGE, done + 1, len(candidates))
    return scores


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-max(min(x, 500.0), -500.0)))


@dataclass(frozen=True)
class _Targets:
    """Token ids whose likelihood is asked for, by name."""

    texts: dict[str, list[int]]
    facts: dict[str, list[int]]


def _targets(vocabulary: Vocabulary, song: Song) -> _Targets:
    def thought(block: Mapping[str, str | int], after: str = "\n") -> list[int]:
        text = write_block(block)
        inner = vocabulary.encode(f"\n{text}\n" if text else "\n")
        return [vocabulary.think, *inner, vocabulary.think_end, *vocabulary.encode(after)]

    texts = {}
    if song.caption.strip():
        texts["caption"] = thought({"caption": song.caption})
    if song.lyrics.strip():
        texts["lyrics"] = thought({}, f"\n# Lyric\n{song.lyrics}\n")
    return _Targets(texts, {name: thought({name: value}) for name, value in given_block(song).items()})


@dataclass(frozen=True)
class _Reading:
    """likelihood: mean log-probability of the tokens. recall: 1 for a likeliest token, 0.9 for the next, …, mean."""

    likelihood: float
    recall: float


class _Reader:
    """Measures texts after a prompt. The prompt is computed once; each text then takes its place behind it."""

    def __init__(self, network: PlannerNetwork, device: torch.device, callbacks: Callbacks):
        self._network, self._device, self._hooks = network, device, callbacks
        self._head = network.head(slice(0, network.config.vocab_size), device)

    def read(self, prompt: list[int], texts: Mapping[str, list[int]]) -> dict[str, _Reading]:
        """What each text would be, were it the answer to `prompt`."""
        length = len(prompt) + max(map(len, texts.values()), default=0)
        limit = self._network.config.max_position_embeddings
        if length > limit:
            raise RequestError(f"scoring this song takes {length} tokens, and the planner reads at most {limit}")
        cache = self._network.cache(1, length, self._device)
        last = self._states(prompt, 0, cache)[:, -1:]
        return {name: self._reading(last, text, len(prompt), cache) for name, text in texts.items()}

    def _states(self, ids: list[int], start: int, cache: Cache) -> Tensor:
        """Hidden states [1, P, h] of `ids` from position `start` on."""
        states = []
        for first in range(0, len(ids), PREFILL):
            self._hooks.check(STAGE)
            tokens = torch.tensor([ids[first : first + PREFILL]], device=self._device)
            begin = torch.tensor([start + first], device=self._device)
            states.append(self._network(tokens, begin, cache, start + first + tokens.shape[1]))
        return torch.cat(states, dim=1)

    def _reading(self, last: Tensor, text: list[int], start: int, cache: Cache) -> _Reading:
        states = torch.cat((last, self._states(text, start, cache)[:, :-1]), dim=1)[0]
        wanted = torch.tensor(text, device=self._device)[:, None]
        likelihood, recall = 0.0, 0.0
        for rows, truth in zip(states.split(POSITIONS), wanted.split(POSITIONS), strict=True):
            self._hooks.check(STAGE)
            values = logits(rows, self._head)
            own = values.gather(1, truth)
            likelihood += float((own - values.logsumexp(1, keepdim=True)).sum())
            rank = (values > own).sum(1)
            recall += float((1 - rank / RECALL).clamp(min=0).sum())
        return _Reading(likelihood / len(text), recall / len(text))
