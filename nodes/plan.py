"""A song thought out by the planner: its missing facts, its caption in the words of training, its audio codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..acestep_core.song.song import Song
from .comfy_runtime.versions import advanced
from .sample import MAX_SEED
from .sockets import PLANNER, PlannerSocket, SongSocket

if TYPE_CHECKING:
    from ..acestep_core.planner.functions import Planned
    from ..acestep_core.planner.token_sampling import Sampling
    from ..acestep_core.song.codes import Codes
    from .comfy_runtime import PlacedPlanner

MAX_TRIES = 16


class PlanNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Plan",
            display_name="Plan Song",
            category=PLANNER,
            description="Plans a song with the planner (5 Hz LM): fills in missing metadata and generates audio codes, "
            "five per second.",
            inputs=[
                PlannerSocket.Input("planner", tooltip="Planner, from Load Planner."),
                SongSocket.Input("song", tooltip="Song to plan. Metadata that you set stays as it is."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Random seed of the planner. Each seed gives another melody, key and tempo.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=64,
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
                        tooltip="Automatic duration. On, the planner sets the duration and the one of Song is ignored. "
                        "Off by default.",
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
                advanced(
                    io.Float.Input(
                        "temperature",
                        default=0.85,
                        min=0.0,
                        max=2.0,
                        step=0.05,
                        round=0.01,
                        tooltip="Sampling temperature. Higher values give more surprising plans; 0 always takes the "
                        "likeliest token. 0.85 is the default.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "best_of",
                        default=1,
                        min=1,
                        max=MAX_TRIES,
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
                    io.Float.Input(
                        "top_p",
                        optional=True,
                        default=0.9,
                        min=0.0,
                        max=1.0,
                        step=0.05,
                        round=0.01,
                        tooltip="Nucleus sampling (top-p). Lower values keep only the likeliest tokens. 0.9 is the "
                        "default; 1 keeps all of them, as ACE-Step's own engine does.",
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
            ],
            outputs=[
                SongSocket.Output(
                    display_name="song",
                    tooltip="Song with all metadata, for Encode Song.",
                    is_output_list=True,
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
    ) -> io.NodeOutput:
        from ..acestep_core.planner.functions import CODING, PLANNING
        from ..acestep_core.song.codes import format_songs
        from ..acestep_core.song.seeds import batch_seeds
        from .comfy_runtime import show_note

        if auto_duration:
            song = replace(song, metadata=replace(song.metadata, duration=None))
        notes = what_is_ignored(
            song,
            generate_codes,
            batch_size,
            rewrite_caption,
            guidance,
            best_of,
            negative_prompt,
            metadata_per_take,
        )
        show_note(*notes)
        choice = {"temperature": temperature, "top_p": top_p}
        seeds = batch_seeds(seed, max(batch_size, best_of if generate_codes else 1))
        plans = think(
            planner, song, seeds if metadata_per_take else seeds[:1], rewrite_caption, replace(PLANNING, **choice)
        )
        if not generate_codes:
            return io.NodeOutput([planned.song for planned in plans], [""] * len(plans))
        sampling = replace(CODING, **choice, guidance=guidance)
        written = write(planner, plans if metadata_per_take else plans * len(seeds), seeds, sampling, negative_prompt)
        order = best_first(planner, song, written) if best_of > 1 else range(len(written))
        chosen = list(order)[:batch_size]
        if metadata_per_take:
            return io.NodeOutput([plans[i].song for i in chosen], [format_songs([written[i]]) for i in chosen])
        return io.NodeOutput([plans[0].song], [format_songs(written[i] for i in chosen)])


def what_is_ignored(
    song: Song,
    generate_codes: bool,
    batch_size: int,
    rewrite_caption: bool,
    guidance: float,
    best_of: int,
    negative_prompt: str,
    metadata_per_take: bool,
) -> list[str]:
    """Sentences for the user about inputs that change nothing beside the others."""
    from ..acestep_core.planner.functions import ignored

    of_codes = {
        "batch_size": batch_size > 1 and not metadata_per_take,
        "best_of": best_of > 1,
        "negative_prompt": bool(negative_prompt.strip()),
    }
    without = [] if generate_codes else [name for name, given in of_codes.items() if given]
    return ignored(
        song, rewrite=rewrite_caption, negative_prompt=negative_prompt, guidance=guidance, without_codes=without
    )


def think(planner: PlacedPlanner, song: Song, seeds: Sequence[int], rewrite: bool, sampling: Sampling) -> list[Planned]:
    """A plan for each seed, all at once."""
    from ..acestep_core.planner.functions import plan
    from .comfy_runtime import watched

    ready = planner.ready(song.caption, song.lyrics, rows=len(seeds))
    with watched() as callbacks:
        return plan(ready, song, seeds, rewrite=rewrite, sampling=sampling, callbacks=callbacks)


def write(
    planner: PlacedPlanner,
    plans: Sequence[Planned],
    seeds: Sequence[int],
    sampling: Sampling,
    negative_prompt: str,
) -> list[Codes]:
    """Codes for each plan and seed, all at once."""
    from ..acestep_core.planner.functions import code_count, codes
    from .comfy_runtime import watched

    asked = plans[0].asked
    rows = len(seeds) * (2 if sampling.guided else 1)
    count = max(code_count(planned.song.metadata.duration) for planned in plans)
    ready = planner.ready(asked.caption, asked.lyrics, negative_prompt, rows=rows, more=count)
    with watched() as callbacks:
        return codes(ready, plans, seeds, sampling=sampling, negative_prompt=negative_prompt, callbacks=callbacks)


def best_first(planner: PlacedPlanner, song: Song, written: Sequence[Codes]) -> list[int]:
    """Which codes say best, which next, what was asked for, not the planner's own words for it."""
    from ..acestep_core.planner.scoring import POSITIONS, score
    from .comfy_runtime import watched

    logits = 4 * 4 * POSITIONS * planner.network.config.vocab_size  # of so many tokens at a time, and as much again
    ready = planner.ready(song.caption, song.lyrics, more=max(map(len, written)), beside=logits)
    with watched() as callbacks:
        rewards = [each.reward for each in score(ready, written, song, callbacks=callbacks)]
    return sorted(range(len(written)), key=lambda i: -rewards[i])
