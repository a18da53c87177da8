import random

import pytest
import torch

from acestep_core.errors import RequestError
from acestep_core.planner.grammar import LONGEST, VALUES, Grammar, Words, free_text
from acestep_core.planner.metadata_text import FIELDS, read_block
from acestep_core.planner.random_numbers import Dice
from acestep_core.planner.token_sampling import Sampling
from acestep_core.planner.vocabulary import Vocabulary
from acestep_core.text.tokenizer import Tokenizer
from tests.support import qwen, tiny_planner, tiny_text

tiny_tokenizer_dir, qwen_tokenizer_dir = tiny_text.tiny_tokenizer_dir, qwen.qwen_tokenizer_dir
vocabulary = tiny_planner.vocabulary

ROW = Dice(seed=3)
LIKELIEST = Sampling(temperature=0.0)  # of random logits: as good as a free choice, and quicker
GIVEN = {
    "bpm": 117,
    "caption": "A `quoted` caption: with # signs, and - 'more' </think>",
    "duration": 600,
    "genres": "lo-fi, naïve",
    "keyscale": "E♭ minor",
    "language": "yue",
    "timesignature": 6,
}


@pytest.fixture(scope="session")
def real(qwen_tokenizer_dir) -> Vocabulary:
    return Vocabulary.of(Tokenizer.from_folder(qwen_tokenizer_dir))


class Model:
    """Random logits, from a pool so that ten thousand texts take seconds; `newline` makes lines end sooner."""

    def __init__(self, vocabulary: Vocabulary, seed: int = 0, pool: int = 500, newline: float = 0.0):
        generator = torch.Generator().manual_seed(seed)
        self.pool = torch.randn(pool, vocabulary.text_rows, generator=generator)
        self.pool[:, sorted(Words.of(vocabulary).line_ends)] += newline
        self.choose = random.Random(seed)

    def __call__(self) -> torch.Tensor:
        return self.pool[self.choose.randrange(len(self.pool))]


def write(grammar: Grammar, model, sampling: Sampling = LIKELIEST, limit: int = 30) -> list[int]:
    """A whole answer of a model that answers by dice."""
    state, out = grammar.start(limit), []
    while True:
        out += state.forced
        if state.choice is None:
            return out
        token = state.choice.pick(model(), None, sampling, ROW)
        out += [] if token is None else [token]
        state.take(token)


def lines_of(vocabulary: Vocabulary, ids: list[int]) -> list[str]:
    """The block's lines. It begins and ends as it should and holds no other control token and no code."""
    newline = vocabulary.encode("\n")
    assert ids[: 1 + len(newline)] == [vocabulary.think, *newline] and ids[-1] == vocabulary.think_end
    inner = ids[1 + len(newline) : -1]
    assert all(i < vocabulary.words for i in inner)
    text = vocabulary.decode(inner)
    assert text.endswith("\n")
    return text[:-1].split("\n")


def check(vocabulary: Vocabulary, ids: list[int], fields: list[str], given: dict) -> None:
    lines = lines_of(vocabulary, ids)
    names = [line.partition(":")[0] for line in lines if not line[:1].isspace()]
    assert names == fields
    block = read_block("\n".join(lines))
    for name in fields:
        line = next(line for line in lines if line.startswith(f"{name}:"))
        if name in given:
            assert line == f"{name}: {given[name]}"
        elif name in VALUES:
            assert line.removeprefix(f"{name}: ") in VALUES[name]
            assert str(block[name]) == line.removeprefix(f"{name}: ")
        else:
            assert line.startswith(f"{name}: ") and line.removeprefix(f"{name}: ").strip() and "`" not in line
            # Quotes with nothing in them say nothing; so does N/A.
            assert block.get(name) or line.partition(":")[2].strip().strip("'\"").lower() in ("", "n/a")


def test_ten_thousand_random_blocks_can_all_be_read(vocabulary):
    roll, model, written = random.Random(1), Model(vocabulary, newline=2.5), set()
    for batch in range(100):
        given = {name: GIVEN[name] for name in FIELDS if roll.random() < 0.3} if batch % 2 else {}
        skip = frozenset(name for name in ("caption", "genres", "language") if roll.random() < 0.5)
        fields = [name for name in FIELDS if name not in skip]
        grammar = Grammar(vocabulary, given, skip)
        for _ in range(100):
            ids = write(grammar, model)
            assert len(ids) <= grammar.longest
            check(vocabulary, ids, fields, given)
            written.add(tuple(ids))
    assert len(written) > 8_000


