from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from acestep_core.callbacks import Callbacks
from acestep_core.errors import Cancelled, NonFiniteError, RequestError
from acestep_core.planner import code_loop, grammar
from acestep_core.planner.decode_batch import CodeRow, DecodeBatch, TextRow
from acestep_core.planner.decoding import generate_tokens
from acestep_core.planner.grammar import Grammar
from acestep_core.planner.load_planner import Planner
from acestep_core.planner.metadata_text import FIELDS
from acestep_core.planner.network import PREFILL_CHUNK, PlannerNetwork
from acestep_core.planner.token_choice import TokenPicker
from acestep_core.planner.token_sampling import TokenSampling
from tests.support import tiny_planner, tiny_text
from tests.unit.planner.test_network import theirs

tiny_tokenizer_dir = tiny_text.tiny_tokenizer_dir
vocabulary, planner = tiny_planner.vocabulary, tiny_planner.planner

CPU = torch.device("cpu")
GREEDY = TokenSampling(temperature=0.0)
OFFICIAL = TokenSampling(temperature=0.85, top_p=0.9, guidance=2.0)


@pytest.fixture(autouse=True)
def short_texts(monkeypatch):
    """Random weights seldom end a line."""
    monkeypatch.setattr(grammar, "MAX_TOKENS", {"caption": 14, "genres": 6})


def prompt(vocabulary, text: str) -> list[int]:
    return [vocabulary.turn_start, *vocabulary.encode(text), vocabulary.turn_end]


def code_rows(vocabulary, rows: int = 3, **changes) -> list[CodeRow]:
    """Rows with prompts of different lengths and the same negative prompt."""
    negative = prompt(vocabulary, "warm river")
    texts = ("slow night ", "piano " * 9, "café [Verse] love and fire ")
    return [replace(CodeRow(prompt(vocabulary, texts[i]), 7 + i, 12, negative), **changes) for i in range(rows)]


def text_rows(vocabulary, rows: int = 3, **changes) -> list[TextRow]:
    """Rows with the prompts of `code_rows`."""
    given = Grammar(vocabulary, {"bpm": 120}, frozenset({"duration"}))
    return [
        replace(TextRow(row.prompt, row.seed, given, row.negative_prompt), **changes)
        for row in code_rows(vocabulary, rows)
    ]


def decode(network, vocabulary, rows, sampling: TokenSampling, callbacks: Callbacks | None = None) -> list[list[int]]:
    return generate_tokens(Planner(network, vocabulary), rows, sampling, "plan", callbacks)


def count_forwards(network, monkeypatch) -> list[tuple[int, ...]]:
    """Return a list that receives the shape of the tokens of each forward."""
    shapes: list[tuple[int, ...]] = []
    forward = network.forward
    monkeypatch.setattr(
        network, "forward", lambda tokens, *rest: shapes.append((*tokens.shape,)) or forward(tokens, *rest)
    )
    return shapes


# --- audio codes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "extent"), [
    (1, 256), (256, 256), (257, 512), (512, 512), (513, 1024), (1025, 2048), (2049, 3000), (3000, 3000),
])  # fmt: skip
def test_extents_double_on_an_accelerator(length, extent):
    """Each costs a capture of a CUDA graph, so a song has few."""
    for device, expected in (("cuda", extent), ("cpu", length)):
        batch = SimpleNamespace(_run=SimpleNamespace(device=torch.device(device)), cache=SimpleNamespace(capacity=3000))
        assert DecodeBatch.extent(batch, length) == expected


def test_greedy_guided_codes_equal_transformers(vocabulary, planner):
    """The reference has no cache, no batch and a whole head."""
    (row,) = code_rows(vocabulary, 1)
    (got,) = decode(planner, vocabulary, [row], TokenSampling(0.0, guidance=2.0))
    peer, codes = theirs(planner), []
    usable = slice(vocabulary.audio_base, vocabulary.audio_base + vocabulary.codes)
    for _ in range(row.count):
        conditional, unconditional = (
            peer(torch.tensor([start + codes])).logits[0, -1, usable] for start in (row.prompt, row.negative_prompt)
        )
        codes.append(vocabulary.audio_base + int((unconditional + 2 * (conditional - unconditional)).argmax()))
    assert got == codes and len(set(got)) > 3


