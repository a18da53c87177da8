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
            description="Generates a cover: keeps melody, chords and beat of a song in the style of the caption.",
            inputs=[
                *source_inputs(),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.01,
                    tooltip="Cover strength, the share of the steps that follow the source. 1 follows it to the end, "
                    "0.2 keeps only an outline, 0 none of it.",
                ),
                io.Float.Input(
                    "noise_strength",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.01,
                    tooltip="Noise strength, the share of the source in the starting noise. 0 is pure noise, 0.3 keeps "
                    "some of the sound, near 1 almost all of it.",
                ),
                io.String.Input(
                    "codes",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Audio codes to follow instead of a source, one line per song. They come from Audio Codes, "
                    "Plan Song, a file or your own text.",
                ),
                advanced(
                    io.Boolean.Input(
                        "use_codes",
                        default=True,
                        optional=True,
                        tooltip="Use audio codes of the source. On (default), only its structure is kept. Off, its "
                        "sound is kept as well.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "blend",
                        default=False,
                        optional=True,
                        tooltip="Blend source and caption in every step, at twice the time. Off (default), the source "
                        "comes first and the caption after. Only used if strength is below 1.",
                    )
                ),
            ],
            outputs=[TaskSocket.Output(display_name="task", tooltip="Edit task with its source, for Encode Song.")],
        )

    @classmethod
    def execute(
        cls,
        strength,
        noise_strength,
        audio=None,
        vae=None,
        latent=None,
        codes="",
        use_codes=True,
        blend=False,
    ) -> io.NodeOutput:
        from ..acestep_core.edit.edit import Edit
        from ..acestep_core.edit.tasks import COVER
        from ..acestep_core.song.codes import parse_songs

        source, songs = find_source(audio, vae, latent), parse_songs(codes)
        if source is None and not songs:
            raise RequestError("there is nothing to cover: connect audio and vae, a latent, or codes")
        if songs and not use_codes:
            raise RequestError("codes are connected, and use_codes is off: turn it on, or leave the codes out")
        if source is None and noise_strength:
            raise RequestError("noise_strength needs sound beside the codes: connect audio and vae, or a latent")
        blended = blend and strength > 0  # at 0 nothing of the song is to be heard, and a blend still sees it
        edit = Edit(
            task=COVER,
            source=None if source is None else source.latents,
            codes=songs,
            strength=1.0 if blended else strength,
            blend=1 - strength if blended else 0.0,
            noise_strength=noise_strength,
            use_codes=use_codes,
        )
        return task_output(edit, source)