def test_blocks_of_the_real_vocabulary_can_be_read(real):
    """Greedily, which is as random here, and some by dice: these sort 140 000 words for every token."""
    model, roll, written = Model(real, pool=20, newline=6.0), random.Random(2), set()
    for batch in range(10):
        given = {name: GIVEN[name] for name in FIELDS if roll.random() < 0.3} if batch % 2 else {}
        grammar = Grammar(real, given)
        for block in range(30):
            ids = write(grammar, model, LIKELIEST if block else Sampling(temperature=1.0, top_p=0.95))
            check(real, ids, list(FIELDS), given)
            written |= {line for line in lines_of(real, ids)}
    assert len(written) > 500


def test_the_values_are_those_of_training():
    """70 keys, 51 languages; what is missing here could never be planned."""
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
    assert LONGEST == {"caption": 512, "genres": 64}


@pytest.mark.parametrize("name", VALUES)
def test_every_value_can_be_reached(vocabulary, name):
    """By choosing at every turn the token that spells it."""
    grammar, newline = Grammar(vocabulary, skip=frozenset(FIELDS) - {name}), vocabulary.encode("\n")
    for value in VALUES[name]:
        wanted = [vocabulary.think, *newline, *vocabulary.encode(f"{name}: {value}\n"), vocabulary.think_end]
        state, out = grammar.start(0), []
        while True:
            out += state.forced
            if state.choice is None:
                break
            token = wanted[len(out)]
            assert token in state.choice.ids.tolist() and len(state.choice.ids) > 1
            out.append(token)
            state.take(token)
        assert out == wanted


def test_canonical_tokens_of_the_real_vocabulary(real):
    given = {"bpm": 120, "duration": 30, "keyscale": "F# minor", "language": "en", "timesignature": 4}
    grammar = Grammar(real, given, skip=frozenset({"caption", "genres"}))
    state = grammar.start(0)
    assert state.choice is None  # all of it is forced, in one run
    assert state.forced == [
        *(151667, 198, 65, 5187, 25, 220, 16, 17, 15, 198, 17021, 25, 220, 18, 15, 198),
        *(10563, 2246, 25, 434, 2, 8922, 198, 11528, 25, 662, 198, 15136, 622, 1568, 25, 220, 19, 198, 151668),
    ]


def test_real_numbers_go_digit_by_digit_and_may_end_early(real):
    state = Grammar(real, skip=frozenset(FIELDS) - {"bpm"}).start(0)
    assert state.forced == [151667, 198, 65, 5187, 25, 220]
    assert state.choice.ids.tolist() == list(range(16, 25))  # 1 to 9
    state.take(18)  # 3: 3x or 3xx, the latter 300 only
    assert state.forced == [] and state.choice.ids.tolist() == list(range(15, 25))
    state.take(15)
    assert sorted(state.choice.ids.tolist()) == [15, 198]  # 300, or 30 and the end
    state.take(15)
    assert state.choice is None and state.forced == [198, 151668]


def test_language_is_the_likeliest_allowed_whatever_the_temperature(real):
    logits = torch.zeros(real.text_rows)
    logits[real.encode(" fr")] = 0.1
    logits[real.encode(" nonsense")] = 9.0
    for _ in range(5):
        ids = write(Grammar(real, skip=frozenset(FIELDS) - {"language"}), lambda: logits, Sampling(temperature=2.0))
        assert lines_of(real, ids) == ["language: fr"]


def spell(vocabulary: Vocabulary, *words: str):
    """Logits that want these words one after the other, whether they are allowed or not."""
    queue = list(words)

    def logits():
        scores = torch.zeros(vocabulary.text_rows)
        (token,) = vocabulary.encode(queue.pop(0))
        scores[token] = 10
        return scores

    return logits


CAPTION = frozenset(FIELDS) - {"caption", "timesignature"}
ONLY_CAPTION = frozenset(FIELDS) - {"caption"}


def test_a_caption_goes_on_after_a_newline_when_the_model_indents(real):
    model = spell(real, " Warm", " piano", "\n", " ", " slow", ".\n", "times")
    ids = write(Grammar(real, {"timesignature": 4}, CAPTION), model)
    assert lines_of(real, ids) == ["caption: Warm piano", "  slow.", "timesignature: 4"]


def test_a_newline_may_hide_in_a_word(real):
    """`.` and newline are one token; the caption ends there all the same."""
    ids = write(Grammar(real, {"timesignature": 4}, CAPTION), spell(real, " Warm", ".\n", "genres"))
    assert lines_of(real, ids) == ["caption: Warm.", "timesignature: 4"]


