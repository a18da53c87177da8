"""Mix Stems: several tracks to one song."""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import TYPE_CHECKING

from comfy_api.latest import io, ui

from ..acestep_core.audio.mix import MAX_GAIN, MAX_HEADROOM, MIN_GAIN
from ..acestep_core.config import MAX_SECONDS
from ..acestep_core.errors import RequestError, shown
from .comfy_runtime.versions import advanced, search_aliases
from .sockets import AUDIO

if TYPE_CHECKING:
    from torch import Tensor

    from ..acestep_core.audio.mix import Mix, SplitSong

STEMS = 8
FEW = 4  # gains that are never folded away
SEPARATE, TOGETHER = "separate", "together"


class MixStemsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_MixStems",
            display_name="Mix Stems",
            category=AUDIO,
            description="Mixes up to eight stems to one song, with gain, mute and delay.",
            **search_aliases(
                "mixer, sum, combine audio, merge audio, overlay, balance, mute, delay, volume, rest, subtract"
            ),
            inputs=[
                *(
                    io.Audio.Input(
                        f"stem_{number}",
                        optional=number > 1,
                        tooltip=f"Stem {number}. Other sample rates are converted to that of stem 1.",
                    )
                    for number in range(1, STEMS + 1)
                ),
                *(gain_input(number) for number in range(1, STEMS + 1)),
                io.String.Input(
                    "delays",
                    default="",
                    tooltip="Delay of each stem in seconds, such as 0, 0.25, 8: the stem starts that much later. Empty "
                    "for none.",
                ),
                io.Float.Input(
                    "headroom",
                    default=1.0,
                    min=0.0,
                    max=MAX_HEADROOM,
                    step=0.5,
                    round=0.01,
                    tooltip="Headroom in dB, by which the loudest peak stays below full scale. A louder sum is turned "
                    "down as a whole. 1 is typical.",
                ),
                io.Combo.Input(
                    "batch",
                    options=[SEPARATE, TOGETHER],
                    default=SEPARATE,
                    tooltip="Batch of a stem. separate mixes song by song, together adds all songs of a batch up. "
                    "Usually separate.",
                ),
                io.Audio.Input(
                    "reference",
                    optional=True,
                    tooltip="Song to compare with: the node shows how far the sum is from it, in dB. The output stems "
                    "needs it.",
                ),
            ],
            outputs=[
                io.Audio.Output(
                    display_name="audio", tooltip="Mixed song, for Finish Song, Save Song or Preview Audio."
                ),
                io.Audio.Output(
                    display_name="stems",
                    tooltip="Stems with their gains and delays, and last the rest of the reference, all of one length. "
                    "They add up to the reference. Save Song gives each a file.",
                ),
            ],
        )

    @classmethod
    def execute(cls, delays, headroom, batch, stem_1, reference=None, **others) -> io.NodeOutput:
        from ..acestep_core.audio import resample
        from ..acestep_core.audio.mix import Stem, mix_stems, split_song
        from .comfy_runtime.audios import audio_of, missing_audio, songs_of

        audios = {1: stem_1, **{number: others.get(f"stem_{number}") for number in range(2, STEMS + 1)}}
        seconds = parse_delays(delays)
        waveforms, rate = songs_of(stem_1, "stem_1")

        def at_rate(audio, name):
            songs, own = songs_of(audio, name)
            return [resample(song[None], own, rate)[0] for song in songs]

        tracks = {1: waveforms}
        tracks |= {n: at_rate(audio, f"stem_{n}") for n, audio in audios.items() if n > 1 and audio is not None}
        stems = {
            number: [Stem(song, others[f"gain_{number}"], seconds[number - 1]) for song in songs]
            for number, songs in tracks.items()
        }
        groups = grouped(stems, batch)
        mixes = [mix_stems(group, rate, headroom) for group in groups]
        songs = [] if reference is None else at_rate(reference, "reference")
        if len(songs) not in (0, 1, len(groups)):
            raise RequestError(f"reference: has {len(songs)} songs, and the mix {len(groups)}. Give one or as many.")
        songs = songs * len(groups) if len(songs) == 1 else songs
        splits = [split_song(song, group, rate, headroom) for song, group in zip(songs, groups, strict=False)]
        lines = [mix_line(*each) for each in zip_longest(mixes, songs, splits)]
        marked = [f"{number}: {line}" if len(mixes) > 1 else line for number, line in enumerate(lines, 1) if line]
        return io.NodeOutput(
            audio_of([mix.waveform for mix in mixes], rate),
            audio_of([waveform for split in splits for waveform in split.waveforms], rate)
            if splits
            else missing_audio(
                "reference: not connected. Connect the song of the stems, so that they can add up to it."
            ),
            ui=ui.PreviewText("\n".join(marked)) if marked else None,
        )


def mix_line(mix: Mix, song: Tensor | None, split: SplitSong | None) -> str:
    """Return what the node shows of one song."""
    from ..acestep_core.audio.mix import error_of

    parts = [] if song is None else [f"{error_of(mix.waveform, song):.1f} dB from the reference"]
    parts += [f"turned down by {-mix.gain:.1f} dB for its headroom"] if mix.gain else []
    parts += [f"stems turned down by {-split.gain:.1f} dB together"] if split is not None and split.gain else []
    return ", ".join(parts)


def gain_input(number: int) -> io.Input:
    widget = io.Float.Input(
        f"gain_{number}",
        default=0.0,
        min=MIN_GAIN,
        max=MAX_GAIN,
        step=0.5,
        round=0.01,
        tooltip=f"Gain (volume) of stem {number} in dB. 0 leaves it, −6 is half as loud in amplitude, −60 mutes it.",
    )
    return widget if number <= FEW else advanced(widget)


def parse_delays(text: str) -> list[float]:
    """Return the delay of each stem in seconds. Raises RequestError."""
    parts = [part for part in re.split(r"[,;\s]+", text.strip()) if part]
    try:
        delays = [float(part) for part in parts]
    except ValueError:
        raise RequestError(f"delays: must be seconds such as 0, 0.25, 8, got {shown(text)}.") from None
    if not all(0 <= delay <= MAX_SECONDS for delay in delays):  # NaN is not
        raise RequestError(f"delays: must be from 0 to {MAX_SECONDS} seconds, got {shown(text)}.")
    if len(delays) > STEMS:
        raise RequestError(f"delays: {len(delays)} given, and there are {STEMS} stems at most.")
    return delays + [0.0] * (STEMS - len(delays))


def grouped(stems: dict[int, list], batch: str) -> list[list]:
    """Return the stems of each song to mix. Raises RequestError if batches differ in size."""
    if batch == TOGETHER:
        return [[stem for songs in stems.values() for stem in songs]]
    count = max(map(len, stems.values()))
    for number, songs in stems.items():
        if len(songs) not in (1, count):
            raise RequestError(
                f"stem_{number}: has {len(songs)} songs, and another stem {count}. Give one song or as many as there."
            )
    return [[songs[i % len(songs)] for songs in stems.values()] for i in range(count)]
