"""What other nodes put on a MODEL: it works, or the user is told that it does not."""

from __future__ import annotations

import torch
from comfy.patcher_extension import WrappersMP

from .world import World, counted, difference, network_of, shown

ATTENTION = "optimized_attention_override"


def attending(model, change):
    """As nodes for SageAttention and its kind do it."""
    clone = model.clone()
    clone.model_options["transformer_options"][ATTENTION] = change
    return clone


def check_another_attention_takes_the_place_of_torchs(world: World) -> None:
    for work in (world.sample, world.ksample):
        plain, calls = work(), []

        def same(function, *args, calls=calls, **kwargs):
            calls.append(args[0].shape)
            return function(*args, **kwargs)

        def other(function, *args, **kwargs):
            return 1.5 * function(*args, **kwargs)

        # 75 patches are less than the window: every layer attends to everything, and all to the condition.
        assert difference(work(attending(world.model, same)), plain) <= 1e-4, work
        assert len(calls) == 4 * 2 * len(world.model.model.diffusion_model.decoder.layers), work
        assert difference(work(attending(world.model, other)), plain) > 0.1, work
        assert difference(work(), plain) == 0, work


def check_wrappers_of_the_network_are_called_by_ksampler(world: World) -> None:
    seen = []

    def silent(run, x, t, *others):
        seen.append((tuple(x.shape), type(others[-1])))
        return torch.zeros_like(run(x, t, *others))

    model = world.model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "silent", silent)
    still = world.ksample(model)
    assert seen == [((1, 64, 150), dict)] * 4
    assert difference(still, world.ksample()) > 1
    with shown() as texts:
        assert difference(world.sample(model), world.sample()) == 0
    assert texts[-1].startswith("Sample Song does not follow silent, which another node has put on the model")


def check_easycache_spares_steps(world: World) -> None:
    from comfy_extras.nodes_easycache import EasyCacheNode

    model = EasyCacheNode.execute(
        world.model, reuse_threshold=10.0, start_percent=0.15, end_percent=0.95, verbose=False
    )
    with counted(network_of(world.model)) as calls:
        song = world.ksample(model.args[0], steps=12)
    assert 2 <= calls[0] < 12 and song.isfinite().all()


def check_what_has_no_effect_is_said(world: World) -> None:
    model = world.model.clone()
    model.set_model_sampler_cfg_function(lambda args: args["cond"])
    model.set_model_unet_function_wrapper(lambda run, args: run(args["input"], args["timestep"], **args["c"]))
    model.set_model_attn1_patch(lambda q, k, v, options: (q, k, v))
    with shown() as texts:
        world.sample(model)
    assert texts[-1].splitlines() == [
        "attn1_patch, which another node has put on the model, changes nothing: ACE-Step has no such blocks",
        "Sample Song does not follow model_function_wrapper, sampler_cfg_function, which another node has put on the "
        "model; KSampler does",
    ]
    with shown() as texts:
        world.ksample(model)
    assert texts and all(text.startswith("attn1_patch, ") for text in texts)
    with shown() as texts:
        world.sample()
    assert not texts
