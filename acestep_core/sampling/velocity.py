"""The network as a velocity function for the loop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..callbacks import Callbacks
from ..models.condition import stack_conditions
from ..models.model import AceStepModel
from ..runtime.cuda_graphs import can_capture
from .loop import Velocity
from .step_graph import CapturedVelocity


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
    """A velocity function over `network`, with everything that does not depend on the step computed here, once.

    `conditions` holds one encoded condition [1, S_i, e] per item, of any length, or a single one for all items;
    `context` is [B, T, 128]. `guided` also prepares the null condition, without which `with_null` cannot be asked for.
    Times reach the network in float32, whatever its dtype. `graphs`: see `CapturedVelocity`; only where that can be done.
    """
    if len(conditions) not in (1, len(context)):
        raise ValueError(f"{len(conditions)} conditions for a batch of {len(context)}: one per item, or one for all")
    if all(condition is conditions[0] for condition in conditions):
        conditions = conditions[:1]  # its keys and values then serve all items
    condition, mask = stack_conditions(conditions)
    null = network.null_condition_emb if guided else None
    prepared = network.decoder.prepare(context, condition, mask, null)

    def step(x: Tensor, times: Tensor) -> Tensor:
        return network(x, times, prepared)

    if graphs and can_capture(context.device, network.decoder):
        step = CapturedVelocity(step, context.device, (callbacks or Callbacks()).warn)

    @torch.no_grad()
    def velocity(x: Tensor, t: float, with_null: bool) -> Tensor:
        times = torch.full((len(x),), t, dtype=torch.float32, device=x.device)
        return step(torch.cat([x, x]) if with_null else x, times)

    return velocity
