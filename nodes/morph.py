"""Morph: a recording between two captions."""

from __future__ import annotations

from comfy_api.latest import io

from .checks import UNCONNECTED, check_source, valid
from .comfy_runtime.versions import advanced, search_aliases
from .sockets import EDITS, share_input
from .source import require_source, source_inputs


class MorphNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Morph",
            display_name="Morph",
            category=EDITS,
            description="Morphs a recording from one caption to another (FlowEdit) and keeps the rest.",
            **search_aliases("flowedit, edit by caption, style transfer"),
            inputs=[
                io.Conditioning.Input("target", tooltip="Conditioning of the result, from Encode Song."),
                io.Conditioning.Input(
                    "origin",
                    tooltip="Conditioning of the source as it is, from another Encode Song. Only what differs from "
                    "target changes.",
                ),
                *source_inputs(),
                advanced(
                    share_input(
                        "start",
                        0.0,
                        "Start of the edit, as a share of the steps. 0 is the default; 0.2 to 0.4 keeps more of the "
                        "structure.",
                    )
                ),
                advanced(
                    share_input(
                        "end",
                        1.0,
                        "End of the edit, as a share of the steps. 1 is the default; below 1, the last steps follow "
                        "target alone.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "draws",
                        default=1,
                        min=1,
                        max=16,
                        tooltip="Noise draws averaged in each step. More draws are steadier and take proportionally "
                        "longer. 1 is the default.",
                    )
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    tooltip="Conditioning with source, origin and target, for Sample Song.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, target, audio=UNCONNECTED, vae=UNCONNECTED, latent=UNCONNECTED) -> bool | str:
        return valid(check_source, audio, vae, latent)

    @classmethod
    def execute(cls, target, origin, start, end, draws, audio=None, vae=None, latent=None) -> io.NodeOutput:
        from ..acestep_core.config import FRAME_RATE
        from ..acestep_core.edit.morph import MorphSettings
        from .comfy_runtime.conditioning import SONG_KEY, add_morph
        from .comfy_runtime.notes import duration_notes
        from .comfy_runtime.progress import show_notes

        settings = MorphSettings(start, end, draws)
        source = require_source(audio, vae, latent)
        show_notes(*duration_notes((data.get(SONG_KEY) for _, data in target), source.latents.shape[1] / FRAME_RATE))
        return io.NodeOutput(add_morph(target, origin, source.latents, settings))
