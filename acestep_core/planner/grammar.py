"""Constrained decoding: the metadata block that a planner thinks before it answers, as a script that each row runs.

    <think>
    bpm: 120
    caption: Warm lo-fi piano over a slow beat, recorded
      on tape.
    duration: 30
    ...
    </think>

The script yields tokens that are forced and choices that the model makes; it reads like the block itself. Values come
from prefix trees over token ids of their canonical spelling, so that nothing is ever spelled as it was not in training.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..config import MAX_SECONDS
from ..errors import CheckpointError, RequestError
from ..song.languages import LANGUAGES
from ..song.song import MAX_BPM, MIN_BPM, TRAINED_MIN_SECONDS
from .metadata_text import FIELDS, one_line
from .random_numbers import Dice
from .token_sampling import Sampling, choose, guide
from .vocabulary import Vocabulary

VALUES: dict[str, tuple[str, ...]] = {
    "bpm": tuple(str(i) for i in range(MIN_BPM, MAX_BPM + 1)),
    "duration": tuple(str(i) for i in range(TRAINED_MIN_SECONDS, MAX_SECONDS + 1)),
    "keyscale": tuple(
        f"{note}{accidental} {mode}"
        for note in "ABCDEFG"
        for accidental in ("", "#", "b", "♯", "♭")
        for mode in ("major", "minor")
    ),
    "language": tuple(LANGUAGES),
    "timesignature": ("2", "3", "4", "6"),
}
LONGEST = {"caption": 512, "genres": 64}  # tokens; then the line is ended
GREEDY = frozenset({"language"})  # the likeliest, whatever the temperature: a song in a random language pleases nobody

Tree = dict[int, "Tree"]


@dataclass(frozen=True)
class Choice:
    """The model chooses one of the tokens `ids` (ascending).

    greedy: always the likeliest. may_end: only if the likeliest token of all is among them; else the text ends here.
    """

    ids: Tensor
    greedy: bool = False
    may_end: bool = False
    _moved: dict[torch.device, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def on(self, device: torch.device) -> Tensor:
        if device not in self._moved:
            self._moved[device] = self.ids.to(device)
        return self._moved[device]

    def pick(self, given: Tensor, negative: Tensor | None, sampling: Sampling, dice: Dice) -> int | None:
        """The token chosen by a row's logits [text rows] (and those of its negative prompt), None for an end."""
        ids = self.on(given.device)
        if self.may_end and not bool((ids == given.argmax()).any()):
            return None
        allowed = given[ids]
        if negative is not None:
            allowed = guide(allowed, negative[ids], sampling.guidance)
        noise = None
        if sampling.temperature and not self.greedy:
            noise = dice.roll(len(ids)).to(allowed.device)[None]
        place = choose(allowed[None], sampling, noise)[0]
        return int(ids[place])


Script = Generator["list[int] | Choice", "int | None", None]


class Words:
    """What kinds of words a vocabulary has: sets of ids that text inside the block is chosen from.

    A word with a newline anywhere but at its end would begin a line unseen, so it is left out; so are backticks
    (captions in code fences were a habit of the trained text's writer) and control characters, except the tab.
    """

    def __init__(self, vocabulary: Vocabulary):
        control = set(vocabulary.control.values())
        words = {i: piece for i, piece in enumerate(vocabulary.pieces) if piece and i not in control}
        allowed = {i: piece for i, piece in words.items() if _fits(piece)}
        self.line_ends = frozenset(i for i, piece in allowed.items() if piece.endswith(b"\n"))
        self.blanks = frozenset(i for i, piece in allowed.items() if not piece.strip())
        on_line = {i: piece for i, piece in allowed.items() if i not in self.line_ends}
        self.inside = _choice(allowed)
        self.first = _choice(i for i, piece in on_line.items() if piece[:1] == b" " and piece[1:2] not in (b" ", b"\t"))
        self.visible = _choice(i for i, piece in on_line.items() if piece[:1] not in (b" ", b"\t"))
        self.next_line = _choice((i for i, piece in allowed.items() if piece[:1] in (b" ", b"\t")), may_end=True)
        self.lyrics = _choice([*words, vocabulary.turn_end])

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Words:
        """Sorting 150 000 words takes a moment, so the result is kept with its vocabulary."""
        kept = vars(vocabulary)
        if "_words" not in kept:
            kept["_words"] = cls(vocabulary)
        return kept["_words"]


def _fits(piece: bytes) -> bool:
    return b"`" not in piece and all(byte >= 32 or byte == 9 for byte in piece.removesuffix(b"\n"))


def _choice(ids: Iterable[int], may_end: bool = False) -> Choice:
    return Choice(torch.tensor(sorted(ids), dtype=torch.long), may_end=may_end)