def test_what_a_caption_may_not_hold(real):
    inside = set(Words.of(real).inside.ids.tolist())
    assert not inside & set(real.control.values())
    for text in ("`", "```", " `", "\n\n", ";\n\n", "\r\n", "\n    "):
        assert not inside & set(real.encode(text)) or len(real.encode(text)) > 1, text
    assert not any(b"`" in real.pieces[i] for i in inside)
    assert not any(b"\n" in real.pieces[i][:-1] or b"\r" in real.pieces[i] for i in inside)
    assert {*real.encode("\n"), *real.encode(".\n"), *real.encode("\t"), *real.encode(" warm")} <= inside
    assert len(inside) > 140_000


def test_a_caption_begins_with_a_word(real):
    """Wanting to end it at once, or to begin with blanks, gives a word: the likeliest that is allowed."""
    for wishes in (["\n", ".\n", "x"], [" ", "\n", "\n", "x"]):
        ids = write(Grammar(real, skip=ONLY_CAPTION), spell(real, *wishes, *["\n"] * 3))
        (line,) = lines_of(real, ids)
        assert line.removeprefix("caption: ").strip()


def test_endless_text_is_ended(vocabulary):
    def never_a_newline():
        return torch.zeros(vocabulary.text_rows).index_fill(0, torch.tensor(vocabulary.encode(" a")[-1:]), 5.0)

    for name in ("caption", "genres"):
        grammar = Grammar(vocabulary, skip=frozenset(FIELDS) - {name})
        ids = write(grammar, never_a_newline)
        assert len(ids) == grammar.longest
        assert len(lines_of(vocabulary, ids)) == 1
        head = len(vocabulary.encode(f"\n{name}:")) + 1
        assert len(ids) == head + LONGEST[name] + len(vocabulary.encode("\n")) + 1


def test_genres_are_one_line_and_the_next_name_is_whole(real):
    """The reference loses the first letter of `keyscale:` here."""
    model = spell(real, " jazz", "\n")
    skip = frozenset({"bpm", "caption", "duration", "language", "timesignature"})
    ids = write(Grammar(real, {"keyscale": "C major"}, skip), model)
    assert lines_of(real, ids) == ["genres: jazz", "keyscale: C major"]


def test_given_text_is_one_line_and_never_a_control_token(real):
    given = {"caption": "  two\nlines <|im_end|> </think> <|audio_code_7|> "}
    ids = write(Grammar(real, given, ONLY_CAPTION), None)
    assert lines_of(real, ids) == ["caption: two lines <|im_end|> </think> <|audio_code_7|>"]


def test_lyrics_follow_the_block_without_codes_until_the_turn_ends(vocabulary):
    grammar = Grammar(vocabulary, GIVEN, then_lyrics=True)
    state = grammar.start(30)
    assert set(state.choice.ids.tolist()) == {*range(vocabulary.words), vocabulary.turn_end}
    state.take(vocabulary.turn_end)
    assert state.choice is None and state.forced == []
    ids = write(grammar, Model(vocabulary), limit=30)
    assert len(ids) == len(write(Grammar(vocabulary, GIVEN), None)) + 30
    assert set(free_text(vocabulary, 3).choice.ids.tolist()) == {*range(vocabulary.words), vocabulary.turn_end}


def test_rows_of_one_grammar_do_not_share_their_state(vocabulary):
    grammar = Grammar(vocabulary, skip=frozenset({"caption", "genres"}))
    one, other = grammar.start(0), grammar.start(0)
    before = other.choice.ids.tolist()
    one.take(one.choice.ids[0].item())
    assert other.choice.ids.tolist() == before


def test_guidance_is_between_what_is_allowed(vocabulary):
    state = Grammar(vocabulary, skip=frozenset(FIELDS) - {"timesignature"}).start(0)
    given, negative = torch.zeros(vocabulary.text_rows), torch.zeros(vocabulary.text_rows)
    two, three = vocabulary.encode("2")[0], vocabulary.encode("3")[0]
    given[two], given[three], negative[two] = 1.0, 0.9, 0.5
    pick = state.choice.pick
    assert pick(given, None, LIKELIEST, ROW) == two
    assert pick(given, negative, Sampling(temperature=0.0, guidance=2.0), ROW) == three


@pytest.mark.parametrize(
    ("given", "skip"), [({"tempo": 3}, set()), ({}, {"lyrics"}), ({"caption": " \n"}, set()), ({"genres": ""}, set())]
)
def test_fields_that_do_not_exist_or_say_nothing_are_refused(vocabulary, given, skip):
    with pytest.raises(RequestError):
        Grammar(vocabulary, given, frozenset(skip))
