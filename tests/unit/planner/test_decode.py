from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig

from acestep_core.callbacks import Callbacks
from acestep_core.errors import Cancelled, NonFiniteError, RequestError
from acestep_core.planner import decode, grammar
from acestep_core.planner import random_numbers as dice
from acestep_core.planner.decode import Row, Ways, generate
from acestep_core.planner.grammar import Grammar
from acestep_core.planner.metadata_text import FIELDS
from acestep_core.planner.network import PREFILL, logits
from acestep_core.planner.random_numbers import Dice
from acestep_core.planner.token_sampling import Sampling
from tests.support import tiny_planner, tiny_text
from tests.unit.planner.test_network import theirs

tiny_tokenizer_dir = tiny_text.tiny_tokenizer_dir
vocabulary, planner = tiny_planner.vocabulary, tiny_planner.planner

CPU = torch.device("cpu")
GREEDY = Sampling(temperature=0.0)
OFFICIAL = Sampling(temperature=0.85, top_p=0.9, guidance=2.0)


@pytest.fixture(autouse=True)
def short_texts(monkeypatch):
    """Random weights would ramble on to the limits."""
    monkeypatch.setattr(grammar, "LONGEST", {"caption": 14, "genres": 6})


def prompt(vocabulary, text: str) -> list[int]:
    return [vocabulary.turn_start, *vocabulary.encode(text), vocabulary.turn_end]


def code_rows(vocabulary, count: int = 3, codes: int = 12, **changes) -> list[Row]:
    """Rows that differ in length, with one negative prompt for all."""
    negative = prompt(vocabulary, "warm river")
    texts = ("slow night ", "piano " * 9, "café [Verse] love and fire ")
    return [
        Row(**{"prompt": prompt(vocabulary, texts[i]), "seed": 7 + i, "codes": codes, "negative": negative, **changes})
        for i in range(count)
    ]


def text_rows(vocabulary, count: int = 3, **changes) -> list[Row]:
    given = Grammar(vocabulary, {"bpm": 120}, frozenset({"duration"}))
    return [replace(row, codes=None, **{"grammar": given, **changes}) for row in code_rows(vocabulary, count)]


def count_forwards(network, monkeypatch) -> list[tuple[int, ...]]:
    """Shapes of the tokens of every call of the network."""
    shapes: list[tuple[int, ...]] = []
    forward = network.forward
    monkeypatch.setattr(
        network, "forward", lambda tokens, *rest: shapes.append((*tokens.shape,)) or forward(tokens, *rest)
    )
    return shapes


# --- against transformers ---------------------------------------------------------------------------------------------


def test_greedy_text_is_that_of_transformers(vocabulary, planner):
    start = prompt(vocabulary, "warm lo-fi piano ")
    (got,) = generate(planner, vocabulary, [Row(start, seed=0, limit=40)], sampling=GREEDY)
    never = {*range(vocabulary.words, planner.config.vocab_size)} - {vocabulary.turn_end}
    settings = GenerationConfig(
        max_new_tokens=40,
        do_sample=False,
        eos_token_id=vocabulary.turn_end,
        suppress_tokens=sorted(never),
        pad_token_id=0,
    )
    wanted = theirs(planner).generate(torch.tensor([start]), settings)[0, len(start) :].tolist()
    assert len(set(got)) > 3
    assert got == [token for token in wanted if token != vocabulary.turn_end]


def test_greedy_guided_codes_are_those_of_whole_forwards(vocabulary, planner):
    """No cache, no batch, no partial head."""
    (row,) = code_rows(vocabulary, 1)
    (got,) = generate(planner, vocabulary, [row], sampling=Sampling(0.0, guidance=2.0))
    peer, codes = theirs(planner), []
    usable = slice(vocabulary.audio_base, vocabulary.audio_base + vocabulary.codes)
    for _ in range(row.codes):
        given, negative = (
            peer(torch.tensor([start + codes])).logits[0, -1, usable] for start in (row.prompt, row.negative)
        )
        codes.append(vocabulary.audio_base + int((negative + 2 * (given - negative)).argmax()))
    assert got == codes and len(set(got)) > 3


# --- audio codes ------------------------------------------------------------------------------------------------------


