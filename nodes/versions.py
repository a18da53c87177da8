"""What differs between the versions of ComfyUI (0.3.75 and later): every probe and every way around is here.

Light to import: the nodes' schemas need it when ComfyUI starts.
"""

from __future__ import annotations

from typing import TypeVar

from comfy_api.latest import io

AnyInput = TypeVar("AnyInput", bound=io.Input)


def advanced(widget: AnyInput) -> AnyInput:
    """Folds the widget away until the user asks for the advanced ones, where the frontend can.

    The keyword for it came after 0.3.75; an entry of that name reaches the frontend just as well.
    """
    widget.extra_dict = {**(widget.extra_dict or {}), "advanced": True}
    return widget


def linear_with_weights(base: type) -> type:
    """ComfyUI's Linear, holding weights from the start.

    Later versions make it empty and expect their own loader to bring what belongs into it.
    """
    import torch

    class Linear(base):
        def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
            torch.nn.Linear.__init__(self, in_features, out_features, bias, device, dtype)

    return Linear


def running_node() -> str | None:
    """The id of the node that runs in this thread. None where ComfyUI is used as a library, or does not tell."""
    try:
        from comfy_execution.utils import get_executing_context
    except ImportError:
        return None
    context = get_executing_context()
    return None if context is None else context.node_id
