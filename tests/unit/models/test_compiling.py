"""torch.compile on parts of the networks, with a backend that only counts."""

import torch

from acestep_core.models.compiling import compile_parts
from acestep_core.sampling.velocity import network_velocity
from tests.support import tiny
from tests.support.tiny import draw, relative_error


def test_layers_share_a_compilation_and_keep_their_results():
    network, vae, compilations = tiny.model(), tiny.vae(), []

    def backend(graph, _):
        compilations.append(graph)
        return graph

    names = [list(module.state_dict()) for module in (network, vae)]
    condition, latents = draw(1, 9, 48), draw(1, 6, 8)
    context, x = draw(1, 40, 128), draw(1, 40, 64)

    @torch.inference_mode()
    def results():
        velocity = network_velocity(network, [condition], context, guided=False)
        return velocity(x, 0.7, False), velocity(x, 0.2, False), vae.decode(latents)

    expected = results()
    torch._dynamo.reset()
    compile_parts(network, vae, backend=backend)
    got = results()
    assert all(relative_error(one, other) < 1e-5 for one, other in zip(got, expected, strict=True))
    layers = [graph for graph in compilations if any("attention" in str(node.target) for node in graph.graph.nodes)]
    assert network.config.num_hidden_layers == 4 and len(layers) == 2  # windowed and not
    assert len(compilations) > 2  # activations
    assert [list(module.state_dict()) for module in (network, vae)] == names
    torch._dynamo.reset()


def test_many_lengths_run_compiled():
    network, frames = tiny.model(), []

    @torch.inference_mode()
    def velocity(length: int, guided: bool) -> torch.Tensor:
        context, condition = draw(1, length, 128), draw(1, 9, 48)
        return network_velocity(network, [condition], context, guided=guided)(draw(1, length, 64), 0.7, guided)

    lengths = [(length, guided) for guided in (False, True) for length in (24, 37, 60, 90, 150, 300)]
    expected = [velocity(*each) for each in lengths]
    torch._dynamo.reset()
    compile_parts(network, backend=lambda graph, _: frames.append(graph) or graph)
    limit = "fail_on_recompile_limit_hit"  # newer than torch 2.6
    strict = {limit: True} if hasattr(torch._dynamo.config, limit) else {}
    with torch._dynamo.config.patch(strict):
        got = [velocity(*each) for each in lengths]
    assert all(relative_error(one, other) < 1e-5 for one, other in zip(got, expected, strict=True))
    assert len(frames) > 8
    torch._dynamo.reset()
