"""The strings the model was trained on, byte for byte.

Every blank, newline and heading here is load-bearing. A prompt is kept as the text before and after the template's own
end token, because only that one is a token: the same characters written by a user stay plain text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..edit.tasks import COVER, Task, instruction
from ..song.languages import UNKNOWN
from ..song.song import Song

END_OF_TEXT = "<|endoftext|>"

NOT_GIVEN = "N/A"
DEFAULT_SECONDS = 30  # what the prompt says when no duration was asked for

CAPTION_TOKENS = 256
LYRIC_TOKENS = 2048


@dataclass(frozen=True)
class Prompt:
    """`head` + user's text + `tail`, then the end token, then `after`.

    limit: how many tokens may reach the model, final end token included; None for no limit.
    """

    head: str
    content: str
    tail: str
    after: str
    limit: int | None

    @property
    def body(self) -> str:
        """Everything before the template's end token."""
        return self.head + self.content + self.tail

    @property
    def text(self) -> str:
        """The trained string. The tokenizer appends one more end token to it."""
        return self.body + END_OF_TEXT + self.after


@dataclass(frozen=True)
class PromptStyle:
    """Where implementations of the same template differ.

    instruction: used for every task when given, else the task's own.
    strip_caption: leave out blanks around the caption.
    whole_seconds: how a fractional duration becomes the integer in the prompt.
    no_language: written when the song names no language.
    truncate: keep to the trained 256 and 2048 tokens.
    attend_end: whether the text encoder attends to the template's end token and what follows it.
    stem_caption: whether the caption tells the song from its part, as checkpoints with `is_lego_sft` were trained.
    """

    instruction: str | None = None
    strip_caption: bool = False
    whole_seconds: Callable[[float], int] = int
    no_language: str = UNKNOWN
    truncate: bool = True
    attend_end: bool = True
    stem_caption: bool = False


ORIGINAL = PromptStyle()
STEMS = PromptStyle(stem_caption=True)

# As ComfyUI's own TextEncodeAceStepAudio1.5 writes and reads it: to get the songs of native workflows again.
COMFYUI = PromptStyle(
    instruction=COVER.instruction,
    strip_caption=True,
    whole_seconds=math.ceil,
    no_language="",
    truncate=False,
    attend_end=False,
)


def caption_prompt(
    song: Song,
    task: Task,
    style: PromptStyle = ORIGINAL,
    tracks: Sequence[str] = (),
    *,
    whole_caption: str = "",
    explicit_mask: bool = True,
) -> Prompt:
    """Instruction, caption and metadata of the song.

    Only a style with `stem_caption` reads the last two: what the whole song is, where the caption is that of a part,
    and whether the mask says what to make or the model decides.
    """
    told = instruction_line(style.instruction or instruction(task, tracks))
    caption = caption_of(song.caption)
    before = after = ""
    if style.stem_caption:
        # An instruction about a segment, as the original calls it, leaves out what the whole song is.
        before = "Local: " if "a segment" in told else f"Global: {whole_caption}\nLocal: "
        after = f"\nMask Control: {'true' if explicit_mask else 'false'}"
    return Prompt(
        head=f"# Instruction\n{told}\n\n# Caption\n{before}",
        content=caption.strip() if style.strip_caption else caption,
        tail=f"{after}\n\n# Metas\n{metadata_lines(song, style)}",
        after="\n",
        limit=CAPTION_TOKENS if style.truncate else None,
    )


def lyric_prompt(song: Song, style: PromptStyle = ORIGINAL) -> Prompt:
    """Language and lyrics of the song; `[Instrumental]` stands in for empty lyrics."""
    language = style.no_language if song.prompt_language is None else song.prompt_language
    return Prompt(
        head=f"# Languages\n{language}\n\n# Lyric\n",
        content=song.prompt_lyrics,
        tail="",
        after="",
        limit=LYRIC_TOKENS if style.truncate else None,
    )


def instruction_line(text: str) -> str:
    """The instruction, ending in the colon that all trained ones end in."""
    return text if text.endswith(":") else text + ":"


def metadata_lines(song: Song, style: PromptStyle = ORIGINAL) -> str:
    """The four lines under `# Metas`, each ended by a newline."""
    meta = song.metadata
    seconds = DEFAULT_SECONDS if meta.duration is None else style.whole_seconds(meta.duration)
    return (
        f"- bpm: {NOT_GIVEN if meta.bpm is None else meta.bpm}\n"
        f"- timesignature: {meta.time_signature or NOT_GIVEN}\n"
        f"- keyscale: {meta.key or NOT_GIVEN}\n"
        f"- duration: {seconds} seconds\n"
    )


def caption_of(text: str) -> str:
    """The caption itself, when someone hands in a whole formatted prompt; any other text unchanged.

    The original does the same, so that a prompt copied from a dataset or log is not wrapped twice.
    """
    if "# Instruction" not in text or "# Caption\n" not in text:
        return text
    after_heading = text.split("# Caption\n", 1)[1]
    return after_heading.split("# Metas", 1)[0].strip()
