"""Places of the lyrics' tokens in the lyrics and in the condition rows."""

from __future__ import annotations

from dataclasses import dataclass

from .prompts import Prompt
from .tokenizer import Tokenizer


@dataclass(frozen=True)
class LyricTokens:
    """The tokens of a song's lyrics.

    text: the lyrics as in the prompt.
    first: row of the first token. Before it are the tokens of the prompt's head.
    spans: start and end in `text` of each token's characters. The tokens of one split character have its whole span.
    """

    text: str
    first: int
    spans: tuple[tuple[int, int], ...]

    @property
    def texts(self) -> list[str]:
        """The text of each token. A token within a split character has that character's text."""
        return [self.text[start:end] for start, end in self.spans]


def locate_lyrics(tokenizer: Tokenizer, prompt: Prompt) -> LyricTokens:
    """Return the tokens of a lyric prompt that `Tokenizer.encode_prompt` keeps."""
    spans = tokenizer.prompt_spans(prompt)
    head = len(prompt.head)
    first = sum(start < head for start, _ in spans)
    return LyricTokens(prompt.content, first, tuple((start - head, end - head) for start, end in spans[first:]))
