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
                tooltip="Mode of the transition. conservative keeps everything outside the new part, aggressive lets "
                "the model change it as well, balanced (default) lies in between.",
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
                tooltip="Strength of the balanced mode. 0 equals conservative, 0.5 is the default, 1 equals "
                "aggressive.",
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
            description="Regenerates a part of a song from caption and lyrics. The rest is kept.",
            inputs=[
                *source_inputs(),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=MAX_EDIT_SECONDS,
                    step=0.1,
                    round=0.01,
                    tooltip="Start of the new part, in seconds.",
                ),
                io.Float.Input(
                    "end",
                    default=5.0,
                    min=0.0,
                    max=MAX_EDIT_SECONDS,
                    step=0.1,
                    round=0.01,
                    tooltip="End of the new part, in seconds. 0 is the end of the song; 5 to 30 seconds after start is "
                    "typical.",
                ),
                io.String.Input(
                    "more_ranges",
                    default="",
                    tooltip="More ranges to regenerate, in seconds, such as 40-45, 60-. Usually empty.",
                ),
                *edge_inputs(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Mask instead of seconds. White is regenerated; the left edge is the beginning of the "
                    "song, the right edge the end.",
                ),
            ],
            outputs=[TaskSocket.Output(display_name="task", tooltip="Edit task with its source, for Encode Song.")],
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
            description="Extends a song at its end, its beginning or both. The rest is kept.",
            inputs=[
                *source_inputs(),
                io.Float.Input(
                    "after",
                    default=20.0,
                    min=0.0,
                    max=MAX_EDIT_SECONDS,
                    step=1.0,
                    round=0.01,
                    tooltip="Seconds to add after the end. 10 to 60 is typical.",
                ),
                io.Float.Input(
                    "before",
                    default=0.0,
                    min=0.0,
                    max=MAX_EDIT_SECONDS,
                    step=1.0,
                    round=0.01,
                    tooltip="Seconds to add before the beginning. Usually 0.",
                ),
                io.Float.Input(
                    "overlap",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.5,
                    round=0.01,
                    tooltip="Overlap, the seconds of the source that are regenerated at the seam. 0 keeps all; 1 to 3 "
                    "replaces a fade-out or a last chord.",
                ),
                *edge_inputs(),
            ],
            outputs=[TaskSocket.Output(display_name="task", tooltip="Edit task with its source, for Encode Song.")],
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
