"""The planner's vocabulary: text tokens, then control tokens, then one row for each audio code.

The text tokens are an ordinary byte-level BPE. The released tokenizer also lists 65,535 audio tokens, which are never
loaded, because their ids are arithmetic. Text never encodes to a control token or an audio code. Both are inserted by
id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..config import CODE_COUNT
from ..errors import CheckpointError, RequestError
from ..text.tokenizer import Tokenizer
from .token_choice import TokenSets

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
THINK = "<think>"
THINK_END = "</think>"

# Qwen's base vocabulary, and the ids of Qwen3's control tokens after it, 26 in all. Tokenizer files of Qwen2.5 have the
# same text tokens but other names at the last of these ids, so the ids are not read from a file.
QWEN_TEXT_TOKENS = 151_643
QWEN_CONTROL = {END_OF_TEXT: 151_643, TURN_START: 151_644, TURN_END: 151_645, THINK: 151_667, THINK_END: 151_668}
QWEN_CONTROL_TOKENS = 26

_AUDIO_PREFIX = "<|audio_code_"  # a planner's own tokenizer.json lists audio codes after the control tokens


@dataclass(frozen=True)
class Vocabulary:
    """Ids of text tokens, control tokens and audio codes. Create it with `Vocabulary.of`.

    audio_base: id of audio code 0.
    codes: number of audio codes.
    """

    tokenizer: Tokenizer
    control: dict[str, int]
    audio_base: int
    codes: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, audio_base: int | None = None, codes: int = CODE_COUNT) -> Vocabulary:
        """Return the vocabulary of the tokenizer's text and control tokens, followed by the audio codes.

        audio_base: the network's row of audio code 0, if known.

        Raises CheckpointError if the tokenizer has another number of ids, or lacks a control token.
        """
        control, size = dict(QWEN_CONTROL), QWEN_TEXT_TOKENS + QWEN_CONTROL_TOKENS
        if tokenizer.text_size != QWEN_TEXT_TOKENS:
            listed = {name: i for name, i in tokenizer.control_ids.items() if not name.startswith(_AUDIO_PREFIX)}
            missing = [name for name in QWEN_CONTROL if name not in listed]
            if missing:
                raise CheckpointError(
                    f"tokenizer lacks control tokens: {', '.join(missing)}; use the tokenizer of the planner"
                )
            control, size = {name: listed[name] for name in QWEN_CONTROL}, max(listed.values()) + 1
        if audio_base not in (None, size):
            raise CheckpointError(
                f"tokenizer does not belong to this planner: the tokenizer has {size} text ids, the planner has "
                f"{audio_base} rows before its audio codes"
            )
        return cls(tokenizer, control, size, codes)

    @property
    def text_rows(self) -> int:
        """The number of text and control tokens."""
        return self.audio_base

    @property
    def text_tokens(self) -> int:
        """The number of text tokens."""
        return self.tokenizer.text_size

    @property
    def turn_start(self) -> int:
        return self.control[TURN_START]

    @property
    def turn_end(self) -> int:
        """The id of the token that ends an answer."""
        return self.control[TURN_END]

    @property
    def think(self) -> int:
        return self.control[THINK]

    @property
    def think_end(self) -> int:
        return self.control[THINK_END]

    @cached_property
    def token_sets(self) -> TokenSets:
        """The sets of tokens that a reasoning block allows. Cached, because it sorts 150,000 tokens."""
        return TokenSets(self.pieces, self.control.values(), self.turn_end)

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of each text token, by id."""
        return self.tokenizer.pieces()

    def encode(self, text: str) -> list[int]:
        """Return the ids of text. None of them is a control token or an audio code, whatever the text spells."""
        return self.tokenizer.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the text tokens among `ids`."""
        return self.tokenizer.decode([i for i in ids if i < self.text_tokens])

    def code_ids(self, codes: Sequence[int]) -> list[int]:
        """Return the ids of audio codes. Raises RequestError for a code that the model does not have."""
        unknown = next((code for code in codes if not 0 <= code < self.codes), None)
        if unknown is not None:
            raise RequestError(f"codes: {unknown} is not an audio code; this planner has codes 0 to {self.codes - 1}")
        return [self.audio_base + code for code in codes]

    def codes_among(self, ids: Iterable[int]) -> list[int]:
        """Return the audio codes among `ids`, in order."""
        return [i - self.audio_base for i in ids if 0 <= i - self.audio_base < self.codes]
