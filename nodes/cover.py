"""The structure of a song, played anew."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.errors import RequestError
from .comfy_runtime.versions import advanced
from .sockets import EDITS, TaskSocket
from .source import find_source, source_inputs, task_output


class CoverNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Cover",
            display_name="Cover",
            category=EDITS,
            description="Keeps melody, chords and beat of a song, and plays and sings them as the caption says.",
            inputs=[
                *source_inputs(),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.01,
                    tooltip="How long the song is followed while the new one is made: 1 to the end, 0.2 takes over "
                    "little but its outline, 0 not at all.",
                ),
                io.Float.Input(
                    "keep_sound",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.01,
                    tooltip="How much of the recording itself shines through: 0 starts from nothing, near 1 it is "
                    "almost the recording.",
                ),
                io.String.Input(
                    "codes",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Audio codes to follow instead of a recording, one line a song, from Audio Codes, a file "
                    "or your own hand.",
                ),
                advanced(
                    io.Boolean.Input(
                        "through_codes",
                        default=True,
                        optional=True,
                        tooltip="On, only the structure of the song is kept; off, its sound is followed closely, too.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "blend",
                        default=False,
                        optional=True,
                        tooltip="On, a strength below 1 mixes song and caption all the way, at twice the time, instead "
                        "of following the song first and the caption then.",
                    )
                ),
            ],
            outputs=[TaskSocket.Output(display_name="task", tooltip="What to do with which song, for Encode Song.")],
        )

    @classmethod
    def execute(
        cls,
        strength,
        keep_sound,
        audio=None,
        vae=None,
        latent=None,
        codes="",
        through_codes=True,
        blend=False,
    ) -> io.NodeOutput:
        from ..acestep_core.edit.edit import Edit
        from ..acestep_core.edit.tasks import COVER
        from ..acestep_core.song.codes import parse_songs

        source, songs = find_source(audio, vae, latent), parse_songs(codes)
        if source is None and not songs:
            raise RequestError("there is nothing to cover: connect audio and vae, a latent, or codes")
        if songs and not through_codes:
            raise RequestError("codes are connected, and through_codes is off: turn it on, or leave the codes out")
        if source is None and keep_sound:
            raise RequestError("keep_sound needs sound beside the codes: connect audio and vae, or a latent")
        blended = blend and strength > 0  # at 0 nothing of the song is to be heard, and a blend still sees it
        edit = Edit(
            task=COVER,
            source=None if source is None else source.latents,
            codes=songs,
            strength=1.0 if blended else strength,
            blend=1 - strength if blended else 0.0,
            noise_strength=keep_sound,
            use_codes=through_codes,
        )
        return task_output(edit, source)
