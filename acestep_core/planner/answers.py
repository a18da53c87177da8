"""Turn the planner's text answers into songs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import RequestError
from ..song.song import Song
from .metadata_text import Block, block_metadata, merge_metadata, read_block
from .vocabulary import Vocabulary

_HEADINGS = re.compile(r"\A\s*(# Languages\n.*?\n\n)?\s*(# Lyrics?[^\S\n]*(\n|$))?", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """A parsed text answer: the reasoning block and the lyrics after it, which may be empty."""

    block: Block
    lyrics: str


def one_per_seed(given: object, seeds: Sequence[int], name: str) -> list[Any]:
    """Return one item for each seed. A single item serves all seeds. Raises RequestError for other numbers of items."""
    items = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not seeds or len(items) not in (1, len(seeds)):
        raise RequestError(f"{name}: got {len(items)} for {len(seeds)} seeds; give one for all seeds or one for each")
    return items * len(seeds) if len(items) == 1 else items


def parse_answer(vocabulary: Vocabulary, ids: Sequence[int]) -> Answer:
    """Split an answer at its `</think>` token. Text that only spells `</think>` stays text."""
    end = ids.index(vocabulary.think_end) if vocabulary.think_end in ids else len(ids)
    rest = list(ids[end + 1 :])
    if vocabulary.turn_end in rest:
        rest = rest[: rest.index(vocabulary.turn_end)]
    lyrics = _HEADINGS.sub("", vocabulary.decode(rest), count=1).strip()
    return Answer(read_block(vocabulary.decode(ids[:end])), lyrics)


def fill_gaps(song: Song, block: Block) -> Song:
    """Replace the song's caption with the planner's, if the block has one, and fill the gaps in its metadata."""
    caption = str(block.get("caption", "")) or song.caption
    return replace(song, caption=caption, metadata=merge_metadata(song.metadata, block_metadata(block)))
