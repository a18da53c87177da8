"""Rows of a list of songs, checked by the parsers and readers of the other commands."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, NoReturn

from ..batch.jobs import BatchJob, Outcome
from ..batch.song_list import ListedSong
from ..errors import AceStepError, RequestError, shown
from ..song.song_file import FIELDS, METADATA_FIELDS
from .best_of import takes_of
from .edit_commands import EDIT_PARSERS, EditedRecipe, edited_recipe
from .edit_inputs import check_recording_stays, find_recording
from .inputs import AUTO_DURATION, read_recipes
from .parsers import plan_parser, song_parser
from .song_command import output_paths
from .tagging import read_tag_options, with_song

if TYPE_CHECKING:
    from ..audio import Tags
    from ..recipe import Recipe

Options = Mapping[str, Any]
CONTENTS = tuple(name for name in ("lyrics", "codes", "genres", "score") if name in FIELDS)  # as in a song file
OWN = ("command", "plan", "output", *CONTENTS)
NOT_IN_ROWS = ("help", "version", "quiet", "verbose", "output", "lyrics", "codes", "no_codes")
NOT_IN_PLANS = (*NOT_IN_ROWS, *METADATA_FIELDS, "caption", "batch", "metadata_per_take", "from")
FILES = {"lyrics_file": "--lyrics", "codes_file": "--codes"}
STANDARD_INPUT = (*FILES, "from", "lrc", "source_lyrics")  # fields whose options may read it
# Options that do not change a song, or that its recipe records.
PLACEMENT = ("device", "offload", "stream", "graphs", "compile", "models_dir")
PLACEMENT_OF_PLANNERS = ("device", "offload", "models_dir", "dtype")
TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


@dataclass(frozen=True)
class BatchSong:
    """A checked row.

    edited: the edit of a recording, or None.
    plan: options of `acestep plan`, or None if the song is not planned.
    takes: the takes to generate, of which `keep` are written.
    """

    recipe: Recipe
    options: dict[str, Any]
    tags: Tags | None = None
    edited: EditedRecipe | None = None
    plan: dict[str, Any] | None = None
    takes: int = 1
    keep: int = 1


@dataclass
class RowReader:
    """Turns rows of a list into jobs.

    defaults: options of the command, which a row overrides.
    plan: options of the planner for rows without a field `plan`, or None.
    suffix: of files without one in the field `output`.
    width: digits of a row's number in file names.
    rules: of the filter that songs must pass.
    folder: of the songs, None for a URL.
    """

    defaults: Options
    plan: dict[str, Any] | None = None
    suffix: str = ".flac"
    width: int = 4
    rules: str = ""
    folder: Path | None = None
    _names: dict[str, int] = field(default_factory=dict)

    def read(self, songs: Sequence[ListedSong]) -> tuple[list[BatchJob], list[Outcome]]:
        """Return the jobs of valid rows, and the outcomes of the others."""
        jobs, refused = [], []
        for row in songs:
            try:
                if row.error:
                    raise RequestError(row.error)
                try:
                    jobs.append(self._job(row))
                except AceStepError as error:
                    raise RequestError(f"{row.place}: {error}") from error
            except RequestError as error:
                refused.append(Outcome(row.number, error=str(error)))
        return jobs, refused

    def _job(self, row: ListedSong) -> BatchJob:
        song = self._song(row)
        stem, suffix = self._file_name(row)
        files = tuple(path.name for path in output_paths(stem + suffix, song.keep))
        if song.edited is not None and self.folder is not None:
            check_recording_stays(song.edited.path, [self.folder / name for name in files])
        for name in files:
            other = self._names.setdefault(name.casefold(), row.number)
            if other != row.number:
                raise RequestError(f"output: row {other} has a file of the name {name!r}, too; choose another")
        model = _model_key(song)
        return BatchJob(row.number, _content_key(song), files, model, _group_key(song), song, row.place, self.rules)

    def _song(self, row: ListedSong) -> BatchSong:
        fields = {name.strip().replace("-", "_"): value for name, value in row.fields.items() if value is not None}
        command = fields.get("command", "")
        if command and command not in EDIT_PARSERS:
            raise RequestError(f"command: unknown command {shown(command)}; allowed are {', '.join(EDIT_PARSERS)}")
        options = {**self.defaults, **_parse(command, fields)}
        if isinstance(fields.get("lyrics"), str):
            options["lyrics_text"] = fields["lyrics"]
        plan = self._plan(fields.get("plan"), options)
        if plan is not None and options.get("duration") == AUTO_DURATION:
            options["duration"] = None  # the planner chooses
        if "seed" in self.defaults and "seed" not in fields:
            options["seed"] = self.defaults["seed"] + row.number - 1
        edited, new_seed = None, partial(_seed_of, row)
        if command:
            edited = edited_recipe(command, options, new_seed=new_seed)
            recipe = edited.recipe
        else:
            recipe = _song_recipe(fields, options, new_seed)
            if recipe.recorded_edit is not None:
                path = find_recording(recipe.recorded_edit, [Path(options["from"]).parent, Path()])
                edited = EditedRecipe(recipe, recipe.recorded_edit, path.absolute(), "")
        takes, keep = takes_of(options, [recipe]), options.get("batch", 1)
        tags = read_tag_options(options)
        with_song(tags, recipe.song)  # raises RequestError for lyrics that no tag can hold
        if edited is not None or recipe.codes:
            plan = None
        return BatchSong(recipe, options, tags, edited, plan, takes, keep)

    def _plan(self, given: object, options: Options) -> dict[str, Any] | None:
        placement = {name: options[name] for name in PLACEMENT_OF_PLANNERS if name in options}
        if isinstance(given, Mapping):
            return {**placement, **(self.plan or {}), **_parse_plan(given)}
        if given is None:
            return None if self.plan is None else {**placement, **self.plan}
        return {**placement, **(self.plan or {})} if _truth("plan", given) else None

    def _file_name(self, row: ListedSong) -> tuple[str, str]:
        given = row.fields.get("output")
        if given is None:
            return row.name or f"song-{row.number:0{self.width}d}", self.suffix
        inside = PureWindowsPath(given) if isinstance(given, str) else PureWindowsPath()
        if len(inside.parts) != 1 or inside.anchor or inside.name != given or given.startswith(".") or "\0" in given:
            raise RequestError(f"output: must be the name of a file without a folder, got {shown(given)}")
        check_suffix(inside.suffix or self.suffix)
        return inside.stem, inside.suffix or self.suffix


@cache
def check_suffix(suffix: str) -> None:
    """Raise RequestError if songs cannot be written with this suffix."""
    import tempfile

    from ..audio import check_audio_path

    with tempfile.TemporaryDirectory() as folder:
        try:
            check_audio_path(Path(folder) / f"song{suffix}")
        except RequestError as error:
            raise RequestError(str(error).replace(f"{folder}/", "")) from error


def _song_recipe(fields: Options, options: dict[str, Any], new_seed: Callable[[], int]) -> Recipe:
    contents: dict[str, Any] = {name: fields[name] for name in CONTENTS if name in fields and name != "lyrics"}
    if "lyrics" in fields and not isinstance(fields["lyrics"], str):
        raise RequestError(f"lyrics must be text, got {shown(fields['lyrics'])}")
    if "codes" in contents and ("from" in options or "codes" in options):
        raise RequestError("codes: cannot be combined with from or codes_file; leave one of them out")
    recipes = read_recipes(options, None if "from" in options or "codes" in options else [contents], new_seed)
    if len(recipes) != 1:
        raise RequestError(
            f"from: {options.get('from', options.get('codes'))} has {len(recipes)} songs, and a row makes one; give "
            "the folder of the song file to the command instead"
        )
    song = recipes[0].song
    if not (song.caption.strip() or song.lyrics.strip() or recipes[0].codes):
        raise RequestError("caption: missing; give a caption, lyrics or from")
    return recipes[0]


def _seed_of(row: ListedSong) -> int:
    """Return a seed that stays the same when a list is read again."""
    content = json.dumps([row.number, row.fields], sort_keys=True)
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:4], "big") % 2**31


def _model_key(song: BatchSong) -> str:
    recipe, placement = song.recipe, (*PLACEMENT, "lora")
    adapters = [adapter.to_dict() for adapter in recipe.adapters]
    return json.dumps(
        [{"model": "nano", **recipe.origin}, adapters, [song.options.get(name) for name in placement]], sort_keys=True
    )


def _group_key(song: BatchSong) -> tuple[Any, ...]:
    """Return a key that songs share that may be planned together, and sampled together if their lengths are equal."""
    plan = None if song.plan is None else json.dumps(song.plan, sort_keys=True)
    alone = song.edited is not None or song.takes > song.keep
    duration = song.recipe.song.metadata.duration
    return (plan, id(song) if alone else None, duration, song.keep, len(song.recipe.codes))


def _content_key(song: BatchSong) -> str:
    """Return a hash of all that a song depends on, so that a changed row is made again."""
    edit = None if song.edited is None else song.edited.edit.to_dict()
    options = {name: value for name, value in song.options.items() if name not in PLACEMENT}
    plan = None if song.plan is None else {k: v for k, v in song.plan.items() if k not in PLACEMENT}
    content = [song.recipe.to_dict(), edit, options, plan, repr(song.tags)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


# --- fields to options --------------------------------------------------------------------------------------------


@cache
def _parser(command: str) -> argparse.ArgumentParser:
    parser = EDIT_PARSERS[command]() if command in EDIT_PARSERS else plan_parser() if command else song_parser()

    def refuse(message: str) -> NoReturn:
        raise RequestError(message.removeprefix("argument --").removeprefix("argument "))

    parser.error = refuse  # type: ignore[method-assign]
    return parser


@cache
def _actions(command: str) -> dict[str, argparse.Action]:
    """Return the options of a command by the names that a field may have."""
    found: dict[str, argparse.Action] = {}
    for action in _parser(command)._actions:
        names = [name[2:].replace("-", "_") for name in action.option_strings if name.startswith("--")]
        for name in names or [action.dest]:
            found[name] = action
        if names and names[0] == "guidance":  # the name in a recipe
            found[action.dest] = action
    excluded = NOT_IN_PLANS if command == "plan" else NOT_IN_ROWS
    allowed = {name: action for name, action in found.items() if name not in excluded}
    if command == "plan":
        allowed["no_codes"] = found["no_codes"]
    else:
        files = {name: found[flag[2:]] for name, flag in FILES.items() if flag[2:] in found}
        allowed |= files
    return allowed


def _parse(command: str, fields: Options) -> dict[str, Any]:
    actions = _actions(command)
    unknown = next((name for name in fields if name not in actions and name not in OWN), None)
    if unknown is not None:
        names = sorted({*actions, *OWN} - {"genres", "score"} - {n for n in actions if n.startswith("no_")})
        raise RequestError(f"unknown field {shown(unknown)}; known fields are {', '.join(names)}")
    given = {name: value for name, value in fields.items() if name in actions}
    if (name := next((name for name in STANDARD_INPUT if given.get(name) == "-"), None)) is not None:
        raise RequestError(f"{name}: a row cannot read standard input; give the name of a file")
    return _options(command, given)


def _parse_plan(fields: Options) -> dict[str, Any]:
    fields = {name.replace("-", "_"): value for name, value in fields.items() if value is not None}
    actions = _actions("plan")
    unknown = next((name for name in fields if name not in actions), None)
    if unknown is not None:
        raise RequestError(f"plan: unknown field {shown(unknown)}; known fields are {', '.join(sorted(actions))}")
    try:
        return _options("plan", fields)
    except RequestError as error:
        raise RequestError(f"plan: {error}") from error


def _options(command: str, fields: Options) -> dict[str, Any]:
    """Return the options that the parser of a command reads from fields. Raises RequestError with the field's name."""
    actions, arguments, positional = _actions(command), [], {}
    for name, value in fields.items():
        action = actions[name]
        if not action.option_strings:
            positional[action.dest] = _text(name, value)
        else:
            arguments += _arguments(FILES.get(name) or f"--{name.replace('_', '-')}", name, action, value)
    order = [action.dest for action in _parser(command)._actions if not action.option_strings]
    values = [positional[name] for name in order if name in positional]
    if "file" in order and "file" not in positional:
        raise RequestError("file: missing; give the audio file to edit")
    return vars(_parser(command).parse_args([*arguments, "--", *values]))


def _arguments(flag: str, name: str, action: argparse.Action, value: object) -> list[str]:
    flag = "--guidance" if action.dest == "guidance_scale" else flag
    if isinstance(action, argparse.BooleanOptionalAction):
        positive = action.option_strings[0]
        return [positive if _truth(name, value) else positive.replace("--", "--no-", 1)]
    if action.nargs == 0:
        return [flag] if _truth(name, value) else []
    if value is True and action.nargs == "?":
        return [flag]
    if isinstance(action, argparse._AppendAction):
        items = value if isinstance(value, list) else [part.strip() for part in _text(name, value).split(";")]
        return [f"{flag}={_text(name, item)}" for item in items]
    if isinstance(value, list):
        value = ",".join(_text(name, item) for item in value)
    return [f"{flag}={_text(name, value)}"]


def _text(name: str, value: object) -> str:
    if isinstance(value, (bool, list, dict)) or value is None:
        raise RequestError(f"{name}: must be text or a number, got {shown(value)}")
    return str(value)


def _truth(name: str, value: object) -> bool:
    text = str(value).strip().lower()
    if text not in TRUE + FALSE:
        raise RequestError(f"{name}: must be true or false, got {shown(value)}")
    return text in TRUE
