"""What other nodes put on a MODEL: it works, or the user is told that it does not."""

from __future__ import annotations

import torch
from comfy.patcher_extension import WrappersMP

from .odd_inputs import refusal
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
    assert texts[-1] == "Sample Song does not follow silent on its model; KSampler does"


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
    idle = "another node's attn1_patch changes nothing here: ACE-Step's network has no place for it"
    with shown() as texts:
        world.sample(model)
    assert texts[-1].splitlines() == [
        idle,
        "Sample Song does not follow another node's model_function_wrapper, another node's sampler_cfg_function on its "
        "model; KSampler does",
    ]
    with shown() as texts:
        world.ksample(model)
    assert texts == [idle]
    with shown() as texts:
        world.sample()
    assert not texts


def guided_by_blocks() -> list:
    """What changes blocks of the network while guidance runs: for each a name, and the node with its inputs."""
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance
    from comfy_extras.nodes_sd3 import SkipLayerGuidanceSD3
    from comfy_extras.nodes_slg import SkipLayerGuidanceDiT, SkipLayerGuidanceDiTSimple

    always, layers = {"start_percent": 0.0, "end_percent": 1.0}, {"double_layers": "0", "single_layers": "1"}
    return [
        ("PerturbedAttentionGuidance", PerturbedAttentionGuidance, {"scale": 3.0}),
        ("SkipLayerGuidanceDiT", SkipLayerGuidanceDiT, {"scale": 3.0, **always, **layers}),
        ("SkipLayerGuidanceDiTSimple", SkipLayerGuidanceDiTSimple, {**always, **layers}),
        ("SkipLayerGuidanceDiT", SkipLayerGuidanceSD3, {"layers": "0, 1", "scale": 3.0, **always}),
    ]


def check_guidance_by_blocks_is_said_once_to_change_nothing(world: World) -> None:
    plain = world.ksample(cfg=3.0)
    for name, node, inputs in guided_by_blocks():
        model = node.execute(world.model, **inputs).args[0]
        said = f"{name} changes nothing here: ACE-Step's network has no place for it"
        world.log.lines.clear()
        with shown() as texts:
            assert difference(world.ksample(model, cfg=3.0), plain) <= 1e-5, name
        assert texts == [said] and world.log.lines.count(said) == 1, (texts, world.log.lines)
        with shown() as texts:
            world.sample(model)
        assert texts == [said], texts


def check_guidance_that_watches_blocks_is_refused(world: World) -> None:
    from comfy_extras.nodes_sag import SelfAttentionGuidance

    model = SelfAttentionGuidance.execute(world.model, 0.5, 2.0).args[0]
    sentence = refusal(lambda: world.ksample(model, cfg=3.0))
    assert sentence == (
        "SelfAttentionGuidance needs parts that ACE-Step's network does not have: take it off the model"
    )
    with shown() as texts:
        assert difference(world.sample(model), world.sample()) == 0
    assert texts == ["SelfAttentionGuidance changes nothing here: ACE-Step's network has no place for it"], texts


def check_other_positions_are_said_to_change_nothing(world: World) -> None:
    from comfy_extras.nodes_rope import ScaleROPE

    axes = {f"{what}_{axis}": 1.5 for what in ("scale", "shift") for axis in "xyt"}
    model = ScaleROPE.execute(world.model, **axes).args[0]
    for work in (world.sample, world.ksample):
        with shown() as texts:
            assert difference(work(model), work()) == 0
        assert texts == ["ScaleROPE changes nothing here: ACE-Step's network has no place for it"], texts


def check_nodes_are_called_by_their_titles(world: World) -> None:
    from comfy_extras.nodes_cfg import CFGZeroStar
    from comfy_extras.nodes_mahiro import Mahiro
    from comfy_extras.nodes_tomesd import TomePatchModel

    import nodes

    merging = TomePatchModel.execute(world.model, 0.3).args[0]
    model = CFGZeroStar.execute(Mahiro.execute(merging).args[0]).args[0]
    lines = [
        "TomePatchModel changes nothing here: ACE-Step's network has no place for it",
        "Sample Song does not follow CFGZeroStar, Mahiro on its model; KSampler does",
    ]
    with shown() as texts:
        world.sample(model)
    assert texts[-1].splitlines() == lines
    nodes.NODE_CLASS_MAPPINGS["Mahiro"] = Mahiro
    nodes.NODE_DISPLAY_NAME_MAPPINGS["Mahiro"] = "Positive-Biased Guidance"
    try:
        with shown() as texts:
            world.sample(model)
    finally:
        del nodes.NODE_CLASS_MAPPINGS["Mahiro"], nodes.NODE_DISPLAY_NAME_MAPPINGS["Mahiro"]
    assert texts[-1].splitlines() == [lines[0], lines[1].replace("Mahiro", "Positive-Biased Guidance")]


def check_renormalised_guidance_finds_the_channels(world: World) -> None:
    from comfy_extras.nodes_lumina2 import RenormCFG

    model = RenormCFG.execute(world.model, cfg_trunc=100.0, renorm_cfg=0.5).args[0]
    plain, changed = world.ksample(cfg=3.0), world.ksample(model, cfg=3.0)
    assert changed.isfinite().all() and difference(changed, plain) > 1e-2
    off = RenormCFG.execute(world.model, cfg_trunc=100.0, renorm_cfg=0.0).args[0]
    assert difference(world.ksample(off, cfg=3.0), plain) <= 1e-4


def check_conditioning_of_other_models_is_said_to_change_nothing(world: World) -> None:
    from comfy_extras.nodes_edit_model import ReferenceLatent
    from comfy_extras.nodes_flux import FluxGuidance

    guided = FluxGuidance.execute(world.conditioning, 5.0).args[0]
    both = ReferenceLatent.execute(guided, {"samples": torch.ones(1, 64, 150)}).args[0]
    for work in (world.sample, world.ksample):
        with shown() as texts:
            assert difference(work(conditioning=both), work()) == 0
        assert texts[-1].splitlines() == [
            "FluxGuidance changes nothing here: set the guidance of Sample Song or the cfg of KSampler",
            "ReferenceLatent changes nothing here: use Timbre for the sound of a recording, Cover for its notes",
        ]