class Grammar:
    """What a planner may think, and what it answers then. One grammar serves any number of rows.

    given: values by field that are already decided; they are written as they stand, and the rest is chosen in their
    light. skip: fields left out. then_lyrics: after the block free text follows, up to the end of the turn; otherwise
    the block is all.

    Raises RequestError for a field that does not exist or a value that is empty, CheckpointError for a tokenizer that
    joins a field's name with its value.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        given: Mapping[str, str | int] | None = None,
        skip: frozenset[str] = frozenset(),
        then_lyrics: bool = False,
    ):
        given = dict(given or {})
        unknown = sorted({*given, *skip} - {*FIELDS})
        if unknown:
            raise RequestError(f"the planner has no field {unknown[0]!r}; it has {', '.join(FIELDS)}")
        self.fields = tuple(name for name in FIELDS if name not in skip)
        self.then_lyrics = then_lyrics
        self._vocabulary = vocabulary
        self._words = Words.of(vocabulary)
        self._newline = vocabulary.encode("\n")
        self._names = {name: vocabulary.encode(f"{name}:") for name in self.fields}
        self._given = {name: self._value(name, _said(name, given[name])) for name in self.fields if name in given}
        self._trees = {name: self._tree(name) for name in self.fields if name in VALUES and name not in self._given}

    @property
    def longest(self) -> int:
        """No block has more tokens."""
        frame = 2 + len(self._newline)  # <think>, newline, </think>
        return frame + sum(len(self._names[name]) + self._longest_value(name) for name in self.fields)

    def start(self, limit: int) -> State:
        """A row at its beginning; after the block it may write `limit` tokens of text."""
        return State(self._script(limit))

    def _longest_value(self, name: str) -> int:
        if name in self._given:
            return len(self._given[name])
        if name in self._trees:
            return _depth(self._trees[name])
        return LONGEST[name] + len(self._newline)

    def _value(self, name: str, value: str) -> list[int]:
        """The tokens of ` value` and the newline, as they are spelled behind the field's name."""
        head, ids = self._names[name], self._vocabulary.encode(f"{name}: {value}\n")
        if ids[: len(head)] != head:
            raise CheckpointError(f"the planner's tokenizer joins {name}: with its value; it is not Qwen's")
        return ids[len(head) :]

    def _tree(self, name: str) -> Tree:
        root: Tree = {}
        for value in VALUES[name]:
            node = root
            for token in self._value(name, value):
                node = node.setdefault(token, {})
        return root

    def _script(self, limit: int) -> Script:
        vocabulary = self._vocabulary
        yield [vocabulary.think, *self._newline]
        for name in self.fields:
            yield self._names[name]
            if name in self._given:
                yield self._given[name]
            elif name in self._trees:
                yield from _walk(self._trees[name], name in GREEDY)
            else:
                yield from self._text(LONGEST[name], lines=name == "caption")
        yield [vocabulary.think_end]
        if self.then_lyrics:
            yield from _free(self._words, vocabulary.turn_end, limit)

    def _text(self, longest: int, lines: bool) -> Script:
        """Text of one line, or of several of which all but the first begin with a blank; at least one visible word.

        After a line the model's own likeliest token tells: a blank goes on, anything else means the next field.
        """
        words = self._words
        token = yield words.first
        count = 1
        if token in words.blanks:
            token = yield words.visible
            count += 1
        while count < longest:
            if token in words.line_ends:
                token = (yield words.next_line) if lines else None
                if token is None:
                    return
            else:
                token = yield words.inside
            count += 1
        if token not in words.line_ends:
            yield self._newline


def free_text(vocabulary: Vocabulary, limit: int) -> State:
    """A row without a block: plain words up to the end of the turn, `limit` tokens at most."""
    return State(_free(Words.of(vocabulary), vocabulary.turn_end, limit))


def _free(words: Words, turn_end: int, limit: int) -> Script:
    for _ in range(limit):
        if (yield words.lyrics) == turn_end:
            return


def _walk(tree: Tree, greedy: bool) -> Script:
    """From the root to a leaf; where there is one way it is forced."""
    while tree:
        if len(tree) == 1:
            token = next(iter(tree))
            yield [token]
        else:
            token = yield Choice(torch.tensor(sorted(tree), dtype=torch.long), greedy)
        tree = tree[token]


def _depth(tree: Tree) -> int:
    return 1 + max(map(_depth, tree.values())) if tree else 0


def _said(name: str, value: str | int) -> str:
    line = one_line(str(value))
    if not line:
        raise RequestError(f"the planner was given an empty {name}; leave it out to have it chosen")
    return line


class State:
    """Where one row stands in its script.

    forced: tokens to append before the next choice, in one go. choice: what comes after them, None at the end.
    """

    def __init__(self, script: Script):
        self._script = script
        self.forced: list[int] = []
        self.choice: Choice | None = None
        self.take(None)

    def take(self, token: int | None) -> None:
        """Goes on with the token chosen (None: the choice was to end)."""
        self.forced = []
        try:
            event = self._script.send(token)
            while isinstance(event, list):
                self.forced += event
                event = next(self._script)
            self.choice = event
        except StopIteration:
            self.choice = None
