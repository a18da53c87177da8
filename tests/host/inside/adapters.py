"""Load LoRA against the core's merge, and against ComfyUI's own loader."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfy.hooks
import comfy.sd
import comfy.utils
import folder_paths
import torch
from pack_under_test.acestep_core.adapters.adapter_file import read_adapter
from pack_under_test.acestep_core.adapters.merge import AdapterUse, merge
from pack_under_test.acestep_core.errors import CheckpointError
from pack_under_test.nodes.files import lora_entries, resolve_lora
from pack_under_test.nodes.lora import GROUPS, LoadLoraNode
from safetensors.torch import save_file

from .odd_inputs import refusal, with_data
from .partial import keep_partly, weights_of_an_adapter
from .world import World, difference, network_of, notes_of, similarity

RANK, ALPHA = 4, 12.0  # of the adapter in `partial`: its scale is 3


@contextmanager
def lora_folder(world: World) -> Iterator[Path]:
    """Yield models/loras with one adapter as a file with alphas, a PEFT folder, and a DoRA."""
    weights = weights_of_an_adapter(world.model)
    network = network_of(world.model)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        paths = sorted({key.rsplit(".lora_", 1)[0] for key in weights})
        save_file(
            {**weights, **{f"{path}.alpha": torch.tensor(ALPHA) for path in paths}}, root / "ace-step file.safetensors"
        )
        peft = root / "styles" / "peft"
        peft.mkdir(parents=True)
        renamed = {f"base_model.model.{key.removeprefix('diffusion_model.decoder.')}": v for key, v in weights.items()}
        save_file(renamed, peft / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": ["q_proj"]}
        (peft / "adapter_config.json").write_text(json.dumps(config))
        linear = {key: value for key, value in weights.items() if "proj_in" not in key}
        norms = {
            f"{path}.dora_scale": 1.3
            * network.get_parameter(f"{path.removeprefix('diffusion_model.')}.weight").norm(dim=1)[:, None]
            for path in paths
            if "proj_in" not in path
        }
        save_file({**linear, **norms}, root / "dora.safetensors")
        before = folder_paths.folder_names_and_paths["loras"]
        folder_paths.folder_names_and_paths["loras"] = ([str(root)], before[1])
        folder_paths.filename_list_cache.pop("loras", None)
        try:
            yield root
        finally:
            folder_paths.folder_names_and_paths["loras"] = before
            folder_paths.filename_list_cache.pop("loras", None)


def with_node(model, lora: str, strength: float = 1.0, **groups: float):
    return LoadLoraNode.execute(model, lora, strength, **groups).args[0]


def merged(world: World, *uses: tuple[str, float], dtype: str = "float32"):
    """Return a MODEL with the core's merge."""
    model, _, _ = world.load(dtype)
    adapters = [AdapterUse(read_adapter(resolve_lora(name)), strength) for name, strength in uses]
    model.model.diffusion_model = merge(network_of(model), adapters)
    return model


def check_entries_are_files_and_folders(world: World) -> None:
    with lora_folder(world):
        own = ["nano-bells", "nano-house.safetensors"]
        assert lora_entries() == ["ace-step file.safetensors", "dora.safetensors", "styles/peft", *own]
    assert lora_entries()[-2:] == own


def check_the_node_equals_the_core(world: World) -> None:
    with lora_folder(world):
        model, _, _ = world.load()
        plain = world.sample(model)
        for name in ("ace-step file.safetensors", "styles/peft", "dora.safetensors"):
            expected = merged(world, (name, 0.7))
            assert difference(world.sample(expected), plain) > 1e-2, name
            patched = with_node(model, name, 0.7)
            apart = difference(world.sample(patched), world.sample(expected))
            assert apart <= 1e-5, (name, apart)
            apart = difference(world.ksample(patched), world.ksample(expected))
            assert apart <= 1e-5, (name, apart)
        assert difference(world.sample(model), plain) == 0  # bit for bit


def check_dialects_sound_the_same(world: World) -> None:
    with lora_folder(world):
        file, peft = (
            world.sample(with_node(world.model, name)) for name in ("ace-step file.safetensors", "styles/peft")
        )
        assert difference(file, peft) == 0


def with_core_loader(world: World, path: Path):
    weights = comfy.utils.load_torch_file(str(path))
    return comfy.sd.load_lora_for_models(world.model, None, weights, 1.0, 0)[0]


