"""The commands that edit a recording: `acestep repaint`, `extend`, `cover`, `stems` and `morph`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..edit.recorded import RecordedEdit, file_hash
from ..errors import RequestError
from .edit_inputs import EditedRecording, check_recording_stays, check_where, read_recording
from .inputs import check_standard_input, read_recipes, settings_in_tags
from .parsers import edit_parser
from .song_command import output_paths, write_songs
from .terminal import Terminal, log_lines

if TYPE_CHECKING:
    from ..recipe import Recipe

# Options that a RecordedEdit has under the same name.
SAME_NAMES = ("where", "before", "after", "overlap", "strength", "noise_strength", "mode", "mode_strength",
              "source_caption", "start", "end", "draws")  # fmt: skip
SOURCE_ONLY = ("seed", "codes", "duration", "edit", "finish", "unrecorded")  # tags that the new song does not inherit


def repaint_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Generate parts of a song again."""
    _run("repaint", arguments, terminal)


def extend_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Extend a song at its end or beginning."""
    _run("extend", arguments, terminal)


def cover_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Generate a song again in another style."""
    _run("cover", arguments, terminal)


def stems_of_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Extract a track, add one, or complete an arrangement."""
    _run("stems", arguments, terminal)


def morph_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Turn a recording from its own description towards another."""
    _run("morph", arguments, terminal)


def _repaint_parser() -> argparse.ArgumentParser:
    parser = edit_parser("repaint", "Generate parts of a song again. The rest is kept sample for sample.")
    parser.add_argument(
        "--where",
        required=True,
        metavar="PARTS",
        help='parts in seconds, such as 10-15,1:20-, or by name: "chorus 2", "line 7", "missing lines"',
    )
    _mode_options(parser)
    return parser


def _extend_parser() -> argparse.ArgumentParser:
    parser = edit_parser("extend", "Extend a song at its end, its beginning or both. The rest is kept.")
    parser.add_argument("--after", type=float, metavar="SECONDS", help="seconds to add after the end")
    parser.add_argument("--before", type=float, metavar="SECONDS", help="seconds to add before the beginning")
    parser.add_argument(
        "--overlap",
        type=float,
        metavar="SECONDS",
        help="seconds of the source to redo at the seam; default 0",
    )
    parser.add_argument(
        "--where",
        metavar="PLACE",
        help='continue after 42 or 1:20, or the end of a part by name: "chorus 2", "line 7"; default: the end',
    )
    _mode_options(parser)
    return parser


def _cover_parser() -> argparse.ArgumentParser:
    parser = edit_parser("cover", "Keep melody, chords and beat of a song, in the style of the caption.")
    parser.add_argument("--strength", type=float, help="share of the steps that follow the source; default 1")
    parser.add_argument(
        "--noise-strength", type=float, metavar="SHARE", help="share of the source in the starting noise; default 0"
    )
    parser.add_argument(
        "--blend", action="store_true", help="mix source and caption in every step, at twice the time, by --strength"
    )
    parser.add_argument(
        "--keep-sound", action="store_true", help="follow the sound of the source, not only its audio codes"
    )
    return parser


def _stems_parser() -> argparse.ArgumentParser:
    parser = edit_parser("stems", "Extract, add or complete tracks. Made for base and sft models.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--extract", metavar="TRACK", help="isolate a track, such as vocals or drums")
    what.add_argument("--add", metavar="TRACK", help="generate a track for the song")
    what.add_argument("--complete", metavar="TRACKS", help="generate an arrangement, such as drums,bass,guitar")
    parser.add_argument("--where", metavar="RANGES", help="only for --add: parts in seconds, such as 10-15,1:20-")
    return parser


def _morph_parser() -> argparse.ArgumentParser:
    parser = edit_parser("morph", "Turn a recording from its own description to the caption, step by step.")
    parser.add_argument("--source-caption", metavar="TEXT", help="description of the recording; default: from its tags")
    parser.add_argument("--source-lyrics", metavar="FILE", help="text file with its lyrics; default: from its tags")
    parser.add_argument("--start", type=float, metavar="SHARE", help="share of the steps to skip; default 0")
    parser.add_argument("--end", type=float, metavar="SHARE", help="share of the steps that edit; default 1")
    parser.add_argument("--draws", type=int, metavar="N", help="noise draws that each step averages; default 1")
    return parser


def _mode_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode", metavar="NAME", help="how strictly the rest is kept: conservative, balanced (default), aggressive"
    )
    parser.add_argument("--mode-strength", type=float, metavar="SHARE", help="of balanced: 0 keeps all; default 0.5")


EDIT_PARSERS = {
    "repaint": _repaint_parser,
    "extend": _extend_parser,
    "cover": _cover_parser,
    "stems": _stems_parser,
    "morph": _morph_parser,
}


