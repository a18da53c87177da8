"""Sample Song: the latents of a song."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..acestep_core.config import FRAME_RATE
from ..acestep_core.errors import RequestError
from ..acestep_core.sampling.guidance import METHODS
from ..acestep_core.sampling.settings import SamplingSettings
from ..acestep_core.sampling.solvers import SOLVERS
from ..acestep_core.sampling.wavelet import MODES, OFF
from .comfy_runtime.versions import advanced, search_aliases, zero_shown_as
from .sockets import AUTO, MAX_BATCH, MAX_SEED, SAMPLING, graphs_input, seed_input, share_input

if TYPE_CHECKING:
    import torch

    from ..acestep_core.callbacks import Callbacks
    from ..acestep_core.edit.edit import Edit
    from ..acestep_core.song.song import Song
    from .comfy_runtime.conditioning import SongEntry


class SampleNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Sample",
            display_name="Sample Song",
            category=SAMPLING,
            description="Samples the latents of a song from noise. On auto, the model's own defaults apply.",
            **search_aliases("generate music, sampler, ksampler, variation, retake, seed"),
            inputs=[
                io.Model.Input("model", tooltip="Diffusion model, from Load Model."),
                io.Conditioning.Input("conditioning", tooltip="Conditioning (positive), from Encode Song."),
                seed_input(
                    "Random seed of the noise. Each seed gives another take of the song; the same seed repeats the "
                    "take."
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=MAX_BATCH,
                    tooltip="Batch size, the number of takes sampled at once. Take 2 uses seed + 1, take 3 seed + 2. "
                    "1 to 4 is typical.",
                ),
                zero_shown_as(
                    AUTO,
                    io.Int.Input(
                        "steps",
                        default=0,
                        min=0,
                        max=1000,
                        tooltip="Sampling steps. More steps add detail and take longer. auto (0) uses the model's "
                        "default: turbo 8, base and sft 50.",
                    ),
                ),
                zero_shown_as(
                    AUTO,
                    io.Float.Input(
                        "guidance",
                        default=0.0,
                        min=0.0,
                        max=30.0,
                        step=0.5,
                        round=0.01,
                        tooltip="Guidance scale (CFG). Higher values follow caption and lyrics more strictly. auto (0) "
                        "is 7 for base and sft, where 1 is off and 5 to 9 is typical; turbo models ignore it.",
                    ),
                ),
                advanced(
                    zero_shown_as(
                        AUTO,
                        io.Float.Input(
                            "shift",
                            default=0.0,
                            min=0.0,
                            max=99.0,  # not the 100 of ComfyUI's own shift, see web/js/zero.js
                            step=0.5,
                            round=0.01,
                            tooltip="Timestep shift. Higher values spend more steps on structure, lower ones on "
                            "detail. auto (0) uses the model's default, 3; 1 to 5 is typical.",
                        ),
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "solver",
                        options=list(SOLVERS),
                        default="euler",
                        tooltip="Solver (sampler). euler is the default, heun is more precise at twice the time. sde "
                        "adds fresh noise in every step and varies more; dpmpp_3m is more precise in the same time.",
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
                    share_input(
                        "retake_variance",
                        0.0,
                        "Retake variance, the distance from the take of seed. 0 is the same take, 0.1 to 0.3 a similar "
                        "one, 1 the take of retake_seed.",
                        optional=True,
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
                advanced(
                    io.Combo.Input(
                        "preview",
                        options=[AUTO, "on", "off"],
                        default=AUTO,
                        optional=True,
                        tooltip="Live preview, a picture of the latents while they are sampled. auto follows ComfyUI's "
                        "setting.",
                    )
                ),
                graphs_input(
                    False,
                    "CUDA graphs. On, an NVIDIA GPU samples short songs faster; the song stays the same. Off by "
                    "default.",
                ),
                advanced(
                    share_input(
                        "guidance_start",
                        0.0,
                        "Guidance start, the share of the steps before guidance. Above 0, the early steps vary more. "
                        "0 is typical.",
                        optional=True,
                    )
                ),
                advanced(
                    share_input(
                        "guidance_end",
                        1.0,
                        "Guidance end, the share of the steps after which guidance is off. Lower values are faster and "
                        "less harsh. 0.7 to 1 is typical.",
                        optional=True,
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "dcw",
                        options=list(MODES),
                        default=OFF,
                        optional=True,
                        tooltip="DCW, a wavelet correction of the latents after each step. It may add clarity with few "
                        "steps. off is the default; the original's turbo models use double.",
                    )
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="Conditioning (negative) that guidance leads away from, from Encode Song. Usually not "
                    "connected; needs guidance above 1.",
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
        preview=AUTO,
        graphs=False,
        guidance_start=0.0,
        guidance_end=1.0,
        dcw=OFF,
        negative=None,
    ) -> io.NodeOutput:
        import torch

        from ..acestep_core.song.seeds import batch_seeds
        from .comfy_runtime import notes
        from .comfy_runtime.conditioning import read_entries, read_negative
        from .comfy_runtime.conds import check_sigmas
        from .comfy_runtime.latents import to_latent
        from .comfy_runtime.model import song_model
        from .comfy_runtime.patches import foreign_patches, ksampler_only, transformer_options
        from .comfy_runtime.progress import node_callbacks, show_notes
        from .comfy_runtime.versions import graphs_disabled

        if sigmas is not None:
            check_sigmas(sigmas)
        settings = SamplingSettings(
            steps=steps or None,
            shift=shift or None,
            guidance_scale=guidance or None,
            guidance_method=guidance_method,
            solver=solver,
            timesteps=None if sigmas is None else sigmas.clamp(max=1).tolist(),
            guidance_start=guidance_start,
            guidance_end=guidance_end,
            dcw=dcw,
        )
        inner = song_model(model)
        width = inner.diffusion_model.config.text_hidden_dim
        entries, unwanted = read_entries(conditioning, width), read_negative(negative, width)
        seconds = common_duration(entries, latent)
        show_notes(
            *notes.patch_notes(foreign_patches(transformer_options(model))),
            *notes.wrapper_notes(ksampler_only(model)),
            *notes.conditioning_notes(conditioning),
            *notes.negative_notes(unwanted),
            *notes.sample_notes(entries, latent, batch_size, sigmas, solver, retake_variance, retake_seed),
            *notes.graphs_notes(graphs, graphs_disabled()),
        )
        graphs = graphs and not graphs_disabled()
        groups = batch_groups(entries)
        counts = [batch_size * song_count(group) for group in groups]
        seeds, retake_seeds = (batch_seeds(first, sum(counts)) for first in (seed, retake_seed))
        results, edits, start = [], [], 0
        with node_callbacks(inner.latent_format, preview) as callbacks:
            for group, count in zip(groups, counts, strict=True):
                own = slice(start, start + count)
                start += count
                retake = (retake_seeds[own], retake_variance) if retake_variance else None
                latents, edit = sample_group(
                    model, group, batch_size, seconds, seeds[own], settings, retake, callbacks, graphs, unwanted
                )
                results.append(latents)
                edits.append((edit, count))
        return io.NodeOutput(to_latent(torch.cat(results), edits))


def sample_group(
    model,
    group: Sequence[SongEntry],
    takes: int,
    seconds: float,
    seeds: list[int],
    settings: SamplingSettings,
    retake: tuple[list[int], float] | None,
    callbacks: Callbacks,
    graphs: bool,
    negative: SongEntry | None = None,
) -> tuple[torch.Tensor, Edit | None]:
    """Sample songs that differ in their text alone. Return latents [len(seeds), T, 64] and their edit."""
    from ..acestep_core import pipeline
    from .comfy_runtime.conditioning import core_references
    from .comfy_runtime.model import model_for_sampling
    from .comfy_runtime.notes import auto_values
    from .comfy_runtime.progress import show_values
    from .comfy_runtime.versions import with_fixed_weights

    first = group[0]
    edit = first.edit and first.edit.repeated(takes)
    texts = [entry.text for entry in group for _ in range(takes)] if len(group) > 1 else [first.text]
    two_texts = first.morph is not None or (edit is not None and edit.drops_source)
    rows = sum(entry.rows for entry in group) * (2 if two_texts else 1) + (negative.rows if negative else 0)
    frames = pipeline.frames_of(seconds)
    model = with_fixed_weights(model) if graphs else model
    placed = model_for_sampling(model, settings, len(seeds), frames, rows, len(first.timbre), edit)
    placed.graphs = graphs
    show_values(auto_values(settings, placed.defaults))
    latents = pipeline.sample(
        placed,
        texts,
        seconds=seconds,
        seeds=seeds,
        settings=settings,
        edit=edit,
        morph=first.morph and first.morph.repeated(takes),
        timbre=core_references(first.timbre),
        retake=retake,
        negative=[negative.text] if negative else (),
        callbacks=callbacks,
    )
    return latents, edit


def batch_groups(songs: Sequence[SongEntry]) -> list[list[SongEntry]]:
    """Group neighbours that one sampling can serve."""
    groups: list[list[SongEntry]] = []
    for song in songs:
        if groups and groups[-1][-1].batches_with(song):
            groups[-1].append(song)
        else:
            groups.append([song])
    return groups


def song_count(group: Sequence[SongEntry]) -> int:
    """Return the number of songs in a group. An edit or morph of several sources is one entry for all of them."""
    edit, morph = group[0].edit, group[0].morph
    return max(len(group), edit.items if edit else 1, morph.items if morph else 1)


def common_duration(songs: Sequence[SongEntry], latent: dict | None) -> float:
    durations = {entry_duration(song, latent) for song in songs}
    if len(durations) > 1:
        given = ", ".join(f"{seconds:g}" for seconds in sorted(durations))
        raise RequestError(f"conditioning: the songs of a batch need one duration, got {given} seconds.")
    return durations.pop()


def entry_duration(entry: SongEntry, latent: dict | None) -> float:
    """Return the seconds of a song: those of its source, else of `latent`, else of its metadata."""
    from .comfy_runtime.latents import from_latent

    source = entry.morph or entry.edit
    if source is not None:
        return source.frames / FRAME_RATE
    if latent is not None:
        return from_latent(latent).shape[1] / FRAME_RATE
    if entry.song is None:
        raise RequestError("conditioning: it has no duration. Connect Encode Song, or a latent of the song's length.")
    return song_duration(entry.song)


def song_duration(song: Song) -> float:
    """Return the duration of a song in seconds, as Encode Song estimates it if the song has none."""
    from ..acestep_core.lyrics.check import estimate_duration

    return song.metadata.duration or estimate_duration(song.lyrics)
