"""Plan Song: the planner completes a song's metadata and generates its audio codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_api.latest import io

from .comfy_runtime.versions import advanced, search_aliases
from .sockets import (
    MAX_BATCH,
    PLANNER,
    PlannerSocket,
    SongSocket,
    graphs_input,
    seed_input,
    share_input,
    temperature_input,
)

if TYPE_CHECKING:
    from ..acestep_core.planner.planning import SongPlan
    from ..acestep_core.planner.token_sampling import TokenSampling
    from ..acestep_core.song.codes import Codes
    from ..acestep_core.song.song import Song
    from .comfy_runtime.planner import PlacedPlanner

MAX_BEST_OF = 16


class PlanNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Plan",
            display_name="Plan Song",
            category=PLANNER,
            description="Plans a song with the planner (5 Hz LM): fills in missing metadata and generates audio codes, "
            "five per second.",
            **search_aliases("planner, llm, 5 hz lm, thinking, chain of thought"),
            inputs=[
                PlannerSocket.Input("planner", tooltip="Planner, from Load Planner."),
                SongSocket.Input("song", tooltip="Song to plan. Metadata that you set stays as it is."),
                seed_input("Random seed of the planner. Each seed gives another melody, key and tempo."),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=MAX_BATCH,
                    tooltip="Batch size, the number of takes planned at once. Take 2 uses seed + 1. 1 to 4 is typical.",
                ),
                io.Boolean.Input(
                    "generate_codes",
                    default=True,
                    tooltip="Generate audio codes. On (default), melody and structure are planned as well, which takes "
                    "longer and makes songs more coherent. Off, only caption and metadata.",
                ),
                io.Boolean.Input(
                    "rewrite_caption",
                    default=True,
                    tooltip="Rewrite caption in the style of the training data. On by default. Off keeps your caption.",
                ),
                advanced(
                    io.Boolean.Input(
                        "auto_duration",
                        default=False,
                        tooltip="Automatic duration. On, the planner sets the duration and the one of Song is "
                        "ignored. Off by default.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "guidance",
                        default=2.0,
                        min=0.0,
                        max=10.0,
                        step=0.1,
                        round=0.01,
                        tooltip="Guidance scale (CFG) of the planner. Higher values follow caption and lyrics more "
                        "strictly. 2 is the default; 1 or less is off and twice as fast.",
                    )
                ),
                temperature_input(
                    0.85,
                    "Sampling temperature. Higher values give more surprising plans; 0 always takes the likeliest "
                    "token. 0.85 is the default.",
                ),
                advanced(
                    io.Int.Input(
                        "best_of",
                        default=1,
                        min=1,
                        max=MAX_BEST_OF,
                        tooltip="Best of N. Generates N takes and keeps those that fit caption and lyrics best, the "
                        "best first. 1 is off; 4 is typical.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "negative_prompt",
                        default="",
                        tooltip="Negative prompt for the audio codes: what the melody avoids. Needs guidance above 1. "
                        "Usually empty.",
                    )
                ),
                advanced(
                    share_input(
                        "top_p",
                        0.9,
                        "Nucleus sampling (top-p). Lower values keep only the likeliest tokens. 0.9 is the default; 1 "
                        "keeps all of them, as ACE-Step's own engine does.",
                        optional=True,
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "metadata_per_take",
                        optional=True,
                        default=False,
                        tooltip="Metadata per take. On, each take of the batch gets its own tempo, key and caption, "
                        "and later nodes run once per take. Off by default.",
                    )
                ),
                graphs_input(
                    True,
                    "CUDA graphs. On (default), an NVIDIA GPU generates audio codes faster; the codes stay the same. "
                    "Turn it off if planning ends in a CUDA error.",
                ),
            ],
            outputs=[
                SongSocket.Output(
                    display_name="song", tooltip="Song with all metadata, for Encode Song.", is_output_list=True
                ),
                io.String.Output(
                    display_name="codes",
                    tooltip="Audio codes, one line per take, for Encode Song or Cover. Empty if generate_codes is off.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        planner,
        song,
        seed,
        batch_size,
        generate_codes,
        rewrite_caption,
        auto_duration,
        guidance,
        temperature,
        best_of,
        negative_prompt,
        top_p=0.9,
        metadata_per_take=False,
        graphs=True,
    ) -> io.NodeOutput:
        from ..acestep_core.lyrics.check import check_lyrics
        from ..acestep_core.planner.planning import CODING, PLANNING
        from ..acestep_core.song.codes import format_code_lines
        from ..acestep_core.song.seeds import batch_seeds
        from .comfy_runtime.notes import plan_notes
        from .comfy_runtime.progress import show_notes

        if auto_duration:
            song = replace(song, metadata=replace(song.metadata, duration=None))
        code_options = {
            "batch_size": batch_size > 1 and not metadata_per_take,
            "best_of": best_of > 1,
            "negative_prompt": bool(negative_prompt.strip()),
        }
        show_notes(*plan_notes(song, rewrite_caption, generate_codes, code_options, guidance))
        seeds = batch_seeds(seed, max(batch_size, best_of if generate_codes else 1))
        sampling = {"temperature": temperature, "top_p": top_p}
        plans = plan_songs(
            planner, song, seeds if metadata_per_take else seeds[:1], rewrite_caption, replace(PLANNING, **sampling)
        )
        show_notes(*dict.fromkeys(note for item in plans for note in check_lyrics(item.song)))
        if not generate_codes:
            return io.NodeOutput([item.song for item in plans], [""] * len(plans))
        takes = plan_takes(
            planner,
            plans if metadata_per_take else plans * len(seeds),
            seeds,
            replace(CODING, **sampling, guidance=guidance),
            negative_prompt,
            best_of > 1,
            graphs,
        )[:batch_size]
        if metadata_per_take:
            return io.NodeOutput([song for song, _ in takes], [format_code_lines([codes]) for _, codes in takes])
        return io.NodeOutput([plans[0].song], [format_code_lines(codes for _, codes in takes)])


def plan_songs(
    planner: PlacedPlanner, song: Song, seeds: Sequence[int], rewrite_caption: bool, sampling: TokenSampling
) -> list[SongPlan]:
    """Return a plan per seed, generated in one batch."""
    from ..acestep_core.planner.planning import plan
    from .comfy_runtime.progress import node_callbacks

    with node_callbacks() as callbacks:
        return plan(
            planner.with_room(song.caption, song.lyrics, rows=len(seeds)),
            song,
            seeds,
            rewrite_caption=rewrite_caption,
            sampling=sampling,
            callbacks=callbacks,
        )


def plan_takes(
    planner: PlacedPlanner,
    plans: Sequence[SongPlan],
    seeds: Sequence[int],
    sampling: TokenSampling,
    negative_prompt: str,
    ranked: bool,
    graphs: bool,
) -> list[tuple[Song, Codes]]:
    """Return a song and its audio codes per seed, generated in one batch. If `ranked`, the best come first."""
    from ..acestep_core.planner.planning import code_count, plan_codes
    from ..acestep_core.planner.scoring import POSITIONS, best_codes
    from .comfy_runtime.progress import node_callbacks

    request = plans[0].request
    # Scoring holds the logits of POSITIONS tokens twice, in float32 and as copies.
    scoring = 4 * 4 * POSITIONS * planner.network.config.vocab_size if ranked else 0
    placed = planner.with_room(
        request.caption,
        request.lyrics,
        negative_prompt,
        rows=len(seeds) * (2 if sampling.guided else 1),
        new_tokens=max(code_count(item.song.metadata.duration) for item in plans),
        extra_bytes=scoring,
    )
    placed.graphs = placed.graphs and graphs
    with node_callbacks() as callbacks:
        if ranked:
            best = best_codes(
                placed, plans, seeds, sampling=sampling, negative_prompt=negative_prompt, callbacks=callbacks
            )
            return [(take.song, take.codes) for take in best]
        codes = plan_codes(
            placed, plans, seeds, sampling=sampling, negative_prompt=negative_prompt, callbacks=callbacks
        )
    return [(item.song, take) for item, take in zip(plans, codes, strict=True)]
