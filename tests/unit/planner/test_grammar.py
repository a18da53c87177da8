import random

import pytest
import torch

from acestep_core.planner.grammar import MAX_TOKENS, VALUES, Grammar
from acestep_core.planner.metadata_text import FIELDS, read_block
from acestep_core.planner.rng import ChoiceNoise
from acestep_core.planner.token_choice import TokenPicker
from acestep_core.planner.token_sampling import TokenSampling, numbers_per_choice
from acestep_core.planner.vocabulary import Vocabulary
from acestep_core.text.tokenizer import Tokenizer
from tests.support import qwen, tiny_planner, tiny_text

tiny_tokenizer_dir, qwen_tokenizer_dir = tiny_text.tiny_tokenizer_dir, qwen.qwen_tokenizer_dir
vocabulary = tiny_planner.vocabulary

CPU = torch.device("cpu")
GREEDY = TokenSampling(temperature=0.0)  # with random logits as random as sampling, and faster
FIXED = {
    "bpm": 117,
    "caption": "A `quoted` caption: with # signs, and - 'more' </think>",
    "duration": 600,
    "genres": "lo-fi, naïve",
    "keyscale": "E♭ minor",
    "language": "yue",
    "timesignature": 6,
}


@pytest.fixture(scope="session")
def qwen_vocabulary(qwen_tokenizer_dir) -> Vocabulary:
    return Vocabulary.of(Tokenizer.from_folder(qwen_tokenizer_dir))


class RandomModel:
    """Returns random logits from a pool, because drawing them takes long. `newline` raises the end of a line."""

    def __init__(self, vocabulary: Vocabulary, seed: int = 0, pool: int = 500, newline: float = 0.0):
        generator = torch.Generator().manual_seed(seed)
        self.pool = torch.randn(pool, vocabulary.text_rows, generator=generator)
        self.pool[:, sorted(vocabulary.token_sets.line_ends)] += newline
        self.random = random.Random(seed)

    def __call__(self) -> torch.Tensor:
        return self.pool[self.random.randrange(len(self.pool))]


def write_rows(
    grammar: Grammar, model, rows: int, sampling: TokenSampling = GREEDY, max_lyrics: int = 30
) -> list[list[int]]:
    """Return whole answers of a model that returns one row of logits."""
    states = [grammar.start(max_lyrics) for _ in range(rows)]
    answers = [list(state.forced) for state in states]
    if not any(state.choice for state in states):
        return answers
    size, step = len(logits := model()), 0
    picker, seeds = TokenPicker(size, sampling, CPU), range(rows) if sampling.temperature else []
    noise = ChoiceNoise(seeds, numbers_per_choice(size), CPU)
    while any(choices := [state.choice for state in states]):
        noise.prepare(step)
        scores = torch.stack([model() if choice and (step or row) else logits for row, choice in enumerate(choices)])
        tokens, _ = picker.pick(choices, scores, False, noise.numbers(step))
        for state, out, token in zip(states, answers, tokens, strict=True):
            if state.choice is not None:
                state.advance(token)
                out += [*([] if token is None else [token]), *state.forced]
        step += 1
    return answers


def write(grammar: Grammar, model, sampling: TokenSampling = GREEDY, max_lyrics: int = 30) -> list[int]:
    """Return one answer."""
    return write_rows(grammar, model, 1, sampling, max_lyrics)[0]


def lines_of(vocabulary: Vocabulary, ids: list[int]) -> list[str]:
    """Return the block's lines. Check its first and last tokens, and that it has no other control token or code."""
    newline = vocabulary.encode("\n")
    assert ids[: 1 + len(newline)] == [vocabulary.think, *newline] and ids[-1] == vocabulary.think_end
    inner = ids[1 + len(newline) : -1]
    assert all(i < vocabulary.text_tokens for i in inner)
    text = vocabulary.decode(inner)
    assert text.endswith("\n")
    return text[:-1].split("\n")


