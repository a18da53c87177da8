"""Scores against a plain computation: every prompt and target in one forward, no cache, all logits at once."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from acestep_core.callbacks import Callbacks
from acestep_core.errors import Cancelled, RequestError
from acestep_core.planner import chat_prompts as prompts
from acestep_core.planner import functions, scoring
from acestep_core.planner.functions import codes
from acestep_core.planner.load_planner import Planner
from acestep_core.planner.network import logits
from acestep_core.planner.scoring import Score, best_codes, score
from acestep_core.song.song import Metadata, Song
from tests.support import tiny_planner, tiny_text

tiny_tokenizer_dir, vocabulary, network = tiny_text.tiny_tokenizer_dir, tiny_planner.vocabulary, tiny_planner.planner

SONG = Song("slow piano", "[Verse]\nriver", Metadata(bpm=90, key="C# minor", language="en", duration=10))
CODES = [(1, 2, 3, 250, 7), (299, 298, 5, 5, 0)]


@pytest.fixture(scope="module")
def planner(network, vocabulary) -> Planner:
    return Planner(network, vocabulary)


def log_probabilities(planner: Planner, prompt: list[int], target: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every row [n, rows] at the places of the target, and the target [n]."""
    ids = torch.tensor([prompt + target])
    network = planner.network
    with torch.no_grad():
        cache = network.cache(1, ids.shape[1], ids.device)
        hidden = network(ids, torch.zeros(1, dtype=torch.long), cache, ids.shape[1])[0]
        values = (hidden @ network.embed_tokens.weight.T).log_softmax(-1)
    return values[len(prompt) - 1 : -1], torch.tensor(target)


def ranks(planner: Planner, prompt: list[int], target: list[int]) -> list[int]:
    """How many rows are likelier than each token of the target."""
    values, wanted = log_probabilities(planner, prompt, target)
    return [values[i].argsort(descending=True).tolist().index(token) for i, token in enumerate(wanted.tolist())]


def thought(planner: Planner, inner: str, after: str) -> list[int]:
    words = planner.vocabulary
    return [words.think, *words.encode(inner), words.think_end, *words.encode(after)]


@pytest.mark.parametrize("positions", [3, 64])
def test_scores_are_those_of_the_formulas(planner, monkeypatch, positions):
    monkeypatch.setattr(scoring, "POSITIONS", positions)
    monkeypatch.setattr(scoring, "PREFILL", 20)
    given = prompts.understand_prompt(planner.vocabulary, CODES[0])
    prior = prompts.understand_prompt(planner.vocabulary, ())

    def pmi(target):
        means = []
        for prompt in (given, prior):
            values, wanted = log_probabilities(planner, prompt, target)
            means.append(values[range(len(wanted)), wanted].mean().item())
        return 1 / (1 + math.exp(-(means[0] - means[1]) / 0.1))

    def recall(target):
        found = ranks(planner, given, target)
        return sum(1 - rank / 10 if rank < 10 else 0 for rank in found) / len(found)

    got = score(planner, CODES, SONG)[0]
    assert got.caption == pytest.approx(pmi(thought(planner, "\ncaption: slow piano\n", "\n")), abs=1e-4)
    assert got.lyrics == pytest.approx(pmi(thought(planner, "\n", "\n# Lyric\n[Verse]\nriver\n")), abs=1e-4)
    facts = {"bpm": "90", "duration": "10", "keyscale": "C# minor", "language": "en"}
    assert got.facts.keys() == facts.keys()
    for name, value in facts.items():
        assert got.facts[name] == pytest.approx(recall(thought(planner, f"\n{name}: {value}\n", "\n")), abs=1e-4)


def test_a_token_counts_when_it_is_among_the_ten_likeliest(network, vocabulary):
    """With weights that make the words of facts likely: some are among the ten, some among the next ten."""
    facts = {"bpm": "90", "duration": "10", "keyscale": "C# minor", "language": "en"}
    words = {token for name, value in facts.items() for token in vocabulary.encode(f"\n{name}: {value}\n")}
    keen = tiny_planner.network(network.config)
    keen.embed_tokens.weight[sorted(words)] *= 1.5
    planner = Planner(keen, vocabulary)
    given = prompts.understand_prompt(vocabulary, CODES[0])
    found = {name: ranks(planner, given, thought(planner, f"\n{name}: {facts[name]}\n", "\n")) for name in facts}
    all_found = [rank for each in found.values() for rank in each]
    assert any(0 < rank < 10 for rank in all_found) and any(10 <= rank < 20 for rank in all_found)
    (got,) = score(planner, CODES[:1], SONG)
    for name, each in found.items():
        shares = {0: 1.0, 1: 0.9, 2: 0.8, 3: 0.7, 4: 0.6, 5: 0.5, 6: 0.4, 7: 0.3, 8: 0.2, 9: 0.1}
        assert got.facts[name] == pytest.approx(sum(shares.get(rank, 0.0) for rank in each) / len(each), abs=1e-4)


