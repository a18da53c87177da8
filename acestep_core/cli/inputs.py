"""What a command is asked for: the options, over what the file of `--from` says."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..files import read_text
from ..song.song_file import METADATA_FIELDS, SavedSong, load_codes, load_songs

if TYPE_CHECKING:
    from ..recipe import Recipe
    from ..song.song import Song

log = logging.getLogger("acestep")

# What belongs to a variant, and to a model: not carried over from a file to another one.
OF_THE_VARIANT = ("steps", "shift", "guidance_scale", "timesteps")
OF_THE_MODEL = (*OF_THE_VARIANT, "variant", "vae", "text_encoder")


def check_counts(given: Mapping[str, Any], *names: str) -> None:
    """Raises RequestError for an option that says how many, and none."""
    for name in names:
        if given.get(name, 1) < 1:
            raise RequestError(f"--{name.replace('_', '-')} must be at least 1, got {given[name]}")


def _check_standard_input(given: Mapping[str, Any]) -> None:
    """It can be read once."""
    names = [f"--{name}" for name in ("from", "codes", "lyrics") if given.get(name) == "-"]
    if len(names) > 1:
        raise RequestError(f"{' and '.join(names)} cannot both be read from standard input")


def is_song_file(path: str) -> bool:
    """Whether a file is to be read as songs in JSON or text, rather than as audio."""
    if path == "-" or path.lower().endswith((".json", ".txt")):
        return True
    try:
        with open(path, "rb") as file:
            return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    except OSError:
        return False


def read_recipes(given: Mapping[str, Any]) -> list[Recipe]:
    """What to make, song by song. Checked as far as it can be without the model, so that a mistake costs no loading."""
    _check_standard_input(given)
    told = _told(given["from"]) if "from" in given else [{}]
    if given.get("codes") is not None:
        written = load_codes(given["codes"])
        if len(told) not in (1, len(written)):
            raise RequestError(f"{given['codes']} has codes for {len(written)} songs, and there are {len(told)}")
        told = told * len(written) if len(told) == 1 else told
        # They say how long the song is.
        told = [{**song, "codes": item.codes, "duration": None} for song, item in zip(told, written, strict=True)]
    lyrics = {"lyrics": read_text(given["lyrics"], "lyrics file")} if "lyrics" in given else {}
    options = {name: value for name, value in given.items() if name != "codes" or value is None}
    recipes = [_recipe({**options, **lyrics}, song) for song in told]
    if "from" in given and is_song_file(given["from"]):  # what was made without words has none in its tags either
        _check_words(given["from"], [recipe.song for recipe in recipes if not recipe.codes], empty=not recipes)
    return recipes


def _told(path: str) -> list[dict[str, Any]]:
    """The settings of a file, song by song."""
    if is_song_file(path):
        return [song.to_dict() for song in load_songs(path)]
    from ..audio import read_settings

    return [read_settings(path)]


def _recipe(given: Mapping[str, Any], told: dict[str, Any]) -> Recipe:
    from ..recipe import Recipe
    from ..sampling.settings import TURBO
    from ..song.seeds import batch_seeds, random_seed

    replaced = _replaced_by(given, told)
    values = {"seed": None, **{name: value for name, value in told.items() if name not in replaced}, **given}
    if values["seed"] is None:
        values["seed"] = random_seed()
    recipe = Recipe.from_dict(values)
    recipe.settings.resolve(TURBO)
    batch_seeds(recipe.seed, 1)
    _check_length(recipe)
    if recipe.unrecorded:
        log.warning(
            "%s was made of more than its tags can tell: %s. This is another song, of its words%s",
            given.get("from"),
            ", ".join(recipe.unrecorded),
            " and codes" if recipe.codes else "",
        )
    return recipe


def _check_length(recipe: Recipe) -> None:
    from ..song.codes import CODE_RATE, seconds_of

    asked, written = recipe.song.metadata.duration, seconds_of(recipe.codes)
    if recipe.codes and asked is not None and asked > written + 0.5 / CODE_RATE:
        raise RequestError(
            f"the audio codes are those of {written:g} seconds, and the song shall last {asked:g}: have it planned "
            "again with `acestep plan --from FILE --duration`, or leave them out with --no-codes"
        )


def _replaced_by(given: Mapping[str, Any], base: Mapping[str, Any]) -> set[str]:
    """The settings of a file that the options put an end to."""
    from ..recipe import portable_name

    model, variant = base.get("model"), base.get("variant", base.get("model"))
    replaced: set[str] = set()
    if "model" in given and portable_name(given["model"]) != (model and portable_name(model)):
        replaced |= {*OF_THE_MODEL}
    elif "variant" in given and given["variant"] != variant:
        replaced |= {*OF_THE_VARIANT}
    if "timesteps" in given:
        replaced |= {"steps", "shift"}
    elif "steps" in given or "shift" in given:
        replaced |= {"timesteps"}
    return replaced


def read_songs(given: Mapping[str, Any]) -> list[SavedSong]:
    """The songs of the file of `--from`, or a new one, with what the options say of them."""
    _check_standard_input(given)
    path = given.get("from")
    kept = [SavedSong()] if path is None else _kept(path)
    lyrics = read_text(given["lyrics"], "lyrics file") if "lyrics" in given else None
    songs = []
    for item in kept:
        song = item.song
        facts = replace(song.metadata, **{name: given[name] for name in METADATA_FIELDS if name in given})
        caption = given.get("caption", song.caption)
        song = replace(song, caption=caption, lyrics=song.lyrics if lyrics is None else lyrics, metadata=facts)
        songs.append(replace(item, song=song))
    if path is not None:
        _check_words(path, [item.song for item in songs], empty=not songs)
    return songs


def _check_words(path: str, songs: Sequence[Song], empty: bool) -> None:
    """Raises RequestError where a file says nothing of what to make."""
    if empty:
        raise RequestError(f"{path} holds no songs: it is empty")
    if not all(song.caption.strip() or song.lyrics.strip() for song in songs):
        raise RequestError(f"{path} holds no words of a song: say how it shall sound")


def _kept(path: str) -> list[SavedSong]:
    if is_song_file(path):
        return list(load_songs(path))
    from ..audio import read_settings
    from ..recipe import Recipe

    recipe = Recipe.from_dict({"seed": 0, **read_settings(path)})
    return [SavedSong(recipe.song, recipe.codes)]