def check_what_the_core_loader_does(world: World) -> None:
    """The table of the help page, line by line."""
    with lora_folder(world) as root:
        plain, file = world.sample(), root / "ace-step file.safetensors"
        own = with_core_loader(world, root / "styles" / "peft" / "adapter_model.safetensors")
        without_alpha = world.sample(with_node(world.model, "styles/peft", RANK / ALPHA))
        found = difference(world.sample(own), without_alpha) <= 1e-5
        assert found or not own.patches  # earlier versions do not know these names at all

        weights = comfy.utils.load_torch_file(str(file))
        renamed = {key.replace("diffusion_model.decoder.", "lora_unet_"): value for key, value in weights.items()}
        for name in ("lora_A", "lora_B", "alpha"):
            renamed = {re.sub(rf"\.(?=.*\.{name})", "_", key): value for key, value in renamed.items()}
        save_file(renamed, root / "kohya.safetensors")
        assert not with_core_loader(world, root / "kohya.safetensors").patches
        as_trained = world.sample(with_node(world.model, file.name))
        assert difference(world.sample(with_node(world.model, "kohya.safetensors")), as_trained) == 0

        assert difference(world.sample(with_core_loader(world, file)), as_trained) <= 1e-4
        dora = world.sample(with_node(world.model, "dora.safetensors"))
        other = world.sample(with_core_loader(world, root / "dora.safetensors"))
        assert min(difference(other, dora), difference(other, plain)) > 1e-2


def check_partial_loading_and_fp8(world: World) -> None:
    with lora_folder(world):
        model, _, _ = world.load()
        patched = world.sample(with_node(model, "dora.safetensors"))
        partly = keep_partly(with_node(model, "dora.safetensors"), share=0.05)
        assert difference(world.sample(partly), patched) <= 1e-5
        assert partly.model.model_lowvram
        small, _, _ = world.load("fp8_e4m3fn")
        rough = world.sample(with_node(small, "dora.safetensors"))
        assert similarity(rough, patched) > similarity(rough, world.sample(small)) > 0.5


def check_a_weight_hook_adds_to_the_node(world: World) -> None:
    """The hook of one conditioning acts on top of Load LoRA, and leaves the model with the adapter as it was."""
    with lora_folder(world):
        model = with_node(world.model, "ace-step file.safetensors", 0.5)
        group = comfy.hooks.create_hook_lora(weights_of_an_adapter(world.model), ALPHA / RANK / 2, 0.0)
        both = world.ksample(model.clone(), conditioning=with_data(world, hooks=group))
        whole = with_node(world.model, "ace-step file.safetensors", 1.0)
        assert difference(both, world.ksample(whole)) < 1e-4
        assert difference(both, world.ksample(model)) > 1e-3
        assert difference(world.ksample(model), world.ksample(model.clone())) == 0


def check_a_stack_is_the_sum_in_any_order(world: World) -> None:
    with lora_folder(world):
        uses = (("ace-step file.safetensors", 0.5), ("styles/peft", -0.25))
        one = with_node(with_node(world.model, *uses[0]), *uses[1])
        other = with_node(with_node(world.model, *uses[1]), *uses[0])
        expected = world.sample(merged(world, *uses))
        assert difference(world.sample(one), expected) <= 1e-5
        assert difference(world.sample(other), expected) <= 1e-5


def check_shares_of_the_strength(world: World) -> None:
    with lora_folder(world):
        plain, whole = world.sample(), world.sample(with_node(world.model, "styles/peft"))
        none = dict.fromkeys(GROUPS, 0.0)
        assert difference(world.sample(with_node(world.model, "styles/peft", **none)), plain) == 0
        assert difference(world.sample(with_node(world.model, "styles/peft", 0.0)), plain) == 0
        part = world.sample(with_node(world.model, "styles/peft", mlp=0.0))
        assert difference(part, whole) > 1e-3 and difference(part, plain) > 1e-3


def check_the_node_reports(world: World) -> None:
    with lora_folder(world):
        notes = notes_of(lambda: with_node(world.model, "styles/peft"))
        (line,) = notes
        for part in ("LoRA rank 4", "alpha 12 (adapter_config.json)", "4 of 4 modules", "self attention 1", "MLP 1"):
            assert part in line, line


def check_what_is_refused(world: World) -> None:
    with lora_folder(world) as root:
        save_file({"lora_unet_down_blocks_0.lora_down.weight": torch.zeros(2, 2)}, root / "other.safetensors")
        try:
            with_node(world.model, "other.safetensors")
        except CheckpointError as error:
            assert "an adapter of another model" in str(error)
        else:
            raise AssertionError("no CheckpointError")
        assert "../x" in refusal(lambda: with_node(world.model, "../x"))
        assert "MODEL is not ACE-Step" in refusal(lambda: with_node(object(), "styles/peft"))