def test_exactly_as_many_codes_as_asked_all_usable(vocabulary, planner):
    rows = [replace(row, codes=codes) for row, codes in zip(code_rows(vocabulary), (1, 40, 7), strict=True)]
    made = generate(planner, vocabulary, rows, sampling=Sampling(temperature=3.0))
    assert [len(codes) for codes in made] == [1, 40, 7]
    assert all(0 <= i - vocabulary.audio_base < vocabulary.codes for codes in made for i in codes)


@pytest.mark.parametrize("sampling", [OFFICIAL, Sampling(), GREEDY])
def test_a_row_is_the_same_alone_and_in_any_company(vocabulary, planner, sampling):
    rows = code_rows(vocabulary, codes=30) + text_rows(vocabulary)
    together = generate(planner, vocabulary, rows, sampling=sampling)
    assert together == [generate(planner, vocabulary, [row], sampling=sampling)[0] for row in rows]
    assert generate(planner, vocabulary, rows[::-1], sampling=sampling) == together[::-1]


def test_a_shorter_song_of_the_same_seed_begins_alike(vocabulary, planner):
    (row,) = code_rows(vocabulary, 1, codes=30)
    (long,) = generate(planner, vocabulary, [row], sampling=OFFICIAL)
    assert generate(planner, vocabulary, [replace(row, codes=9)], sampling=OFFICIAL) == [long[:9]]


def test_seeds_differ_and_repeat(vocabulary, planner):
    (row,) = code_rows(vocabulary, 1, codes=30)
    one, again, other = generate(planner, vocabulary, [row, row, replace(row, seed=99)], sampling=OFFICIAL)
    assert one == again != other


@pytest.mark.parametrize("off", [1.0, 0.5, 0.0])
def test_guidance_of_one_or_less_is_no_guidance_and_costs_nothing(vocabulary, planner, monkeypatch, off):
    rows, plain = code_rows(vocabulary), code_rows(vocabulary, negative=None)
    free = Sampling(0.85, 0.9)
    wanted = generate(planner, vocabulary, plain, sampling=replace(free, guidance=2.0))
    shapes = count_forwards(planner, monkeypatch)
    assert generate(planner, vocabulary, rows, sampling=replace(free, guidance=off)) == wanted
    assert shapes[-1] == (3, 1)
    assert generate(planner, vocabulary, rows, sampling=replace(free, guidance=2.0)) != wanted
    assert shapes[-1] == (6, 1)


def test_two_forwards_give_what_one_gives(vocabulary, planner, monkeypatch):
    rows = code_rows(vocabulary) + text_rows(vocabulary)
    wanted = generate(planner, vocabulary, rows, sampling=OFFICIAL)
    shapes = count_forwards(planner, monkeypatch)
    assert generate(planner, vocabulary, rows, sampling=OFFICIAL, ways=Ways(together=False)) == wanted
    assert max(rows for rows, _ in shapes) == 3


def test_equal_prompts_are_read_once(vocabulary, planner, monkeypatch):
    (row,) = code_rows(vocabulary, 1, codes=4)
    shapes = count_forwards(planner, monkeypatch)
    generate(planner, vocabulary, [replace(row, seed=i) for i in range(3)], sampling=OFFICIAL)
    assert shapes == [(1, len(row.prompt)), (1, len(row.negative))] + [(6, 1)] * 3


def test_a_long_prompt_is_read_in_pieces(vocabulary, planner, monkeypatch):
    start = [i % vocabulary.words for i in range(PREFILL + 50)]
    shapes = count_forwards(planner, monkeypatch)
    (got,) = generate(planner, vocabulary, [Row(start, 0, codes=2)], sampling=GREEDY)
    assert shapes == [(1, PREFILL), (1, 50), (1, 1)]
    hidden = planner(torch.tensor([start]), torch.tensor([0]), planner.cache(1, len(start), CPU), len(start))[:, -1]
    usable = planner.head(slice(vocabulary.audio_base, vocabulary.audio_base + vocabulary.codes), CPU)
    assert got[0] == vocabulary.audio_base + int(logits(hidden, usable).argmax())


def test_numbers_drawn_ahead_make_the_same_song(vocabulary, planner, monkeypatch):
    """As for an accelerator: same seed, same song."""
    rows = code_rows(vocabulary, codes=40)
    wanted = generate(planner, vocabulary, rows, sampling=OFFICIAL)
    drawn = []

    def ahead(*given, **_):
        drawn.append(given)
        return dice.rolls(*given, ahead=True)

    monkeypatch.setattr(decode, "rolls", ahead)
    assert generate(planner, vocabulary, rows, sampling=OFFICIAL) == wanted
    assert drawn == [([row.seed for row in rows], vocabulary.codes, 40)]


