"""From one description of a recording to another."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy_runtime.versions import advanced
from .encode import length_notes
from .sockets import EDITS
from .source import need_source, source_inputs


class MorphNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Morph",
            display_name="Morph",
            category=EDITS,
            description="Morphs a recording from one caption to another (FlowEdit) and keeps the rest.",
            inputs=[
                io.Conditioning.Input("target", tooltip="Conditioning of the result, from Encode Song."),
                io.Conditioning.Input(
                    "origin",
                    tooltip="Conditioning of the source as it is, from another Encode Song. Only what differs from "
                    "target changes.",
                ),
                *source_inputs(),
                advanced(
                    io.Float.Input(
                        "start",
                        default=0.0,
                        min=0.0,
                        max=1.0,
                        step=0.05,
                        round=0.01,
                        tooltip="Start of the edit, as a share of the steps. 0 is the default; 0.2 to 0.4 keeps more "
                        "of the structure.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "end",
                        default=1.0,
                        min=0.0,
                        max=1.0,
                        step=0.05,
                        round=0.01,
                        tooltip="End of the edit, as a share of the steps. 1 is the default; below 1, the last steps "
                        "follow target alone.",
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
                    display_name="conditioning", tooltip="Conditioning with source, origin and target, for Sample Song."
                )
            ],
        )

    @classmethod
    def execute(cls, target, origin, start, end, draws, audio=None, vae=None, latent=None) -> io.NodeOutput:
        from ..acestep_core.config import FRAME_RATE
        from ..acestep_core.edit.morph import MorphSettings
        from .comfy_runtime import show_note
        from .conditioning import SONG, with_morph

        settings = MorphSettings(start, end, draws)
        source = need_source(audio, vae, latent)
        lasting = source.latents.shape[1] / FRAME_RATE
        lengths = [note for _, data in target for note in length_notes(data.get(SONG), lasting)]
        show_note(*dict.fromkeys([*source.notes, *lengths]))
        return io.NodeOutput(with_morph(target, origin, source.latents, settings))