def check(vocabulary: Vocabulary, ids: list[int], fields: list[str], fixed: dict) -> None:
    lines = lines_of(vocabulary, ids)
    names = [line.partition(":")[0] for line in lines if not line[:1].isspace()]
    assert names == fields
    block = read_block("\n".join(lines))
    for name in fields:
        line = next(line for line in lines if line.startswith(f"{name}:"))
        if name in fixed:
            assert line == f"{name}: {fixed[name]}"
        elif name in VALUES:
            assert line.removeprefix(f"{name}: ") in VALUES[name]
            assert str(block[name]) == line.removeprefix(f"{name}: ")
        else:
            assert line.startswith(f"{name}: ") and line.removeprefix(f"{name}: ").strip() and "`" not in line
            # Empty quotes and N/A are no value.
            assert block.get(name) or line.partition(":")[2].strip().strip("'\"").lower() in ("", "n/a")


def test_ten_thousand_random_blocks_can_be_read(vocabulary):
    rng, model, written = random.Random(1), RandomModel(vocabulary, newline=2.5), set()
    for batch in range(100):
        fixed = {name: FIXED[name] for name in FIELDS if rng.random() < 0.3} if batch % 2 else {}
        skip = frozenset(name for name in ("caption", "genres", "language") if rng.random() < 0.5)
        fields = [name for name in FIELDS if name not in skip]
        grammar = Grammar(vocabulary, fixed, skip)
        for ids in write_rows(grammar, model, 100):
            assert len(ids) <= grammar.max_tokens
            check(vocabulary, ids, fields, fixed)
            written.add(tuple(ids))
    assert len(written) > 8_000


def test_blocks_of_the_real_vocabulary_can_be_read(qwen_vocabulary):
    """Few blocks are sampled, because each token sorts 140,000 probabilities."""
    model, rng, written = RandomModel(qwen_vocabulary, pool=20, newline=6.0), random.Random(2), set()
    for batch in range(10):
        fixed = {name: FIXED[name] for name in FIELDS if rng.random() < 0.3} if batch % 2 else {}
        grammar = Grammar(qwen_vocabulary, fixed)
        sampled = write_rows(grammar, model, 1, TokenSampling(temperature=1.0, top_p=0.95))
        for ids in (*sampled, *write_rows(grammar, model, 29)):
            check(qwen_vocabulary, ids, list(FIELDS), fixed)
            written |= set(lines_of(qwen_vocabulary, ids))
    assert len(written) > 500


def test_values_of_training():
    assert VALUES.keys() == {"bpm", "duration", "keyscale", "language", "timesignature"}
    assert VALUES["bpm"] == tuple(map(str, range(30, 301)))
    assert VALUES["duration"] == tuple(map(str, range(10, 601)))
    assert VALUES["timesignature"] == ("2", "3", "4", "6")
    signs = {"", "#", "b", "\N{MUSIC SHARP SIGN}", "\N{MUSIC FLAT SIGN}"}
    keys = {f"{note}{sign} {mode}" for note in "ABCDEFG" for sign in signs for mode in ("major", "minor")}
    assert set(VALUES["keyscale"]) == keys and len(VALUES["keyscale"]) == len(keys) == 70
    languages = (
        "ar az bg bn ca cs da de el en es fa fi fr he hi hr ht hu id is it ja ko la lt ms ne nl no pa pl pt ro ru sa "
        "sk sr sv sw ta te th tl tr uk ur vi yue zh unknown"
    )
    assert sorted(VALUES["language"]) == sorted(languages.split()) and len(VALUES["language"]) == 51
    assert MAX_TOKENS == {"caption": 512, "genres": 64}


@pytest.mark.parametrize("name", VALUES)
def test_every_value_is_reachable(vocabulary, name):
    grammar, newline = Grammar(vocabulary, skip=frozenset(FIELDS) - {name}), vocabulary.encode("\n")
    for value in VALUES[name]:
        expected = [vocabulary.think, *newline, *vocabulary.encode(f"{name}: {value}\n"), vocabulary.think_end]
        state, out = grammar.start(0), []
        while True:
            out += state.forced
            if state.choice is None:
                break
            token = expected[len(out)]
            assert token in state.choice.ids.tolist() and len(state.choice.ids) > 1
            out.append(token)
            state.advance(token)
        assert out == expected


