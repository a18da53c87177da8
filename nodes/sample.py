"""From noise to the latents of a song."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..acestep_core.config import FRAME_RATE
from ..acestep_core.errors import RequestError
from ..acestep_core.sampling.guidance import METHODS
from ..acestep_core.sampling.settings import SamplingSettings
from ..acestep_core.sampling.solvers import SOLVERS
from .comfy_runtime.versions import advanced
from .latents import from_latent, to_latent
from .sockets import SAMPLING
from .song import duration_of

if TYPE_CHECKING:
    import torch

    from ..acestep_core.callbacks import Callbacks
    from ..acestep_core.edit.edit import Edit
    from .conditioning import Entry

MAX_SEED = 2**64 - 1
FIRST_SIGMA = 0.9  # schedules made for pure noise begin above it: ACE-Step's own tables at 0.97 or 1


class SampleNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Sample",
            display_name="Sample Song",
            category=SAMPLING,
            description="Samples the latents of a song from noise. 0 stands for the model's own default.",
            inputs=[
                io.Model.Input("model", tooltip="Diffusion model, from Load Model."),
                io.Conditioning.Input("conditioning", tooltip="Conditioning (positive), from Encode Song."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Random seed of the noise. Each seed gives another take of the song; the same seed repeats "
                    "the take.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Batch size, the number of takes sampled at once. Take 2 uses seed + 1, take 3 seed + 2. 1 "
                    "to 4 is typical.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Sampling steps. More steps add detail and take longer. 0 uses the model's default: turbo "
                    "8, base and sft 50.",
                ),
                io.Float.Input(
                    "guidance",
                    default=0.0,
                    min=0.0,
                    max=30.0,
                    step=0.5,
                    round=0.01,
                    tooltip="Guidance scale (CFG). Higher values follow caption and lyrics more strictly. For base and "
                    "sft, 0 is their default (7), 1 is off, 5 to 9 is typical; turbo models ignore it.",
                ),
                advanced(
                    io.Float.Input(
                        "shift",
                        default=0.0,
                        min=0.0,
                        max=100.0,
                        step=0.5,
                        round=0.01,
                        tooltip="Timestep shift. Higher values spend more steps on structure, lower ones on detail. 0 "
                        "uses the model's default (3); 1 to 5 is typical.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "solver",
                        options=list(SOLVERS),
                        default="euler",
                        tooltip="Solver (sampler). euler is the default, heun is more precise at twice the time. sde "
                        "adds fresh noise in every step and varies more.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "guidance_method",
                        options=list(METHODS),
                        default="apg",
                        tooltip="Guidance method. apg keeps the sound natural at high guidance, cfg matches KSampler, "
                        "adg follows the caption more closely.",
                    )
                ),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="Sigmas (noise schedule) from 1 down to 0, instead of steps and shift.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="Latent that sets the duration of the song; its content is not used. Without a latent, the "
                    "duration of Song applies.",
                ),
                advanced(
                    io.Float.Input(
                        "retake_variance",
                        default=0.0,
                        min=0.0,
                        max=1.0,
                        step=0.05,
                        round=0.01,
                        optional=True,
                        tooltip="Retake variance, the distance from the take of seed. 0 is the same take, 0.1 to 0.3 a "
                        "similar one, 1 the take of retake_seed.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "retake_seed",
                        default=0,
                        min=0,
                        max=MAX_SEED,
                        optional=True,
                        tooltip="Seed of the retake noise. Only used if retake_variance is above 0.",
                    )
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="Latents of the song, for Decode Song.")],
        )

    @classmethod
    def execute(
        cls,
        model,
        conditioning,
        seed,
        batch_size,
        steps,
        guidance,
        shift,
        solver,
        guidance_method,
        sigmas=None,
        latent=None,
        retake_variance=0.0,
        retake_seed=0,
    ) -> io.NodeOutput:
        import torch

        from ..acestep_core.song.seeds import batch_seeds
        from .comfy_runtime import check_sigmas, not_followed, song_model, watched
        from .conditioning import entries, unheard

        if sigmas is not None and not len(sigmas):
            raise RequestError("the sigmas are empty, as a scheduler makes them for a denoise of 0: nothing to sample")
        if sigmas is not None:
            check_sigmas(sigmas)
        settings = SamplingSettings(
            steps=steps or None,
            shift=shift or None,
            guidance_scale=guidance or None,
            guidance_method=guidance_method,
            solver=solver,
            timesteps=None if sigmas is None else sigmas.clamp(max=1).tolist(),
        )
        songs = entries(conditioning, song_model(model).diffusion_model.config.text_hidden_dim)
        seconds = common_length(songs, latent)
        groups = together(songs)
        counts = [batch_size * songs_in(group) for group in groups]
        ignored = what_is_ignored(songs, latent, batch_size, sigmas, solver, retake_variance, retake_seed)
        ignored = [*not_followed(model), *unheard(conditioning), *ignored]
        seeds, other_seeds = (iter(batch_seeds(first, sum(counts))) for first in (seed, retake_seed))
        made, edits = [], []
        with watched(song_model(model).latent_format, notes=ignored) as callbacks:
            for group, count in zip(groups, counts, strict=True):
                own, other = list(islice(seeds, count)), list(islice(other_seeds, count))
                retake = (other, retake_variance) if retake_variance else None
                latents, edit = sample_together(model, group, batch_size, seconds, own, settings, retake, callbacks)
                made.append(latents)
                edits.append((edit, count))
        return io.NodeOutput(to_latent(torch.cat(made), edits))


def sample_together(
    model,
    group: Sequence[Entry],
    takes: int,
    seconds: float,
    seeds: list[int],
    settings: SamplingSettings,
    retake,
    callbacks: Callbacks,
) -> tuple[torch.Tensor, Edit | None]:
    """Latents [len(seeds), T, 64] of songs that differ in their words alone, and the edit that they are."""
    from ..acestep_core import pipeline
    from .comfy_runtime import placed_network
    from .conditioning import references

    song = group[0]
    edit = song.edit and song.edit.repeated(takes)
    texts = [entry.text for entry in group for _ in range(takes)] if len(group) > 1 else [song.text]
    two_texts = song.morph is not None or (edit is not None and edit.drops_source)
    rows = sum(entry.rows for entry in group) * (2 if two_texts else 1)
    frames = pipeline.frames_of(seconds)
    placed = placed_network(model, settings, len(seeds), frames, rows, len(song.timbre), edit)
    latents = pipeline.sample(
        placed,
        texts,
        seconds=seconds,
        seeds=seeds,
        settings=settings,
        edit=edit,
        morph=song.morph and song.morph.repeated(takes),
        timbre=references(song.timbre),
        retake=retake,
        callbacks=callbacks,
    )
    return latents, edit


def together(songs: Sequence[Entry]) -> list[list[Entry]]:
    """Neighbours that differ in their words alone: each group is a batch for the network."""
    groups: list[list[Entry]] = []
    for song in songs:
        if groups and groups[-1][-1].goes_with(song):
            groups[-1].append(song)
        else:
            groups.append([song])
    return groups


def songs_in(group: Sequence[Entry]) -> int:
    """How many songs it stands for: one description may be played to several sources, then alone in its group."""
    edit, morph = group[0].edit, group[0].morph
    return max(len(group), edit.items if edit else 1, morph.items if morph else 1)


def common_length(songs: Sequence[Entry], latent: dict | None) -> float:
    lengths = {seconds_of(song, latent) for song in songs}
    if len(lengths) > 1:
        given = ", ".join(f"{seconds:g}" for seconds in sorted(lengths))
        raise RequestError(f"the songs of one batch must have one length, got {given} seconds")
    return lengths.pop()


def what_is_ignored(
    songs: Sequence[Entry],
    latent: dict | None,
    batch_size: int,
    sigmas: torch.Tensor | None,
    solver: str,
    retake_variance: float,
    retake_seed: int,
) -> list[str]:
    """Sentences for the user, besides those of the core."""
    ignored = []
    if sigmas is not None and 0 < sigmas[0] < FIRST_SIGMA and not any(song.edit or song.morph for song in songs):
        ignored.append(
            f"the sigmas begin at {sigmas[0]:.2f}, but sampling begins with nothing but noise: to keep some of a song "
            "use Cover's keep_sound, or KSampler"
        )
    if latent is not None and len(latent["samples"]) > batch_size and not any(s.edit or s.morph for s in songs):
        ignored.append("of the latent only its length counts: batch_size makes several takes")
    if latent is not None and any(song.edit or song.morph for song in songs):
        ignored.append("the latent is ignored: the song is as long as the one it is made from")
    if solver != "euler" and any(song.morph for song in songs):
        ignored.append(f"the solver {solver} is ignored: a morph takes its own steps")
    if latent is not None and latent.get("noise_mask") is not None:
        ignored.append("the latent's noise mask is ignored: Repaint makes a part of a song anew, Sample Song all of it")
    if retake_seed and not retake_variance:
        ignored.append("the retake seed is ignored: a retake variance of 0 is the same take")
    return ignored


def seconds_of(entry: Entry, latent: dict | None) -> float:
    """How long the song becomes: as its source, else as the latent where there is one, else as it says itself."""
    if entry.morph is not None:
        return entry.morph.frames / FRAME_RATE
    if entry.edit is not None:
        return entry.edit.frames / FRAME_RATE
    if latent is not None:
        return from_latent(latent).shape[1] / FRAME_RATE
    if entry.song is None:
        raise RequestError(
            "this conditioning does not say how long the song is: connect the one from Encode Song, or a latent of "
            "that length"
        )
    return duration_of(entry.song)
