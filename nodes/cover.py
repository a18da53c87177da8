"""Cover: generate a song again in another style."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.errors import RequestError
from .checks import UNCONNECTED, check_source, valid
from .comfy_runtime.versions import advanced, search_aliases
from .sockets import EDITS, share_input
from .source import edit_output, find_source, source_inputs, task_output


class CoverNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Cover",
            display_name="Cover",
            category=EDITS,
            description="Generates a cover: keeps melody, chords and beat of a song in the style of the caption.",
            **search_aliases("remix, style transfer, audio to audio, restyle"),
            inputs=[
                *source_inputs(),
                share_input(
                    "strength",
                    1.0,
                    "Cover strength, the share of the steps that follow the source. 1 follows it to the end, 0.2 keeps "
                    "only an outline, 0 none of it.",
                ),
                share_input(
                    "noise_strength",
                    0.0,
                    "Noise strength, the share of the source in the starting noise. 0 is pure noise, 0.3 keeps some "
                    "of the sound, near 1 almost all of it.",
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
            outputs=[task_output()],
        )

    @classmethod
    def validate_inputs(
        cls, use_codes=True, audio=UNCONNECTED, vae=UNCONNECTED, latent=UNCONNECTED, codes=UNCONNECTED
    ) -> bool | str:
        has_codes = codes is None or (codes is not UNCONNECTED and codes.strip())  # None: linked
        return True if has_codes else valid(check_source, audio, vae, latent, ", or codes to cover")

    @classmethod
    def execute(
        cls, strength, noise_strength, audio=None, vae=None, latent=None, codes="", use_codes=True, blend=False
    ) -> io.NodeOutput:
        from ..acestep_core.edit.edit import Edit
        from ..acestep_core.edit.tasks import COVER
        from ..acestep_core.song.codes import parse_code_lines

        source, songs = find_source(audio, vae, latent), parse_code_lines(codes)
        if source is None and not songs:
            raise RequestError("audio, latent or codes: missing. Connect audio and vae, a latent, or codes to cover.")
        if songs and not use_codes:
            raise RequestError("use_codes: off, but codes are given. Turn it on, or remove the codes.")
        if source is None and noise_strength:
            raise RequestError("noise_strength: needs audio or a latent, because codes have no sound. Set it to 0.")
        blends = blend and strength > 0  # at 0, a blend would still show the source to the model
        return edit_output(
            Edit(
                task=COVER,
                source=None if source is None else source.latents,
                codes=songs,
                strength=1.0 if blends else strength,
                blend=1 - strength if blends else 0.0,
                noise_strength=noise_strength,
                use_codes=use_codes,
            )
        )
