"""From noise to the latents of a song."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.config import FRAME_RATE
from ..acestep_core.errors import RequestError
from ..acestep_core.sampling.guidance import METHODS
from ..acestep_core.sampling.settings import SamplingSettings
from ..acestep_core.sampling.solvers import SOLVERS
from ..acestep_core.song import Song
from .latents import from_latent, to_latent
from .sockets import CATEGORY
from .versions import advanced

MAX_SEED = 2**64 - 1


class SampleNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Sample",
            display_name="Sample Song",
            category=CATEGORY,
            description="Makes the song, step by step, out of noise. Zero and auto stand for what suits the model.",
            inputs=[
                io.Model.Input("model", tooltip="The model that plays and sings, from Load Model."),
                io.Conditioning.Input("conditioning", tooltip="What it shall play, from Encode Song."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Another number gives another take of the same song; the same number gives the same take.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="How many takes to make at once; take 2 is what seed + 1 gives, and so on.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="More steps bring more detail and take longer; 0 is the model's own number "
                    "(turbo 8, base and sft 50).",
                ),
                io.Float.Input(
                    "guidance",
                    default=0.0,
                    min=0.0,
                    max=30.0,
                    step=0.5,
                    round=0.01,
                    tooltip="How strictly a base or sft model follows caption and lyrics (5 to 9 sounds best); 0 is "
                    "the model's own value, 1 is off, and turbo models have it built in.",
                ),
                advanced(
                    io.Float.Input(
                        "shift",
                        default=0.0,
                        min=0.0,
                        max=100.0,
                        step=0.5,
                        round=0.01,
                        tooltip="Higher values spend more steps on the song's structure, lower ones on its detail; "
                        "0 is the model's own value.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "solver",
                        options=list(SOLVERS),
                        default="euler",
                        tooltip="euler is the sound the models were made for, heun is finer at twice the time, sde "
                        "adds fresh noise on the way and so varies more.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "guidance_method",
                        options=list(METHODS),
                        default="apg",
                        tooltip="apg keeps the sound natural at high guidance, cfg is ComfyUI's own way, adg follows "
                        "the words more closely.",
                    )
                ),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="Noise levels of your own, from 1 down to 0, instead of steps and shift.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="The song becomes as long as this one, which need not hold anything; without it, as long "
                    "as Song says.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="The song before it is turned into sound, for Decode Song."
                )
            ],
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
    ) -> io.NodeOutput:
        from ..acestep_core import pipeline
        from ..acestep_core.sampling.noise import batch_seeds
        from .comfy_runtime import placed_network, song_model, watched
        from .conditioning import only_entry, text_condition

        settings = SamplingSettings(
            steps=steps or None,
            shift=shift or None,
            guidance_scale=guidance or None,
            guidance=guidance_method,
            solver=solver,
            timesteps=None if sigmas is None else sigmas.tolist(),
        )
        caption, lyrics, song = only_entry(conditioning)
        seconds = song_seconds(song, latent)
        text = text_condition(caption, lyrics, song_model(model).diffusion_model.config.text_hidden_dim)
        placed = placed_network(model, settings, batch_size, pipeline.frames_of(seconds), text)
        with watched(song_model(model).latent_format) as hooks:
            latents = pipeline.sample(
                placed,
                text,
                seconds=seconds,
                seeds=batch_seeds(seed, batch_size),
                settings=settings,
                hooks=hooks,
            )
        return io.NodeOutput(to_latent(latents))


def song_seconds(song: Song | None, latent: dict | None) -> float:
    """How long the song shall be: as long as the latent, where there is one."""
    if latent is not None:
        return from_latent(latent).shape[1] / FRAME_RATE
    if song is None:
        raise RequestError(
            "this conditioning does not say how long the song is: connect the one from Encode Song, or a latent of "
            "that length"
        )
    return song.metadata.duration