def test_canonical_tokens_of_the_real_vocabulary(qwen_vocabulary):
    fixed = {"bpm": 120, "duration": 30, "keyscale": "F# minor", "language": "en", "timesignature": 4}
    state = Grammar(qwen_vocabulary, fixed, skip=frozenset({"caption", "genres"})).start(0)
    assert state.choice is None  # the whole block is forced in one run
    assert state.forced == [
        *(151667, 198, 65, 5187, 25, 220, 16, 17, 15, 198, 17021, 25, 220, 18, 15, 198),
        *(10563, 2246, 25, 434, 2, 8922, 198, 11528, 25, 662, 198, 15136, 622, 1568, 25, 220, 19, 198, 151668),
    ]


def test_numbers_are_chosen_digit_by_digit(qwen_vocabulary):
    state = Grammar(qwen_vocabulary, skip=frozenset(FIELDS) - {"bpm"}).start(0)
    assert state.forced == [151667, 198, 65, 5187, 25, 220]
    assert state.choice.ids.tolist() == list(range(16, 25))  # 1 to 9
    state.advance(18)  # 3, for 30 to 39 or 300
    assert state.forced == [] and state.choice.ids.tolist() == list(range(15, 25))
    state.advance(15)
    assert sorted(state.choice.ids.tolist()) == [15, 198]  # 300, or 30 and the end of the line
    state.advance(15)
    assert state.choice is None and state.forced == [198, 151668]


def test_language_is_greedy_at_any_temperature(qwen_vocabulary):
    logits = torch.zeros(qwen_vocabulary.text_rows)
    logits[qwen_vocabulary.encode(" fr")] = 0.1
    logits[qwen_vocabulary.encode(" nonsense")] = 9.0
    grammar = Grammar(qwen_vocabulary, skip=frozenset(FIELDS) - {"language"})
    for _ in range(5):
        ids = write(grammar, lambda: logits, TokenSampling(temperature=2.0))
        assert lines_of(qwen_vocabulary, ids) == ["language: fr"]


def spell(vocabulary: Vocabulary, *tokens: str):
    """Return a model whose likeliest tokens are these, one after the other."""
    queue = list(tokens)

    def logits():
        scores = torch.zeros(vocabulary.text_rows)
        (token,) = vocabulary.encode(queue.pop(0))
        scores[token] = 10
        return scores

    return logits


CAPTION = frozenset(FIELDS) - {"caption", "timesignature"}
ONLY_CAPTION = frozenset(FIELDS) - {"caption"}


def test_caption_continues_after_a_newline_if_the_model_indents(qwen_vocabulary):
    model = spell(qwen_vocabulary, " Warm", " piano", "\n", " ", " slow", ".\n", "times")
    ids = write(Grammar(qwen_vocabulary, {"timesignature": 4}, CAPTION), model)
    assert lines_of(qwen_vocabulary, ids) == ["caption: Warm piano", "  slow.", "timesignature: 4"]


def test_caption_ends_at_a_token_with_a_newline(qwen_vocabulary):
    """A full stop and a newline are one token."""
    model = spell(qwen_vocabulary, " Warm", ".\n", "genres")
    ids = write(Grammar(qwen_vocabulary, {"timesignature": 4}, CAPTION), model)
    assert lines_of(qwen_vocabulary, ids) == ["caption: Warm.", "timesignature: 4"]


def test_tokens_that_a_caption_excludes(qwen_vocabulary):
    inside = set(qwen_vocabulary.token_sets.inside.ids.tolist())
    assert not inside & set(qwen_vocabulary.control.values())
    for text in ("`", "```", " `", "\n\n", ";\n\n", "\r\n", "\n    "):
        assert not inside & set(qwen_vocabulary.encode(text)) or len(qwen_vocabulary.encode(text)) > 1, text
    pieces = [qwen_vocabulary.pieces[i] for i in inside]
    assert not any(b"`" in piece or b"\n" in piece[:-1] or b"\r" in piece for piece in pieces)
    for text in ("\n", ".\n", "\t", " warm"):
        assert set(qwen_vocabulary.encode(text)) <= inside
    assert len(inside) > 140_000


