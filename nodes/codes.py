"""Audio codes: the structure of a song as text that can be read, kept, changed and covered."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from ..acestep_core.errors import RequestError
from .sockets import EDITS, SongSocket
from .source import need_source, source_inputs

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
    def execute(cls, model, audio=None, vae=None, latent=None) -> io.NodeOutput:
        from ..acestep_core.song.codes import format_songs
        from .comfy_runtime import show_note, tokenized

        source = need_source(audio, vae, latent)
        show_note(*source.notes)
        return io.NodeOutput(format_songs(tokenized(model, source.latents)))


class SaveCodesNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_SaveCodes",
            display_name="Save Audio Codes",
            category=EDITS,
            description="Saves audio codes and their song to a JSON file in ComfyUI's output folder.",
            is_output_node=True,
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
        from ..acestep_core.song.codes import parse_songs
        from ..acestep_core.song.song import Song
        from ..acestep_core.song.song_file import SavedSong, save_songs

        found = parse_songs(codes)
        if not found:
            raise RequestError("there are no audio codes to save: the text is empty")
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(*checked(filename_prefix))
        file = f"{name}_{counter:05}_.json"
        save_songs(Path(folder) / file, [SavedSong(song or Song(""), item) for item in found])
        where = os.path.join(subfolder, file)
        saved = [{"filename": file, "subfolder": subfolder, "type": "output"}]
        return io.NodeOutput(ui={**ui.PreviewText(where).as_dict(), "codes": saved})


class LoadCodesNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_LoadCodes",
            display_name="Load Audio Codes",
            category=EDITS,
            description="Loads audio codes from a file in ComfyUI's input folder.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=offered_files(),
                    tooltip="File with audio codes, from Save Audio Codes or `acestep plan`. A text file with one line "
                    "of codes per song works as well.",
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
        if file is None:  # comes from another node
            return True
        try:
            path_of(file)
        except RequestError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file) -> object:
        """Another file under the same name holds other codes."""
        if file is None:
            return None
        status = path_of(file).stat()
        return (status.st_mtime_ns, status.st_size)

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        from ..acestep_core.song.codes import format_songs
        from ..acestep_core.song.song_file import load_codes

        songs = load_codes(path_of(file))
        return io.NodeOutput(format_songs(item.codes for item in songs), songs[0].timed_song)


def offered_files() -> list[str]:
    """Files in the input folder, and in `codes` in it, that may hold codes, by their path in it."""
    root = Path(folder_paths.get_input_directory())
    files = [path for pattern in ("*", "codes/*") for path in root.glob(pattern) if path.suffix in SUFFIXES]
    return sorted(path.relative_to(root).as_posix() for path in files) or [NO_FILES]


def path_of(file: str) -> Path:
    """Where a file of the input folder is. Raises RequestError for one that is gone or lies elsewhere."""
    root = Path(folder_paths.get_input_directory()).resolve()
    try:
        path = (root / file).resolve()
        found = root in path.parents and path.suffix in SUFFIXES and path.is_file()
    except (OSError, TypeError, ValueError):  # what another node gives need not be a name
        found = False
    if not found:
        raise RequestError(
            f"there is no file of audio codes {file!r} in ComfyUI's input folder: choose one from the list"
        )
    return path


def checked(prefix: str) -> tuple[str, str]:
    """The prefix of a file to save, and the output folder. Raises RequestError for one that leads out of it."""
    output = Path(os.path.abspath(folder_paths.get_output_directory()))
    place = Path(os.path.abspath(output / prefix))
    if "\0" in prefix or output not in (place, *place.parents):
        raise RequestError(
            f"filename_prefix {prefix!r} is no name inside ComfyUI's output folder: give one, with folders or without"
        )
    return prefix, str(output)