def _run(command: str, arguments: Sequence[str], terminal: Terminal) -> None:
    options = vars(EDIT_PARSERS[command]().parse_args(arguments))
    with log_lines(terminal, options):
        edited = edited_recipe(command, options)
        check_recording_stays(edited.path, output_paths(options.get("output"), options.get("batch", 1)))
        write_songs([edited.recipe], [edited.recording()], options, terminal)


@dataclass(frozen=True)
class EditedRecipe:
    """The recipe of an edit, and the path of its recording with the lyrics in its tags.

    data: the bytes of the recording, for a machine without the file.
    """

    recipe: Recipe
    edit: RecordedEdit
    path: Path
    lyrics: str
    data: bytes | None = None

    def recording(self) -> EditedRecording:
        """Read the audio. Raises RequestError, also if the file is not that of the recipe any more."""
        if self.data is None:
            if file_hash(self.path) != self.edit.sha256:
                raise RequestError(f"{self.path} was changed by another program or song; start the command again")
            return replace(read_recording(self.edit, self.path), lyrics=self.lyrics)
        with TemporaryDirectory() as folder:
            path = Path(folder) / self.path.name
            path.write_bytes(self.data)
            return replace(read_recording(self.edit, path), lyrics=self.lyrics)

    def packed(self) -> EditedRecipe:
        """Return the same edit with the bytes of its recording, if its file can be read and has not changed."""
        with suppress(OSError):
            data = self.path.read_bytes()
            if sha256(data).hexdigest() == self.edit.sha256:
                return replace(self, data=data)
        return self


def edited_recipe(command: str, options: dict[str, Any], **read: Any) -> EditedRecipe:
    """Return the recipe of one of EDIT_PARSERS. Raises RequestError for all that can be checked without the model.

    read: further arguments of `read_recipes`.
    """
    check_standard_input(options)
    path = Path(options.pop("file"))
    edit = _recorded("" if command == "stems" else command, options, path)
    check_where(edit)
    tags = settings_in_tags(path)
    lyrics = tags.get("lyrics")
    if edit.operation == "morph":
        edit = _with_description(edit, options, tags)
    inherited = {name: value for name, value in tags.items() if name not in SOURCE_ONLY}
    (recipe,) = read_recipes(options, [inherited] if "from" not in options else None, **read)
    song = recipe.song
    if not (song.caption.strip() or song.lyrics.strip() or edit.operation == "extract"):
        raise RequestError(
            f"caption: {path} has no tags that describe it; give a caption, such as "
            f'`acestep {command} {path} "warm lo-fi piano"`'
        )
    recipe = replace(recipe, song=replace(song, metadata=replace(song.metadata, duration=None)), codes=())
    return EditedRecipe(recipe, edit, path, lyrics if isinstance(lyrics, str) else "")


def _recorded(operation: str, options: dict[str, Any], path: Path) -> RecordedEdit:
    values = {name: options.pop(name) for name in SAME_NAMES if name in options}
    for name in ("extract", "add", "complete"):
        if name in options:
            operation, values["tracks"] = name, _tracks(options.pop(name))
    if operation == "extend" and not (values.get("before") or values.get("after")):
        raise RequestError("--after and --before: nothing to add; give the seconds of at least one, such as --after 20")
    if values.get("where") and operation == "extend" and not values.get("after"):
        raise RequestError("--where: nothing is added there; give the seconds with --after, such as --after 20")
    if values.get("where") and operation not in ("repaint", "add", "extend"):
        raise RequestError(f"--where: {operation} works on the whole song; leave it out")
    if options.pop("blend", False) and values.get("strength") != 0:  # at 0, a blend would still show the source
        values["blend"] = 1 - values.pop("strength", 1.0)
    if options.pop("keep_sound", False):
        values["use_codes"] = False
    return RecordedEdit(operation, path.name, file_hash(path), **values)


def _tracks(text: str) -> tuple[str, ...]:
    from ..edit.regions import BETWEEN

    return tuple(name.strip().lower().replace(" ", "_") for name in BETWEEN.split(text) if name.strip())


def _with_description(edit: RecordedEdit, options: dict[str, Any], tags: dict[str, Any]) -> RecordedEdit:
    from ..files import read_text

    caption, lyrics = (tags[name] if isinstance(tags.get(name), str) else "" for name in ("caption", "lyrics"))
    caption = edit.source_caption or caption
    if "source_lyrics" in options:
        lyrics = read_text(options.pop("source_lyrics"), "lyrics file")
    if not caption.strip():
        raise RequestError("--source-caption: missing, and the recording has no tags; describe the recording as it is")
    return replace(edit, source_caption=caption, source_lyrics=lyrics)
