"""Compare Takes: several takes with one playhead, and the one to keep."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.errors import RequestError
from .comfy_runtime.versions import search_aliases
from .sockets import AUDIO

TAKES = 8


class CompareTakesNode(io.ComfyNode):
    """The page plays the takes and sets `keep`. See web/js/compare_takes.js."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_CompareTakes",
            display_name="Compare Takes",
            category=AUDIO,
            description="Plays two to eight takes side by side, switching without a gap, and passes on the one to "
            "keep.",
            is_output_node=True,
            **search_aliases("a/b test, ab test, choose take, listen, versions, blind test, level match"),
            inputs=[
                *(
                    io.Audio.Input(
                        f"take_{number}",
                        optional=number > 1,
                        tooltip=f"Take {number}. Each song of a batch is a take of its own.",
                    )
                    for number in range(1, TAKES + 1)
                ),
                io.Int.Input(
                    "keep",
                    default=1,
                    min=1,
                    max=TAKES,
                    tooltip="Take to keep, which the output passes on. The buttons of the takes set it; 1 is the "
                    "first.",
                ),
                io.Boolean.Input(
                    "level_match",
                    default=True,
                    tooltip="Level match. On, all takes play as loud as the quietest, because louder ones seem "
                    "better. The output keeps its level.",
                ),
                io.Boolean.Input(
                    "blind",
                    default=False,
                    tooltip="Blind test. On, the takes are shuffled and have letters until you keep one. Usually off.",
                ),
            ],
            outputs=[
                io.Audio.Output(display_name="audio", tooltip="Kept take, for Finish Song, Save Song or an edit.")
            ],
        )

    @classmethod
    def execute(cls, take_1, keep, level_match, blind, **others) -> io.NodeOutput:
        from .comfy_runtime.audios import audio_of, songs_of
        from .comfy_runtime.takes import shown_take, takes_gains

        audios = {1: take_1, **{number: others.get(f"take_{number}") for number in range(2, TAKES + 1)}}
        takes = [
            (song, rate)
            for songs, rate in (songs_of(audio, f"take_{n}") for n, audio in audios.items() if audio is not None)
            for song in songs
        ]
        if not 2 <= len(takes) <= TAKES:
            raise RequestError(f"take_2: must make 2 to {TAKES} takes with the other inputs, got {len(takes)}.")
        if keep > len(takes):
            raise RequestError(f"keep: must be from 1 to {len(takes)}, the number of takes, got {keep}.")
        gains = takes_gains(takes) if level_match else [0.0] * len(takes)
        shown = [shown_take(song, rate, gain) for (song, rate), gain in zip(takes, gains, strict=True)]
        song, rate = takes[keep - 1]
        return io.NodeOutput(audio_of([song], rate), ui={"takes": shown})