class HostReads(TorchDispatchMode):
    """Counts how often a number of a tensor is asked for by Python: what makes a host wait for an accelerator."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_the_code_loop_never_waits_for_the_device(vocabulary, planner):
    counts = []
    for codes in (3, 3 * decode.LOOK_EVERY):
        with HostReads() as reads:
            generate(planner, vocabulary, code_rows(vocabulary, codes=codes), sampling=OFFICIAL)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0


# --- text -------------------------------------------------------------------------------------------------------------


def test_text_rows_follow_their_own_grammar(vocabulary, planner):
    one = Grammar(vocabulary, {"bpm": 99}, frozenset(FIELDS) - {"bpm", "keyscale"})
    two = Grammar(vocabulary, {"timesignature": 3}, frozenset(FIELDS) - {"timesignature", "language", "genres"})
    rows = [replace(row, grammar=g) for row, g in zip(text_rows(vocabulary, 2), (one, two), strict=True)]
    first, second = (vocabulary.decode(ids) for ids in generate(planner, vocabulary, rows))
    assert first.startswith("\nbpm: 99\nkeyscale: ") and first.count("\n") == 3
    assert second.startswith("\ngenres: ") and "\nlanguage: " in second and second.endswith("\ntimesignature: 3\n")


def test_what_is_forced_goes_through_the_network_in_one_forward(vocabulary, planner, monkeypatch):
    given = {"bpm": 120, "caption": "warm slow piano", "duration": 30, "keyscale": "C major", "language": "en"}
    (row,) = text_rows(vocabulary, 1, grammar=Grammar(vocabulary, given, frozenset({"genres"})))
    shapes = count_forwards(planner, monkeypatch)
    (made,) = generate(planner, vocabulary, [row])
    # All up to the time signature's value goes along with the prompt; the one choice ends the block.
    assert len(shapes) == 1 and shapes[0][1] > len(row.prompt) + 30
    assert made[0] == vocabulary.think and made[-1] == vocabulary.think_end


def test_text_is_what_single_tokens_without_cache_give(vocabulary, planner):
    """Greedy, by whole forwards: forced runs, ragged rows and the growing cache change nothing."""
    script = Grammar(vocabulary, {"bpm": 120, "keyscale": "C major"}, then_lyrics=True)
    rows = text_rows(vocabulary, grammar=script, limit=20)
    got = generate(planner, vocabulary, rows, sampling=GREEDY)
    peer = theirs(planner)
    for row, made in zip(rows, got, strict=True):
        state, out = script.start(20), []
        while True:
            out += state.forced
            if state.choice is None:
                break
            scores = peer(torch.tensor([row.prompt + out])).logits[0, -1, : vocabulary.text_rows]
            token = state.choice.pick(scores, None, GREEDY, Dice(0))
            out += [] if token is None else [token]
            state.take(token)
        assert made == [token for token in out if token != vocabulary.turn_end]


def test_free_text_has_no_codes_and_stops_at_its_limit(vocabulary, planner):
    made = generate(planner, vocabulary, text_rows(vocabulary, grammar=None, limit=25), sampling=Sampling(5.0))
    assert all(i < vocabulary.words for text in made for i in text)
    assert all(len(text) <= 25 for text in made) and any(len(text) == 25 for text in made)


def test_a_song_has_room_for_all_the_lyrics_that_a_planner_was_trained_to_write(vocabulary):
    assert Row([1], seed=0).limit == 4096


def test_text_can_be_guided(vocabulary, planner):
    rows = text_rows(vocabulary)
    guided = generate(planner, vocabulary, rows, sampling=replace(OFFICIAL, guidance=3.0))
    assert guided != generate(planner, vocabulary, rows, sampling=replace(OFFICIAL, guidance=1.0))
    assert all(text[-1] == vocabulary.think_end for text in guided)


# --- callbacks and errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [code_rows, text_rows])
def test_a_stop_comes_within_one_token(vocabulary, planner, monkeypatch, kind):
    rows, reports = kind(vocabulary), []
    callbacks = Callbacks(progress=reports.append, cancelled=lambda: len(reports) == 5)
    shapes = count_forwards(planner, monkeypatch)
    with pytest.raises(Cancelled, match="plan"):
        generate(planner, vocabulary, rows, sampling=OFFICIAL, callbacks=callbacks)
    assert [report.step for report in reports] == sorted(report.step for report in reports) and len(reports) == 5
    assert sum(rows == 6 for rows, _ in shapes) <= 5


def test_a_stop_comes_while_prompts_are_read(vocabulary, planner):
    with pytest.raises(Cancelled):
        generate(planner, vocabulary, code_rows(vocabulary), callbacks=Callbacks(cancelled=lambda: True))


def test_progress_counts_tokens_to_the_end(vocabulary, planner):
    reports = []
    generate(planner, vocabulary, code_rows(vocabulary, codes=9), callbacks=Callbacks(progress=reports.append))
    assert [(r.stage, r.step, r.total) for r in reports] == [("plan", i, 9) for i in range(1, 10)]
    assert [r.tokens for r in reports] == [3 * i for i in range(1, 10)]
    reports.clear()
    rows = [replace(row, codes=codes) for row, codes in zip(code_rows(vocabulary), (1, 2, 4), strict=True)]
    generate(planner, vocabulary, rows, callbacks=Callbacks(progress=reports.append))
    assert [r.tokens for r in reports] == [3, 5, 6, 7]


def test_the_bar_of_a_text_ends_where_the_text_does(vocabulary, planner):
    """And not with a jump to the longest that it might have been."""
    reports = []
    made = generate(planner, vocabulary, text_rows(vocabulary), callbacks=Callbacks(progress=reports.append))
    longest = max(map(len, made))
    assert (reports[-1].step, reports[-1].total, reports[-1].tokens) == (longest, longest, sum(map(len, made)))
    assert all(before.step < before.total for before in reports[:-1]) and reports[-2].step <= longest
    assert [r.tokens for r in reports] == sorted(r.tokens for r in reports)


def test_the_log_says_how_fast_it_was(vocabulary, planner, caplog):
    with caplog.at_level("INFO", "acestep"):
        generate(planner, vocabulary, code_rows(vocabulary, codes=5), sampling=OFFICIAL)
    assert "15 tokens of codes in 3 rows" in caplog.text and "tokens/s" in caplog.text and "float32" in caplog.text


@pytest.mark.parametrize("kind", [code_rows, text_rows])
def test_a_network_that_gives_nan_is_named(vocabulary, kind):
    broken = tiny_planner.network(tiny_planner.config_of(vocabulary))
    broken.norm.weight[3] = float("nan")
    with pytest.raises(NonFiniteError, match="planner"):
        generate(broken, vocabulary, kind(vocabulary), sampling=OFFICIAL)


@pytest.mark.parametrize("codes", [12, 400])
def test_nan_in_the_midst_of_a_song_is_noticed_soon(vocabulary, planner, monkeypatch, codes):
    """Not after the last of three thousand codes."""
    forwards = []
    original = decode.logits

    def later(hidden, head):
        forwards.append(1)
        return original(hidden, head) * (float("nan") if len(forwards) == 6 else 1)

    monkeypatch.setattr(decode, "logits", later)
    with pytest.raises(NonFiniteError):
        generate(planner, vocabulary, code_rows(vocabulary, codes=codes), sampling=OFFICIAL)
    assert len(forwards) <= 6 + 2 * decode.LOOK_EVERY


def test_what_the_context_cannot_hold_is_refused(vocabulary, planner):
    limit = planner.config.max_position_embeddings
    start = [5] * (limit - 10)
    with pytest.raises(RequestError, match=f"context holds {limit} tokens"):
        generate(planner, vocabulary, [Row(start, 0, codes=11)])
    with pytest.raises(RequestError, match="context"):
        generate(planner, vocabulary, [Row([5], 0, codes=11, negative=start)])
    with pytest.raises(RequestError, match="context"):
        generate(planner, vocabulary, [Row(start, 0, grammar=Grammar(vocabulary))])
    (text,) = generate(planner, vocabulary, [Row(start, 0, limit=99)])
    assert 0 < len(text) <= 10


@pytest.mark.parametrize("changes", [{"prompt": []}, {"codes": 0}, {"codes": -3}, {"negative": []}])
def test_rows_that_make_no_sense_are_refused(vocabulary, planner, changes):
    with pytest.raises(RequestError):
        generate(planner, vocabulary, code_rows(vocabulary, 1, **changes))


def test_no_rows_no_answers(vocabulary, planner):
    assert generate(planner, vocabulary, []) == []