def test_a_reward_weighs_what_there_is():
    facts = {"bpm": 0.2, "language": 0.6}
    assert Score(0.9, 0.5, facts).reward == pytest.approx(0.5 * 0.9 + 0.3 * 0.5 + 0.2 * 0.4)
    assert Score(0.9, None, facts).reward == pytest.approx((0.5 * 0.9 + 0.2 * 0.4) / 0.7)
    assert Score(None, 0.5).reward == 0.5
    assert Score(None, None).reward == 0


def test_candidates_are_scored_one_by_one(planner):
    both = score(planner, CODES, SONG)
    assert both[0] != both[1]
    assert score(planner, CODES[1:], SONG) == both[1:]
    (bare,) = score(planner, CODES[:1], Song("", metadata=Metadata(bpm=90)))
    assert (bare.caption, bare.lyrics) == (None, None) and bare.facts.keys() == {"bpm"}
    (empty,) = score(planner, CODES[:1], Song(""))
    assert empty.reward == 0


def test_the_best_codes_come_first(planner, monkeypatch):
    ranked = best_codes(planner, SONG, [1, 2, 3])
    rewards = [item.score.reward for item in ranked]
    assert rewards == sorted(rewards, reverse=True) and len(set(rewards)) == 3
    for item in ranked:
        assert [item.codes] == codes(planner, SONG, [item.seed])
        assert [item.score] == score(planner, [item.codes], SONG)
    (first,) = best_codes(planner, SONG, [1], negative="noise", legacy=True)
    assert [first.codes] == codes(planner, SONG, [1], negative="noise", legacy=True)
    # Several plans of one song compete, too.
    plans = functions.plan(planner, replace(SONG, metadata=Metadata(duration=10)), [1, 2])
    for item in best_codes(planner, plans, [1, 2]):
        (plan,) = (plan for plan, seed in zip(plans, (1, 2), strict=True) if seed == item.seed)
        assert item.song == plan.song and [item.codes] == codes(planner, plan, [item.seed])
        assert [item.score] == score(planner, [item.codes], plan.asked)
    # What was planned is not what was wished for.
    planned = functions.Planned(replace(SONG, caption="ocean"), SONG, functions.given_block(SONG))
    assert best_codes(planner, planned, [1])[0].score == score(planner, codes(planner, planned, [1]), SONG)[0]


def test_what_cannot_be_scored(planner):
    with pytest.raises(RequestError, match="one of the candidates has none"):
        score(planner, [(1,), ()], SONG)
    with pytest.raises(RequestError, match=r"scoring this song takes \d+ tokens, and the planner reads at most 2048"):
        score(planner, [(1,)], Song("x", "la na " * 3000))
    with pytest.raises(Cancelled):
        score(planner, [(1,)], SONG, callbacks=Callbacks(cancelled=lambda: True))


@pytest.mark.parametrize("chunks", [1, 2, 5, 9])
def test_a_stop_comes_while_a_long_song_is_read(planner, monkeypatch, chunks):
    """Ten minutes of codes take a CPU a minute to read: within a chunk of them, not after the whole."""
    monkeypatch.setattr(scoring, "PREFILL", 20)
    read = []
    forward = planner.network.forward
    monkeypatch.setattr(planner.network, "forward", lambda *given: read.append(1) or forward(*given))
    long = tuple(range(200))
    with pytest.raises(Cancelled, match="score"):
        score(planner, [long], SONG, callbacks=Callbacks(cancelled=lambda: len(read) == chunks))
    assert len(read) == chunks
    monkeypatch.setattr(scoring, "POSITIONS", 1)
    compared = []
    stop = Callbacks(cancelled=lambda: len(compared) == chunks)
    with monkeypatch.context() as patched, pytest.raises(Cancelled):
        patched.setattr(scoring, "logits", lambda *given: compared.append(1) or logits(*given))
        score(planner, [long], SONG, callbacks=stop)
    assert len(compared) == chunks
    read.clear()
    score(planner, [long], SONG)
    assert len(read) > 9
