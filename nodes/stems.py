"""Single instruments and voices: taken out of a song, added to it, or all that it lacks."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.edit.tasks import TRACKS
from .comfy_runtime.versions import advanced
from .repaint import edge_inputs
from .sockets import EDITS, TaskSocket
from .source import MAX_EDIT_SECONDS, need_source, parts, source_inputs, task_output

OPERATIONS = {"extract": "extract", "add": "lego", "complete": "complete"}


class StemsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Stems",
            display_name="Stems",
            category=EDITS,
            description="Extracts, adds or completes instrument and vocal tracks. Made for base and sft models.",
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
                    io.Float.Input(
                        "start",
                        default=0.0,
                        min=0.0,
                        max=MAX_EDIT_SECONDS,
                        step=0.1,
                        round=0.01,
                        tooltip="Start of the added track, in seconds. Only used by add.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "end",
                        default=0.0,
                        min=0.0,
                        max=MAX_EDIT_SECONDS,
                        step=0.1,
                        round=0.01,
                        tooltip="End of the added track, in seconds. 0 is the end of the song. Only used by add.",
                    )
                ),
                *edge_inputs(),
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
            outputs=[TaskSocket.Output(display_name="task", tooltip="Edit task with its source, for Encode Song.")],
        )

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

        task = find_task(OPERATIONS[operation])
        source = need_source(audio, vae, latent, in_part=task is LEGO and mask is None)
        more = tuple(name.strip().lower().replace(" ", "_") for name in BETWEEN.split(more_tracks) if name.strip())
        made, ignored = parts(source, mask, start, end, more_ranges, whole=True) if task is LEGO else ({}, [])
        if more and task is not COMPLETE:
            ignored.append(f"more tracks are ignored: {operation} works on one")
        if task is not LEGO and (start or end or more_ranges.strip() or mask is not None):
            ignored.append(f"start, end, more ranges and mask are ignored: {operation} works on the whole song")
        edit = Edit(
            task=task,
            source=source.latents,
            waveform=source.waveform,
            tracks=tuple(dict.fromkeys((track, *more))) if task is COMPLETE else (track,),
            mode=mode,
            mode_strength=mode_strength,
            **made,
        )
        return task_output(edit, source, ignored)
