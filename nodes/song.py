"""Song and Edit Song: caption, lyrics and metadata."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.config import MAX_SECONDS
from ..acestep_core.errors import RequestError
from ..acestep_core.song.languages import LANGUAGES, UNKNOWN
from ..acestep_core.song.song import MAX_BPM, MIN_BPM, Metadata, Song
from .checks import UNCONNECTED
from .comfy_runtime.versions import search_aliases, zero_shown_as
from .sockets import AUTO, SONG, SongSocket

KEYS = [f"{note}{sign} {mode}" for note in "CDEFGAB" for sign in ("", "#", "b") for mode in ("major", "minor")]
INPUT, EDITS = "input", "edits"
TIME_SIGNATURES = {"2": "2/4", "3": "3/4", "4": "4/4", "6": "6/8"}


class SongNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Song",
            display_name="Song",
            category=SONG,
            description="Describes the song to generate: caption, lyrics, duration and metadata.",
            **search_aliases(
                "text to music, music, lyrics, bpm, caption, prompt, vocal, voice, singing, instrumental, tempo, key"
            ),
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
                *metadata_inputs(60.0),
            ],
            outputs=[
                SongSocket.Output(display_name="song", tooltip="Song, for Encode Song, Plan Song or Polish Song.")
            ],
        )

    @classmethod
    def validate_inputs(cls, duration, bpm) -> bool | str:
        """Report values outside of their range before the run. A linked input is None here."""
        if duration is not None and not 0 <= duration <= MAX_SECONDS:
            return f"duration: must be 0 (auto) or up to {MAX_SECONDS} seconds, got {duration:g}."
        return valid_bpm(bpm)

    @classmethod
    def execute(cls, caption, lyrics, language, duration, bpm, key, time_signature) -> io.NodeOutput:
        from ..acestep_core.lyrics.check import check_lyrics, estimate_duration
        from .comfy_runtime.progress import show_notes, show_values

        song = song_of(caption, lyrics, language, duration, bpm, key, time_signature)
        show_notes(*check_lyrics(song))
        if song.metadata.duration is None:
            show_values(
                f"auto: {estimate_duration(lyrics):g} seconds by the lyrics, unless Plan Song sets the duration"
            )
        return io.NodeOutput(song)


class EditSongNode(io.ComfyNode):
    """The page fills the widgets with the song of each run, and sets `source` when the user changes one of them.

    See web/js/edit_song.js. While `source` is "input", the page sends no text, so that the shown song changes no input.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_EditSong",
            display_name="Edit Song",
            category=SONG,
            description="Shows a song, and lets you edit it: caption, lyrics and metadata.",
            **search_aliases("show song, preview lyrics, rewrite lyrics, correct lyrics"),
            is_output_node=True,
            inputs=[
                SongSocket.Input(
                    "song",
                    optional=True,
                    lazy=True,
                    tooltip="Song to show and edit, from Write Song, Polish Song, Listen, Plan Song or Song.",
                ),
                io.Combo.Input(
                    "source",
                    options=[INPUT, EDITS],
                    default=INPUT,
                    tooltip="Source of the song. input shows the connected song and passes it on. edits passes on the "
                    "fields below, and earlier nodes do not run. Changing a field switches to edits.",
                ),
                io.String.Input(
                    "caption",
                    multiline=True,
                    default="",
                    tooltip="Caption (prompt) that sets style, instruments, mood and voice.",
                ),
                io.String.Input(
                    "lyrics",
                    multiline=True,
                    default="",
                    tooltip="Lyrics, the text of the vocals. Empty or [Instrumental] means no vocals.",
                ),
                *metadata_inputs(0.0),
            ],
            outputs=[
                SongSocket.Output(display_name="song", tooltip="Song, for Encode Song, Plan Song or Polish Song."),
                io.String.Output(display_name="text", tooltip="Song as text, for any node that takes text."),
            ],
        )

    @classmethod
    def validate_inputs(cls, bpm) -> bool | str:
        return valid_bpm(bpm)

    @classmethod
    def check_lazy_status(cls, source, song=UNCONNECTED, **widgets) -> list[str]:
        """Request the connected song if it is passed on."""
        return ["song"] if song is None and source == INPUT else []

    @classmethod
    def execute(cls, source, caption, lyrics, language, duration, bpm, key, time_signature, song=None) -> io.NodeOutput:
        if song is None and not (caption.strip() or lyrics.strip()):
            raise RequestError("song: missing, and caption and lyrics are empty. Connect a song, or write one.")
        if song is None or source == EDITS:
            from ..acestep_core.lyrics.check import check_lyrics
            from .comfy_runtime.progress import show_notes

            song = song_of(caption, lyrics, language, duration, bpm, key, time_signature)
            show_notes(*check_lyrics(song))
        return io.NodeOutput(song, song_text(song), ui={"song": [widget_values(song)]})


