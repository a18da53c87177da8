"""Audio Codes, Save Audio Codes and Load Audio Codes: the structure of a song as text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from ..acestep_core.errors import RequestError
from .checks import UNCONNECTED, check_source, valid
from .comfy_runtime.versions import search_aliases
from .sockets import EDITS, SongSocket
from .source import require_source, source_inputs

SUFFIXES = (".json", ".txt")
NO_FILES = "(put files of audio codes into ComfyUI's input folder)"


class AudioCodesNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_AudioCodes",
            display_name="Audio Codes",
            category=EDITS,
            description="Extracts the audio codes of a song, five per second: melody, chords and beat without the "
            "sound.",
            **search_aliases("semantic tokens, structure, 5 hz"),
            inputs=[
                io.Model.Input("model", tooltip="Diffusion model with the audio tokenizer, from Load Model."),
                *source_inputs(),
            ],
            outputs=[
                io.String.Output(
                    display_name="codes",
                    tooltip="Audio codes, one line per song, for Cover, Encode Song or Save Audio Codes.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, model, audio=UNCONNECTED, vae=UNCONNECTED, latent=UNCONNECTED) -> bool | str:
        return valid(check_source, audio, vae, latent)

    @classmethod
    def execute(cls, model, audio=None, vae=None, latent=None) -> io.NodeOutput:
        from ..acestep_core.song.codes import format_code_lines
        from .comfy_runtime.model import extract_codes

        source = require_source(audio, vae, latent)
        return io.NodeOutput(format_code_lines(extract_codes(model, source.latents)))


class SaveCodesNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_SaveCodes",
            display_name="Save Audio Codes",
            category=EDITS,
            description="Saves audio codes and their song to a JSON file in ComfyUI's output folder.",
            is_output_node=True,
            **search_aliases("semantic tokens"),
            inputs=[
                io.String.Input(
                    "codes", force_input=True, tooltip="Audio codes, one line per song, from Audio Codes or Plan Song."
                ),
                io.String.Input(
                    "filename_prefix", default="codes/song", tooltip="Filename prefix, with or without folders."
                ),
                SongSocket.Input(
                    "song", optional=True, tooltip="Song whose caption, lyrics and metadata are saved with the codes."
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, codes, filename_prefix, song=None) -> io.NodeOutput:
        from ..acestep_core.files import reserve
        from ..acestep_core.song.codes import parse_code_lines
        from ..acestep_core.song.song import Song
        from ..acestep_core.song.song_file import SavedSong, save_songs

        songs = parse_code_lines(codes)
        if not songs:
            raise RequestError("codes: empty. Connect audio codes.")
        names, subfolder = numbered_paths(filename_prefix, ".json")
        with reserve(names) as path:
            save_songs(path, [SavedSong(song or Song(""), item) for item in songs])
        saved = [{"filename": path.name, "subfolder": subfolder, "type": "output"}]
        return io.NodeOutput(ui={**ui.PreviewText(os.path.join(subfolder, path.name)).as_dict(), "codes": saved})


class LoadCodesNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_LoadCodes",
            display_name="Load Audio Codes",
            category=EDITS,
            description="Loads audio codes from a file in ComfyUI's input folder.",
            **search_aliases("semantic tokens"),
            inputs=[
                io.Combo.Input(
                    "file",
                    options=code_file_entries(),
                    tooltip="File with audio codes, from Save Audio Codes or `acestep plan`. A text file with one "
                    "line of codes per song works as well.",
                )
            ],
            outputs=[
                io.String.Output(
                    display_name="codes", tooltip="Audio codes, one line per song, for Cover or Encode Song."
                ),
                SongSocket.Output(
                    display_name="song", tooltip="First song of the file, with the duration of its codes."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file) -> bool | str:
        """Report a missing file before the run."""
        return True if file is None else valid(codes_path, file)

    @classmethod
    def fingerprint_inputs(cls, file) -> object:
        """Load again if the file changes under the same name."""
        if file is None:
            return None
        status = codes_path(file).stat()
        return (status.st_mtime_ns, status.st_size)

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        from ..acestep_core.song.codes import format_code_lines
        from ..acestep_core.song.song_file import load_codes

        songs = load_codes(codes_path(file))
        return io.NodeOutput(format_code_lines(item.codes for item in songs), songs[0].timed_song)


def code_file_entries() -> list[str]:
    """Return the text and JSON files of the input folder and its folder `codes`."""
    root = Path(folder_paths.get_input_directory())
    files = [path for pattern in ("*", "codes/*") for path in root.glob(pattern) if path.suffix in SUFFIXES]
    return sorted(path.relative_to(root).as_posix() for path in files) or [NO_FILES]


def codes_path(file: str) -> Path:
    """Return the path of a file in the input folder. Raises RequestError for any other."""
    root = Path(folder_paths.get_input_directory()).resolve()
    try:
        path = (root / file).resolve()
        exists = root in path.parents and path.suffix in SUFFIXES and path.is_file()
    except (OSError, TypeError, ValueError):  # a linked node may give anything
        exists = False
    if not exists:
        raise RequestError(f"file: {file!r} is not a file of audio codes in ComfyUI's input folder. Choose an entry.")
    return path


def numbered_paths(prefix: str, suffix: str) -> tuple[Iterator[Path], str]:
    """Return paths in the output folder with rising numbers, as ComfyUI names its files, and their subfolder.

    Raises RequestError for a prefix that cannot be written.
    """
    output = check_prefix(prefix)
    try:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, output)
    except (OSError, ValueError) as error:  # such as a name that is too long
        raise RequestError(f"filename_prefix: {prefix!r:.80} cannot be written: {error!s:.80}") from error
    return (Path(folder, f"{name}_{number:05}_{suffix}") for number in count(counter)), subfolder


def check_prefix(prefix: str) -> str:
    """Return the output folder. Raises RequestError for a prefix outside of it."""
    output = Path(os.path.abspath(folder_paths.get_output_directory()))
    path = Path(os.path.abspath(output / prefix))
    if "\0" in prefix or output not in (path, *path.parents):
        raise RequestError(f"filename_prefix: {prefix!r} is outside of ComfyUI's output folder. Use a relative name.")
    return str(output)
