"""A song as text that can be read."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..acestep_core.song.languages import LANGUAGES, UNKNOWN
from ..acestep_core.song.song import Song
from .sockets import SONG, SongSocket

BEATS = {"2": "2/4", "3": "3/4", "4": "4/4", "6": "6/8"}


class ShowSongNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_ShowSong",
            display_name="Show Song",
            category=SONG,
            description="Shows caption, metadata and lyrics of a song and passes the song on.",
            is_output_node=True,
            inputs=[SongSocket.Input("song", tooltip="Song to show, from Song, Plan Song, Write Song or Listen.")],
            outputs=[
                SongSocket.Output(display_name="song", tooltip="Song, unchanged."),
                io.String.Output(display_name="text", tooltip="Text as shown, for any node that takes text."),
            ],
        )

    @classmethod
    def execute(cls, song) -> io.NodeOutput:
        text = as_text(song)
        return io.NodeOutput(song, text, ui=ui.PreviewText(text))


def as_text(song: Song) -> str:
    """Caption, one line of the facts that are known, lyrics."""
    return "\n\n".join(part for part in (song.caption.strip(), facts(song), song.sung_lyrics.strip()) if part)


def facts(song: Song) -> str:
    meta = song.metadata
    known = (
        f"{meta.bpm} BPM" if meta.bpm else None,
        meta.key,
        BEATS.get(meta.time_signature or ""),
        LANGUAGES[meta.language] if meta.language not in (None, UNKNOWN) else None,
        f"{meta.duration:g} s" if meta.duration else None,
    )
    return " · ".join(fact for fact in known if fact)
