"""Constrained decoding: a script of the planner's reasoning block, run by each row.

    <think>
    bpm: 120
    caption: Warm lo-fi piano over a slow beat, recorded
      on tape.
    duration: 30
    ...
    </think>

The script yields forced tokens and choices for the model. Values come from prefix trees over the token ids of their
canonical spelling. Thus no value has a spelling that is unknown from training.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..config import MAX_SECONDS
from ..errors import CheckpointError
from ..song.languages import LANGUAGES
from ..song.song import MAX_BPM, MIN_BPM, TRAINED_MIN_SECONDS
from .metadata_text import FIELDS
from .token_choice import TokenChoice
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
MAX_TOKENS = {"caption": 512, "genres": 64}  # a longer line is cut
GREEDY_FIELDS = frozenset({"language"})  # sampling would now and then choose an odd language

Script = Generator["list[int] | TokenChoice", Any, None]  # receives the token of each choice, None for an end


@dataclass
class Tree:
    """A prefix tree: subtrees by token. `choice` is among these tokens."""

    greedy: bool
    children: dict[int, Tree] = field(default_factory=dict)

    @cached_property
    def choice(self) -> TokenChoice:
        return TokenChoice.among(self.children, self.greedy)

    @property
    def depth(self) -> int:
        return max((1 + child.depth for child in self.children.values()), default=0)

    def add(self, path: list[int]) -> None:
        node = self
        for token in path:
            node = node.children.setdefault(token, Tree(self.greedy))

    def walk(self) -> Script:
        """Yield the path from here to a leaf. A node with one child is forced."""
        node = self
        while node.children:
            if len(node.children) == 1:
                token = next(iter(node.children))
                yield [token]
            else:
                token = yield node.choice
            node = node.children[token]


class Grammar:
    """The reasoning block of a planner's answer, optionally followed by lyrics. One grammar serves any number of rows.

    fixed: decided values, by field. They are written as given, and the model chooses the rest.
    skip: fields left out.
    then_lyrics: free text follows the block, until the end of the turn.

    Raises CheckpointError for a tokenizer that merges a field's name with its value.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        fixed: Mapping[str, str | int] | None = None,
        skip: frozenset[str] = frozenset(),
        then_lyrics: bool = False,
    ):
        self.fields = tuple(name for name in FIELDS if name not in skip)
        self.then_lyrics = then_lyrics
        self._vocabulary = vocabulary
        self._sets = vocabulary.token_sets
        self._newline = vocabulary.encode("\n")
        self._names = {name: vocabulary.encode(f"{name}:") for name in self.fields}
        self._fixed = {
            name: self._value(name, str(value)) for name, value in (fixed or {}).items() if name in self.fields
        }
        self._trees = {name: self._tree(name) for name in self.fields if name in VALUES and name not in self._fixed}

    @property
    def max_tokens(self) -> int:
        """The length of the longest possible block."""
        frame = 2 + len(self._newline)  # <think>, newline, </think>
        return frame + sum(len(self._names[name]) + self._max_value_tokens(name) for name in self.fields)

    def start(self, max_lyrics: int) -> GrammarState:
        """Return the state of a new row. At most `max_lyrics` tokens of free text follow its block."""
        return GrammarState(self._script(max_lyrics))

    def _max_value_tokens(self, name: str) -> int:
        if name in self._fixed:
            return len(self._fixed[name])
        if name in self._trees:
            return self._trees[name].depth
        return MAX_TOKENS[name] + len(self._newline)

    def _value(self, name: str, value: str) -> list[int]:
        """Return the tokens of ` value` and the newline, as they are spelled after the field's name."""
        head, ids = self._names[name], self._vocabulary.encode(f"{name}: {value}\n")
        if ids[: len(head)] != head:
            raise CheckpointError(
                f"tokenizer: `{name}:` merges with the value after it; the planner needs Qwen's tokenizer"
            )
        return ids[len(head) :]

    def _tree(self, name: str) -> Tree:
        tree = Tree(name in GREEDY_FIELDS)
        for value in VALUES[name]:
            tree.add(self._value(name, value))
        return tree

    def _script(self, max_lyrics: int) -> Script:
        vocabulary = self._vocabulary
        yield [vocabulary.think, *self._newline]
        for name in self.fields:
            yield self._names[name]
            if name in self._fixed:
                yield self._fixed[name]
            elif name in self._trees:
                yield from self._trees[name].walk()
            else:
                yield from self._text(MAX_TOKENS[name], multiline=name == "caption")
        yield [vocabulary.think_end]
        if self.then_lyrics:
            for _ in range(max_lyrics):
                if (yield self._sets.lyrics) == vocabulary.turn_end:
                    return

    def _text(self, max_tokens: int, multiline: bool) -> Script:
        """Yield choices for text with at least one visible character.

        If the text is `multiline`, further lines begin with white space. After each line the model's likeliest token
        decides: white space continues the text, any other token ends it.
        """
        sets = self._sets
        token = yield sets.first
        count = 1
        if token in sets.blanks:
            token = yield sets.visible
            count += 1
        while count < max_tokens:
            if token in sets.line_ends:
                token = (yield sets.next_line) if multiline else None
                if token is None:
                    return
            else:
                token = yield sets.inside
            count += 1
        if token not in sets.line_ends:
            yield self._newline


class GrammarState:
    """The position of one row in its script.

    forced: tokens to append before the next choice.
    choice: the choice after them, or None at the end.
    """

    def __init__(self, script: Script):
        self._script = script
        self.forced: list[int] = []
        self.choice: TokenChoice | None = None
        self.advance(None)

    def advance(self, token: int | None) -> None:
        """Continue after the chosen token. None means that the choice ended the text."""
        self.forced = []
        try:
            event = self._script.send(token)
            while isinstance(event, list):
                self.forced += event
                event = next(self._script)
            self.choice = event
        except StopIteration:
            self.choice = None
