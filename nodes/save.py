"""Save Song: a file with tags and the workflow."""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ..acestep_core.errors import RequestError
from .codes import numbered_paths
from .comfy_runtime.versions import search_aliases
from .sockets import AUDIO, SongSocket, TimesSocket

if TYPE_CHECKING:
    from ..acestep_core.audio import Tags
    from ..acestep_core.lyrics.times import LyricTimes
    from ..acestep_core.song.song import Song

FORMATS = ("flac", "mp3", "opus", "wav", "m4a")
WITHOUT_GRAPH = ("m4a",)  # have no place for a graph
OPUS_PAGE = 65_025  # bytes of comments from which ComfyUI's page reads the graph of an Opus file
DATE = re.compile(r"%date:([^%]+)%")
DATE_PARTS = {
    "yyyy": "%Y", "yy": "%y", "MM": "%m", "dd": "%d", "hh": "%H", "mm": "%M", "ss": "%S",
}  # fmt: skip
NOT_IN_NAMES = re.compile(r'[\\/:*?"<>|%\x00-\x1f\x7f]')
LONGEST_NAME = 120  # bytes
UNNAMED = {"title": "song", "artist": "artist", "album": "album"}


class SaveSongNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_SaveSong",
            display_name="Save Song",
            category=AUDIO,
            description="Saves a song with title, lyrics and other tags, and plays it. The file holds the workflow.",
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            **search_aliases("save audio, export, mp3, flac, opus, wav, m4a, aac, tags, id3, metadata"),
            inputs=[
                io.Audio.Input("audio", tooltip="Audio to save. Each song of a batch gets a file."),
                io.String.Input(
                    "filename_prefix",
                    default="audio/song",
                    tooltip="Filename prefix in the output folder, with or without folders. %date:yyyy-MM-dd%, "
                    "%title%, %artist% and %album% are replaced; a number follows.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default=FORMATS[0],
                    tooltip="Format. flac and wav are lossless with 24 bits; mp3, opus and m4a have 256 kbit/s.",
                ),
                io.String.Input("title", default="", tooltip="Title tag, which players show. Empty for none."),
                io.String.Input("artist", default="", tooltip="Artist tag. Empty for none."),
                io.String.Input("album", default="", tooltip="Album tag. Empty for none."),
                io.Boolean.Input(
                    "workflow",
                    default=True,
                    tooltip="Workflow, saved in the file: dropped on the canvas, a flac, mp3 or opus file opens its "
                    "graph. Off for a file to publish.",
                ),
                SongSocket.Input(
                    "song",
                    optional=True,
                    tooltip="Song whose lyrics, BPM, key and language become tags, from Song or Plan Song.",
                ),
                TimesSocket.Input(
                    "times",
                    optional=True,
                    tooltip="Times of the lyrics, from Lyric Times. Players then show the line that is sung, by a tag "
                    "and an LRC file.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(
        cls, audio, filename_prefix, format, title, artist, album, workflow, song=None, times=None
    ) -> io.NodeOutput:
        from ..acestep_core.audio import holds_rate, resample, write_audio
        from ..acestep_core.config import SAMPLE_RATE
        from ..acestep_core.files import reserve, write_text
        from ..acestep_core.lyrics.formats import format_times
        from .comfy_runtime.audios import songs_of
        from .comfy_runtime.notes import save_notes
        from .comfy_runtime.progress import show_notes
        from .comfy_runtime.waveforms import waveform_view

        waveforms, rate = songs_of(audio)
        if times is not None and len(waveforms) > 1:
            raise RequestError(f"times: of one song, and audio has {len(waveforms)}. Save the songs one by one.")
        names = {"title": title, "artist": artist, "album": album}
        tags = song_tags(names, song, times, cls._graph() if workflow and format not in WITHOUT_GRAPH else {})
        peak = max(float(waveform.abs().max()) for waveform in waveforms)
        show_notes(*save_notes(peak, format, sum(map(len, tags.extra.values())) > OPUS_PAGE))
        if not holds_rate(f".{format}", rate):
            waveforms, rate = [resample(waveform[None], rate)[0] for waveform in waveforms], SAMPLE_RATE
        saved, views = [], []
        for number, waveform in enumerate(waveforms):
            prefix = filename_of(filename_prefix, {**names, "batch_num": str(number)})
            paths, subfolder = numbered_paths(prefix, f".{format}")
            with reserve(paths) as path:
                write_audio(path, waveform, rate, tags=tags)
            if times is not None and times.lines:
                write_text(path.with_suffix(".lrc"), format_times(times, "lrc", title, artist))
            saved.append(ui.SavedResult(path.name, subfolder, io.FolderType.output))
            views.append(waveform_view(waveform, waveform.shape[-1] / rate, times))
        shown = ui.PreviewText("\n".join(os.path.join(file.subfolder, file.filename) for file in saved))
        return io.NodeOutput(ui={**shown.as_dict(), **ui.SavedAudios(saved).as_dict(), "waveform": views})

    @classmethod
    def _graph(cls) -> dict[str, Any]:
        """Return the prompt and the workflow of the run, unless ComfyUI runs with --disable-metadata."""
        from comfy.cli_args import args

        if args.disable_metadata:
            return {}
        graph = {"prompt": cls.hidden.prompt, "workflow": (cls.hidden.extra_pnginfo or {}).get("workflow")}
        return {name: value for name, value in graph.items() if value is not None}


def song_tags(names: dict[str, str], song: Song | None, times: LyricTimes | None, graph: dict[str, Any]) -> Tags:
    """Return the tags of a song. The comment is its caption if the graph is saved too. Raises RequestError."""
    from ..acestep_core.audio import Tags
    from ..acestep_core.lyrics.formats import format_times

    own: dict[str, Any] = dict(names)
    if times is not None and times.lines:
        own["timed_lyrics"] = format_times(times, "lrc")
    if song is not None:
        metadata = song.metadata
        own |= {"bpm": metadata.bpm, "key": metadata.key, "language": metadata.language}
        own |= {"lyrics": "" if song.instrumental else song.lyrics, "comment": song.caption if graph else ""}
    return Tags(**own, extra={name: graph_text(name, value) for name, value in graph.items()})


def graph_text(name: str, value: Any) -> str:
    """Return JSON that ComfyUI's page finds in the comments of an Ogg file.

    The page takes all from the first "{" to the last "}" before a NUL. The length of the next entry lies in between,
    so no byte of a length may be a "}".
    """
    text = json.dumps(value, separators=(",", ":"))
    while b"}" in len(f"{name}={text}").to_bytes(4, "little"):
        text = text[:1] + " " + text[1:]
    return text


def filename_of(prefix: str, names: dict[str, str]) -> str:
    """Return a prefix with dates and names in place of their patterns. ComfyUI replaces %year% and the like."""
    prefix = DATE.sub(lambda match: date_text(match[1]), prefix)
    for name, value in names.items():
        safe = NOT_IN_NAMES.sub("_", value).encode()[:LONGEST_NAME].decode(errors="ignore").strip(" .")
        prefix = prefix.replace(f"%{name}%", safe or UNNAMED.get(name, ""))
    return prefix


def date_text(form: str) -> str:
    """Return the local time in a form such as yyyy-MM-dd, as ComfyUI's page writes it."""
    now = time.localtime()
    return re.sub("|".join(DATE_PARTS), lambda match: time.strftime(DATE_PARTS[match[0]], now), form)
