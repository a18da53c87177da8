"""The patcher of later versions that loads weights when a layer asks for them.

The meta device stands in for the GPU. It has no values, but refuses a tensor of another device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import comfy.model_management as mm
import comfy.model_patcher
import torch
from pack_under_test.nodes.comfy_runtime import model as model_module
from pack_under_test.nodes.comfy_runtime.versions import patcher_class, with_fixed_weights

from .partial import with_lora
from .world import World, network_of

META = torch.device("meta", 0)
HAS_DYNAMIC = hasattr(comfy.model_patcher, "ModelPatcherDynamic")


class Memory:
    """A stand-in for the library that ComfyUI loads weights with. Counts copies, and the weights in use."""

    def __init__(self) -> None:
        self.copies, self.in_use, self.size = Counter(), Counter(), 0

    def alloc(self, size: int) -> tuple:
        self.size += size
        return self, self.size - size, size

    def fault(self, allocation: tuple) -> bytes:
        self.in_use[allocation] += 1
        return b"resident"

    def unpin(self, allocation: tuple) -> None:
        self.in_use[allocation] -= 1
        assert self.in_use[allocation] >= 0

    def tensor(self, allocation: tuple, device: torch.device) -> torch.Tensor:
        self.copies[allocation] += 1
        return torch.empty(allocation[2], dtype=torch.uint8, device=device)


@contextmanager
def dynamic_memory() -> Iterator[Memory]:
    """Let ComfyUI create dynamic patchers, with weights on the meta device."""
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_vbar
    import comfy_aimdo.torch
    from comfy.cli_args import args

    memory = Memory()
    pages = SimpleNamespace(alloc=memory.alloc, prioritize=lambda: None, loaded_size=lambda: 0, free_memory=lambda _: 0)
    buffer = SimpleNamespace(size=0)
    with (
        mock.patch.object(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcherDynamic),
        mock.patch.object(comfy_aimdo.model_vbar, "ModelVBAR", lambda *_: pages),
        mock.patch.object(comfy_aimdo.model_vbar, "vbar_fault", memory.fault),
        mock.patch.object(comfy_aimdo.model_vbar, "vbar_unpin", memory.unpin),
        mock.patch.object(comfy_aimdo.torch, "aimdo_to_tensor", memory.tensor),
        mock.patch.object(comfy_aimdo.host_buffer, "HostBuffer", lambda *_: buffer),
        mock.patch.object(args, "disable_pinned_memory", True),
        mock.patch.object(model_module.mm, "get_torch_device", lambda: META),
        mock.patch.object(model_module, "install_cpu_plugins", lambda *_: None),
    ):
        yield memory


def move_parameters_of_branches(model: torch.nn.Module) -> None:
    """Move parameters of modules with children, as ComfyUI does by an assignment that the meta device refuses."""
    for module in model.modules():
        if [*module.children()]:
            for name, parameter in [*module.named_parameters(recurse=False)]:
                setattr(module, name, torch.nn.Parameter(parameter.to(META), requires_grad=False))


def run(network: torch.nn.Module) -> None:
    """Run every part of the network on the meta device."""
    config = network.config

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device=META)

    condition = network.encoder(
        empty(1, 5, config.text_hidden_dim),
        empty(1, 7, config.text_hidden_dim),
        empty(1, 1, config.timbre_fix_frame, config.timbre_hidden_dim),
    )
    null = network.null_condition_emb
    prepared = network.decoder.prepare(empty(1, 150, 128), condition, None, null)
    for _ in range(2):
        velocity = network(empty(2, 150, 64), empty(1), prepared)
        assert velocity.is_meta and velocity.shape == (2, 150, 64), (velocity.device, velocity.shape)
    network.detokenizer(network.tokenizer.embed(torch.zeros(1, 30, dtype=torch.long, device=META)))


def check_every_part_runs_with_weights_on_demand(world: World) -> None:
    if not HAS_DYNAMIC:
        return
    for dtype in ("float32", "fp8_e4m3fn"):
        with dynamic_memory() as memory, torch.no_grad():
            model, _, _ = world.load(dtype)
            assert type(model) is comfy.model_patcher.ModelPatcherDynamic
            if dtype == "float32":  # ComfyUI rounds a patched fp8 weight by random numbers, which the meta device lacks
                model = with_lora(model)
            move_parameters_of_branches(model.model)
            model.partially_load(META)
            run(network_of(model))
            assert len(memory.copies) > 50 and set(memory.copies.values()) == {1}, "each weight is copied once"
            assert not +memory.in_use, "no weight stays in use, which ComfyUI could never unload"
            stored = {parameter.device for parameter in network_of(model).decoder.layers[0].mlp.parameters()}
            assert stored == {torch.device("cpu")}


def check_cuda_graphs_get_weights_that_stay(world: World) -> None:
    assert with_fixed_weights(world.model) is world.model
    if not HAS_DYNAMIC:
        return
    with dynamic_memory():
        model, _, vae = world.load()
        fixed = with_fixed_weights(model)
        assert type(fixed) is comfy.model_patcher.ModelPatcher
        assert network_of(fixed) is network_of(with_fixed_weights(model)) is not network_of(model)
        compiled = model.clone(disable_dynamic=True)  # as TorchCompileModel does
        assert type(compiled) is comfy.model_patcher.ModelPatcher
        assert type(vae.patcher) is comfy.model_patcher.ModelPatcher
        assert patcher_class(dynamic=False) is comfy.model_patcher.ModelPatcher
    assert mm.get_torch_device() == torch.device("cpu")
