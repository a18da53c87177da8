"""The input of a command: the file of --from, overridden by the other options."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..files import read_text
from ..song.codes import CODE_RATE, seconds_of
from ..song.seeds import distinct_seeds, random_seed
from ..song.song_file import FIELDS, METADATA_FIELDS, SavedSong, load_codes, load_songs
from .finishing import finish_values
from .graph_recipe import graph_settings

if TYPE_CHECKING:
    from ..recipe import Recipe
    from ..song.song import Song

log = logging.getLogger("acestep")

Options = Mapping[str, Any]

AUTO_DURATION = "auto"
# If the options choose another variant or another model, these settings of a file do not apply.
VARIANT_SETTINGS = ("steps", "shift", "guidance_scale", "timesteps")
MODEL_SETTINGS = (*VARIANT_SETTINGS, "variant", "vae", "text_encoder")


def check_counts(options: Options, *names: str) -> None:
    """Raise RequestError if one of these options is below 1."""
    for name in names:
        if options.get(name, 1) < 1:
            raise RequestError(f"--{name.replace('_', '-')} must be at least 1, got {options[name]}")


def is_song_file(path: str) -> bool:
    """Return True if a file holds songs as JSON or text, False if it may be audio."""
    if path == "-" or path.lower().endswith((".json", ".txt")):
        return True
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):  # audio needs a file, and what is read here would be gone
            return True
        with open(path, "rb") as file:
            return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    except (OSError, ValueError):
        return False


def read_recipes(
    options: Options,
    defaults: Sequence[dict[str, Any]] | None = None,
    new_seed: Callable[[], int] = random_seed,
) -> list[Recipe]:
    """Return one recipe per song to generate. Raises RequestError for all that can be checked without the model.

    defaults: settings of each song instead of those of --from.
    new_seed: returns a seed for a song that has none.
    """
    check_standard_input(options)
    sources = list(defaults or [{}])
    if "from" in options:
        sources = _settings_of(options["from"])
    if options.get("codes") is not None:
        saved = load_codes(options["codes"])
        if len(sources) not in (1, len(saved)):
            raise RequestError(
                f"--codes: {options['codes']} has codes for {len(saved)} songs, but --from has {len(sources)}; "
                f"allowed are 1 and {len(saved)}"
            )
        sources = sources * len(saved) if len(sources) == 1 else sources
        # The codes set the duration.
        sources = [
            {**values, "codes": item.codes, "duration": None} for values, item in zip(sources, saved, strict=True)
        ]
    lyrics = {"lyrics": read_text(options["lyrics"], "lyrics file")} if "lyrics" in options else {}
    if "lyrics_text" in options:  # of a row of a list
        lyrics = {"lyrics": options["lyrics_text"]}
    overrides = {name: value for name, value in options.items() if name != "codes" or value is None}
    recipes = [_recipe({**overrides, **lyrics}, values, new_seed) for values in sources]
    if "from" in options and is_song_file(options["from"]):  # an audio file may come from a song without text
        _check_text(options["from"], [recipe.song for recipe in recipes if not recipe.codes], empty=not recipes)
    return recipes


def read_songs(options: Options) -> list[SavedSong]:
    """Return the songs of --from, or a new song, with the metadata and lyrics of the other options."""
    check_standard_input(options)
    path = options.get("from")
    sources: list[dict[str, Any]] = [{}] if path is None else _settings_of(path)
    saved = [SavedSong.from_dict({name: values[name] for name in FIELDS if name in values}) for values in sources]
    text = {"caption": options["caption"]} if "caption" in options else {}
    if "lyrics" in options:
        text["lyrics"] = read_text(options["lyrics"], "lyrics file")
    metadata = {name: options[name] for name in METADATA_FIELDS if name in options}
    if metadata.get("duration") == AUTO_DURATION:
        metadata["duration"] = None  # the planner chooses
    songs = [
        replace(item, song=replace(item.song, **text, metadata=replace(item.song.metadata, **metadata)))
        for item in saved
    ]
    if path is not None:
        _check_text(path, [item.song for item in songs], empty=not songs)
    return songs


def check_standard_input(options: Options) -> None:
    """Raise RequestError if two options read standard input."""
    readers = ("from", "codes", "lyrics", "lrc", "source_lyrics")
    names = ["--" + name.replace("_", "-") for name in readers if options.get(name) == "-"]
    if len(names) > 1:
        raise RequestError(f"{' and '.join(names)}: only one of them can read standard input")


def _check_text(path: str, songs: Sequence[Song], empty: bool) -> None:
    """Raise RequestError if a file has no songs, or a song without text."""
    if empty:
        raise RequestError(f"{path} has no songs: it is empty")
    if not all(song.caption.strip() or song.lyrics.strip() for song in songs):
        raise RequestError(f"{path} has a song without caption and lyrics: give a caption")


def settings_in_tags(path: Path) -> dict[str, Any]:
    """Return the settings in the tags of an audio file. A file of another program has none."""
    from ..audio import read_settings

    try:
        return read_settings(path)
    except RequestError:
        return {}


def _settings_of(path: str) -> list[dict[str, Any]]:
    """Return the settings of each song of a file."""
    if is_song_file(path):
        return [song.to_dict() for song in load_songs(path)]
    from ..audio import read_settings, read_tags

    try:
        return [read_settings(path)]
    except RequestError:
        extra = {name.lower(): text for name, text in read_tags(path).extra.items()}
        if "prompt" not in extra:
            raise
        return [graph_settings(extra["prompt"], path)]


def _recipe(options: Options, values: dict[str, Any], new_seed: Callable[[], int]) -> Recipe:
    """Return the recipe of a file's values, overridden by the options."""
    from ..recipe import PARTS, Recipe
    from ..sampling.settings import TURBO

    dropped = _dropped_settings(options, values)
    paths = {name: options[name] for name in PARTS if name in options}  # only an option may be a path
    others = {name: value for name, value in options.items() if name not in paths}
    own = {name: value for name, value in values.items() if name not in dropped and name not in paths}
    merged = {"seed": None, **own, **others}
    merged["finish"] = finish_values(options, values.get("finish"))
    if merged["seed"] is None:
        merged["seed"] = new_seed()
    if merged.get("duration") == AUTO_DURATION:
        merged["duration"] = None if merged.get("codes") else _fitting_duration(merged.get("lyrics"))
    recipe = Recipe.from_dict(merged)
    recipe = replace(recipe, origin={**recipe.origin, **paths})
    # Find errors before the model is loaded.
    recipe.settings.resolve(TURBO)
    distinct_seeds(recipe.seed, max(options.get("batch", 1), options.get("best_of", 1)))
    _check_duration(recipe)
    if recipe.unrecorded:
        log.warning(
            "%s: its tags do not record %s; the new song is made from the text%s only",
            options.get("from"),
            ", ".join(recipe.unrecorded),
            " and codes" if recipe.codes else "",
        )
    return recipe


