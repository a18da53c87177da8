"""Plan a song with the planner, ACE-Step 1.5's 5 Hz LM: complete its metadata, then generate its audio codes.

Every function takes one song for all seeds, or one for each. A result depends on its own song and seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..callbacks import Callbacks
from ..config import FRAME_RATE, FRAMES_PER_CODE
from ..errors import RequestError
from ..song.codes import CODE_RATE, Codes
from ..song.song import TRAINED_MIN_SECONDS, Metadata, Song
from . import chat_prompts as prompts
from .answers import fill_gaps, one_per_seed, parse_answer
from .decode_batch import CodeRow, TextRow
from .decoding import generate_tokens
from .grammar import Grammar
from .load_planner import Planner
from .metadata_text import Block, song_block, write_block
from .token_sampling import TokenSampling

# The defaults of ACE-Step 1.5. Text has no guidance, because guided text ends too early.
PLANNING = TokenSampling(temperature=0.85, top_p=0.9)
CODING = TokenSampling(temperature=0.85, top_p=0.9, guidance=2.0)


@dataclass(frozen=True)
class SongPlan:
    """A song with complete metadata.

    song: the request with its gaps filled, for the diffusion model.
    request: the song as the user wrote it. The prompt for audio codes repeats it.
    block: the planner's reasoning (see `metadata_text.FIELDS`).
    """

    song: Song
    request: Song
    block: Block = field(default_factory=dict)


def plan(
    planner: Planner,
    songs: Song | Sequence[Song],
    seeds: Sequence[int],
    *,
    rewrite_caption: bool = True,
    choose_language: bool = True,
    sampling: TokenSampling = PLANNING,
    callbacks: Callbacks | None = None,
) -> list[SongPlan]:
    """Return one plan per seed: the planner chooses the tempo, key, time signature and duration that a song lacks.

    rewrite_caption: also rewrite the caption in the wording of the training data.
    choose_language: also choose the language, if the song has none.

    A song with all four values is returned as it is. Raises RequestError if the number of songs does not fit the seeds
    or a prompt exceeds the context, NonFiniteError, and Cancelled.
    """
    songs = one_per_seed(songs, seeds, "songs")
    chosen = {"caption": rewrite_caption, "language": choose_language, "genres": False}
    skip = frozenset(name for name, enabled in chosen.items() if not enabled)
    rows: dict[int, TextRow] = {}
    for i, song in enumerate(songs):
        if not _is_complete(song.metadata):
            prompt = prompts.plan_prompt(planner.vocabulary, song.caption, song.prompt_lyrics)
            rows[i] = TextRow(prompt, seeds[i], Grammar(planner.vocabulary, song_block(song), skip))
    answers = dict(zip(rows, generate_tokens(planner, list(rows.values()), sampling, "plan", callbacks), strict=True))
    plans = []
    for i, song in enumerate(songs):
        block = parse_answer(planner.vocabulary, answers[i]).block if i in answers else song_block(song)
        plans.append(SongPlan(fill_gaps(song, block), song, block))
    return plans


def plan_codes(
    planner: Planner,
    songs: Song | SongPlan | Sequence[Song | SongPlan],
    seeds: Sequence[int],
    *,
    sampling: TokenSampling = CODING,
    negative_prompt: str = "",
    callbacks: Callbacks | None = None,
) -> list[Codes]:
    """Return audio codes for the whole duration of each song, five a second.

    negative_prompt: text that guidance moves away from.

    Raises RequestError for a song without a duration and in the cases of `plan`, NonFiniteError, and Cancelled.
    """
    rows, counts = [], []
    for item, seed in zip(one_per_seed(songs, seeds, "songs"), seeds, strict=True):
        song_plan = item if isinstance(item, SongPlan) else SongPlan(item, item, song_block(item))
        caption, lyrics = song_plan.request.caption, song_plan.request.prompt_lyrics
        counts.append(code_count(song_plan.song.metadata.duration))
        rows.append(
            CodeRow(
                prompts.codes_prompt(planner.vocabulary, caption, lyrics, write_block(song_plan.block)),
                seed,
                max(counts[-1], TRAINED_MIN_SECONDS * CODE_RATE),
                prompts.unconditional_prompt(planner.vocabulary, negative_prompt),
            )
        )
    answers = generate_tokens(planner, rows, sampling, "codes", callbacks)
    return [
        tuple(planner.vocabulary.codes_among(answer))[:count] for answer, count in zip(answers, counts, strict=True)
    ]


def code_count(seconds: float | None) -> int:
    """Return the number of audio codes of a song of that duration. Raises RequestError if there is no duration."""
    if seconds is None:
        raise RequestError("duration is missing: audio codes need one. Set it, or let the planner plan the song first")
    return max(1, math.ceil(round(FRAME_RATE * seconds) / FRAMES_PER_CODE))


def ignored_options(
    song: Song,
    *,
    rewrite_caption: bool,
    negative_prompt: str = "",
    guidance: float = 1.0,
    without_codes: Sequence[str] = (),
) -> list[str]:
    """Return a sentence for each option of a plan that has no effect.

    without_codes: names of the given options that need codes, if the plan has none.
    """
    sentences = []
    if without_codes:
        sentences.append(f"{', '.join(without_codes)}: ignored, because no codes are generated")
    elif negative_prompt.strip() and guidance <= 1:
        sentences.append("negative prompt: ignored, because it needs guidance above 1")
    if rewrite_caption and _is_complete(song.metadata):
        sentences.append("caption: not rewritten, because the song's metadata is complete and needs no plan")
    return sentences


def _is_complete(metadata: Metadata) -> bool:
    return None not in (metadata.bpm, metadata.key, metadata.time_signature, metadata.duration)
