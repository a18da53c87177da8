"""Encode Song and Batch Songs: from songs to CONDITIONING."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..acestep_core.errors import RequestError
from .comfy_runtime.versions import search_aliases
from .sockets import SONG, SongSocket, TaskSocket, TextEncoderSocket

if TYPE_CHECKING:
    from ..acestep_core.edit.edit import Edit

BATCH_INPUTS = 8


class EncodeNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Encode",
            display_name="Encode Song",
            category=SONG,
            description="Encodes caption, lyrics and metadata of a song with the text encoder.",
            **search_aliases("text encode, clip text encode, prompt"),
            inputs=[
                TextEncoderSocket.Input("text_encoder", tooltip="Text encoder, from Load Model."),
                SongSocket.Input("song", tooltip="Song to encode, from Song, Plan Song or Write Song."),
                TaskSocket.Input(
                    "task",
                    optional=True,
                    tooltip="Edit task, from Cover, Repaint, Extend or Stems. Without a task, the song is generated "
                    "from text alone.",
                ),
                io.String.Input(
                    "codes",
                    optional=True,
                    force_input=True,
                    tooltip="Audio codes, one line per take, from Plan Song or Audio Codes. They set melody, "
                    "structure and duration of the song.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="Conditioning (positive), for Sample Song or KSampler."
                )
            ],
        )

    @classmethod
    def execute(cls, text_encoder, song, task=None, codes=None) -> io.NodeOutput:
        from ..acestep_core import pipeline
        from ..acestep_core.lyrics.check import estimate_duration
        from .comfy_runtime.conditioning import to_conditioning
        from .comfy_runtime.notes import duration_notes
        from .comfy_runtime.placement import intermediate_device
        from .comfy_runtime.progress import node_callbacks, show_notes, show_values

        edit = edit_with_codes(task, codes)
        options: dict = {}
        if edit is not None:
            show_notes(*duration_notes([song], edit.seconds))
            song = replace(song, metadata=replace(song.metadata, duration=edit.seconds))
            options = {"task": edit.task, "tracks": edit.tracks, "explicit_mask": not edit.auto_mask}
        elif song.metadata.duration is None:
            seconds = estimate_duration(song.lyrics)
            show_values(f"auto: {seconds:g} seconds, estimated from the lyrics")
            song = replace(song, metadata=replace(song.metadata, duration=seconds))
        with node_callbacks() as callbacks:
            text = pipeline.encode(text_encoder.model, song, callbacks=callbacks, **options)
        return io.NodeOutput(to_conditioning(text, song, edit, intermediate_device()))


def edit_with_codes(edit: Edit | None, codes: str | None) -> Edit | None:
    """Return the edit, or one that follows the codes. Empty codes change nothing."""
    from ..acestep_core.edit.edit import Edit
    from ..acestep_core.edit.tasks import TEXT2MUSIC
    from ..acestep_core.song.codes import parse_code_lines

    songs = parse_code_lines(codes or "")
    if not songs:
        return edit
    if edit is not None:
        raise RequestError(f"codes: the task {edit.task} is connected as well. Connect the codes to Cover instead.")
    return Edit(TEXT2MUSIC, codes=songs)


class BatchSongsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        others = [
            io.Conditioning.Input(
                f"song_{i}",
                optional=True,
                tooltip="Conditioning of another song of the same duration, or a batch of songs.",
            )
            for i in range(2, BATCH_INPUTS + 1)
        ]
        return io.Schema(
            node_id="AS15_BatchSongs",
            display_name="Batch Songs",
            category=SONG,
            description="Combines several songs into one batch for Sample Song, in this order.",
            **search_aliases("several songs, list of songs"),
            inputs=[
                io.Conditioning.Input(
                    "song_1", tooltip="Conditioning of the first song, from Encode Song, or a batch of songs."
                ),
                *others,
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="Conditioning of all songs, for Sample Song."
                )
            ],
        )

    @classmethod
    def execute(cls, song_1, **others) -> io.NodeOutput:
        from .comfy_runtime.conditioning import batch_conditionings

        names = [f"song_{i}" for i in range(2, BATCH_INPUTS + 1) if others.get(f"song_{i}") is not None]
        return io.NodeOutput(batch_conditionings({"song_1": song_1, **{name: others[name] for name in names}}))
