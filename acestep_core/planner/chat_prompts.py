"""The five prompts of the planner, byte for byte, as token ids.

Source of the strings: ACE-Step 1.5's `constants.py`; of the layout: Qwen3's chat template. Control tokens are put in by
id, so text that spells one stays text. The words between two control tokens are encoded in one piece, as in training.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..song.song import INSTRUMENTAL
from .vocabulary import Vocabulary

GENERATE = "Generate audio semantic tokens based on the given conditions:"
INSPIRE = "Expand the user's input into a more detailed and specific musical description:"
FORMAT = "Format the user's input into a more detailed and specific musical description:"
UNDERSTAND = "Understand the given musical conditions and describe the audio semantics accordingly:"

NO_INPUT = "NO USER INPUT"  # stands for an empty request, and for the unconditional half of guidance


def plan_prompt(words: Vocabulary, caption: str, lyrics: str) -> list[int]:
    """Asks for the song's metadata: the answer is a reasoning block."""
    return _dialogue(words, GENERATE, _song(caption, lyrics))


def codes_prompt(words: Vocabulary, caption: str, lyrics: str, block: str, legacy: bool = False) -> list[int]:
    """Asks for audio codes, the reasoning `block` (YAML, may be empty) given.

    The assistant's turn stays open, as in training. `legacy` closes it, as the first release and ComfyUI do: it is
    there to compare with them.
    """
    return [*_dialogue(words, GENERATE, _song(caption, lyrics)), *_thought(words, block), *_closing(words, legacy)]


def unconditional_prompt(words: Vocabulary, negative: str = "", legacy_of: tuple[str, str] | None = None) -> list[int]:
    """What guidance moves the codes away from: `negative`, or no request at all; nothing was thought.

    `legacy_of`: caption and lyrics of the song, for the legacy layout, in which only the caption makes way for
    `negative`.
    """
    negative = "" if negative.strip() == NO_INPUT else negative.strip()
    if legacy_of is None:
        content = negative or NO_INPUT
    else:
        caption, lyrics = legacy_of
        content = _song(negative or caption, lyrics)
    return [*_dialogue(words, GENERATE, content), *_thought(words, ""), *_closing(words, legacy_of is not None)]


def inspire_prompt(words: Vocabulary, idea: str, instrumental: bool) -> list[int]:
    """Asks for a whole song from one line."""
    wish = "true" if instrumental else "false"
    return _dialogue(words, INSPIRE, f"{idea if idea.strip() else NO_INPUT}\n\ninstrumental: {wish}")


def format_prompt(words: Vocabulary, caption: str, lyrics: str) -> list[int]:
    """Asks for a caption and lyrics in the words of training, made of rough ones."""
    caption = caption if caption.strip() else NO_INPUT
    lyrics = lyrics if lyrics.strip() else INSTRUMENTAL
    return _dialogue(words, FORMAT, f"# Caption\n{caption}\n\n# Lyric\n{lyrics}")  # here without a last newline


def understand_prompt(words: Vocabulary, codes: Sequence[int]) -> list[int]:
    """Asks what song the codes are. Without codes the planner makes one up."""
    return _dialogue(words, UNDERSTAND, "" if codes else NO_INPUT, words.code_ids(codes))


def _song(caption: str, lyrics: str) -> str:
    return f"# Caption\n{caption}\n\n# Lyric\n{lyrics}\n"


def _dialogue(words: Vocabulary, instruction: str, content: str, codes: Sequence[int] = ()) -> list[int]:
    """System turn, user turn and the beginning of the assistant's."""
    return [
        words.turn_start,
        *words.encode(f"system\n# Instruction\n{instruction}\n\n"),
        words.turn_end,
        *words.encode("\n"),
        words.turn_start,
        *words.encode(f"user\n{content}"),
        *codes,
        words.turn_end,
        *words.encode("\n"),
        words.turn_start,
        *words.encode("assistant\n"),
    ]


def _thought(words: Vocabulary, block: str) -> list[int]:
    """A reasoning block with what separates it from the answer. The template leaves two newlines in an empty one."""
    inner = f"\n{block}\n" if block else "\n\n"
    return [words.think, *words.encode(inner), words.think_end, *words.encode("\n\n")]


def _closing(words: Vocabulary, legacy: bool) -> list[int]:
    return [words.turn_end, *words.encode("\n")] if legacy else []
