"""Prepare a sampling request: compute everything that does not depend on the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..callbacks import Callbacks
from ..edit.edit import Edit
from .conditions import encode_conditions, text_only_conditions
from .context import context_latents, frames_to_run, pad_with_silence, silent_context
from .flow_edit import flow_edit
from .loop import Adjust, Switch, Velocity, denoise
from .noise import draw_noise, retake_noise
from .repaint import inject_source, restore_latents
from .request import SampleRequest
from .schedule import start_from_source, steps_in
from .velocity import SecondNetwork, at_once, network_velocity, with_negative

if TYPE_CHECKING:
    from ..models.model import AceStepModel
    from ..text.encoder import TextCondition


@dataclass(frozen=True)
class SamplePlan:
    """A prepared sampling.

    loop: `denoise` or `flow_edit` with all its inputs but the callbacks.
    frames: latent frames of the result, at most those of the loop.
    edit: the edit whose kept parts are restored after the loop.
    """

    loop: Callable[..., Tensor]
    frames: int
    edit: Edit | None = None

    def run(self, callbacks: Callbacks) -> Tensor:
        """Sample latents [B, frames, 64], float32. Raises Cancelled and NonFiniteError."""
        latents = self.loop(callbacks=callbacks)[:, : self.frames]
        return latents if self.edit is None else restore_latents(self.edit, latents)


@torch.no_grad()
def prepare(
    network: AceStepModel,
    request: SampleRequest,
    conditions: Sequence[TextCondition],
    device: torch.device,
    callbacks: Callbacks,
    negative: Sequence[TextCondition] = (),
    second: SecondNetwork | None = None,
) -> SamplePlan:
    """Prepare a request with its encoded texts. The network is ready to run on `device`.

    conditions: one for all songs or one per song, see `SampleRequest.check_conditions`.
    negative: what guidance leads away from, one for all songs or one per song, instead of the null condition.
    second: computes the unconditional half of guidance, at the same time and without CUDA graphs.

    Raises RequestError if the model does not know the audio codes of the edit, and Cancelled.
    """
    edit, morph, sampling, songs = request.edit, request.morph, request.sampling, len(request.seeds)
    frames = frames_to_run(request.frames)
    silence = network.silence(frames).to(device, torch.float32)

    def velocity(conditions: Sequence[TextCondition], context: Tensor, guided: bool = True) -> Velocity:
        encoded = encode_conditions(network, conditions, device, request.timbre)
        guided = guided and sampling.guidance.enabled
        run = partial(network_velocity, graphs=request.graphs and second is None, callbacks=callbacks)
        if not guided or not (negative or second):
            return run(network, encoded, context, guided=guided)
        other = second or SecondNetwork(network, device)
        unwanted = encode_conditions(other.network, negative, other.device) or [other.network.null_condition_emb]
        halves = (
            run(network, encoded, context, guided=False),
            run(other.network, unwanted, context.to(other.device), guided=False),
        )
        return with_negative(*halves) if second is None else at_once(*halves, second.device)

    def text_velocity() -> Velocity:
        return velocity(text_only_conditions(conditions), silent_context(network, edit, songs, frames, device))

    if morph is not None:
        context = context_latents(network, edit, songs, frames, device, callbacks)
        source = pad_with_silence(morph.source, silence).expand(songs, -1, -1)
        loop = partial(
            flow_edit, velocity(morph.conditions, context), velocity(conditions, context), source, sampling.schedule,
            seeds=request.retake_seeds, guidance=sampling.guidance, settings=morph.settings,
        )  # fmt: skip
        return SamplePlan(loop, request.frames)

    noise = retake_noise(draw_noise(request.seeds, frames), request.retake_seeds, request.retake_variance).to(device)
    start, schedule, after_step = noise, sampling.schedule, None
    if edit is not None and edit.source is not None:
        source = pad_with_silence(edit.source, silence)
        start, schedule = start_from_source(noise, source, schedule, edit.start_noise)
        after_step = inject_source(edit, noise, source, len(schedule) - 1)

    steps = len(schedule) - 1
    strength, blend = (edit.strength, edit.blend) if edit is not None and edit.drops_source else (1.0, 0.0)
    source_steps = steps_in(strength, steps)
    adjust: Adjust | None = None
    switch: Switch | None = None
    if source_steps == 0:
        followed = text_velocity()
    else:
        context = context_latents(network, edit, songs, frames, device, callbacks)
        followed = velocity(conditions, context)
        if source_steps < steps:
            switch = source_steps, text_velocity
        if blend:
            adjust = _blend(velocity(text_only_conditions(conditions), context, guided=False), blend)
    loop = partial(
        denoise, followed, start, schedule, solver=sampling.solver, guidance=sampling.guidance, seeds=request.seeds,
        correction=sampling.correction, after_step=after_step, adjust=adjust, switch=switch,
    )  # fmt: skip
    return SamplePlan(loop, request.frames, edit)


def _blend(text_velocity: Velocity, share: float) -> Adjust:
    """Mix in the unguided velocity of the text-only condition. Its context contains the source, as in diffusers."""
    return lambda x, t, v: (1 - share) * v + share * text_velocity(x, t, False)
