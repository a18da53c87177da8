"""Finish Song: loudness, true peaks and both ends of a song, for publication."""

from __future__ import annotations

import logging

from comfy_api.latest import io, ui

from ..acestep_core.audio.finish import MAX_FADE, MAX_LOUDNESS, MAX_PEAK, MIN_LOUDNESS, MIN_PEAK, TARGETS, Finish
from .comfy_runtime.versions import advanced, search_aliases, zero_shown_as
from .sockets import AUDIO, seconds_input

log = logging.getLogger("acestep")

NUMBER = "number"
LOUDNESS = {name if target is None else f"{name} ({target:g})": target for name, target in TARGETS.items()}


class FinishSongNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_FinishSong",
            display_name="Finish Song",
            category=AUDIO,
            description="Finishes a song for publication: loudness, a ceiling for its peaks, fades and its ending.",
            **search_aliases("mastering, loudness, lufs, normalize, limiter, true peak, fade, trim silence"),
            inputs=[
                io.Audio.Input("audio", tooltip="Audio of one song or of a batch, mono or stereo, at any sample rate."),
                io.Combo.Input(
                    "loudness",
                    options=[*LOUDNESS, NUMBER],
                    default=next(iter(LOUDNESS)),
                    tooltip="Loudness (LUFS) of the whole song. Streaming services play songs at −14, Apple Music at "
                    "−16. none keeps the level, number takes the next widget.",
                ),
                io.Float.Input(
                    "lufs",
                    default=-14.0,
                    min=MIN_LOUDNESS,
                    max=MAX_LOUDNESS,
                    step=0.5,
                    round=0.01,
                    tooltip="Loudness in LUFS, only used if loudness is number. −20 is quiet, −9 is loud.",
                ),
                io.Float.Input(
                    "true_peak",
                    default=-1.0,
                    min=MIN_PEAK,
                    max=MAX_PEAK,
                    step=0.1,
                    round=0.01,
                    tooltip="True peak (dBTP), the ceiling that a limiter holds between the samples too. −1 is usual; "
                    "0 changes little.",
                ),
                seconds_input(
                    "fade_in", 0.0, MAX_FADE, 0.1, "Fade-in in seconds, with equal power. 0 to 2 is typical."
                ),
                seconds_input(
                    "fade_out", 0.0, MAX_FADE, 0.1, "Fade-out in seconds, with equal power. 0 to 10 is typical."
                ),
                io.Boolean.Input(
                    "trim", default=False, tooltip="Trim silence (below −60 dBFS) at the beginning and the end."
                ),
                zero_shown_as(
                    "off",
                    seconds_input(
                        "ending",
                        0.0,
                        MAX_FADE,
                        1.0,
                        "Ending: the last seconds in which to search for the end of the music. The song is cut there, "
                        "or fades out if the music goes on. Generate 15 seconds more and set 15.",
                    ),
                ),
                advanced(
                    io.Boolean.Input(
                        "one_gain",
                        default=False,
                        tooltip="One gain for all songs of a batch, so that quiet songs stay quieter, as on an album.",
                    )
                ),
            ],
            outputs=[
                io.Audio.Output(
                    display_name="audio", tooltip="Finished song, for Save Song, Save Audio or Preview Audio."
                )
            ],
        )

    @classmethod
    def execute(cls, audio, loudness, lufs, true_peak, fade_in, fade_out, trim, ending, one_gain) -> io.NodeOutput:
        from ..acestep_core.audio import finish_songs, measure_music
        from .comfy_runtime.audios import audio_of, songs_of

        waveforms, rate = songs_of(audio)
        target = lufs if loudness == NUMBER else LOUDNESS.get(loudness, loudness)
        finish = Finish(target, true_peak, fade_in, fade_out, trim, ending)
        songs = finish_songs(waveforms, rate, finish, one_gain=one_gain)
        lines = [f"{song}; {measure_music(song.waveform, rate)}" for song in songs]
        for song, line in zip(songs, lines, strict=True):
            (log.warning if song.note else log.info)("finish: %s", line)
        if len(lines) > 1:
            lines = [f"{number}: {line}" for number, line in enumerate(lines, 1)]
        return io.NodeOutput(audio_of([song.waveform for song in songs], rate), ui=ui.PreviewText("\n".join(lines)))
