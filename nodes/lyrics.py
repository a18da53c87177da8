"""Lyric Times: when each line of a song is sung."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io, ui

from ..acestep_core.errors import RequestError
from .comfy_runtime.versions import search_aliases
from .sockets import AUDIO, MAX_BATCH, TimesSocket

if TYPE_CHECKING:
    from ..acestep_core.lyrics.times import LyricTimes


class LyricTimesNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_LyricTimes",
            display_name="Lyric Times",
            category=AUDIO,
            description="Finds when each word of the lyrics is sung, which lines are missing, and how well a take "
            "follows its lyrics.",
            **search_aliases("lrc, srt, subtitles, timestamps, lyric alignment, synced lyrics, missing lines, score"),
            inputs=[
                io.Model.Input("model", tooltip="Diffusion model, from Load Model or Load LoRA."),
                io.Conditioning.Input(
                    "conditioning", tooltip="Conditioning with the lyrics that are sung, from Encode Song."
                ),
                io.Latent.Input(
                    "latent", tooltip="Latents of the song, from Sample Song, or of a recording, from Encode Audio."
                ),
                io.Int.Input(
                    "item",
                    default=1,
                    min=1,
                    max=MAX_BATCH,
                    tooltip="Item (take) of the batch whose times are found. 1 is the first; usually 1.",
                ),
            ],
            outputs=[
                TimesSocket.Output(
                    display_name="times", tooltip="Times of the lyrics, for Repaint, Extend and Save Lyrics."
                ),
                io.String.Output(display_name="lrc", tooltip="Lyrics with the time of each line, as LRC."),
                io.String.Output(display_name="srt", tooltip="Subtitles with the times of each line, as SRT."),
            ],
        )

    @classmethod
    def execute(cls, model, conditioning, latent, item=1) -> io.NodeOutput:
        from ..acestep_core.lyrics.formats import format_times
        from .comfy_runtime.lyrics import song_items, times_of_items

        latents, entries = song_items(model, conditioning, latent)
        if item > len(latents):
            raise RequestError(f"item: {item}, and the latent has {len(latents)} songs. Choose 1 to {len(latents)}.")
        owner = next(each for each in entries if each.first < item <= each.first + each.count)
        (times,) = times_of_items(model, latents, owner, item - 1)
        lrc = format_times(times, "lrc")
        text = "\n".join([*report(times), "", lrc]) if times.lines else "\n".join(report(times))
        return io.NodeOutput(times, lrc, format_times(times, "srt"), ui=ui.PreviewText(text))


def report(times: LyricTimes) -> list[str]:
    """Return sentences about a take: its score, and the lines that are missing."""
    if not times.lines:
        return ["Nothing is sung: the lyrics have no lines."]
    rows = []
    if times.score is not None:
        rows.append(
            f"Score {times.score.value:.2f}: coverage {times.score.coverage:.2f}, order "
            f"{times.score.monotonicity:.2f}, confidence {times.score.confidence:.2f}"
        )
    missing = [f"line {i + 1} is missing: {times.lines[i].text}" for i in times.missing]
    rows.append(f"{len(times.lines)} lines, {f'{len(missing)} missing' if missing else 'all found'}")
    return [*rows, *missing]
