"""The network as a velocity function for the sampling loop."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ..callbacks import Callbacks
from ..models.condition import stack_conditions
from ..models.model import AceStepModel
from ..runtime.cuda_graphs import capture_obstacle
from .captured_velocity import CapturedVelocity, NetworkStep
from .loop import Velocity


@dataclass(frozen=True)
class SecondNetwork:
    """The same network, ready to run on another device."""

    network: AceStepModel
    device: torch.device


@torch.no_grad()
def network_velocity(
    network: AceStepModel,
    conditions: Sequence[Tensor],
    context: Tensor,
    *,
    guided: bool,
    graphs: bool = False,
    callbacks: Callbacks | None = None,
) -> Velocity:
    """Return a velocity function of the network. Everything that does not depend on the step is computed here.

    conditions: one encoded condition [1, S, e] per item, of any length, or one for all items.
    context: [B, T, 128].
    guided: True prepares the null condition as well, which `with_null` needs.
    graphs: True replays steps as CUDA graphs, see `CapturedVelocity`. A warning says if the device cannot do it.

    Times reach the network in float32, whatever its dtype.
    """
    if len(conditions) not in (1, len(context)):
        raise ValueError(
            f"conditions: {len(conditions)} for a batch of {len(context)}; give one per item or one for all"
        )
    if all(condition is conditions[0] for condition in conditions):
        conditions = conditions[:1]  # one set of keys and values serves all items
    condition, mask = stack_conditions(conditions)
    null = network.null_condition_emb if guided else None
    prepared = network.decoder.prepare(context, condition, mask, null)

    def step(x: Tensor, times: Tensor) -> Tensor:
        return network(x, times, prepared)

    run: NetworkStep = step
    warn = (callbacks or Callbacks()).warn
    if graphs and (obstacle := capture_obstacle(context.device, network.decoder)):
        warn(f"CUDA graphs are not used: {obstacle}")
    elif graphs:
        run = CapturedVelocity(step, context.device, warn)

    @torch.no_grad()
    def velocity(x: Tensor, t: float, with_null: bool) -> Tensor:
        times = torch.full((len(x),), t, dtype=torch.float32, device=x.device)
        return run(torch.cat([x, x]) if with_null else x, times)

    return velocity


def with_negative(wanted: Velocity, unwanted: Velocity) -> Velocity:
    """Return `wanted` with the velocity of a negative text as its unconditional one.

    Both take a network call of their own, as KSampler's do: their texts differ in length.
    """

    def velocity(x: Tensor, t: float, with_null: bool) -> Tensor:
        velocity = wanted(x, t, False)
        return torch.cat([velocity, unwanted(x, t, False)]) if with_null else velocity

    return velocity


def at_once(wanted: Velocity, unwanted: Velocity, device: torch.device) -> Velocity:
    """Return `wanted` with `unwanted` as its unconditional one, which a thread computes on `device` meanwhile."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="second-device")

    def run(x: Tensor, t: float) -> Tensor:
        # Both modes are those of a thread. The current device matters to compiled kernels.
        with torch.inference_mode(), torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            return unwanted(x, t, False)

    def velocity(x: Tensor, t: float, with_null: bool) -> Tensor:
        if not with_null:
            return wanted(x, t, False)
        other = thread.submit(run, x.to(device), t)
        try:
            velocity = wanted(x, t, False)
        finally:
            wait([other])  # even after an error, because the weights may then leave the device
        return torch.cat([velocity, other.result().to(velocity.device)])

    return velocity
