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
            description="The song you want: how it sounds, what is sung, and how long it is.",
            inputs=[
                io.String.Input(
                    "caption",
                    multiline=True,
                    dynamic_prompts=True,
                    default="warm lo-fi piano, soft drums, vinyl crackle, rainy evening",
                    tooltip="How the song sounds: style, instruments, mood, voice, in your own words.",
                ),
                io.String.Input(
                    "lyrics",
                    multiline=True,
                    dynamic_prompts=True,
                    default="[Instrumental]",
                    tooltip="The words that are sung, with tags like [Verse] and [Chorus] on lines of their own; "
                    "left empty, nobody sings.",
                ),
                io.Combo.Input(
                    "language",
                    options=[AUTO, *LANGUAGES.values()],
                    default=AUTO,
                    tooltip="The language the singer pronounces the lyrics in.",
                ),
                io.Float.Input(
                    "duration",
                    default=60.0,
                    min=1.0,
                    max=float(MAX_SECONDS),
                    step=1.0,
                    round=0.1,
                    tooltip="How many seconds the song lasts; songs under 10 s are shorter than the model has learned.",
                ),
                io.Int.Input(
                    "bpm",
                    default=0,
                    min=0,
                    max=MAX_BPM,
                    tooltip="How fast the beat goes, in beats per minute (30 to 300); 0 leaves the tempo to the model.",
                ),
                io.Combo.Input(
                    "key",
                    options=[AUTO, *KEYS],
                    default=AUTO,
                    tooltip="The key the melody and chords are in.",
                ),
                io.Combo.Input(
                    "time_signature",
                    options=[AUTO, *TIME_SIGNATURES],
                    default=AUTO,
                    tooltip="How many beats you count in a bar.",
                ),
            ],
            outputs=[SongSocket.Output(display_name="song", tooltip="The song as words, for Encode.")],
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
