"""The planner's prompts as token ids, byte for byte as in training.

The strings are those of `constants.py` in ACE-Step 1.5, and the layout is Qwen3's chat template. Control tokens are
inserted by id, so text that spells a control token stays text. The text between two control tokens is encoded in one
piece, because pieces would be tokenized differently.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..song.song import INSTRUMENTAL
from .vocabulary import Vocabulary

GENERATE = "Generate audio semantic tokens based on the given conditions:"
INSPIRE = "Expand the user's input into a more detailed and specific musical description:"
FORMAT = "Format the user's input into a more detailed and specific musical description:"
UNDERSTAND = "Understand the given musical conditions and describe the audio semantics accordingly:"

NO_INPUT = "NO USER INPUT"  # an empty request, and the unconditional half of guidance


def plan_prompt(vocabulary: Vocabulary, caption: str, lyrics: str) -> list[int]:
    """Return the prompt for a song's metadata. The answer is a reasoning block."""
    return _dialogue(vocabulary, GENERATE, _song(caption, lyrics))


def codes_prompt(vocabulary: Vocabulary, caption: str, lyrics: str, block: str) -> list[int]:
    """Return the prompt for audio codes after the reasoning `block` (YAML, may be empty).

    The assistant's turn stays open, as in training.
    """
    return [*_dialogue(vocabulary, GENERATE, _song(caption, lyrics)), *_reasoning(vocabulary, block)]


def unconditional_prompt(vocabulary: Vocabulary, negative_prompt: str = "") -> list[int]:
    """Return the prompt that guidance moves audio codes away from. Without `negative_prompt` it is an empty request."""
    return [*_dialogue(vocabulary, GENERATE, negative_prompt.strip() or NO_INPUT), *_reasoning(vocabulary, "")]


def inspire_prompt(vocabulary: Vocabulary, idea: str, instrumental: bool) -> list[int]:
    """Return the prompt for a whole song from one line."""
    flag = "true" if instrumental else "false"
    return _dialogue(vocabulary, INSPIRE, f"{idea if idea.strip() else NO_INPUT}\n\ninstrumental: {flag}")


def format_prompt(vocabulary: Vocabulary, caption: str, lyrics: str) -> list[int]:
    """Return the prompt that turns a rough caption and rough lyrics into trained wording."""
    caption = caption if caption.strip() else NO_INPUT
    lyrics = lyrics if lyrics.strip() else INSTRUMENTAL
    return _dialogue(vocabulary, FORMAT, f"# Caption\n{caption}\n\n# Lyric\n{lyrics}")  # no last newline, unlike _song


def understand_prompt(vocabulary: Vocabulary, codes: Sequence[int]) -> list[int]:
    """Return the prompt for a description of audio codes. Without codes the planner invents a song.

    Raises RequestError for a code that the model does not have.
    """
    return _dialogue(vocabulary, UNDERSTAND, "" if codes else NO_INPUT, vocabulary.code_ids(codes))


def _song(caption: str, lyrics: str) -> str:
    return f"# Caption\n{caption}\n\n# Lyric\n{lyrics}\n"


def _dialogue(vocabulary: Vocabulary, instruction: str, content: str, codes: Sequence[int] = ()) -> list[int]:
    """Return the system turn, the user turn and the start of the assistant's turn."""
    return [
        vocabulary.turn_start,
        *vocabulary.encode(f"system\n# Instruction\n{instruction}\n\n"),
        vocabulary.turn_end,
        *vocabulary.encode("\n"),
        vocabulary.turn_start,
        *vocabulary.encode(f"user\n{content}"),
        *codes,
        vocabulary.turn_end,
        *vocabulary.encode("\n"),
        vocabulary.turn_start,
        *vocabulary.encode("assistant\n"),
    ]


def _reasoning(vocabulary: Vocabulary, block: str) -> list[int]:
    """Return a reasoning block and the separator after it. An empty block holds two newlines in the template."""
    inner = f"\n{block}\n" if block else "\n\n"
    return [vocabulary.think, *vocabulary.encode(inner), vocabulary.think_end, *vocabulary.encode("\n\n")]
