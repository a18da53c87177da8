"""The training loop: from features to trained factors."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..callbacks import Callbacks
from ..errors import Cancelled, NonFiniteError
from ..models.model import AceStepModel
from .batches import BatchOrder, Crop
from .features import Features
from .flow_loss import draw_times, draw_training_noise, flow_loss, recomputed_layers
from .held_out import BestFactors, HeldOutSongs
from .optimizers import AveragedFactors, make_optimizer
from .train_settings import TrainSettings
from .train_state import (
    LOSSES,
    STATE,
    LossRow,
    TrainState,
    read_losses,
    restore_state,
    save_state,
    stored_run,
    write_losses,
)
from .trainable import InputDropout, Trainable, make_trainable

log = logging.getLogger("acestep")

_WRITE_LOSSES = 10  # steps between two versions of the loss table
_AVERAGED = 50  # steps; single losses vary with their times and crops


@dataclass(frozen=True)
class TrainingRun:
    """A training run of one network.

    network: its transformer and `null_condition_emb` are on `device`.
    folder: of the state and the loss table.
    held_out: features of the songs on which the loss is measured.
    identity: what the run depends on, see `stored_run`.
    save_every: steps between two states.
    recompute: True keeps no activations inside the layers, which needs less memory and more time.
    """

    network: AceStepModel
    features: Sequence[Features]
    settings: TrainSettings
    folder: Path
    device: torch.device
    identity: Mapping[str, Any]
    save_every: int = 50
    recompute: bool = False
    held_out: Sequence[Features] = ()

    def train(
        self, callbacks: Callbacks, every: int = 0, visit: Callable[[int, Trainable], None] | None = None
    ) -> tuple[TrainState, list[LossRow]]:
        """Train the remaining steps. Return the last state and the loss of each step.

        visit: gets the step and the factors before the first step, every `every` steps and at the end. After an end
            of the process it may get a step twice.

        Raises NonFiniteError and Cancelled. A cancelled or interrupted run continues at its step with the next call.
        """
        settings, state = self.settings, self._start()
        losses = [row for row in read_losses(self.folder / LOSSES) if row.step <= state.step]
        order = BatchOrder(
            [len(each.latents) for each in self.features], settings.crop_frames, settings.batch, settings.seed
        )
        before = losses[-1].seconds if losses else 0.0
        started = time.perf_counter()
        updating = False
        try:
            self._measure(state, losses)  # again, if the process ended before it
            self._visit(state, every, visit)
            while not self._ended(state):
                loss, gradient = self._gradients(state.trainable, order, state.step, callbacks)
                for group in state.optimizer.param_groups:
                    group["lr"] = settings.rate_at(state.step)
                updating = True
                state.optimizer.step()
                state.step += 1
                if state.average is not None:
                    state.average.update(state.trainable, state.step)
                updating = False
                seconds = before + time.perf_counter() - started
                losses.append(LossRow(state.step, loss, settings.rate_at(state.step - 1), gradient, seconds))
                callbacks.report("train", state.step, settings.steps)
                self._measure(state, losses)
                self._keep(state, losses)
                self._visit(state, every, visit)
        except (Cancelled, KeyboardInterrupt):
            if updating:  # the factors are between two steps; an older state is whole
                raise
            write_losses(self.folder / LOSSES, losses)
            save_state(self.folder / STATE, state, self.identity)
            raise
        if state.step < settings.steps and state.best is not None:
            callbacks.warn(
                f"training ended after step {state.step} of {settings.steps}: the loss of the held-out songs has not "
                f"fallen since step {state.best.step}"
            )
        return state, losses

    def _start(self) -> TrainState:
        """Return the stored state, or a new one."""
        trainable = make_trainable(self.network, self.settings)
        average = AveragedFactors(trainable, self.settings.ema) if self.settings.ema else None
        state = TrainState(trainable, make_optimizer(trainable.parameters(), self.settings), average)
        if stored_run(self.folder / STATE) is not None:
            restore_state(self.folder / STATE, state)
        return state

    def _keep(self, state: TrainState, losses: Sequence[LossRow]) -> None:
        """Write the loss table and the state if it is time."""
        save = state.step % self.save_every == 0 or self._ended(state)
        if save or state.step % _WRITE_LOSSES == 0:  # before the state, which would else be ahead of its losses
            write_losses(self.folder / LOSSES, losses)
            recent = [row.loss for row in losses[-_AVERAGED:]]
            log.info("step %d: mean loss %.4f of the last %d", state.step, sum(recent) / len(recent), len(recent))
        if save:
            save_state(self.folder / STATE, state, self.identity)

    def _measure(self, state: TrainState, losses: list[LossRow]) -> None:
        """Measure the held-out loss if it is time, and keep the best factors."""
        step, settings = state.step, self.settings
        due = step % settings.held_out_every == 0 or step == settings.steps
        if not (self.held_out and step and due) or state.measured == step:
            return
        with state.result(), state.trainable.attached():
            loss = HeldOutSongs(self.network, self.held_out, settings, self.device).loss()
            if not abs(loss) < float("inf"):
                raise NonFiniteError(f"train: the loss of the held-out songs after step {step} is NaN or infinite")
            if state.best is None or loss < state.best.loss:
                state.best = BestFactors(step, loss, state.trainable.copied())
        state.measured = step
        if losses and losses[-1].step == step:
            losses[-1] = replace(losses[-1], held_out=loss)
        log.info("step %d: held-out loss %.4f, lowest %.4f at step %d", step, loss, state.best.loss, state.best.step)

    def _ended(self, state: TrainState) -> bool:
        """Return True after the last step, or if the held-out loss has not fallen for long."""
        settings, best = self.settings, state.best
        if settings.patience and best is not None and state.measured == state.step:
            if state.step - best.step >= settings.patience * settings.held_out_every:
                return True
        return state.step >= settings.steps

    def _visit(self, state: TrainState, every: int, visit: Callable[[int, Trainable], None] | None) -> None:
        if visit is None:
            return
        if state.step == 0 or self._ended(state) or (every and state.step % every == 0):
            with state.result():
                visit(state.step, state.trainable)

    def _gradients(
        self, trainable: Trainable, order: BatchOrder, step: int, callbacks: Callbacks
    ) -> tuple[float, float]:
        """Compute the clipped gradients of a step. Return the mean loss and the norm before it is clipped."""
        settings, total = self.settings, 0.0
        for parameter in trainable.parameters():
            parameter.grad = None
        dropout = InputDropout(settings.dropout, settings.seed) if settings.dropout else None
        with ExitStack() as stack:
            stack.enter_context(trainable.attached(dropout))
            if self.recompute:
                stack.enter_context(recomputed_layers(self.network))
            for number in range(step * settings.accumulation, (step + 1) * settings.accumulation):
                callbacks.check("train")
                if dropout is not None:
                    dropout.batch = number
                loss = self.batch_loss(order[number]) / settings.accumulation
                loss.backward()
                total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(trainable.parameters(), settings.clip).item()
        if not (abs(total) < float("inf") and norm < float("inf")):  # NaN fails the comparison too
            raise NonFiniteError(
                f"train: loss or gradient of step {step + 1} is NaN or infinite; lower the learning rate, or train in "
                "bfloat16 or float32"
            )
        return total, norm

    def batch_loss(self, crops: Sequence[Crop]) -> Tensor:
        """Return the loss of a batch of crops of one length."""
        network, config = self.network, self.network.config
        frames = crops[0].frames
        data = torch.stack(
            [self.features[crop.song].latents[crop.start : crop.start + frames].float() for crop in crops]
        )
        rngs = [crop.rng for crop in crops]
        times = draw_times(rngs, self.settings.turbo_times(config))
        noise = draw_training_noise(rngs, frames, data.shape[2])
        dropout = self.settings.dropout_of(config)
        rows = [
            network.null_condition_emb if crop.rng.random() < dropout else self.features[crop.song].condition
            for crop in crops
        ]
        device, dtype = self.device, network.decoder.dtype
        return flow_loss(
            network, data.to(device), [each.to(device, dtype) for each in rows], noise.to(device), times.to(device)
        )
