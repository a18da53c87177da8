"""Whole songs by the planner: from one line, or from a rough one."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..acestep_core.config import MAX_SECONDS
from ..acestep_core.song.languages import LANGUAGES
from ..acestep_core.song.song import Metadata
from .comfy_runtime.versions import advanced
from .sample import MAX_SEED
from .sockets import AUTO, PLANNER, PlannerSocket, SongSocket


def temperature_input() -> io.Input:
    return advanced(
        io.Float.Input(
            "temperature",
            default=0.85,
            min=0.0,
            max=2.0,
            step=0.05,
            round=0.01,
            tooltip="How adventurous the words are: 0 always takes the likeliest, above 1 they get wild.",
        )
    )


class WriteNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Write",
            display_name="Write Song",
            category=PLANNER,
            description="Makes a whole song of one line: how it sounds, what is sung, tempo, key and length.",
            inputs=[
                PlannerSocket.Input("planner", tooltip="Who writes the song, from Load Planner."),
                io.String.Input(
                    "idea",
                    multiline=True,
                    dynamic_prompts=True,
                    default="a sea shanty about compilers",
                    tooltip="What the song is about or how it sounds, in one line; left empty, it is a surprise.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Another number gives another song on the same idea.",
                ),
                io.Boolean.Input("instrumental", default=False, tooltip="On, nobody sings."),
                io.Combo.Input(
                    "language",
                    options=[AUTO, *LANGUAGES.values()],
                    default=AUTO,
                    tooltip="The language the lyrics are written and sung in.",
                ),
                io.Float.Input(
                    "duration",
                    default=0.0,
                    min=0.0,
                    max=float(MAX_SECONDS),
                    step=1.0,
                    round=0.1,
                    tooltip="How many seconds the song lasts; 0 leaves it to the planner.",
                ),
                temperature_input(),
            ],
            outputs=[SongSocket.Output(display_name="song", tooltip="The song, for Plan, Encode or Show Song.")],
        )

    @classmethod
    def execute(cls, planner, idea, seed, instrumental, language, duration, temperature) -> io.NodeOutput:
        from ..acestep_core.planner.functions import WRITING, compose
        from .comfy_runtime import LYRICS_TOKENS, watched

        with watched() as callbacks:
            (written,) = compose(
                planner.ready(idea, more=LYRICS_TOKENS),
                idea,
                [seed],
                instrumental=instrumental,
                facts=Metadata(language=None if language == AUTO else language, duration=duration or None),
                sampling=replace(WRITING, temperature=temperature),
                callbacks=callbacks,
            )
        return io.NodeOutput(written.song)


class PolishNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Polish",
            display_name="Polish Song",
            category=PLANNER,
            description="Puts a rough caption and rough lyrics into the words and the form that the model knows best.",
            inputs=[
                PlannerSocket.Input("planner", tooltip="Who polishes the song, from Load Planner."),
                SongSocket.Input("song", tooltip="The rough song; the facts you set stay as they are."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Another number gives other words for the same song.",
                ),
                temperature_input(),
            ],
            outputs=[
                SongSocket.Output(display_name="song", tooltip="The polished song, for Plan, Encode or Show Song.")
            ],
        )

    @classmethod
    def execute(cls, planner, song, seed, temperature) -> io.NodeOutput:
        from ..acestep_core.planner.functions import WRITING, polish
        from .comfy_runtime import LYRICS_TOKENS, watched

        ready = planner.ready(song.caption, song.lyrics, more=LYRICS_TOKENS)
        with watched() as callbacks:
            sampling = replace(WRITING, temperature=temperature)
            (polished,) = polish(ready, song, [seed], sampling=sampling, callbacks=callbacks)
        return io.NodeOutput(polished.song)
