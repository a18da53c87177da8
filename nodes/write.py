"""Write Song and Polish Song: whole songs by the planner, from one line or from a rough song."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..acestep_core.config import MAX_SECONDS
from ..acestep_core.song.languages import LANGUAGES
from ..acestep_core.song.song import Metadata
from .comfy_runtime.versions import search_aliases, zero_shown_as
from .sockets import AUTO, PLANNER, PlannerSocket, SongSocket, seed_input, temperature_input

TEMPERATURE = (
    "Sampling temperature. Higher values give more surprising text; 0 always takes the likeliest token. 0.85 is the "
    "default."
)


class WriteNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Write",
            display_name="Write Song",
            category=PLANNER,
            description="Writes a whole song from one line with the planner (5 Hz LM): caption, lyrics and metadata.",
            **search_aliases("lyrics generator, write lyrics, llm, simple mode"),
            inputs=[
                PlannerSocket.Input("planner", tooltip="Planner, from Load Planner."),
                io.String.Input(
                    "idea",
                    multiline=True,
                    dynamic_prompts=True,
                    default="a sea shanty about compilers",
                    tooltip="Idea for the song in one line: a topic, a style or both. Empty leaves it to the planner.",
                ),
                seed_input("Random seed of the planner. Each seed gives another song for the same idea."),
                io.Boolean.Input(
                    "instrumental", default=False, tooltip="Instrumental. On, the song has no vocals. Off by default."
                ),
                io.Combo.Input(
                    "language",
                    options=[AUTO, *LANGUAGES.values()],
                    default=AUTO,
                    tooltip="Vocal language of the lyrics. auto leaves it to the planner.",
                ),
                zero_shown_as(
                    AUTO,
                    io.Float.Input(
                        "duration",
                        default=0.0,
                        min=0.0,
                        max=float(MAX_SECONDS),
                        step=1.0,
                        round=0.1,
                        tooltip="Duration of the song in seconds. auto (0) leaves it to the planner.",
                    ),
                ),
                temperature_input(0.85, TEMPERATURE),
            ],
            outputs=[SongSocket.Output(display_name="song", tooltip="Song, for Plan Song, Encode Song or Edit Song.")],
        )

    @classmethod
    def execute(cls, planner, idea, seed, instrumental, language, duration, temperature) -> io.NodeOutput:
        from ..acestep_core.lyrics.check import check_lyrics
        from ..acestep_core.planner.writing import WRITING, compose
        from .comfy_runtime.planner import LYRICS_TOKENS
        from .comfy_runtime.progress import node_callbacks, show_notes

        with node_callbacks() as callbacks:
            (written,) = compose(
                planner.with_room(idea, new_tokens=LYRICS_TOKENS),
                idea,
                [seed],
                instrumental=instrumental,
                metadata=Metadata(language=None if language == AUTO else language, duration=duration or None),
                sampling=replace(WRITING, temperature=temperature),
                callbacks=callbacks,
            )
        show_notes(*check_lyrics(written.song))
        return io.NodeOutput(written.song)


class PolishNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Polish",
            display_name="Polish Song",
            category=PLANNER,
            description="Rewrites a rough caption and rough lyrics in the style of the training data, with the "
            "planner (5 Hz LM).",
            **search_aliases("format, rewrite, enhance prompt, llm"),
            inputs=[
                PlannerSocket.Input("planner", tooltip="Planner, from Load Planner."),
                SongSocket.Input("song", tooltip="Rough song. Metadata that you set stays as it is."),
                seed_input("Random seed of the planner. Each seed gives another wording of the song."),
                temperature_input(0.85, TEMPERATURE),
            ],
            outputs=[
                SongSocket.Output(
                    display_name="song", tooltip="Polished song, for Plan Song, Encode Song or Edit Song."
                )
            ],
        )

    @classmethod
    def execute(cls, planner, song, seed, temperature) -> io.NodeOutput:
        from ..acestep_core.lyrics.check import check_lyrics
        from ..acestep_core.planner.writing import WRITING, polish
        from .comfy_runtime.planner import LYRICS_TOKENS
        from .comfy_runtime.progress import node_callbacks, show_notes

        placed = planner.with_room(song.caption, song.lyrics, new_tokens=LYRICS_TOKENS)
        with node_callbacks() as callbacks:
            sampling = replace(WRITING, temperature=temperature)
            (polished,) = polish(placed, song, [seed], sampling=sampling, callbacks=callbacks)
        show_notes(*check_lyrics(polished.song))
        return io.NodeOutput(polished.song)
