"""What a planner does: plan a song, write its audio codes, compose one from a line, polish one, understand one.

Every function works on a batch: one song for all seeds, or one for each. Row i depends on its own seed alone. What the
user gave is told to the planner and never overwritten by it.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ..callbacks import Callbacks
from ..config import FRAME_RATE, FRAMES_PER_CODE, MAX_SECONDS
from ..errors import RequestError
from ..runtime.phase import phase
from ..song.codes import CODE_RATE, Codes, seconds_of
from ..song.song import INSTRUMENTAL, TRAINED_MIN_SECONDS, Metadata, Song
from . import chat_prompts as prompts
from .decode import Row, generate
from .grammar import Grammar
from .load_planner import Planner
from .metadata_text import facts_block, facts_of, given_block, merge_facts, read_block, write_block
from .token_sampling import Sampling
from .vocabulary import Vocabulary

log = logging.getLogger("acestep")

# The original's defaults. Guidance on text makes it end too early.
PLANNING = Sampling(temperature=0.85, top_p=0.9)
CODING = Sampling(temperature=0.85, top_p=0.9, guidance=2.0)
WRITING = Sampling(temperature=0.85)
LISTENING = Sampling(temperature=0.3)

_HEADER = re.compile(r"\s*(# Languages\n.*?\n\n)?\s*(# Lyrics?[^\S\n]*(\n|$))?", re.DOTALL)
_TAG = re.compile(r"\s*(\[[^\]]*\]\s*)*")  # a line without words to sing

Item = TypeVar("Item")


@dataclass(frozen=True)
class Planned:
    """A song as the planner thought it out.

    song: what was asked for, its gaps filled: for the diffusion model. asked: as the user wrote it, which is what the
    prompt for audio codes repeats. block: the planner's reasoning, by its own field names (see metas.FIELDS).
    """

    song: Song
    asked: Song
    block: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """A song that the planner wrote or heard: from here on it is as good as a user's own.

    block: the planner's reasoning about it, by its own field names.
    """

    song: Song
    block: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def genres(self) -> str:
        """A few words of style; may be empty."""
        return str(self.block.get("genres", ""))


def plan(
    planner: Planner,
    songs: Song | Sequence[Song],
    seeds: Sequence[int],
    *,
    rewrite: bool = True,
    language: bool = True,
    sampling: Sampling = PLANNING,
    callbacks: Callbacks | None = None,
) -> list[Planned]:
    """Lets the planner choose what a song leaves open: tempo, key, time signature, duration.

    rewrite: the caption, too, is told anew in the words of training. language: the language is chosen if the song has
    none. A song that has all four facts is left as it is, without asking the planner.
    """
    songs = _one_each(songs, seeds, "songs")
    skip = {"genres"} | ({"caption"} if not rewrite else set()) | ({"language"} if not language else set())
    rows: dict[int, Row] = {}
    for i, song in enumerate(songs):
        if not _has_all_facts(song.metadata):
            given = {name: value for name, value in given_block(song).items() if name not in skip}
            grammar = Grammar(planner.vocabulary, given, frozenset(skip), then_lyrics=False)
            rows[i] = Row(prompts.plan_prompt(planner.vocabulary, song.caption, song.prompt_lyrics), seeds[i], grammar)
    answers = dict(zip(rows, _run(planner, list(rows.values()), sampling, "plan", callbacks), strict=True))
    planned = []
    for i, song in enumerate(songs):
        block = _split(planner.vocabulary, answers[i])[0] if i in answers else given_block(song)
        planned.append(Planned(_merged(song, block), song, block))
    return planned


def ignored(
    song: Song, *, rewrite: bool, negative: str = "", guidance: float = 1.0, without_codes: Sequence[str] = ()
) -> list[str]:
    """Sentences for the user about wishes for a plan that change nothing. `without_codes`: those for its codes, where
    it shall have none."""
    said = []
    if without_codes:
        said.append(f"without codes these change nothing: {', '.join(without_codes)}")
    elif negative.strip() and guidance <= 1:
        said.append("negative is ignored: it needs guidance above 1")
    if rewrite and _has_all_facts(song.metadata):
        said.append("the caption stays as it is: the song has all its facts, so there is nothing to think out")
    return said


def codes(
    planner: Planner,
    songs: Song | Planned | Sequence[Song | Planned],
    seeds: Sequence[int],
    *,
    sampling: Sampling = CODING,
    negative: str = "",
    legacy: bool = False,
    callbacks: Callbacks | None = None,
) -> list[Codes]:
    """Audio codes for the whole duration of each song, five a second.

    negative: what guidance shall move away from, in words. legacy: the prompt layout of the first release. Raises
    RequestError for a song without a duration: plan it first.
    """
    planned = [song if isinstance(song, Planned) else _unplanned(song) for song in _one_each(songs, seeds, "songs")]
    rows, counts = [], []
    for item, seed in zip(planned, seeds, strict=True):
        counts.append(code_count(item.song.metadata.duration))
        caption, lyrics = item.asked.caption, item.asked.prompt_lyrics
        rows.append(
            Row(
                prompts.codes_prompt(planner.vocabulary, caption, lyrics, write_block(item.block), legacy),
                seed,
                codes=max(counts[-1], TRAINED_MIN_SECONDS * CODE_RATE),
                negative=prompts.unconditional_prompt(
                    planner.vocabulary, negative, (caption, lyrics) if legacy else None
                ),
            )
        )
    answers = _run(planner, rows, sampling, "codes", callbacks)
    found = [tuple(planner.vocabulary.codes_among(answer)) for answer in answers]
    return [answer[:count] for answer, count in zip(found, counts, strict=True)]


def compose(
    planner: Planner,
    ideas: str | Sequence[str],
    seeds: Sequence[int],
    *,
    instrumental: bool = False,
    facts: Metadata | None = None,
    sampling: Sampling = WRITING,
    callbacks: Callbacks | None = None,
) -> list[Written]:
    """Whole songs from one line each; an empty line lets the planner have an idea of its own.

    instrumental: nothing is sung. facts: what is decided already, the language to sing in among them.
    """
    ideas, facts = _one_each(ideas, seeds, "ideas"), facts or Metadata()
    given = facts_block(facts)
    prompt = prompts.inspire_prompt
    rows = [
        Row(prompt(planner.vocabulary, idea, instrumental), seed, _writer(planner, given))
        for idea, seed in zip(ideas, seeds, strict=True)
    ]
    written = []
    for idea, answer in zip(ideas, _run(planner, rows, sampling, "write", callbacks), strict=True):
        block, lyrics = _split(planner.vocabulary, answer)
        if instrumental:
            lyrics = _without_words(lyrics)
        song = Song(idea, lyrics, facts)
        written.append(Written(_merged(song, block), block))
    return written


def polish(
    planner: Planner,
    songs: Song | Sequence[Song],
    seeds: Sequence[int],
    *,
    sampling: Sampling = WRITING,
    callbacks: Callbacks | None = None,
) -> list[Written]:
    """Rough captions and lyrics told in the words of training ("format"), facts filled in. Lyrics that do not come back
    are kept, and a song without lyrics stays one."""
    songs = _one_each(songs, seeds, "songs")
    rows = [
        Row(
            prompts.format_prompt(planner.vocabulary, song.caption, song.lyrics),
            seed,
            _writer(planner, given_block(song)),
        )
        for song, seed in zip(songs, seeds, strict=True)
    ]
    polished = []
    for song, answer in zip(songs, _run(planner, rows, sampling, "polish", callbacks), strict=True):
        block, lyrics = _split(planner.vocabulary, answer)
        merged = _merged(song, block)
        if not song.instrumental and lyrics:
            merged = replace(merged, lyrics=lyrics)
        polished.append(Written(merged, block))
    return polished


def understand(
    planner: Planner,
    songs: Codes | Sequence[Codes],
    seeds: Sequence[int],
    *,
    sampling: Sampling = LISTENING,
    callbacks: Callbacks | None = None,
) -> list[Written]:
    """What song the audio codes are: caption, lyrics, facts. The duration is the codes' own, not the planner's guess.

    Empty codes let the planner make a song up.
    """
    single = not songs or isinstance(songs[0], int)
    each = _one_each([tuple(songs)] if single else list(songs), seeds, "songs")
    rows = [
        Row(prompts.understand_prompt(planner.vocabulary, item), seed, _writer(planner, {}))
        for item, seed in zip(each, seeds, strict=True)
    ]
    heard = []
    for item, answer in zip(each, _run(planner, rows, sampling, "listen", callbacks), strict=True):
        block, lyrics = _split(planner.vocabulary, answer)
        song = Song("", lyrics, Metadata(duration=min(seconds_of(item), MAX_SECONDS) or None))
        heard.append(Written(_merged(song, block), block))
    return heard


def code_count(seconds: float | None) -> int:
    """How many codes cover a song of that duration. Raises RequestError when there is none."""
    if seconds is None:
        raise RequestError("audio codes need a duration: set one, or let the planner plan the song first")
    return max(1, math.ceil(round(FRAME_RATE * seconds) / FRAMES_PER_CODE))


# --- the way in -----------------------------------------------------------------------------------------------------


def _one_each(given: Item | Sequence[Item], seeds: Sequence[int], what: str) -> list[Item]:
    """One item for each seed; a single one serves all."""
    items = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not seeds or len(items) not in (1, len(seeds)):
        raise RequestError(f"got {len(items)} {what} for {len(seeds)} seeds; give one for all or one for each")
    return items * len(seeds) if len(items) == 1 else items


def _has_all_facts(meta: Metadata) -> bool:
    return None not in (meta.bpm, meta.key, meta.time_signature, meta.duration)


def _unplanned(song: Song) -> Planned:
    return Planned(song, song, given_block(song))


def _writer(planner: Planner, given: Mapping[str, str | int]) -> Grammar:
    return Grammar(planner.vocabulary, given, frozenset(), then_lyrics=True)


def _run(
    planner: Planner, rows: Sequence[Row], sampling: Sampling, stage: str, callbacks: Callbacks | None
) -> list[list[int]]:
    if not rows:
        return []
    callbacks = callbacks or Callbacks()
    callbacks.check(stage)
    with planner.placement.use(planner.network) as device, phase(stage, device, planner.network.dtype):
        return generate(
            planner.network,
            planner.vocabulary,
            rows,
            sampling=sampling,
            callbacks=callbacks,
            device=device,
            stage=stage,
        )


# --- the way out ----------------------------------------------------------------------------------------------------


def _split(vocabulary: Vocabulary, answer: Sequence[int]) -> tuple[dict[str, str | int], str]:
    """An answer as reasoning and lyrics. The cut is made at the control token, not at text that looks like it."""
    end = answer.index(vocabulary.think_end) if vocabulary.think_end in answer else len(answer)
    rest = list(answer[end + 1 :])
    if vocabulary.turn_end in rest:
        rest = rest[: rest.index(vocabulary.turn_end)]
    return read_block(vocabulary.decode(answer[:end])), clean_lyrics(vocabulary.decode(rest))


def clean_lyrics(text: str) -> str:
    """Lyrics without the headings that the planner puts before them."""
    return text[_HEADER.match(text).end() :].strip()


def _without_words(lyrics: str) -> str:
    """Only the section tags of lyrics, for a song in which nothing shall be sung."""
    tags = [line for line in lyrics.split("\n") if line.strip() and _TAG.fullmatch(line)]
    return "\n".join(tags) or INSTRUMENTAL


def _merged(song: Song, block: Mapping[str, str | int]) -> Song:
    """The song with its gaps filled, and with the planner's caption where it wrote one."""
    caption = str(block.get("caption", "")) or song.caption
    return replace(song, caption=caption, metadata=merge_facts(song.metadata, facts_of(block)))
