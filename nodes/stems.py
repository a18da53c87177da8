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
            description="Takes an instrument or voice out of a song, or plays one to it. Made for base and sft models.",
            inputs=[
                *source_inputs(),
                io.Combo.Input(
                    "operation",
                    options=list(OPERATIONS),
                    default="extract",
                    tooltip="extract lets you hear the track alone, add plays the track that fits the song, complete "
                    "plays the whole band to a single track.",
                ),
                io.Combo.Input(
                    "track", options=list(TRACKS), default="vocals", tooltip="The instrument or voice it is about."
                ),
                io.String.Input(
                    "more_tracks",
                    default="",
                    tooltip="For complete: what else joins in, such as drums, bass, guitar.",
                ),
                advanced(
                    io.Float.Input(
                        "start",
                        default=0.0,
                        min=0.0,
                        max=MAX_EDIT_SECONDS,
                        step=0.1,
                        round=0.01,
                        tooltip="For add: the second at which the track comes in.",
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
                        tooltip="For add: the second at which the track ends; 0 is the end of the song.",
                    )
                ),
                *edge_inputs(),
                advanced(
                    io.String.Input(
                        "more_ranges",
                        default="",
                        optional=True,
                        tooltip="For add: further parts in which the track plays, in seconds, such as 40-45, 60-; with "
                        "start and end at 0 these alone.",
                    )
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="For add, instead of seconds: the track plays where it is white, from the left, the "
                    "beginning of the song, to the right, its end.",
                ),
            ],
            outputs=[TaskSocket.Output(display_name="task", tooltip="What to do with which song, for Encode Song.")],
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