def metadata_inputs(duration: float) -> list[io.Input]:
    """Return the widgets of a song's metadata. duration: the default in seconds, 0 for auto."""
    return [
        io.Combo.Input(
            "language",
            options=[AUTO, *LANGUAGES.values()],
            default=AUTO,
            tooltip="Vocal language, which sets the pronunciation of the lyrics. auto leaves it to the model.",
        ),
        zero_shown_as(
            AUTO,
            io.Float.Input(
                "duration",
                default=duration,
                min=0.0,
                max=float(MAX_SECONDS),
                step=1.0,
                round=0.1,
                tooltip="Duration of the song in seconds. auto (0) fits the lyrics, or leaves it to Plan Song. The "
                "model is trained on 10 to 600; 30 to 240 is typical.",
            ),
        ),
        zero_shown_as(
            AUTO,
            io.Int.Input(
                "bpm",
                default=0,
                min=0,
                max=MAX_BPM,
                tooltip="BPM (tempo), from 30 to 300. auto (0) leaves it to the model; 60 to 180 is typical.",
            ),
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
    ]


def valid_bpm(bpm: int | None) -> bool | str:
    """Return True or a sentence, for `validate_inputs`. A linked value is None."""
    if bpm and not MIN_BPM <= bpm <= MAX_BPM:
        return f"bpm: must be 0 (auto) or from {MIN_BPM} to {MAX_BPM}, got {bpm}."
    return True


def song_of(caption: str, lyrics: str, language: str, duration: float, bpm: int, key: str, time_signature: str) -> Song:
    """Return the song of the widgets' values. Raises RequestError."""
    metadata = Metadata(
        bpm=bpm or None,
        key=None if key == AUTO else key,
        time_signature=None if time_signature == AUTO else time_signature,
        language=None if language == AUTO else language,
        duration=duration or None,
    )
    return Song(caption, lyrics, metadata)


def widget_values(song: Song) -> dict[str, str | float]:
    """Return the values of the widgets that make this song: the inverse of `song_of`."""
    metadata = song.metadata
    return {
        "caption": song.caption,
        "lyrics": song.lyrics,
        "language": LANGUAGES.get(metadata.language or "", AUTO),
        "duration": metadata.duration or 0,
        "bpm": metadata.bpm or 0,
        "key": metadata.key or AUTO,
        "time_signature": TIME_SIGNATURES.get(metadata.time_signature or "", AUTO),
    }


def song_text(song: Song) -> str:
    """Return caption, metadata and lyrics, with empty lines between them."""
    parts = (song.caption.strip(), metadata_line(song.metadata), song.prompt_lyrics.strip())
    return "\n\n".join(filter(None, parts))


def metadata_line(metadata: Metadata) -> str:
    values = (
        f"{metadata.bpm} BPM" if metadata.bpm else None,
        metadata.key,
        TIME_SIGNATURES.get(metadata.time_signature or ""),
        LANGUAGES[metadata.language] if metadata.language not in (None, UNKNOWN) else None,
        f"{metadata.duration:g} s" if metadata.duration else None,
    )
    return " · ".join(filter(None, values))
