"""The options that write tags for players into the files of songs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..files import read_text
from .inputs import is_song_file

if TYPE_CHECKING:
    from ..audio import Tags
    from ..song.song import Song

NAMES = ("title", "artist", "album")


def tag_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that write tags."""
    tags = parser.add_argument_group("tags", "each of them also writes lyrics, BPM, key and language as tags")
    for name in NAMES:
        tags.add_argument(f"--{name}", metavar="TEXT", help="default: that of the audio file of --from, if it has one")
    tags.add_argument("--lrc", metavar="FILE", help="lyrics with times, in LRC format, - for standard input")
    tags.add_argument("--tags", action="store_true", help="tags without a title")


def read_tag_options(options: Mapping[str, Any]) -> Tags | None:
    """Return the tags of the options and of the file of --from, None if there are none. Raises RequestError."""
    from ..audio import Tags, read_tags

    source = options.get("from", "-")
    earlier = Tags() if is_song_file(source) else read_tags(source)
    inherited = {name: getattr(earlier, name) for name in NAMES if getattr(earlier, name)}
    given = {name: options[name] for name in NAMES if name in options}
    if "lrc" in options:
        given["timed_lyrics"] = read_text(options["lrc"], "LRC file")
    return Tags(**{**inherited, **given}) if inherited or given or options.get("tags") else None


def with_song(tags: Tags | None, song: Song) -> Tags | None:
    """Return tags with lyrics and metadata of a song."""
    if tags is None:
        return None
    metadata = song.metadata
    lyrics = "" if song.instrumental else song.lyrics
    return replace(tags, lyrics=lyrics, bpm=metadata.bpm, key=metadata.key, language=metadata.language)
