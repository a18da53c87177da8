"""Repaint and Extend: regenerate or add parts of a song and keep the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..acestep_core.config import FRAME_RATE
from .checks import UNCONNECTED, check_part, check_source, check_where, valid
from .comfy_runtime.versions import search_aliases, zero_shown_as
from .sockets import EDITS, TimesSocket, seconds_input
from .source import (
    MAX_EDIT_SECONDS,
    MODES,
    edit_output,
    edit_region,
    mode_inputs,
    require_source,
    source_inputs,
    source_shown,
    task_output,
)

if TYPE_CHECKING:
    from ..acestep_core.lyrics.times import LyricTimes
    from .source import EditSource


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
                *where_inputs(
                    "Parts to regenerate instead of start and end: a section (chorus 2, [Bridge]), line 7, missing "
                    "lines, or seconds such as 10-15. Names need times. Usually empty."
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
        times=UNCONNECTED,
        where="",
    ) -> bool | str:
        return valid(check_part, audio, vae, latent, start, end, more_ranges, mask, where, times)

    @classmethod
    def execute(
        cls,
        start,
        end,
        more_ranges,
        mode,
        mode_strength,
        audio=None,
        vae=None,
        latent=None,
        mask=None,
        times=None,
        where="",
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
                **named_region(source, mask, where, times, start, end, more_ranges),
            ),
            source,
            times,
            where,
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
                *where_inputs(
                    "Place to continue from: the end of a section (chorus 2, [Bridge]) or of line 7, or seconds such "
                    "as 42 or 1:20. The rest of the source is dropped. Names need times. Empty is the end of the song."
                ),
            ],
            outputs=[task_output()],
        )

    @classmethod
    def validate_inputs(
        cls, mode, audio=UNCONNECTED, vae=UNCONNECTED, latent=UNCONNECTED, times=UNCONNECTED, where=""
    ) -> bool | str:
        if mode not in (None, *MODES):
            return f"mode: must be {', '.join(MODES)}, got {mode!r}."
        return valid(check_extension, audio, vae, latent, times, where)

    @classmethod
    def execute(
        cls,
        after,
        before,
        overlap,
        mode,
        mode_strength,
        audio=None,
        vae=None,
        latent=None,
        times=None,
        where="",
    ) -> io.NodeOutput:
        from ..acestep_core.edit.edit import Edit
        from ..acestep_core.edit.regions import widen
        from ..acestep_core.edit.tasks import REPAINT

        end = seam(where, times, after)
        source = require_source(audio, vae, latent, padding=(before, after), end=end)
        edit = Edit(
            task=REPAINT,
            source=source.latents,
            waveform=source.waveform,
            regions=widen(source.added, overlap, source.latents.shape[1] / FRAME_RATE),
            mode=mode,
            mode_strength=mode_strength,
        )
        shown = source_shown(source, () if end is None else ((end, None),), times, where)
        return io.NodeOutput(*edit_output(edit).args, ui=shown)


def check_extension(audio: object, vae: object, latent: object, times: object, where: str | None) -> None:
    check_source(audio, vae, latent)
    check_where(where, times, may_be_time=True)


def where_inputs(tooltip: str) -> list[io.Input]:
    """The place of an edit by name."""
    return [
        TimesSocket.Input(
            "times", optional=True, tooltip="Times of the lyrics, from Lyric Times, for names of sections and lines."
        ),
        io.String.Input("where", optional=True, default="", tooltip=tooltip),
    ]


def named_region(
    source: EditSource,
    mask: Any,
    where: str,
    times: LyricTimes | None,
    start: float,
    end: float,
    more_ranges: str,
) -> dict[str, Any]:
    """Return `regions` or `mask` of an Edit. If `where` is given, it replaces start and end. Show its seconds."""
    from ..acestep_core.edit.regions import parse_regions
    from ..acestep_core.lyrics.where import regions_of
    from .comfy_runtime.notes import where_notes
    from .comfy_runtime.progress import show_notes, show_values

    masked = mask is not None or source.noise_mask is not None
    show_notes(*where_notes(where, masked))
    if masked or not where.strip():
        return edit_region(source, mask, start, end, more_ranges)
    regions, found = regions_of(where, times)
    show_values(f"where: {found}" if found else f"where: {where.strip()} replaces start and end")
    return {"regions": (*regions, *parse_regions(more_ranges))}


def seam(where: str, times: LyricTimes | None, after: float) -> float | None:
    """Return the seconds of the source that an extension keeps, or None for all. Show what `where` is."""
    from ..acestep_core.lyrics.where import is_named, seam_of
    from .comfy_runtime.notes import seam_notes
    from .comfy_runtime.progress import show_notes, show_values

    show_notes(*seam_notes(where, after))
    if not where.strip() or not after:
        return None
    part = seam_of(where, times)
    if part is not None and is_named(where):
        show_values(f"where: the song continues after {part.name}, at {part.end:g} seconds")
    return None if part is None else part.end
