"""Scores against a plain computation: one forward per prompt and target, without a cache."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from acestep_core.callbacks import Callbacks
from acestep_core.errors import Cancelled, RequestError
from acestep_core.planner import chat_prompts as prompts
from acestep_core.planner import scoring
from acestep_core.planner.load_planner import Planner
from acestep_core.planner.metadata_text import song_block
from acestep_core.planner.network import PlannerNetwork
from acestep_core.planner.planning import SongPlan, plan, plan_codes
from acestep_core.planner.scoring import Score, best_codes, score_codes
from acestep_core.song.song import Metadata, Song
from tests.support import tiny_planner, tiny_text

tiny_tokenizer_dir, vocabulary, network = tiny_text.tiny_tokenizer_dir, tiny_planner.vocabulary, tiny_planner.planner

SONG = Song("slow piano", "[Verse]\nriver", Metadata(bpm=90, key="C# minor", language="en", duration=10))
FIELDS = {"bpm": "90", "duration": "10", "keyscale": "C# minor", "language": "en"}
CODES = [(1, 2, 3, 250, 7), (299, 298, 5, 5, 0)]


@pytest.fixture(scope="module")
def planner(network, vocabulary) -> Planner:
    return Planner(network, vocabulary)


def log_probabilities(planner: Planner, prompt: list[int], target: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probabilities [n, rows] at the target's positions, and the target [n]."""
    ids = torch.tensor([prompt + target])
    network = planner.network
    with torch.no_grad():
        cache = network.cache(1, ids.shape[1], ids.device)
        hidden = network(ids, torch.zeros(1, dtype=torch.long), cache, ids.shape[1])[0]
        values = (hidden @ network.embed_tokens.weight.T).log_softmax(-1)
    return values[len(prompt) - 1 : -1], torch.tensor(target)


def ranks(planner: Planner, prompt: list[int], target: list[int]) -> list[int]:
    """Return how many rows are likelier than each token of the target."""
    values, ids = log_probabilities(planner, prompt, target)
    return [values[i].argsort(descending=True).tolist().index(token) for i, token in enumerate(ids.tolist())]


def reasoning(planner: Planner, inner: str, after: str) -> list[int]:
    vocabulary = planner.vocabulary
    return [vocabulary.think, *vocabulary.encode(inner), vocabulary.think_end, *vocabulary.encode(after)]


@pytest.mark.parametrize("positions", [3, 64])
def test_scores_equal_the_formulas(planner, monkeypatch, positions):
    monkeypatch.setattr(scoring, "POSITIONS", positions)
    monkeypatch.setattr(scoring, "PREFILL_CHUNK", 20)
    given = prompts.understand_prompt(planner.vocabulary, CODES[0])
    prior = prompts.understand_prompt(planner.vocabulary, ())

    def pmi(target):
        means = []
        for prompt in (given, prior):
            values, ids = log_probabilities(planner, prompt, target)
            means.append(values[range(len(ids)), ids].mean().item())
        return 1 / (1 + math.exp(-(means[0] - means[1]) / 0.1))

    def recall(target):
        found = ranks(planner, given, target)
        return sum(1 - rank / 10 if rank < 10 else 0 for rank in found) / len(found)

    got = score_codes(planner, CODES, SONG)[0]
    assert got.caption == pytest.approx(pmi(reasoning(planner, "\ncaption: slow piano\n", "\n")), abs=1e-4)
    assert got.lyrics == pytest.approx(pmi(reasoning(planner, "\n", "\n# Lyric\n[Verse]\nriver\n")), abs=1e-4)
    assert got.metadata.keys() == FIELDS.keys()
    for name, value in FIELDS.items():
        expected = recall(reasoning(planner, f"\n{name}: {value}\n", "\n"))
        assert got.metadata[name] == pytest.approx(expected, abs=1e-4)


def test_recall_counts_the_ten_likeliest_tokens(network, vocabulary):
    """The weights make the tokens of the metadata likely. Some rank among the first ten, some among the next ten."""
    likely = {token for name, value in FIELDS.items() for token in vocabulary.encode(f"\n{name}: {value}\n")}
    scaled = tiny_planner.network(network.config)
    scaled.embed_tokens.weight[sorted(likely)] *= 1.5
    planner = Planner(scaled, vocabulary)
    given = prompts.understand_prompt(vocabulary, CODES[0])
    found = {
        name: ranks(planner, given, reasoning(planner, f"\n{name}: {value}\n", "\n")) for name, value in FIELDS.items()
    }
    all_ranks = [rank for each in found.values() for rank in each]
    assert any(0 < rank < 10 for rank in all_ranks) and any(10 <= rank < 20 for rank in all_ranks)
    (got,) = score_codes(planner, CODES[:1], SONG)
    for name, each in found.items():
        shares = {0: 1.0, 1: 0.9, 2: 0.8, 3: 0.7, 4: 0.6, 5: 0.5, 6: 0.4, 7: 0.3, 8: 0.2, 9: 0.1}
        assert got.metadata[name] == pytest.approx(sum(shares.get(rank, 0.0) for rank in each) / len(each), abs=1e-4)


