"""Repaint and Extend: regenerate or add parts of a song and keep the rest."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.config import FRAME_RATE
from .checks import UNCONNECTED, check_part, check_source, valid
from .comfy_runtime.versions import search_aliases, zero_shown_as
from .sockets import EDITS, seconds_input
from .source import (
    MAX_EDIT_SECONDS,
    MODES,
    edit_output,
    edit_region,
    mode_inputs,
    require_source,
    source_inputs,
    task_output,
)


class RepaintNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Repaint",
            display_name="Repaint",
            category=EDITS,
            description="Regenerates a part of a song from caption and lyrics. The rest is kept.",
            **search_aliases("inpaint audio, edit, regenerate, replace a part"),
            inputs=[
                *source_inputs(),
                seconds_input("start", 0.0, MAX_EDIT_SECONDS, 0.1, "Start of the new part, in seconds."),
                zero_shown_as(
                    "end",
                    seconds_input(
                        "end",
                        5.0,
                        MAX_EDIT_SECONDS,
                        0.1,
                        "End of the new part, in seconds. 0 is the end of the song; 5 to 30 seconds after start is "
                        "typical.",
                    ),
                ),
                io.String.Input(
                    "more_ranges",
                    default="",
                    tooltip="More ranges to regenerate, in seconds, such as 40-45, 60-. Usually empty.",
                ),
                *mode_inputs(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Mask instead of seconds. White is regenerated; the left edge is the beginning of the "
                    "song, the right edge the end.",
                ),
            ],
            outputs=[task_output()],
        )

    @classmethod
    def validate_inputs(
        cls,
        start,
        end,
        more_ranges,
        audio=UNCONNECTED,
        vae=UNCONNECTED,
        latent=UNCONNECTED,
        mask=UNCONNECTED,
    ) -> bool | str:
        return valid(check_part, audio, vae, latent, start, end, more_ranges, mask)

    @classmethod
    def execute(
        cls, start, end, more_ranges, mode, mode_strength, audio=None, vae=None, latent=None, mask=None
    ) -> io.NodeOutput:
        from ..acestep_core.edit.edit import Edit
        from ..acestep_core.edit.tasks import REPAINT

        source = require_source(audio, vae, latent, follows_mask=mask is None)
        return edit_output(
            Edit(
                task=REPAINT,
                source=source.latents,
                waveform=source.waveform,
                mode=mode,
                mode_strength=mode_strength,
                **edit_region(source, mask, start, end, more_ranges),
            )
        )


class ExtendNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Extend",
            display_name="Extend",
            category=EDITS,
            description="Extends a song at its end, its beginning or both. The rest is kept.",
            **search_aliases("outpaint, continue, continuation, longer, intro, outro"),
            inputs=[
                *source_inputs(),
                seconds_input(
                    "after", 20.0, MAX_EDIT_SECONDS, 1.0, "Seconds to add after the end. 10 to 60 is typical."
                ),
                seconds_input("before", 0.0, MAX_EDIT_SECONDS, 1.0, "Seconds to add before the beginning. Usually 0."),
                seconds_input(
                    "overlap",
                    0.0,
                    10.0,
                    0.5,
                    "Overlap, the seconds of the source that are regenerated at the seam. 0 keeps all; 1 to 3 "
                    "replaces a fade-out or a last chord.",
                ),
                *mode_inputs(),
            ],
            outputs=[task_output()],
        )

    @classmethod
    def validate_inputs(cls, mode, audio=UNCONNECTED, vae=UNCONNECTED, latent=UNCONNECTED) -> bool | str:
        if mode not in (None, *MODES):
            return f"mode: must be {', '.join(MODES)}, got {mode!r}."
        return valid(check_source, audio, vae, latent)

    @classmethod
    def execute(cls, after, before, overlap, mode, mode_strength, audio=None, vae=None, latent=None) -> io.NodeOutput:
        from ..acestep_core.edit.edit import Edit
        from ..acestep_core.edit.regions import widen
        from ..acestep_core.edit.tasks import REPAINT

        source = require_source(audio, vae, latent, padding=(before, after))
        return edit_output(
            Edit(
                task=REPAINT,
                source=source.latents,
                waveform=source.waveform,
                regions=widen(source.added, overlap, source.latents.shape[1] / FRAME_RATE),
                mode=mode,
                mode_strength=mode_strength,
            )
        )
