"""From the words of a song to what the network reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..acestep_core.config import FRAME_RATE
from ..acestep_core.errors import RequestError
from .sockets import SONG, SongSocket, TaskSocket, TextEncoderSocket

if TYPE_CHECKING:
    from ..acestep_core.edit.edit import Edit
    from ..acestep_core.song.song import Song


class EncodeNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Encode",
            display_name="Encode Song",
            category=SONG,
            description="Encodes caption, lyrics and metadata of a song with the text encoder.",
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
                    tooltip="Audio codes, one line per take, from Plan Song or Audio Codes. They set melody, structure "
                    "and duration of the song.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    tooltip="Conditioning (positive), for Sample Song or KSampler.",
                )
            ],
        )

    @classmethod
    def execute(cls, text_encoder, song, task=None, codes=None) -> io.NodeOutput:
        from dataclasses import replace

        from ..acestep_core import pipeline
        from .comfy_runtime import intermediate_device, watched
        from .conditioning import to_conditioning

        task, told, notes = planned(task, codes), {}, []
        if task is not None:
            notes = length_notes(song, task.seconds)
            song = replace(song, metadata=replace(song.metadata, duration=task.seconds))
            told = {"task": task.task, "tracks": task.tracks, "explicit_mask": not task.auto_mask}
        with watched(notes=notes) as callbacks:
            text = pipeline.encode(text_encoder.model, song, callbacks=callbacks, **told)
        return io.NodeOutput(to_conditioning(text, song, task, intermediate_device()))


def length_notes(song: Song | None, seconds: float) -> list[str]:
    """A sentence where the song was to last another time than what it is made of allows."""
    duration = None if song is None else song.metadata.duration
    if duration is None or abs(duration - seconds) < 1 / FRAME_RATE:
        return []
    return [
        f"Song's duration of {duration:g} seconds is ignored: the song is as long as what it is made of, {seconds:g} "
        "seconds"
    ]


def planned(task: Edit | None, codes: str | None) -> Edit | None:
    """The task, or that of playing codes; empty codes, which a planner that wrote none gives, change nothing."""
    from ..acestep_core.edit.edit import Edit
    from ..acestep_core.edit.tasks import TEXT2MUSIC
    from ..acestep_core.song.codes import parse_songs

    songs = parse_songs(codes or "")
    if not songs:
        return task
    if task is not None:
        raise RequestError(f"codes and a task ({task.task.name}) are connected: a cover takes its codes in Cover")
    return Edit(TEXT2MUSIC, codes=songs)
