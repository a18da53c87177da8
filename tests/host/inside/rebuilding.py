"""The factories of our patchers, by which ComfyUI builds a model again."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import comfy.model_management as mm
import comfy.model_patcher
import comfy.utils
import torch
from pack_under_test.nodes.comfy_runtime import load
from pack_under_test.nodes.comfy_runtime.progress import node_callbacks
from pack_under_test.nodes.comfy_runtime.versions import device_options
from pack_under_test.nodes.loaders import LoadPlannerNode

from .precision import hardware
from .world import World, difference, network_of


def factories(world: World) -> dict[str, comfy.model_patcher.ModelPatcher]:
    planner = load.load_planner_socket(Path("models/acestep-5Hz-lm-tiny"), None, "auto")
    return {"MODEL": world.model, "VAE": world.vae.patcher, "planner": planner.patcher}


def check_every_patcher_can_be_built_again(world: World) -> None:
    for name, patcher in factories(world).items():
        build, arguments = patcher.cached_patcher_init
        for options in ({}, {"disable_dynamic": True}):
            again = build(*arguments, **options)
            own, other = patcher.model_state_dict(), again.model_state_dict()
            assert own.keys() == other.keys() and all(torch.equal(own[key], other[key]) for key in own), name
            assert again.model is not patcher.model
            assert isinstance(again, comfy.model_patcher.ModelPatcher), name


def check_a_deep_clone_makes_the_same_song(world: World) -> None:
    plain = world.sample()
    if "force_deepcopy" in inspect.signature(world.model.clone).parameters:
        clones = [world.model.clone(force_deepcopy=True), world.model.deepclone_multigpu()]
        for clone in clones:
            assert network_of(clone) is not network_of(world.model)
            assert difference(world.sample(clone), plain) == 0
            assert difference(world.ksample(clone), world.ksample()) == 0
    network = copy.deepcopy(network_of(world.model))
    assert torch.equal(network.silence_latent, network_of(world.model).silence_latent)


def check_no_tensor_of_a_network_is_an_inference_tensor(world: World) -> None:
    with torch.inference_mode():  # as ComfyUI runs nodes
        model, _, vae = world.load()
        networks = network_of(model), vae.first_stage_model
        assert not any(t.is_inference() for one in networks for t in (*one.parameters(), *one.buffers()))
        assert not network_of(model).silence_latent.is_inference()
        network_of(model).silence_latent = None
        with node_callbacks() as callbacks:
            vae.encode_silence(network_of(model), callbacks)
        assert not network_of(model).silence_latent.is_inference()


def check_a_model_without_silence_is_built_with_it(world: World) -> None:
    build, arguments = world.model.cached_patcher_init
    network = network_of(build(*arguments))
    assert torch.equal(network.silence_latent, network_of(world.model).silence_latent)


def check_device_nodes_pass_our_sockets_on(world: World) -> None:
    try:
        from comfy_extras.nodes_multigpu import MultiGPUCFGSplitNode, SelectModelDeviceNode, SelectVAEDeviceNode
    except ImportError:
        return  # of later versions
    plain = world.sample()
    for device in ("default", "cpu"):
        assert difference(world.sample(SelectModelDeviceNode.execute(world.model, device).args[0]), plain) == 0
    vae = SelectVAEDeviceNode.execute(world.vae, "default").args[0]
    sound = world.decode(plain)
    assert difference(world.decode(plain, vae), sound) == 0
    assert difference(world.encode_audio(sound, vae), world.encode_audio(sound)) == 0
    assert difference(world.sample(MultiGPUCFGSplitNode.execute(world.model, 2).args[0]), plain) == 0


def check_guidance_runs_on_two_devices(world: World) -> None:
    try:
        from comfy_extras.nodes_multigpu import MultiGPUCFGSplitNode
    except ImportError:
        return  # of later versions
    other = torch.device("cpu", 0)  # unequal to the first, though its tensors lie in the same memory
    model, *_ = world.load(variant="base")
    sampling = {"guidance": 3.0, "steps": 2}
    plain, native = world.sample(model, **sampling), world.ksample(model, steps=2, cfg=3.0)
    with mock.patch.object(mm, "get_all_torch_devices", lambda **_: [model.load_device, other]):
        split = MultiGPUCFGSplitNode.execute(model, 2).args[0]
    (clone,) = split.get_additional_models_with_key("multigpu")
    assert clone.load_device == other
    with counted(network_of(split)) as first, counted(network_of(clone)) as second:
        assert difference(world.sample(split, **sampling), plain) < 3e-4  # guidance multiplies the rounding
        assert first == second == [1, 1]  # rows of each step
        del first[:], second[:]
        assert difference(world.ksample(split, steps=2, cfg=3.0), native) < 3e-4
        assert first == second == [1, 1]
        del first[:], second[:]
        assert difference(world.sample(split, steps=2, guidance=1.0), world.sample(model, steps=2, guidance=1.0)) == 0
        assert second == []  # unguided


@contextmanager
def counted(network: torch.nn.Module) -> Iterator[list[int]]:
    """Collect the rows of each call of the network."""
    rows: list[int] = []
    handle = network.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    try:
        yield rows
    finally:
        handle.remove()


def check_the_planner_runs_on_the_chosen_device(world: World) -> None:
    assert "cpu" in device_options()
    for option in ("default", "cpu", "gpu:7", 5):
        (planner,) = LoadPlannerNode.execute("nano", "auto", option).args
        assert planner.patcher.load_device == mm.get_torch_device()
    assert any("gpu:7" in line for line in world.log.lines)
    other = torch.device("cpu", 0)
    planner = load.load_planner_socket(Path("models/acestep-5Hz-lm-tiny"), None, "float32", other)
    assert planner.patcher.load_device == other
    build, arguments = planner.patcher.cached_patcher_init
    assert build(*arguments).load_device == other


def maps() -> list[range]:
    """Return the addresses of mapped checkpoints."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [range(*(int(n, 16) for n in line.split()[0].split("-"))) for line in lines if line.endswith(".safetensors")]


def check_disable_mmap_leaves_no_weight_in_a_map(world: World) -> None:
    def mapped() -> list[bool]:
        model, text_encoder, vae = world.load("bfloat16")
        networks = network_of(model), text_encoder.model.text_encoder.module, vae.first_stage_model
        return [any(p.data_ptr() in part for part in maps() for p in network.parameters()) for network in networks]

    # nano is stored in bfloat16, so no weight is cast
    bfloat16 = {"vae_dtype": lambda: torch.bfloat16, "text_encoder_dtype": lambda: torch.bfloat16}
    with hardware(bfloat16=True), mock.patch.multiple(load, **bfloat16):
        assert mapped() == [True] * 3
        with mock.patch.object(comfy.utils, "DISABLE_MMAP", True):
            assert mapped() == [False] * 3
