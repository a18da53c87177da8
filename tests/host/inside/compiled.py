"""TorchCompileModel: the network is compiled once, and every step runs the compiled one."""

from __future__ import annotations

import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from torch._dynamo.utils import counters

from .patched import with_attention
from .world import World, difference, network_of


class Backend:
    """A backend that runs the graph as it is, and counts graphs and calls."""

    def __init__(self) -> None:
        self.graphs = self.calls = 0

    def __call__(self, graph, example_inputs):
        self.graphs += 1

        def call(*inputs):
            self.calls += 1
            return graph(*inputs)

        return call


def compiled(model, backend, **settings):
    """Compile the MODEL as the node does."""
    clone = model.clone()
    set_torch_compile_wrapper(model=clone, backend=backend, **settings)
    return clone


def check_every_step_runs_the_compiled_network(world: World) -> None:
    plain = world.sample()
    for work in (world.ksample, world.sample):
        torch._dynamo.reset()
        counters.clear()
        backend = Backend()
        model = compiled(world.model, backend)
        assert difference(work(model), plain) <= 1e-4
        assert not counters["graph_break"], dict(counters["graph_break"])
        assert backend.graphs == 1, work
        assert backend.calls == 4, work
        work(model, steps=3)  # another song has other keys and values, but the same graph
        assert (backend.graphs, backend.calls) == (1, 7), work
        assert type(network_of(world.model)).__name__ == "AceStepModel"
    with_guidance = Backend()
    world.ksample(compiled(world.model, with_guidance), cfg=3.0, steps=2)
    assert with_guidance.calls == 4
    torch._dynamo.reset()


def check_an_attention_override_compiles_once(world: World) -> None:
    def same(function, *args, **kwargs):
        return function(*args, **kwargs)

    for work in (world.ksample, world.sample):
        torch._dynamo.reset()
        counters.clear()
        backend, patched = Backend(), with_attention(world.model, same)
        ignored = {"guard_filter_fn": lambda guards: ["transformer_options" not in guard.name for guard in guards]}
        model = compiled(patched, backend, options=ignored)
        assert difference(work(model), work(patched)) <= 1e-4
        assert backend.graphs and backend.calls == 4 * backend.graphs, (work, backend.graphs, backend.calls)
        assert counters["frames"]["total"] == backend.graphs, (work, dict(counters["frames"]))
    torch._dynamo.reset()
