"""Write songs with the planner, ACE-Step 1.5's 5 Hz LM: from one line, from a rough song, or from audio codes.

Every function takes one input for all seeds, or one for each. A result depends on its own input and seed alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..callbacks import Callbacks
from ..config import MAX_SECONDS
from ..song.codes import Codes, seconds_of
from ..song.song import INSTRUMENTAL, Metadata, Song
from . import chat_prompts as prompts
from .answers import Answer, fill_gaps, one_per_seed, parse_answer
from .decode_batch import TextRow
from .decoding import generate_tokens
from .grammar import Grammar
from .load_planner import Planner
from .metadata_text import Block, metadata_block, song_block
from .token_sampling import TokenSampling

# The defaults of ACE-Step 1.5. Text has no guidance, because guided text ends too early.
WRITING = TokenSampling(temperature=0.85)
LISTENING = TokenSampling(temperature=0.3)

_TAG_LINE = re.compile(r"\s*(\[[^\]]*\]\s*)*")


@dataclass(frozen=True)
class WrittenSong:
    """A song that the planner wrote or recognised.

    block: the planner's reasoning (see `metadata_text.FIELDS`).
    """

    song: Song
    block: Block = field(default_factory=dict)

    @property
    def genres(self) -> str:
        """The planner's list of styles, as text. May be empty."""
        return str(self.block.get("genres", ""))


def compose(
    planner: Planner,
    ideas: str | Sequence[str],
    seeds: Sequence[int],
    *,
    instrumental: bool = False,
    metadata: Metadata | None = None,
    sampling: TokenSampling = WRITING,
    callbacks: Callbacks | None = None,
) -> list[WrittenSong]:
    """Return a whole song per seed from one line each. For an empty line the planner invents a song.

    instrumental: the lyrics have section tags only.
    metadata: values that are already decided, such as the language of the lyrics.

    Raises the errors of `plan`.
    """
    lines: list[str] = one_per_seed(ideas, seeds, "ideas")
    metadata = metadata or Metadata()
    grammar = Grammar(planner.vocabulary, metadata_block(metadata), then_lyrics=True)
    rows = [
        TextRow(prompts.inspire_prompt(planner.vocabulary, line, instrumental), seed, grammar)
        for line, seed in zip(lines, seeds, strict=True)
    ]
    written = []
    for line, answer in zip(lines, _answers(planner, rows, sampling, "write", callbacks), strict=True):
        lyrics = _only_tags(answer.lyrics) if instrumental else answer.lyrics
        written.append(_written(Song(line, lyrics, metadata), answer))
    return written


def polish(
    planner: Planner,
    songs: Song | Sequence[Song],
    seeds: Sequence[int],
    *,
    sampling: TokenSampling = WRITING,
    callbacks: Callbacks | None = None,
) -> list[WrittenSong]:
    """Return each song with its caption and lyrics in the wording of the training data, and its metadata complete.

    If the planner writes no lyrics, the song keeps its own. A song without lyrics stays instrumental. ACE-Step calls
    this function "format". Raises the errors of `plan`.
    """
    songs = one_per_seed(songs, seeds, "songs")
    rows = []
    for song, seed in zip(songs, seeds, strict=True):
        grammar = Grammar(planner.vocabulary, song_block(song), then_lyrics=True)
        rows.append(TextRow(prompts.format_prompt(planner.vocabulary, song.caption, song.lyrics), seed, grammar))
    polished = []
    for song, answer in zip(songs, _answers(planner, rows, sampling, "polish", callbacks), strict=True):
        keep = song.instrumental or not answer.lyrics
        polished.append(_written(song if keep else replace(song, lyrics=answer.lyrics), answer))
    return polished


def understand(
    planner: Planner,
    songs: Codes | Sequence[Codes],
    seeds: Sequence[int],
    *,
    sampling: TokenSampling = LISTENING,
    callbacks: Callbacks | None = None,
) -> list[WrittenSong]:
    """Return the song that audio codes encode: caption, lyrics and metadata.

    The duration is that of the codes. For empty codes the planner invents a song.

    Raises RequestError for a code that the planner does not have and in the cases of `plan`, NonFiniteError, and
    Cancelled.
    """
    single = not songs or isinstance(songs[0], int)
    each: list[Codes] = one_per_seed([songs] if single else songs, seeds, "songs")
    grammar = Grammar(planner.vocabulary, then_lyrics=True)
    rows = [
        TextRow(prompts.understand_prompt(planner.vocabulary, codes), seed, grammar)
        for codes, seed in zip(each, seeds, strict=True)
    ]
    recognised = []
    for codes, answer in zip(each, _answers(planner, rows, sampling, "listen", callbacks), strict=True):
        duration = min(seconds_of(codes), MAX_SECONDS) or None
        recognised.append(_written(Song("", answer.lyrics, Metadata(duration=duration)), answer))
    return recognised


def _answers(
    planner: Planner, rows: list[TextRow], sampling: TokenSampling, stage: str, callbacks: Callbacks | None
) -> list[Answer]:
    return [parse_answer(planner.vocabulary, ids) for ids in generate_tokens(planner, rows, sampling, stage, callbacks)]


def _written(song: Song, answer: Answer) -> WrittenSong:
    return WrittenSong(fill_gaps(song, answer.block), answer.block)


def _only_tags(lyrics: str) -> str:
    """Return the section tags of lyrics, one per line, or the trained lyrics of an instrumental."""
    tags = [line for line in lyrics.split("\n") if line.strip() and _TAG_LINE.fullmatch(line)]
    return "\n".join(tags) or INSTRUMENTAL
