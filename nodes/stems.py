"""Stems: extract a track, add one, or complete an arrangement."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.edit.tasks import TRACKS
from .checks import UNCONNECTED, check_part, valid
from .comfy_runtime.versions import advanced, search_aliases, zero_shown_as
from .sockets import EDITS, seconds_input
from .source import (
    MAX_EDIT_SECONDS,
    edit_output,
    edit_region,
    mode_inputs,
    require_source,
    source_inputs,
    task_output,
)

OPERATIONS = {"extract": "extract", "add": "lego", "complete": "complete"}


class StemsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Stems",
            display_name="Stems",
            category=EDITS,
            description="Extracts, adds or completes instrument and vocal tracks. Made for base and sft models.",
            **search_aliases("stem separation, isolate, karaoke, extract vocals, accompaniment, lego, complete"),
            inputs=[
                *source_inputs(),
                io.Combo.Input(
                    "operation",
                    options=list(OPERATIONS),
                    default="extract",
                    tooltip="Operation. extract isolates the track, add generates the track for the song, complete "
                    "generates an arrangement around the source.",
                ),
                io.Combo.Input(
                    "track",
                    options=list(TRACKS),
                    default="vocals",
                    tooltip="Track, the instrument or voice to extract, add or complete with. vocals and drums are "
                    "typical.",
                ),
                io.String.Input(
                    "more_tracks",
                    default="",
                    tooltip="More tracks for complete, such as drums, bass, guitar. Usually empty.",
                ),
                advanced(
                    seconds_input(
                        "start",
                        0.0,
                        MAX_EDIT_SECONDS,
                        0.1,
                        "Start of the added track, in seconds. Only used by add.",
                    )
                ),
                advanced(
                    zero_shown_as(
                        "end",
                        seconds_input(
                            "end",
                            0.0,
                            MAX_EDIT_SECONDS,
                            0.1,
                            "End of the added track, in seconds. 0 is the end of the song. Only used by add.",
                        ),
                    )
                ),
                *mode_inputs(),
                advanced(
                    io.String.Input(
                        "more_ranges",
                        default="",
                        optional=True,
                        tooltip="More ranges for the added track, in seconds, such as 40-45, 60-. With start and end "
                        "at 0, only these apply. Only used by add.",
                    )
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Mask instead of seconds. White gets the added track; the left edge is the beginning of "
                    "the song, the right edge the end. Only used by add.",
                ),
            ],
            outputs=[task_output()],
        )

    @classmethod
    def validate_inputs(
        cls,
        operation,
        start,
        end,
        more_ranges="",
        audio=UNCONNECTED,
        vae=UNCONNECTED,
        latent=UNCONNECTED,
        mask=UNCONNECTED,
    ) -> bool | str:
        if operation not in (None, *OPERATIONS):
            return f"operation: must be {', '.join(OPERATIONS)}, got {operation!r}."
        added = mask if operation == "add" else None  # only an added track has ranges
        return valid(check_part, audio, vae, latent, start, end, more_ranges, added)

    @classmethod
    def execute(
        cls,
        operation,
        track,
        more_tracks,
        start,
        end,
        mode,
        mode_strength,
        audio=None,
        vae=None,
        latent=None,
        more_ranges="",
        mask=None,
    ) -> io.NodeOutput:
        from ..acestep_core.edit.edit import Edit
        from ..acestep_core.edit.regions import BETWEEN
        from ..acestep_core.edit.tasks import COMPLETE, LEGO, find_task
        from .comfy_runtime.notes import stems_notes
        from .comfy_runtime.progress import show_notes

        task = find_task(OPERATIONS[operation])
        source = require_source(audio, vae, latent, follows_mask=task is LEGO and mask is None)
        others = [name.strip().lower().replace(" ", "_") for name in BETWEEN.split(more_tracks) if name.strip()]
        has_region = bool(start or end or more_ranges.strip() or mask is not None)
        show_notes(*stems_notes(operation, bool(others), has_region))
        region = edit_region(source, mask, start, end, more_ranges, may_be_whole=True) if task is LEGO else {}
        return edit_output(
            Edit(
                task=task,
                source=source.latents,
                waveform=source.waveform,
                tracks=tuple(dict.fromkeys((track, *others))) if task is COMPLETE else (track,),
                mode=mode,
                mode_strength=mode_strength,
                **region,
            ),
            source,
        )
