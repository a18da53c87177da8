"""One sampling, from its request to latents: which velocity is followed, from where, and what an edit adds to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..callbacks import Callbacks
from ..edit.edit import Edit
from ..edit.morph import Morph
from ..edit.tasks import SourceContext
from ..errors import RequestError
from . import repaint
from .conditions import check_references, encode_conditions, plain_conditions
from .context import context_latents, frames_to_run, pad_with_silence, silent_context
from .flow_edit import morph
from .loop import Adjust, Later, Velocity, denoise
from .noise import draw_noise, retake_noise
from .schedule import steps_in
from .settings import ResolvedSampling
from .velocity import network_velocity

if TYPE_CHECKING:
    from ..models.model import AceStepModel
    from ..text.encoder import TextCondition


@dataclass(frozen=True)
class Request:
    """What `pipeline.sample` was asked for, every default filled in.

    `retake` has one seed for each item; `graphs` as in `Model`.
    """

    conditions: Sequence[TextCondition]
    frames: int
    seeds: Sequence[int]
    sampling: ResolvedSampling
    edit: Edit | None = None
    morph: Morph | None = None
    timbre: Sequence[Tensor] | None = None
    retake: tuple[Sequence[int], float] | None = None
    graphs: bool = False

    def other_seeds(self) -> Sequence[int]:
        """Those of a retake, else the items' own."""
        seeds, variance = self.retake or (self.seeds, 0)
        return seeds if variance else self.seeds

    def check(self, network: AceStepModel) -> list[str]:
        """What this network can see to be wrong before any work: RequestError, or sentences for the user."""
        songs, warnings = len(self.seeds), []
        for name, each in (("edit", self.edit), ("morph", self.morph)):
            if each is not None and each.items not in (1, songs):
                raise RequestError(
                    f"the {name} is for {each.items} songs, the batch has {songs}: one for all or for each"
                )
        if self.edit is not None:
            untrained = self.edit.check_model(network.config)
            warnings = self.edit.ignored_options() + ([untrained] if untrained else [])
            if self.edit.drops_source:
                plain_conditions(self.conditions)
        if self.morph is not None and self.edit is not None:
            if self.edit.task.source is not SourceContext.CODES:
                raise RequestError(
                    f"a morph goes with a song from text or with a cover, not with {self.edit.task.name}"
                )
            if self.edit.drops_source or self.edit.start_noise < 1:
                warnings.append("strength, blend and noise strength are ignored: a morph begins with the source itself")
        if self.morph is not None and self.retake is not None and 0 < self.retake[1] < 1:
            warnings.append(
                "the retake variance is ignored: a morph draws all of its noise from the retake seed, whatever it is"
            )
        check_references(() if self.timbre is None else self.timbre, network.config.timbre_hidden_dim)
        return warnings


@torch.no_grad()
def run(network: AceStepModel, request: Request, device: torch.device, callbacks: Callbacks) -> Tensor:
    """Latents [B, frames, 64], float32 on `device`, where the network is ready to run."""
    frames = frames_to_run(request.frames)
    noise = draw_noise(request.seeds, frames)
    if request.retake is not None:
        noise = retake_noise(noise, *request.retake)
    course = _Course(network, request, device, frames, callbacks)
    if request.morph is not None:
        return course.morphed()[:, : request.frames]
    latents = course.denoised(noise.to(device))[:, : request.frames]
    return latents if request.edit is None else repaint.kept(request.edit, latents)


class _Course:
    """The ways that a request can take through the network; each is prepared when it is first gone."""

    def __init__(
        self, network: AceStepModel, request: Request, device: torch.device, frames: int, callbacks: Callbacks
    ):
        self.network, self.request, self.device, self.frames, self.callbacks = (
            network,
            request,
            device,
            frames,
            callbacks,
        )
        self.songs, self.edit, self.sampling = len(request.seeds), request.edit, request.sampling
        self.place = (self.songs, frames, device)

    def velocity(self, texts: Sequence[TextCondition], seen: Tensor, guided: bool = True) -> Velocity:
        encoded = encode_conditions(self.network, texts, self.device, self.request.timbre)
        guided = guided and self.sampling.guidance.enabled
        graphs, callbacks = self.request.graphs, self.callbacks
        return network_velocity(self.network, encoded, seen, guided=guided, graphs=graphs, callbacks=callbacks)

    def seen(self) -> Tensor:
        """What the transformer sees of the source."""
        return context_latents(self.network, self.edit, *self.place, self.callbacks)

    def asked(self) -> Velocity:
        """Text and source as they were given."""
        return self.velocity(self.request.conditions, self.seen())

    def text_only(self) -> Velocity:
        """The text alone."""
        return self.velocity(
            plain_conditions(self.request.conditions), silent_context(self.network, self.edit, *self.place)
        )

    def denoised(self, noise: Tensor) -> Tensor:
        edit, schedule, start, after_step = self.edit, self.sampling.schedule, noise, None
        if edit is not None and edit.source is not None:
            source = pad_with_silence(edit.source, self.silence())
            start, schedule = begin(noise, source, schedule, edit.start_noise)
            after_step = repaint.keeping(edit, noise, source, len(schedule) - 1)
        first, later = self.turns(len(schedule) - 1)
        return denoise(
            first(),
            start,
            schedule,
            solver=self.sampling.solver,
            guidance=self.sampling.guidance,
            seeds=self.request.seeds,
            callbacks=self.callbacks,
            after_step=after_step,
            adjust=self.blended(),
            later=later,
        )

    def turns(self, steps: int) -> tuple[Callable[[], Velocity], Later | None]:
        """What is followed first, and from which step on what else."""
        if self.edit is None or not self.edit.drops_source or self.edit.strength == 1:
            return self.asked, None
        turn = steps_in(self.edit.strength, steps)
        return (self.asked, (turn, self.text_only)) if turn else (self.text_only, None)

    def blended(self) -> Adjust | None:
        """The blend of an edit: a share of the unguided text alone, which still sees the source, as in diffusers."""
        if self.edit is None or not self.edit.drops_source or not self.edit.blend:
            return None
        share = self.edit.blend
        texts = plain_conditions(self.request.conditions)
        plain = self.velocity(texts, self.seen(), guided=False)
        return lambda x, t, v: (1 - share) * v + share * plain(x, t, False)

    def morphed(self) -> Tensor:
        asked = self.request.morph
        seen = self.seen()
        return morph(
            self.velocity(asked.conditions, seen),
            self.velocity(self.request.conditions, seen),
            pad_with_silence(asked.source, self.silence()).expand(self.songs, -1, -1),
            self.sampling.schedule,
            seeds=self.request.other_seeds(),
            guidance=self.sampling.guidance,
            settings=asked.settings,
            callbacks=self.callbacks,
        )

    def silence(self) -> Tensor:
        return self.network.silence(self.frames).to(self.device, torch.float32)


def begin(noise: Tensor, source: Tensor, schedule: Tensor, time: float) -> tuple[Tensor, Tensor]:
    """Where sampling begins, and the schedule from there on: at the entry nearest to `time`, between source and noise.

    At time 1 that is the noise, and the schedule as it is.
    """
    if time == 1:
        return noise, schedule
    first = int((schedule[:-1] - time).abs().argmin())
    t = float(schedule[first])
    return t * noise + (1 - t) * source, schedule[first:]
