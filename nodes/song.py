"""Song and Show Song: caption, lyrics and metadata."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..acestep_core.config import MAX_SECONDS
from ..acestep_core.song.languages import LANGUAGES, UNKNOWN
from ..acestep_core.song.song import MAX_BPM, MIN_BPM, Metadata, Song
from .sockets import AUTO, SONG, SongSocket

KEYS = [f"{note}{sign} {mode}" for note in "CDEFGAB" for sign in ("", "#", "b") for mode in ("major", "minor")]
TIME_SIGNATURES = {"2": "2/4", "3": "3/4", "4": "4/4", "6": "6/8"}


class SongNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Song",
            display_name="Song",
            category=SONG,
            description="Describes the song to generate: caption, lyrics, duration and metadata.",
            inputs=[
                io.String.Input(
                    "caption",
                    multiline=True,
                    dynamic_prompts=True,
                    default="warm lo-fi piano, soft drums, vinyl crackle, rainy evening",
                    tooltip="Caption (prompt) that sets style, instruments, mood and voice. One to three sentences or "
                    "a list of keywords is typical.",
                ),
                io.String.Input(
                    "lyrics",
                    multiline=True,
                    dynamic_prompts=True,
                    default="[Instrumental]",
                    tooltip="Lyrics, the text of the vocals. Put section tags such as [Verse] and [Chorus] on their "
                    "own lines. Empty or [Instrumental] means no vocals.",
                ),
                io.Combo.Input(
                    "language",
                    options=[AUTO, *LANGUAGES.values()],
                    default=AUTO,
                    tooltip="Vocal language, which sets the pronunciation of the lyrics. auto leaves it to the model.",
                ),
                io.Float.Input(
                    "duration",
                    default=60.0,
                    min=1.0,
                    max=float(MAX_SECONDS),
                    step=1.0,
                    round=0.1,
                    tooltip="Duration of the song in seconds. The model is trained on 10 to 600; 30 to 240 is typical.",
                ),
                io.Int.Input(
                    "bpm",
                    default=0,
                    min=0,
                    max=MAX_BPM,
                    tooltip="BPM (tempo), from 30 to 300. 0 means auto and leaves the tempo to the model; 60 to 180 is "
                    "typical.",
                ),
                io.Combo.Input(
                    "key",
                    options=[AUTO, *KEYS],
                    default=AUTO,
                    tooltip="Key of melody and chords. auto leaves it to the model.",
                ),
                io.Combo.Input(
                    "time_signature",
                    options=[AUTO, *TIME_SIGNATURES.values()],
                    default=AUTO,
                    tooltip="Time signature, the beats in a bar. auto leaves it to the model; 4/4 is the most common.",
                ),
            ],
            outputs=[
                SongSocket.Output(display_name="song", tooltip="Song, for Encode Song, Plan Song or Polish Song.")
            ],
        )

    @classmethod
    def validate_inputs(cls, duration, bpm) -> bool | str:
        """Report values outside of their range before the run. A linked input is None here."""
        if duration is not None and not 0 < duration <= MAX_SECONDS:
            return f"duration: must be above 0 and at most {MAX_SECONDS} seconds, got {duration:g}."
        if bpm and not MIN_BPM <= bpm <= MAX_BPM:
            return f"bpm: must be 0 (auto) or from {MIN_BPM} to {MAX_BPM}, got {bpm}."
        return True

    @classmethod
    def execute(cls, caption, lyrics, language, duration, bpm, key, time_signature) -> io.NodeOutput:
        metadata = Metadata(
            bpm=bpm or None,
            key=None if key == AUTO else key,
            time_signature=None if time_signature == AUTO else time_signature,
            language=None if language == AUTO else language,
            duration=duration,
        )
        return io.NodeOutput(Song(caption, lyrics, metadata))


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
        parts = (song.caption.strip(), metadata_line(song.metadata), song.prompt_lyrics.strip())
        text = "\n\n".join(filter(None, parts))
        return io.NodeOutput(song, text, ui=ui.PreviewText(text))


def metadata_line(metadata: Metadata) -> str:
    values = (
        f"{metadata.bpm} BPM" if metadata.bpm else None,
        metadata.key,
        TIME_SIGNATURES.get(metadata.time_signature or ""),
        LANGUAGES[metadata.language] if metadata.language not in (None, UNKNOWN) else None,
        f"{metadata.duration:g} s" if metadata.duration else None,
    )
    return " · ".join(filter(None, values))
