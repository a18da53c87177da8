"""Parts of a song made anew, and songs made longer: all else stays as it was."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.config import FRAME_RATE
from .comfy_runtime.versions import advanced
from .sockets import EDITS, TaskSocket
from .source import MAX_EDIT_SECONDS, need_source, parts, source_inputs, task_output

MODES = ["balanced", "conservative", "aggressive"]


def edge_inputs() -> list[io.Input]:
    """How what is new meets what is kept."""
    return [
        advanced(
            io.Combo.Input(
                "mode",
                options=MODES,
                default="balanced",
                tooltip="How the new part meets the rest: conservative holds on to the rest all the way, aggressive "
                "lets the model change it, too, balanced is between them.",
            )
        ),
        advanced(
            io.Float.Input(
                "mode_strength",
                default=0.5,
                min=0.0,
                max=1.0,
                step=0.05,
                round=0.01,
                tooltip="For balanced: 0 is as careful as conservative, 1 as free as aggressive.",
            )
        ),
    ]


class RepaintNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Repaint",
            display_name="Repaint",
            category=EDITS,
            description="Makes a part of a song anew, as caption and lyrics say, and leaves the rest alone.",
            inputs=[
                *source_inputs(),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=MAX_EDIT_SECONDS,
                    step=0.1,
                    round=0.01,
                    tooltip="The second at which the new part begins.",
                ),
                io.Float.Input(
                    "end",
                    default=5.0,
                    min=0.0,
                    max=MAX_EDIT_SECONDS,
                    step=0.1,
                    round=0.01,
                    tooltip="The second at which the new part ends; 0 is the end of the song.",
                ),
                io.String.Input(
                    "more_ranges",
                    default="",
                    tooltip="Further parts to make anew, in seconds, such as 40-45, 60-; without them there is one.",
                ),
                *edge_inputs(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Instead of seconds: white is made anew, from the left, the beginning of the song, to the "
                    "right, its end.",
                ),
            ],
            outputs=[TaskSocket.Output(display_name="task", tooltip="What to do with which song, for Encode Song.")],
        )

    @classmethod
    def execute(
        cls, start, end, more_ranges, mode, mode_strength, audio=None, vae=None, latent=None, mask=None
    ) -> io.NodeOutput:
        from ..acestep_core.edit.edit import Edit
        from ..acestep_core.edit.tasks import REPAINT

        source = need_source(audio, vae, latent, in_part=mask is None)
        made, ignored = parts(source, mask, start, end, more_ranges)
        edit = Edit(
            task=REPAINT,
            source=source.latents,
            waveform=source.waveform,
            mode=mode,
            mode_strength=mode_strength,
            **made,
        )
        return task_output(edit, source, ignored)


class ExtendNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Extend",
            display_name="Extend",
            category=EDITS,
            description="Makes a song longer, at its end, at its beginning or both, and leaves the rest alone.",
            inputs=[
                *source_inputs(),
                io.Float.Input(
                    "after",
                    default=20.0,
                    min=0.0,
                    max=MAX_EDIT_SECONDS,
                    step=1.0,
                    round=0.01,
                    tooltip="How many seconds the song goes on after its end.",
                ),
                io.Float.Input(
                    "before",
                    default=0.0,
                    min=0.0,
                    max=MAX_EDIT_SECONDS,
                    step=1.0,
                    round=0.01,
                    tooltip="How many seconds lead up to its beginning.",
                ),
                io.Float.Input(
                    "overlap",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.5,
                    round=0.01,
                    tooltip="How many seconds of the song itself are made anew where it goes on: 1 to 3 replace a "
                    "fade or a last chord.",
                ),
                *edge_inputs(),
            ],
            outputs=[TaskSocket.Output(display_name="task", tooltip="What to do with which song, for Encode Song.")],
        )

    @classmethod
    def execute(cls, after, before, overlap, mode, mode_strength, audio=None, vae=None, latent=None) -> io.NodeOutput:
        from ..acestep_core.edit.edit import Edit
        from ..acestep_core.edit.regions import widen
        from ..acestep_core.edit.tasks import REPAINT

        source = need_source(audio, vae, latent, room=(before, after))
        edit = Edit(
            task=REPAINT,
            source=source.latents,
            waveform=source.waveform,
            regions=widen(source.added, overlap, source.latents.shape[1] / FRAME_RATE),
            mode=mode,
            mode_strength=mode_strength,
        )
        return task_output(edit, source)