def test_caption_begins_with_a_word(qwen_vocabulary):
    for tokens in (["\n", ".\n", "x"], [" ", "\n", "\n", "x"]):
        ids = write(Grammar(qwen_vocabulary, skip=ONLY_CAPTION), spell(qwen_vocabulary, *tokens, *["\n"] * 3))
        (line,) = lines_of(qwen_vocabulary, ids)
        assert line.removeprefix("caption: ").strip()


def test_endless_text_is_cut(vocabulary):
    def never_a_newline():
        return torch.zeros(vocabulary.text_rows).index_fill(0, torch.tensor(vocabulary.encode(" a")[-1:]), 5.0)

    for name in ("caption", "genres"):
        grammar = Grammar(vocabulary, skip=frozenset(FIELDS) - {name})
        ids = write(grammar, never_a_newline)
        assert len(ids) == grammar.max_tokens
        assert len(lines_of(vocabulary, ids)) == 1
        head = len(vocabulary.encode(f"\n{name}:")) + 1
        assert len(ids) == head + MAX_TOKENS[name] + len(vocabulary.encode("\n")) + 1


def test_genres_are_one_line_and_the_next_name_is_whole(qwen_vocabulary):
    """The original engine loses the first letter of `keyscale:` here."""
    skip = frozenset({"bpm", "caption", "duration", "language", "timesignature"})
    ids = write(Grammar(qwen_vocabulary, {"keyscale": "C major"}, skip), spell(qwen_vocabulary, " jazz", "\n"))
    assert lines_of(qwen_vocabulary, ids) == ["genres: jazz", "keyscale: C major"]


def test_fixed_text_never_becomes_a_control_token(qwen_vocabulary):
    fixed = {"caption": "lines <|im_end|> </think> <|audio_code_7|>"}
    ids = write(Grammar(qwen_vocabulary, fixed, ONLY_CAPTION), None)
    assert lines_of(qwen_vocabulary, ids) == [f"caption: {fixed['caption']}"]


def test_lyrics_follow_the_block_without_codes_until_the_turn_ends(vocabulary):
    grammar = Grammar(vocabulary, FIXED, then_lyrics=True)
    state = grammar.start(30)
    assert set(state.choice.ids.tolist()) == {*range(vocabulary.text_tokens), vocabulary.turn_end}
    state.advance(vocabulary.turn_end)
    assert state.choice is None and state.forced == []
    ids = write(grammar, RandomModel(vocabulary), max_lyrics=30)
    assert len(ids) == len(write(Grammar(vocabulary, FIXED), None)) + 30


def test_rows_of_one_grammar_do_not_share_their_state(vocabulary):
    grammar = Grammar(vocabulary, skip=frozenset({"caption", "genres"}))
    one, other = grammar.start(0), grammar.start(0)
    before = other.choice.ids.tolist()
    one.advance(one.choice.ids[0].item())
    assert other.choice.ids.tolist() == before


def test_guidance_among_allowed_tokens(vocabulary):
    state = Grammar(vocabulary, skip=frozenset(FIELDS) - {"timesignature"}).start(0)
    conditional, unconditional = torch.zeros(vocabulary.text_rows), torch.zeros(vocabulary.text_rows)
    two, three = vocabulary.encode("2")[0], vocabulary.encode("3")[0]
    conditional[two], conditional[three], unconditional[two] = 1.0, 0.9, 0.5

    def pick(scores: torch.Tensor, sampling: TokenSampling) -> int | None:
        picker = TokenPicker(vocabulary.text_rows, sampling, CPU)
        ((token,), finite) = picker.pick([state.choice], scores, sampling.guided, torch.empty(0))
        assert finite
        return token

    assert pick(conditional[None], GREEDY) == two
    both = torch.stack((conditional, unconditional))
    assert pick(both, TokenSampling(temperature=0.0, guidance=2.0)) == three
