"""The prompts of the training data, byte for byte.

Every space, newline and heading matters. A prompt holds the text before and after the template's end token, not the
token itself: the same characters typed by a user stay text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..edit.tasks import Task, instruction
from ..song.languages import UNKNOWN
from ..song.song import Song

END_OF_TEXT = "<|endoftext|>"

NOT_GIVEN = "N/A"
DEFAULT_SECONDS = 30  # the prompt's duration if the song has none

CAPTION_TOKENS = 256
LYRIC_TOKENS = 2048


@dataclass(frozen=True)
class Prompt:
    """A trained string in parts: `head` + user text + `tail`, then the end token, then `after`.

    limit: maximum number of tokens, with the final end token.
    """

    head: str
    content: str
    tail: str
    after: str
    limit: int

    @property
    def body(self) -> str:
        """The text before the template's end token."""
        return self.head + self.content + self.tail

    @property
    def text(self) -> str:
        """The trained string. The tokenizer appends one more end token."""
        return self.body + END_OF_TEXT + self.after


@dataclass(frozen=True)
class PromptStyle:
    """The caption template of a checkpoint.

    stem_caption: the caption names the song and the stem, as for checkpoints with `is_lego_sft`.
    """

    stem_caption: bool = False


ORIGINAL = PromptStyle()
STEMS = PromptStyle(stem_caption=True)


def caption_prompt(
    song: Song,
    task: Task,
    style: PromptStyle = ORIGINAL,
    tracks: Sequence[str] = (),
    *,
    whole_caption: str = "",
    explicit_mask: bool = True,
) -> Prompt:
    """Return the prompt of instruction, caption and metadata.

    whole_caption: caption of the whole song, if the caption of `song` describes one stem.
    explicit_mask: True if the mask sets the region, False if the model chooses.
    Only a style with `stem_caption` uses `whole_caption` and `explicit_mask`.
    """
    before = after = ""
    if style.stem_caption:
        before = f"Global: {whole_caption}\nLocal: "
        after = f"\nMask Control: {'true' if explicit_mask else 'false'}"
    return Prompt(
        head=f"# Instruction\n{instruction(task, tracks)}\n\n# Caption\n{before}",
        content=caption_of(song.caption),
        tail=f"{after}\n\n# Metas\n{metadata_lines(song)}",
        after="\n",
        limit=CAPTION_TOKENS,
    )


def lyric_prompt(song: Song) -> Prompt:
    """Return the prompt of language and lyrics, with `[Instrumental]` for empty lyrics."""
    return Prompt(
        head=f"# Languages\n{song.prompt_language or UNKNOWN}\n\n# Lyric\n",
        content=song.prompt_lyrics,
        tail="",
        after="",
        limit=LYRIC_TOKENS,
    )


def metadata_lines(song: Song) -> str:
    """Return the four lines under `# Metas`, each with a final newline."""
    meta = song.metadata
    return (
        f"- bpm: {NOT_GIVEN if meta.bpm is None else meta.bpm}\n"
        f"- timesignature: {meta.time_signature or NOT_GIVEN}\n"
        f"- keyscale: {meta.key or NOT_GIVEN}\n"
        f"- duration: {DEFAULT_SECONDS if meta.duration is None else int(meta.duration)} seconds\n"
    )


def caption_of(text: str) -> str:
    """Return the caption inside a complete formatted prompt, or any other text unchanged.

    A prompt that the user copied from a dataset or log is thus not formatted twice, as in the original.
    """
    if "# Instruction" not in text or "# Caption\n" not in text:
        return text
    after_heading = text.split("# Caption\n", 1)[1]
    return after_heading.split("# Metas", 1)[0].strip()
