"""The planner's vocabulary: words first, then control tokens, then one row for each audio code.

The words are an ordinary byte-level BPE and nothing else, so the 65 535 audio tokens that the released tokenizer lists
are never loaded: their ids are arithmetic. Text never spells a control token or an audio code; these are put in by id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..config import CODE_COUNT
from ..errors import CheckpointError, RequestError
from ..text.tokenizer import Tokenizer

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
THINK = "<think>"
THINK_END = "</think>"

# Qwen's base vocabulary and where Qwen3 puts its control tokens after it, 26 in all. Files of Qwen2.5 have the same
# words, but other names at the last of these ids, so they are not read from there.
QWEN_WORDS = 151_643
QWEN_CONTROL = {END_OF_TEXT: 151_643, TURN_START: 151_644, TURN_END: 151_645, THINK: 151_667, THINK_END: 151_668}
QWEN_CONTROL_TOKENS = 26

_AUDIO_PREFIX = "<|audio_code_"  # of tokens that a planner's own tokenizer.json lists after the control tokens


@dataclass(frozen=True)
class Vocabulary:
    """Ids of words, control tokens and audio codes. Make one with `Vocabulary.of`.

    audio_base: id of audio code 0. codes: how many there are, from 0 on.
    """

    tokenizer: Tokenizer
    control: dict[str, int]
    audio_base: int
    codes: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, audio_base: int | None = None, codes: int = CODE_COUNT) -> Vocabulary:
        """The vocabulary over the words of `tokenizer`, whose control tokens the codes follow.

        `audio_base`: where the network has them. Raises CheckpointError when that is elsewhere, or a control token is
        missing.
        """
        control, size = dict(QWEN_CONTROL), QWEN_WORDS + QWEN_CONTROL_TOKENS
        if tokenizer.text_size != QWEN_WORDS:
            given = {name: i for name, i in tokenizer.control_ids.items() if not name.startswith(_AUDIO_PREFIX)}
            missing = [name for name in QWEN_CONTROL if name not in given]
            if missing:
                raise CheckpointError(f"the planner's tokenizer lacks {', '.join(missing)}: it is not a planner's")
            control, size = {name: given[name] for name in QWEN_CONTROL}, max(given.values()) + 1
        if audio_base not in (None, size):
            raise CheckpointError(
                f"tokenizer and planner do not belong together: the tokenizer has {size} ids of text, the planner "
                f"{audio_base} rows before its audio codes"
            )
        return cls(tokenizer, control, size, codes)

    @property
    def text_rows(self) -> int:
        """Ids below are words or control tokens."""
        return self.audio_base

    @property
    def words(self) -> int:
        """Ids below are words."""
        return self.tokenizer.text_size

    @property
    def turn_start(self) -> int:
        return self.control[TURN_START]

    @property
    def turn_end(self) -> int:
        """Ends a turn, and with it an answer."""
        return self.control[TURN_END]

    @property
    def think(self) -> int:
        return self.control[THINK]

    @property
    def think_end(self) -> int:
        return self.control[THINK_END]

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of each word, by id. Takes a moment the first time."""
        return self.tokenizer.pieces()

    def encode(self, text: str) -> list[int]:
        """Ids of text; whatever it spells, none of them is a control token or a code."""
        return self.tokenizer.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the words among `ids`."""
        return self.tokenizer.decode([i for i in ids if i < self.words])

    def code_ids(self, codes: Sequence[int]) -> list[int]:
        """Ids of audio codes. Raises RequestError for a code that the model does not have."""
        wrong = next((code for code in codes if not 0 <= code < self.codes), None)
        if wrong is not None:
            raise RequestError(f"audio codes go from 0 to {self.codes - 1} in this planner, got {wrong}")
        return [self.audio_base + code for code in codes]

    def codes_among(self, ids: Iterable[int]) -> list[int]:
        """The audio codes among `ids`, in order."""
        return [i - self.audio_base for i in ids if 0 <= i - self.audio_base < self.codes]
