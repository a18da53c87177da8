"""Lyric Times, Pick Best and Save Lyrics: when each line is sung, and the take that follows its lyrics best."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
from comfy_api.latest import io, ui

from ..acestep_core.errors import RequestError
from .codes import check_prefix
from .comfy_runtime.versions import search_aliases
from .sockets import AUDIO, MAX_BATCH, SAMPLING, PlannerSocket, TimesSocket

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..acestep_core.lyrics.times import LyricTimes
    from .comfy_runtime.lyrics import TakeScore


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


class PickBestNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_PickBest",
            display_name="Pick Best",
            category=SAMPLING,
            description="Scores the takes of a batch by how well they follow their lyrics, and keeps the best ones.",
            **search_aliases("best of n, best take, rank, score, sort takes, choose take, filter takes"),
            inputs=[
                io.Model.Input("model", tooltip="Diffusion model that the takes were sampled with, from Load Model."),
                io.Conditioning.Input(
                    "conditioning", tooltip="Conditioning that the takes were sampled from, from Encode Song."
                ),
                io.Latent.Input("latent", tooltip="Takes to compare, a batch of Sample Song."),
                io.Int.Input(
                    "keep",
                    default=1,
                    min=1,
                    max=MAX_BATCH,
                    tooltip="Number of takes to keep, the best first. 1 keeps the best; the batch size sorts all.",
                ),
                PlannerSocket.Input(
                    "planner",
                    optional=True,
                    tooltip="Planner, from Load Planner, which scores audio codes as well, also of instrumentals. "
                    "Slower.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="Best takes, the best first, for Decode Song."),
                io.String.Output(display_name="scores", tooltip="Rank, number and score of every take, as text."),
                io.Float.Output(
                    display_name="score",
                    tooltip="Score of each kept take from 0 to 1, as a list. 0 without a score.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    def execute(cls, model, conditioning, latent, keep, planner=None) -> io.NodeOutput:
        from ..acestep_core.lyrics.scores import rank_takes
        from .comfy_runtime.latents import select_items
        from .comfy_runtime.lyrics import score_takes
        from .comfy_runtime.notes import pick_notes
        from .comfy_runtime.progress import show_notes

        takes = score_takes(model, conditioning, latent, planner)
        ranking = rank_takes([take.value for take in takes])
        show_notes(*ranking.notes, *pick_notes(keep, len(takes), len(conditioning)))
        text = "\n".join(ranked_lines(takes, ranking.order))
        best = ranking.order[:keep]
        scores = [takes[i].value or 0.0 for i in best]
        return io.NodeOutput(select_items(latent, best), text, scores, ui=ui.PreviewText(text))


class SaveLyricsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_SaveLyrics",
            display_name="Save Lyrics",
            category=AUDIO,
            description="Saves lyrics with their times to ComfyUI's output folder, for players and video editors.",
            is_output_node=True,
            **search_aliases("save lrc, save srt, save subtitles, webvtt, export lyrics, karaoke file"),
            inputs=[
                TimesSocket.Input("times", tooltip="Times of the lyrics, from Lyric Times."),
                io.String.Input(
                    "filename_prefix", default="audio/ACE-Step", tooltip="Filename prefix, with or without folders."
                ),
                io.Boolean.Input("lrc", default=True, tooltip="LRC, a time for each line. Most players read LRC."),
                io.Boolean.Input(
                    "word_times",
                    default=False,
                    tooltip="Word times inside the LRC (enhanced LRC), for karaoke. Off by default: many players "
                    "show them as text.",
                ),
                io.Boolean.Input("srt", default=False, tooltip="SRT subtitles, for video editors and players."),
                io.Boolean.Input("vtt", default=False, tooltip="WebVTT subtitles, for web pages."),
                io.Boolean.Input(
                    "json", default=False, tooltip="JSON with all times, sections and scores, for scripts."
                ),
            ],
            outputs=[],
        )

    @classmethod
    def validate_inputs(cls, lrc, word_times, srt, vtt, json) -> bool | str:
        """Report that nothing is chosen before the run. A linked input is None."""
        if None in (lrc, srt, vtt, json) or chosen_formats(lrc, word_times, srt, vtt, json):
            return True
        return "lrc, srt, vtt and json: all off, so nothing would be saved. Turn one on."

    @classmethod
    def execute(cls, times, filename_prefix, lrc, word_times, srt, vtt, json) -> io.NodeOutput:
        from ..acestep_core.files import reserve
        from ..acestep_core.lyrics.formats import SUFFIXES, write_times

        formats = chosen_formats(lrc, word_times, srt, vtt, json)
        if not formats:
            raise RequestError("lrc, srt, vtt and json: all off, so nothing would be saved. Turn one on.")
        output = check_prefix(filename_prefix)
        try:
            folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, output)
        except (OSError, ValueError) as error:  # such as a name that is too long
            raise RequestError(f"filename_prefix: {filename_prefix!r:.80} cannot be written: {error!s:.80}") from error
        with reserve(free_names(folder, name, counter, [SUFFIXES[each] for each in formats])) as first:
            base = first.with_name(first.name.removesuffix(SUFFIXES[formats[0]]) + ".flac")
            paths = write_times(base, times, formats)
        saved = [{"filename": path.name, "subfolder": subfolder, "type": "output"} for path in paths]
        text = "\n".join(os.path.join(subfolder, path.name) for path in paths)
        return io.NodeOutput(ui={**ui.PreviewText(text).as_dict(), "lyrics": saved})


def chosen_formats(lrc: bool, word_times: bool, srt: bool, vtt: bool, json: bool) -> list[str]:
    """Return the formats of the widgets. word_times alone is an LRC as well."""
    chosen = {"lrc": lrc and not word_times, "elrc": word_times, "srt": srt, "vtt": vtt, "json": json}
    return [name for name, wanted in chosen.items() if wanted]


def free_names(folder: str, name: str, counter: int, suffixes: Sequence[str]) -> Iterator[Path]:
    """Yield paths with the first suffix and a number that no file of the other suffixes has."""
    for number in count(counter):
        paths = [Path(folder, f"{name}_{number:05}_{suffix}") for suffix in suffixes]
        if not any(path.exists() for path in paths):
            yield paths[0]


def ranked_lines(takes: Sequence[TakeScore], order: Sequence[int]) -> list[str]:
    """Return a line per take with its rank, its number in the batch, its scores and the lines that are missing."""
    rows = []
    for rank, i in enumerate(order, 1):
        take = takes[i]
        parts = ["no score" if take.value is None else f"{take.value:.3f}"]
        if take.lyrics is not None and take.codes is not None:
            parts.append(f"lyrics {take.lyrics.value:.2f}, audio codes {take.codes.reward:.2f}")
        if take.times is not None and take.times.lines:
            missing = ", ".join(str(line + 1) for line in take.times.missing)
            parts.append(f"missing lines {missing}" if missing else "no line missing")
        rows.append(f"{rank}. take {i + 1}: {'; '.join(parts)}")
    return rows


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