def _fitting_duration(lyrics: object) -> float | None:
    from ..lyrics.check import estimate_duration

    if not isinstance(lyrics, str):  # refused by the recipe
        return None
    seconds = estimate_duration(lyrics)
    log.warning("duration: %g seconds, estimated from the lyrics", seconds)
    return seconds


def _check_duration(recipe: Recipe) -> None:
    duration, available = recipe.song.metadata.duration, seconds_of(recipe.codes)
    if recipe.codes and duration is not None and duration > available + 0.5 / CODE_RATE:
        raise RequestError(
            f"duration: {duration:g} seconds, but the audio codes last only {available:g}; plan the song again with "
            "`acestep plan --from FILE --duration`, or drop the codes with --no-codes"
        )


def _dropped_settings(options: Options, values: Mapping[str, Any]) -> set[str]:
    """Return the settings of a file that the options invalidate."""
    from ..recipe import portable_name

    model, variant = values.get("model"), values.get("variant", values.get("model"))
    dropped: set[str] = set()
    if "model" in options and portable_name(options["model"]) != model:
        dropped |= {*MODEL_SETTINGS}
    elif "variant" in options and options["variant"] != variant:
        dropped |= {*VARIANT_SETTINGS}
    if "timesteps" in options:
        dropped |= {"steps", "shift"}
    elif "steps" in options or "shift" in options:
        dropped |= {"timesteps"}
    return dropped
