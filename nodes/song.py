"""What the song shall be: its words and its musical facts."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.config import MAX_SECONDS
from ..acestep_core.errors import RequestError
from ..acestep_core.song.languages import LANGUAGES
from ..acestep_core.song.song import MAX_BPM, MIN_BPM, Metadata, Song
from .sockets import AUTO, SONG, SongSocket

KEYS = [f"{note}{sign} {mode}" for note in "CDEFGAB" for sign in ("", "#", "b") for mode in ("major", "minor")]
TIME_SIGNATURES = ["2/4", "3/4", "4/4", "6/8"]


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
                    options=[AUTO, *TIME_SIGNATURES],
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
        """Says before the run, in the words of the widgets, what no song can have; None is what another node gives."""
        if duration is not None and not 0 < duration <= MAX_SECONDS:
            return f"duration is above 0 and at most {MAX_SECONDS} seconds, got {duration:g}"
        if bpm and not MIN_BPM <= bpm <= MAX_BPM:
            return f"bpm is 0, for auto, or from {MIN_BPM} to {MAX_BPM}, got {bpm}"
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


def duration_of(song: Song) -> float:
    """In seconds, where it cannot be left open any longer."""
    if song.metadata.duration is None:
        raise RequestError("this song has no duration: set one in Song, or let Plan Song choose it")
    return song.metadata.duration