def test_number_and_range_of_codes(vocabulary, planner):
    rows = [replace(row, count=count) for row, count in zip(code_rows(vocabulary), (1, 40, 7), strict=True)]
    answers = decode(planner, vocabulary, rows, TokenSampling(temperature=3.0))
    assert [len(codes) for codes in answers] == [1, 40, 7]
    assert all(0 <= i - vocabulary.audio_base < vocabulary.codes for codes in answers for i in codes)


@pytest.mark.parametrize("sampling", [OFFICIAL, TokenSampling(), GREEDY])
@pytest.mark.parametrize("make_rows", [code_rows, text_rows])
def test_rows_do_not_depend_on_each_other(vocabulary, planner, sampling, make_rows):
    rows = make_rows(vocabulary)
    together = decode(planner, vocabulary, rows, sampling)
    assert together == [decode(planner, vocabulary, [row], sampling)[0] for row in rows]
    assert decode(planner, vocabulary, rows[::-1], sampling) == together[::-1]


def test_fewer_codes_of_the_same_seed_are_a_prefix(vocabulary, planner):
    (row,) = code_rows(vocabulary, 1, count=30)
    (long,) = decode(planner, vocabulary, [row], OFFICIAL)
    assert decode(planner, vocabulary, [replace(row, count=9)], OFFICIAL) == [long[:9]]


def test_seeds_differ_and_repeat(vocabulary, planner):
    (row,) = code_rows(vocabulary, 1, count=30)
    one, again, other = decode(planner, vocabulary, [row, row, replace(row, seed=99)], OFFICIAL)
    assert one == again != other


@pytest.mark.parametrize("off", [1.0, 0.5, 0.0])
def test_guidance_of_one_or_less_is_off_and_costs_nothing(vocabulary, planner, monkeypatch, off):
    rows, plain = code_rows(vocabulary), code_rows(vocabulary, negative_prompt=None)
    sampling = TokenSampling(0.85, 0.9)
    expected = decode(planner, vocabulary, plain, replace(sampling, guidance=2.0))
    shapes = count_forwards(planner, monkeypatch)
    assert decode(planner, vocabulary, rows, replace(sampling, guidance=off)) == expected
    assert shapes[-1] == (3, 1)
    assert decode(planner, vocabulary, rows, replace(sampling, guidance=2.0)) != expected
    assert shapes[-1] == (6, 1)


def test_equal_prompts_are_computed_once(vocabulary, planner, monkeypatch):
    (row,) = code_rows(vocabulary, 1, count=4)
    shapes = count_forwards(planner, monkeypatch)
    decode(planner, vocabulary, [replace(row, seed=i) for i in range(3)], OFFICIAL)
    assert shapes == [(1, len(row.prompt)), (1, len(row.negative_prompt))] + [(6, 1)] * 3


def test_long_prompt_is_computed_in_chunks(vocabulary, planner, monkeypatch):
    start = [i % vocabulary.text_tokens for i in range(PREFILL_CHUNK + 50)]
    shapes = count_forwards(planner, monkeypatch)
    (got,) = decode(planner, vocabulary, [CodeRow(start, 0, 2)], GREEDY)
    assert shapes == [(1, PREFILL_CHUNK), (1, 50), (1, 1)]
    hidden = planner(torch.tensor([start]), torch.tensor([0]), planner.cache(1, len(start), CPU), len(start))[:, -1]
    usable = planner.head(slice(vocabulary.audio_base, vocabulary.audio_base + vocabulary.codes), CPU)
    assert got[0] == vocabulary.audio_base + int(planner.logits(hidden, usable).argmax())


@pytest.mark.parametrize("make_rows", [code_rows, text_rows])
def test_new_tokens_do_not_use_the_embedding_layer(vocabulary, planner, monkeypatch, make_rows):
    """ComfyUI may have offloaded it. The head on the device has the same rows."""
    rows, embedded, forward = make_rows(vocabulary), [], planner.embed_tokens.forward
    monkeypatch.setattr(planner.embed_tokens, "forward", lambda ids: embedded.append(ids.shape) or forward(ids))
    decode(planner, vocabulary, rows, OFFICIAL)
    assert [shape[0] for shape in embedded] == [1] * 4  # four distinct prompts, one by one


