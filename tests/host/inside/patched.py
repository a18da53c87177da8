"""Patches and wrappers of other nodes on a MODEL: they work, or a note names them."""

from __future__ import annotations

import torch
from comfy.patcher_extension import WrappersMP

from .world import World, counted, difference, network_of, notes_of

ATTENTION_KEY = "optimized_attention_override"


def with_attention(model, override):
    """Set another attention, as nodes for SageAttention do."""
    clone = model.clone()
    clone.model_options["transformer_options"][ATTENTION_KEY] = override
    return clone


def check_an_attention_override_replaces_torchs(world: World) -> None:
    decoder = network_of(world.model).decoder
    for work in (world.sample, world.ksample):
        plain, calls = work(), []

        def same(function, *args, calls=calls, **kwargs):
            calls.append(args[0].shape)
            return function(*args, **kwargs)

        def other(function, *args, **kwargs):
            return 1.5 * function(*args, **kwargs)

        # 75 patches are fewer than the window, so every layer has two attentions: over all patches and the condition.
        used = []
        with counted(decoder, lambda _, used=used: used.append(decoder.attention)):
            assert difference(work(with_attention(world.model, same)), plain) <= 1e-4, work
        assert len(used) == 4 and all(one is used[0] for one in used), "torch.compile may compile for each object"
        assert len(calls) == 4 * 2 * len(world.model.model.diffusion_model.decoder.layers), work
        assert difference(work(with_attention(world.model, other)), plain) > 0.1, work
        assert difference(work(), plain) == 0, work


def check_network_wrappers_run_in_ksampler(world: World) -> None:
    calls = []

    def silent(run, x, t, *others):
        calls.append((tuple(x.shape), type(others[-1])))
        return torch.zeros_like(run(x, t, *others))

    model = world.model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "silent", silent)
    still = world.ksample(model)
    assert calls == [((1, 64, 150), dict)] * 4
    assert difference(still, world.ksample()) > 1
    (note,) = notes_of(lambda: world.sample(model))
    assert "silent" in note and "KSampler" in note
    assert difference(world.sample(model), world.sample()) == 0


def check_easycache_skips_steps(world: World) -> None:
    from comfy_extras.nodes_easycache import EasyCacheNode

    model = EasyCacheNode.execute(
        world.model, reuse_threshold=10.0, start_percent=0.15, end_percent=0.95, verbose=False
    )
    with counted(network_of(world.model)) as calls:
        song = world.ksample(model.args[0], steps=12)
    assert 2 <= calls[0] < 12 and song.isfinite().all()


def check_unsupported_patches_are_noted_by_kind(world: World) -> None:
    model = world.model.clone()
    model.set_model_sampler_cfg_function(lambda args: args["cond"])
    model.set_model_unet_function_wrapper(lambda run, args: run(args["input"], args["timestep"], **args["c"]))
    model.set_model_attn1_patch(lambda q, k, v, options: (q, k, v))
    patches, wrappers = notes_of(lambda: world.sample(model))
    assert "attn1_patch" in patches and "model_function_wrapper, sampler_cfg_function" in wrappers
    assert notes_of(lambda: world.ksample(model)) == [patches]
    assert notes_of(world.sample) == []


def check_block_guidance_changes_nothing(world: World) -> None:
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance
    from comfy_extras.nodes_rope import ScaleROPE
    from comfy_extras.nodes_slg import SkipLayerGuidanceDiTSimple

    plain = world.ksample(cfg=3.0)
    slg = {"start_percent": 0.0, "end_percent": 1.0, "double_layers": "0", "single_layers": "1"}
    axes = {f"{what}_{axis}": 1.5 for what in ("scale", "shift") for axis in "xyt"}
    for node, inputs, name in (
        (PerturbedAttentionGuidance, {"scale": 3.0}, "sampler_post_cfg_function"),
        (SkipLayerGuidanceDiTSimple, slg, "sampler_calc_cond_batch_function"),
        (ScaleROPE, axes, "rope_options"),
    ):
        model = node.execute(world.model, **inputs).args[0]
        assert difference(world.ksample(model, cfg=3.0), plain) <= 1e-5, node
        (note,) = notes_of(lambda model=model: world.sample(model))
        assert name in note, note


def check_renormalised_guidance_finds_the_channels(world: World) -> None:
    from comfy_extras.nodes_lumina2 import RenormCFG

    model = RenormCFG.execute(world.model, cfg_trunc=100.0, renorm_cfg=0.5).args[0]
    plain, changed = world.ksample(cfg=3.0), world.ksample(model, cfg=3.0)
    assert changed.isfinite().all() and difference(changed, plain) > 1e-2
    off = RenormCFG.execute(world.model, cfg_trunc=100.0, renorm_cfg=0.0).args[0]
    assert difference(world.ksample(off, cfg=3.0), plain) <= 1e-4


def check_conditioning_keys_of_other_models_are_noted(world: World) -> None:
    from comfy_extras.nodes_edit_model import ReferenceLatent
    from comfy_extras.nodes_flux import FluxGuidance

    guided = FluxGuidance.execute(world.conditioning, 5.0).args[0]
    both = ReferenceLatent.execute(guided, {"samples": torch.ones(1, 64, 150)}).args[0]
    for work in (world.sample, world.ksample):
        guidance, reference = notes_of(lambda work=work: work(conditioning=both))
        assert "guidance" in guidance and "Timbre" in reference
        assert difference(work(conditioning=both), work()) == 0
