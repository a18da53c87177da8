"""Prepare a sampling request: compute everything that does not depend on the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..callbacks import Callbacks
from ..edit.edit import Edit
from ..edit.morph import MorphSettings
from .conditions import encode_conditions, text_only_conditions
from .context import context_latents, frames_to_run, pad_with_silence, silent_context
from .flow_edit import flow_edit
from .loop import Adjust, AfterStep, Switch, Velocity, denoise
from .noise import draw_noise, retake_noise
from .repaint import inject_source, restore_latents
from .request import SampleRequest
from .schedule import start_from_source, steps_in
from .settings import ResolvedSampling
from .velocity import network_velocity

if TYPE_CHECKING:
    from ..models.model import AceStepModel
    from ..text.encoder import TextCondition


@dataclass(frozen=True)
class SamplePlan:
    """A prepared sampling from noise: the inputs of `denoise`, and the edit whose source the result keeps.

    frames: latent frames of the result. The latents in the plan may be longer.
    start: latents [B, T, 64] that sampling starts from.
    schedule: times [steps + 1] from the start on.
    """

    frames: int
    seeds: Sequence[int]
    sampling: ResolvedSampling
    velocity: Velocity
    start: Tensor
    schedule: Tensor
    edit: Edit | None = None
    switch: Switch | None = None
    adjust: Adjust | None = None
    after_step: AfterStep | None = None

    def run(self, callbacks: Callbacks) -> Tensor:
        """Sample latents [B, frames, 64], float32. Raises Cancelled and NonFiniteError."""
        latents = denoise(
            self.velocity,
            self.start,
            self.schedule,
            solver=self.sampling.solver,
            guidance=self.sampling.guidance,
            seeds=self.seeds,
            callbacks=callbacks,
            after_step=self.after_step,
            adjust=self.adjust,
            switch=self.switch,
        )[:, : self.frames]
        return latents if self.edit is None else restore_latents(self.edit, latents)


@dataclass(frozen=True)
class MorphPlan:
    """A prepared morph: the inputs of `flow_edit`. Fields as in `SamplePlan`."""

    frames: int
    seeds: Sequence[int]
    sampling: ResolvedSampling
    from_velocity: Velocity
    to_velocity: Velocity
    source: Tensor
    settings: MorphSettings

    def run(self, callbacks: Callbacks) -> Tensor:
        """Sample latents [B, frames, 64], float32. Raises Cancelled and NonFiniteError."""
        return flow_edit(
            self.from_velocity,
            self.to_velocity,
            self.source,
            self.sampling.schedule,
            seeds=self.seeds,
            guidance=self.sampling.guidance,
            settings=self.settings,
            callbacks=callbacks,
        )[:, : self.frames]


@torch.no_grad()
def prepare(
    network: AceStepModel,
    request: SampleRequest,
    conditions: Sequence[TextCondition],
    device: torch.device,
    callbacks: Callbacks,
) -> SamplePlan | MorphPlan:
    """Prepare a request and its encoded texts. The network is ready to run on `device`. Raises Cancelled.

    conditions: one for all songs or one per song, checked by the request.
    """
    if request.morph is None:
        return _sample_plan(network, request, conditions, device, callbacks)
    frames, songs = frames_to_run(request.frames), len(request.seeds)
    context = context_latents(network, request.edit, songs, frames, device, callbacks)
    return MorphPlan(
        frames=request.frames,
        seeds=request.retake_seeds,
        sampling=request.sampling,
        from_velocity=_velocity(network, request, request.morph.conditions, context, callbacks),
        to_velocity=_velocity(network, request, conditions, context, callbacks),
        source=pad_with_silence(request.morph.source, _silence(network, frames, device)).expand(songs, -1, -1),
        settings=request.morph.settings,
    )


def _sample_plan(
    network: AceStepModel,
    request: SampleRequest,
    conditions: Sequence[TextCondition],
    device: torch.device,
    callbacks: Callbacks,
) -> SamplePlan:
    edit, songs, frames = request.edit, len(request.seeds), frames_to_run(request.frames)
    noise = retake_noise(draw_noise(request.seeds, frames), request.retake_seeds, request.retake_variance).to(device)
    start, schedule, after_step = noise, request.sampling.schedule, None
    if edit is not None and edit.source is not None:
        source = pad_with_silence(edit.source, _silence(network, frames, device))
        start, schedule = start_from_source(noise, source, schedule, edit.start_noise)
        after_step = inject_source(edit, noise, source, len(schedule) - 1)

    steps = len(schedule) - 1
    strength, blend = (edit.strength, edit.blend) if edit is not None and edit.drops_source else (1.0, 0.0)
    source_steps = steps_in(strength, steps)

    def follow_text() -> Velocity:
        assert edit is not None
        context = silent_context(network, edit, songs, frames, device)
        return _velocity(network, request, text_only_conditions(conditions), context, callbacks)

    adjust, switch = None, None
    if source_steps == 0:
        velocity = follow_text()
    else:
        context = context_latents(network, edit, songs, frames, device, callbacks)
        velocity = _velocity(network, request, conditions, context, callbacks)
        if source_steps < steps:
            switch = source_steps, follow_text
        elif blend:
            text_only = text_only_conditions(conditions)
            adjust = _blend(_velocity(network, request, text_only, context, callbacks, guided=False), blend)
    return SamplePlan(
        frames=request.frames,
        seeds=request.seeds,
        sampling=request.sampling,
        velocity=velocity,
        start=start,
        schedule=schedule,
        edit=edit,
        switch=switch,
        adjust=adjust,
        after_step=after_step,
    )


def _velocity(
    network: AceStepModel,
    request: SampleRequest,
    conditions: Sequence[TextCondition],
    context: Tensor,
    callbacks: Callbacks,
    guided: bool = True,
) -> Velocity:
    encoded = encode_conditions(network, conditions, context.device, request.timbre)
    guided = guided and request.sampling.guidance.enabled
    return network_velocity(network, encoded, context, guided=guided, graphs=request.graphs, callbacks=callbacks)


def _blend(text_velocity: Velocity, share: float) -> Adjust:
    """Mix in the unguided velocity of the text alone, which still reads the source, as in diffusers."""
    return lambda x, t, v: (1 - share) * v + share * text_velocity(x, t, False)


def _silence(network: AceStepModel, frames: int, device: torch.device) -> Tensor:
    return network.silence(frames).to(device, torch.float32)