class HostReads(TorchDispatchMode):
    """Counts reads of tensor values by Python, which make the host wait for an accelerator."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_code_loop_never_waits_for_the_device(vocabulary, planner):
    reads = []
    for count in (3, 3 * code_loop.CHECK_EVERY):
        with HostReads() as mode:
            decode(planner, vocabulary, code_rows(vocabulary, count=count), OFFICIAL)
        reads.append(mode.count)
    assert reads[0] == reads[1] > 0


# --- text -------------------------------------------------------------------------------------------------------------


def test_rows_follow_their_own_grammars(vocabulary, planner):
    one = Grammar(vocabulary, {"bpm": 99}, frozenset(FIELDS) - {"bpm", "keyscale"})
    two = Grammar(vocabulary, {"timesignature": 3}, frozenset(FIELDS) - {"timesignature", "language", "genres"})
    rows = [replace(row, grammar=g) for row, g in zip(text_rows(vocabulary, 2), (one, two), strict=True)]
    answers = decode(planner, vocabulary, rows, TokenSampling())
    first, second = (vocabulary.decode(ids) for ids in answers)
    assert first.startswith("\nbpm: 99\nkeyscale: ") and first.count("\n") == 3
    assert second.startswith("\ngenres: ") and "\nlanguage: " in second and second.endswith("\ntimesignature: 3\n")


def test_forced_tokens_take_one_forward(vocabulary, planner, monkeypatch):
    fixed = {"bpm": 120, "caption": "warm slow piano", "duration": 30, "keyscale": "C major", "language": "en"}
    (row,) = text_rows(vocabulary, 1, grammar=Grammar(vocabulary, fixed, frozenset({"genres"})))
    shapes = count_forwards(planner, monkeypatch)
    (answer,) = decode(planner, vocabulary, [row], TokenSampling())
    # All fields up to the value of the time signature are computed with the prompt. The one choice ends the block.
    assert len(shapes) == 1 and shapes[0][1] > len(row.prompt) + 30
    assert answer[0] == vocabulary.think and answer[-1] == vocabulary.think_end


def test_greedy_text_equals_transformers(vocabulary, planner):
    """The reference has no cache. Forced runs, ragged rows and a growing cache change nothing."""
    script = Grammar(vocabulary, {"bpm": 120, "keyscale": "C major"}, then_lyrics=True)
    rows = text_rows(vocabulary, grammar=script, max_lyrics=20)
    got = decode(planner, vocabulary, rows, GREEDY)
    peer, picker = theirs(planner), TokenPicker(vocabulary.text_rows, GREEDY, CPU)
    for row, answer in zip(rows, got, strict=True):
        state, out = script.start(20), []
        while True:
            out += state.forced
            if state.choice is None:
                break
            scores = peer(torch.tensor([row.prompt + out])).logits[0, -1, : vocabulary.text_rows]
            ((token,), _) = picker.pick([state.choice], scores[None], False, torch.empty(0))
            out += [] if token is None else [token]
            state.advance(token)
        assert answer == [token for token in out if token != vocabulary.turn_end]


def test_lyrics_have_no_codes_and_a_limit(vocabulary, planner):
    script = Grammar(vocabulary, skip=frozenset(FIELDS), then_lyrics=True)
    rows = text_rows(vocabulary, grammar=script, max_lyrics=25)
    answers = decode(planner, vocabulary, rows, TokenSampling(5.0))
    lyrics = [ids[script.max_tokens :] for ids in answers]
    assert all(i < vocabulary.text_tokens for ids in lyrics for i in ids)
    assert all(len(ids) <= 25 for ids in lyrics) and any(len(ids) == 25 for ids in lyrics)


def test_default_limit_is_that_of_training_lyrics(vocabulary):
    assert TextRow([1], 0, Grammar(vocabulary)).max_lyrics == 4096


def test_text_can_be_guided(vocabulary, planner):
    rows = text_rows(vocabulary)
    guided = decode(planner, vocabulary, rows, replace(OFFICIAL, guidance=3.0))
    assert guided != decode(planner, vocabulary, rows, replace(OFFICIAL, guidance=1.0))
    assert all(text[-1] == vocabulary.think_end for text in guided)


# --- callbacks and errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make_rows", [code_rows, text_rows])
def test_cancel_takes_effect_within_one_token(vocabulary, planner, monkeypatch, make_rows):
    rows, reports = make_rows(vocabulary), []
    callbacks = Callbacks(progress=reports.append, cancelled=lambda: len(reports) == 5)
    shapes = count_forwards(planner, monkeypatch)
    with pytest.raises(Cancelled, match="plan"):
        decode(planner, vocabulary, rows, OFFICIAL, callbacks)
    assert [report.step for report in reports] == sorted(report.step for report in reports) and len(reports) == 5
    assert sum(rows == 6 for rows, _ in shapes) <= 5


def test_cancel_takes_effect_during_prefill(vocabulary, planner):
    callbacks = Callbacks(cancelled=lambda: True)
    with pytest.raises(Cancelled):
        decode(planner, vocabulary, code_rows(vocabulary), OFFICIAL, callbacks)


def test_progress_of_codes(vocabulary, planner):
    reports = []
    callbacks = Callbacks(progress=reports.append)
    decode(planner, vocabulary, code_rows(vocabulary, count=9), OFFICIAL, callbacks)
    assert [(r.stage, r.step, r.total) for r in reports] == [("plan", i, 9) for i in range(1, 10)]
    assert [r.tokens for r in reports] == [3 * i for i in range(1, 10)]
    reports.clear()
    rows = [replace(row, count=count) for row, count in zip(code_rows(vocabulary), (1, 2, 4), strict=True)]
    decode(planner, vocabulary, rows, OFFICIAL, callbacks)
    assert [r.tokens for r in reports] == [3, 5, 6, 7]


def test_progress_of_text_ends_at_its_real_length(vocabulary, planner):
    reports = []
    callbacks = Callbacks(progress=reports.append)
    answers = decode(planner, vocabulary, text_rows(vocabulary), OFFICIAL, callbacks)
    longest = max(map(len, answers))
    assert (reports[-1].step, reports[-1].total, reports[-1].tokens) == (longest, longest, sum(map(len, answers)))
    assert all(before.step < before.total for before in reports[:-1]) and reports[-2].step <= longest
    assert [r.tokens for r in reports] == sorted(r.tokens for r in reports)


def test_log_has_the_speed(vocabulary, planner, caplog):
    with caplog.at_level("INFO", "acestep"):
        decode(planner, vocabulary, code_rows(vocabulary, count=5), OFFICIAL)
    assert "15 tokens of codes" in caplog.text and "tokens/s" in caplog.text and "float32" in caplog.text


@pytest.mark.parametrize("make_rows", [code_rows, text_rows])
def test_nan_is_an_error(vocabulary, make_rows):
    broken = tiny_planner.network(tiny_planner.config_of(vocabulary))
    broken.norm.weight[3] = float("nan")
    with pytest.raises(NonFiniteError, match="planner"):
        decode(broken, vocabulary, make_rows(vocabulary), OFFICIAL)


@pytest.mark.parametrize("count", [12, 400])
def test_nan_is_noticed_long_before_the_end(vocabulary, planner, monkeypatch, count):
    calls = []
    original = PlannerNetwork.logits

    def nan_at_sixth(network, hidden, head):
        calls.append(1)
        return original(network, hidden, head) * (float("nan") if len(calls) == 6 else 1)

    monkeypatch.setattr(PlannerNetwork, "logits", nan_at_sixth)
    with pytest.raises(NonFiniteError):
        decode(planner, vocabulary, code_rows(vocabulary, count=count), OFFICIAL)
    assert len(calls) <= 6 + 2 * code_loop.CHECK_EVERY


def test_row_beyond_the_context_is_refused(vocabulary, planner):
    limit = planner.config.max_position_embeddings
    start = [5] * (limit - 10)
    for row in (CodeRow(start, 0, 11), CodeRow([5], 0, 11, start), TextRow(start, 0, Grammar(vocabulary))):
        with pytest.raises(RequestError, match=f"context of {limit}"):
            decode(planner, vocabulary, [row], OFFICIAL)
    # Lyrics end where the context does.
    script = Grammar(vocabulary, skip=frozenset(FIELDS), then_lyrics=True)
    (answer,) = decode(planner, vocabulary, [TextRow(start, 0, script, max_lyrics=99)], OFFICIAL)
    assert script.max_tokens < len(answer) <= 10