def test_reward_is_the_weighted_mean_of_present_parts():
    metadata = {"bpm": 0.2, "language": 0.6}
    assert Score(0.9, 0.5, metadata).reward == pytest.approx(0.5 * 0.9 + 0.3 * 0.5 + 0.2 * 0.4)
    assert Score(0.9, None, metadata).reward == pytest.approx((0.5 * 0.9 + 0.2 * 0.4) / 0.7)
    assert Score(None, 0.5).reward == 0.5
    assert Score(None, None).reward == 0


def test_candidates_do_not_depend_on_each_other(planner):
    both = score_codes(planner, CODES, SONG)
    assert both[0] != both[1]
    assert score_codes(planner, CODES[1:], SONG) == both[1:]


def test_missing_parts_have_no_score(planner):
    (bare,) = score_codes(planner, CODES[:1], Song("", metadata=Metadata(bpm=90)))
    assert (bare.caption, bare.lyrics) == (None, None) and bare.metadata.keys() == {"bpm"}
    (empty,) = score_codes(planner, CODES[:1], Song(""))
    assert empty.reward == 0


def test_best_codes_come_first(planner):
    ranked = best_codes(planner, SONG, [1, 2, 3])
    rewards = [item.score.reward for item in ranked]
    assert rewards == sorted(rewards, reverse=True) and len(set(rewards)) == 3
    for item in ranked:
        assert [item.codes] == plan_codes(planner, SONG, [item.seed])
        assert [item.score] == score_codes(planner, [item.codes], SONG)
    (first,) = best_codes(planner, SONG, [1], negative_prompt="noise")
    assert [first.codes] == plan_codes(planner, SONG, [1], negative_prompt="noise")


def test_best_codes_of_several_plans(planner):
    plans = plan(planner, replace(SONG, metadata=Metadata(duration=10)), [1, 2])
    for item in best_codes(planner, plans, [1, 2]):
        (own,) = (each for each, seed in zip(plans, (1, 2), strict=True) if seed == item.seed)
        assert item.song == own.song and [item.codes] == plan_codes(planner, own, [item.seed])
        assert [item.score] == score_codes(planner, [item.codes], own.request)


def test_best_codes_are_scored_by_the_users_request(planner):
    planned = SongPlan(replace(SONG, caption="ocean"), SONG, song_block(SONG))
    (best,) = best_codes(planner, planned, [1])
    assert [best.score] == score_codes(planner, plan_codes(planner, planned, [1]), SONG)


def test_refused_requests(planner):
    with pytest.raises(RequestError, match="candidates"):
        score_codes(planner, [(1,), ()], SONG)
    with pytest.raises(RequestError, match="context holds 2048"):
        score_codes(planner, [(1,)], Song("x", "la na " * 3000))
    with pytest.raises(Cancelled):
        score_codes(planner, [(1,)], SONG, callbacks=Callbacks(cancelled=lambda: True))


@pytest.mark.parametrize("chunks", [1, 2, 5, 9])
def test_cancel_takes_effect_within_one_chunk(planner, monkeypatch, chunks):
    """A CPU takes a minute for ten minutes of codes."""
    monkeypatch.setattr(scoring, "PREFILL_CHUNK", 20)
    forwards = []
    forward = planner.network.forward
    monkeypatch.setattr(planner.network, "forward", lambda *args: forwards.append(1) or forward(*args))
    codes = tuple(range(200))
    with pytest.raises(Cancelled, match="score"):
        score_codes(planner, [codes], SONG, callbacks=Callbacks(cancelled=lambda: len(forwards) == chunks))
    assert len(forwards) == chunks
    monkeypatch.setattr(scoring, "POSITIONS", 1)
    compared, logits = [], PlannerNetwork.logits
    with monkeypatch.context() as patched, pytest.raises(Cancelled):
        patched.setattr(PlannerNetwork, "logits", lambda *args: compared.append(1) or logits(*args))
        score_codes(planner, [codes], SONG, callbacks=Callbacks(cancelled=lambda: len(compared) == chunks))
    assert len(compared) == chunks
    forwards.clear()
    score_codes(planner, [codes], SONG)
    assert len(forwards) > 9
