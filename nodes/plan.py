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
            description="Thinks a song out before it is played: fills in what you left open and writes down its "
            "structure, five codes a second.",
            inputs=[
                PlannerSocket.Input("planner", tooltip="Who thinks the song out, from Load Planner."),
                SongSocket.Input("song", tooltip="The song you want; what you set stays as it is."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Another number gives another melody, other chords and another tempo.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="How many melodies to write for the song at once; number 2 is what seed + 1 gives.",
                ),
                io.Boolean.Input(
                    "write_codes",
                    default=True,
                    tooltip="On, melody and structure are planned, which takes a while and makes songs hang together; "
                    "off, only caption and facts.",
                ),
                io.Boolean.Input(
                    "rewrite_caption",
                    default=True,
                    tooltip="On, the caption is told anew in words that the model knows best; off, it stays yours.",
                ),
                advanced(
                    io.Boolean.Input(
                        "choose_duration",
                        default=False,
                        tooltip="On, the planner decides how long the song is, whatever its duration says.",
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
                        tooltip="How strictly the melody follows caption and lyrics; 1 or less is off and twice as "
                        "fast.",
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
                        tooltip="How adventurous the plan is: 0 always takes the likeliest, above 1 it gets wild.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "best_of",
                        default=1,
                        min=1,
                        max=MAX_TRIES,
                        tooltip="Write so many melodies and keep those that fit caption and lyrics best, the best "
                        "first.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "negative",
                        default="",
                        tooltip="What the melody shall stay away from, in words; needs guidance above 1.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "first_layout",
                        default=False,
                        tooltip="On, the planner is asked in the way of its first release, to compare with older "
                        "songs; off is how it was trained.",
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
                        tooltip="How few surprises there are: at 0.9 the least likely notes never come, at 1 any may, "
                        "as in ACE-Step's own engine.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "plan_each",
                        optional=True,
                        default=False,
                        tooltip="On, every melody of a batch gets a tempo, a key and a caption of its own, and the "
                        "nodes after this one run once for each.",
                    )
                ),
            ],
            outputs=[
                SongSocket.Output(
                    display_name="song",
                    tooltip="The song with every fact filled in, for Encode Song.",
                    is_output_list=True,
                ),
                io.String.Output(
                    display_name="codes",
                    tooltip="The structure of the song, one line a melody, for Encode Song or Cover; empty when none "
                    "was written.",
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
        write_codes,
        rewrite_caption,
        choose_duration,
        guidance,
        temperature,
        best_of,
        negative,
        first_layout,
        top_p=0.9,
        plan_each=False,
    ) -> io.NodeOutput:
        from ..acestep_core.planner.functions import CODING, PLANNING
        from ..acestep_core.song.codes import format_songs
        from ..acestep_core.song.seeds import batch_seeds
        from .comfy_runtime import show_note

        if choose_duration:
            song = replace(song, metadata=replace(song.metadata, duration=None))
        notes = what_is_ignored(
            song, write_codes, batch_size, rewrite_caption, guidance, best_of, negative, first_layout, plan_each
        )
        show_note(*notes)
        choice = {"temperature": temperature, "top_p": top_p}
        seeds = batch_seeds(seed, max(batch_size, best_of if write_codes else 1))
        plans = think(planner, song, seeds if plan_each else seeds[:1], rewrite_caption, replace(PLANNING, **choice))
        if not write_codes:
            return io.NodeOutput([planned.song for planned in plans], [""] * len(plans))
        sampling = replace(CODING, **choice, guidance=guidance)
        written = write(planner, plans if plan_each else plans * len(seeds), seeds, sampling, negative, first_layout)
        order = best_first(planner, song, written) if best_of > 1 else range(len(written))
        chosen = list(order)[:batch_size]
        if plan_each:
            return io.NodeOutput([plans[i].song for i in chosen], [format_songs([written[i]]) for i in chosen])
        return io.NodeOutput([plans[0].song], [format_songs(written[i] for i in chosen)])


def what_is_ignored(
    song: Song,
    write_codes: bool,
    batch_size: int,
    rewrite_caption: bool,
    guidance: float,
    best_of: int,
    negative: str,
    first_layout: bool,
    plan_each: bool,
) -> list[str]:
    """Sentences for the user about inputs that change nothing beside the others."""
    from ..acestep_core.planner.functions import ignored

    of_codes = {
        "batch_size": batch_size > 1 and not plan_each,
        "best_of": best_of > 1,
        "negative": bool(negative.strip()),
        "first_layout": first_layout,
    }
    without = [] if write_codes else [name for name, given in of_codes.items() if given]
    return ignored(song, rewrite=rewrite_caption, negative=negative, guidance=guidance, without_codes=without)


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
    negative: str,
    legacy: bool,
) -> list[Codes]:
    """Codes for each plan and seed, all at once."""
    from ..acestep_core.planner.functions import code_count, codes
    from .comfy_runtime import watched

    asked = plans[0].asked
    rows = len(seeds) * (2 if sampling.guided else 1)
    count = max(code_count(planned.song.metadata.duration) for planned in plans)
    ready = planner.ready(asked.caption, asked.lyrics, negative, rows=rows, more=count)
    with watched() as callbacks:
        return codes(ready, plans, seeds, sampling=sampling, negative=negative, legacy=legacy, callbacks=callbacks)


def best_first(planner: PlacedPlanner, song: Song, written: Sequence[Codes]) -> list[int]:
    """Which codes say best, which next, what was asked for, not the planner's own words for it."""
    from ..acestep_core.planner.scoring import POSITIONS, score
    from .comfy_runtime import watched

    logits = 4 * 4 * POSITIONS * planner.network.config.vocab_size  # of so many tokens at a time, and as much again
    ready = planner.ready(song.caption, song.lyrics, more=max(map(len, written)), beside=logits)
    with watched() as callbacks:
        rewards = [each.reward for each in score(ready, written, song, callbacks=callbacks)]
    return sorted(range(len(written)), key=lambda i: -rewards[i])
