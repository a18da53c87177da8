"""The options that finish songs: loudness, true peak, fades, silence and the ending."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..audio import Finish, FinishedSong, MeasuredMusic
    from ..pipeline import Result
    from ..recipe import Recipe
    from ..song.song import Song

log = logging.getLogger("acestep")

Options = Mapping[str, Any]
VALUES = ("loudness", "true_peak", "fade_in", "fade_out", "trim", "ending")  # options that a recipe records
DEFAULT_ENDING = 15.0  # seconds


def finish_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that finish songs."""
    finish = parser.add_argument_group("finishing", "by default, the song stays as it is")
    finish.add_argument(
        "--loudness",
        metavar="LUFS|NAME",
        help="target loudness: streaming (-14), apple (-16), broadcast (-23), club (-9), none or a number",
    )
    finish.add_argument(
        "--true-peak", type=float, metavar="DBTP", help="ceiling of the true peaks; default -1 with --loudness"
    )
    finish.add_argument("--one-gain", action="store_true", help="one gain for all takes of --batch, as on an album")
    finish.add_argument("--fade-in", type=float, metavar="SECONDS", help="fade in with equal power")
    finish.add_argument("--fade-out", type=float, metavar="SECONDS", help="fade out with equal power")
    finish.add_argument("--trim", action=argparse.BooleanOptionalAction, help="remove silence at both ends")
    finish.add_argument(
        "--ending",
        type=float,
        nargs="?",
        const=DEFAULT_ENDING,
        metavar="SECONDS",
        help=f"generate up to {DEFAULT_ENDING:g} seconds more, end where the music ends, else fade out; 0 is off",
    )


def finish_values(options: Options, recorded: object) -> object:
    """Return the values of a `Finish`: those of a recipe, overridden by the options."""
    given = {name: options[name] for name in VALUES if name in options}
    if not given or not isinstance(recorded, (Mapping, type(None))):
        return recorded
    values = {**(recorded or {}), **given}
    if "loudness" in given:
        values.pop("gain", None)  # found for another target
    return values


def with_ending(recipe: Recipe) -> Song:
    """Return the song to generate: longer by the seconds of --ending, unless a recording or codes set its duration."""
    from ..config import MAX_SECONDS
    from ..text.prompts import DEFAULT_SECONDS

    song, finish = recipe.song, recipe.finish
    if finish is None or not finish.ending or recipe.codes or recipe.recorded_edit is not None:
        return song
    seconds = (song.metadata.duration or DEFAULT_SECONDS) + finish.ending
    return replace(song, metadata=replace(song.metadata, duration=min(seconds, MAX_SECONDS)))


def finish_result(result: Result, recipe: Recipe, options: Options) -> list[tuple[FinishedSong, MeasuredMusic]] | None:
    """Finish the songs of a result in place, and log their levels, tempo and key. Without a finish, return None."""
    from ..audio import finish_songs, measure_music

    one_gain = options.get("one_gain", False)
    if recipe.finish is None:
        if one_gain:
            log.warning("--one-gain is ignored: the songs are not finished; give --loudness as well")
        return None
    songs = finish_songs(list(result.waveform), result.sample_rate, recipe.finish, one_gain=one_gain, in_place=True)
    measured = [measure_music(song.waveform, result.sample_rate) for song in songs]
    for seed, song, music in zip(result.seeds, songs, measured, strict=True):
        (log.warning if song.note else log.info)("finish, seed %d: %s; %s", seed, song, music)
    return list(zip(songs, measured, strict=True))


def recorded_finish(recipe: Recipe, song: FinishedSong, options: Options) -> Finish | None:
    """Return the finish that gives this song again, alone. A gain that several songs share is part of it."""
    if recipe.finish is None or not options.get("one_gain", False):
        return recipe.finish
    return replace(recipe.finish, gain=song.gain)
