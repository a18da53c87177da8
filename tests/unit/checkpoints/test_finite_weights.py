"""A file whose weights are no usable numbers is refused: a song may not show it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from acestep_core.adapters.adapter_file import read_adapter
from acestep_core.adapters.merge import AdapterUse, merge, parameter_changes
from acestep_core.checkpoints import weights
from acestep_core.checkpoints.build import load_network, load_text_encoder, load_vae
from acestep_core.errors import CheckpointError, NonFiniteError
from acestep_core.planner.load_planner import load_planner_network
from tests.support import layouts, tiny, tiny_planner, tiny_text
from tests.support.adapter_files import comfyui_file, factors

tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder

QUERY = "decoder.layers.1.self_attn.q_proj.weight"


def damaged(state: dict[str, torch.Tensor], name: str, value: float) -> dict[str, torch.Tensor]:
    tensor = state[name].clone()
    tensor.flatten()[-1] = value
    return state | {name: tensor}


def refusal(load, *arguments, **options) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(*arguments, **options)
    return str(caught.value)


def test_attention_may_hide_it():
    """Queries of NaN give zeros on a CPU, which no check of latents can see."""
    query, key = torch.full((1, 1, 2, 8), math.nan), torch.ones(1, 1, 2, 8)
    assert not nn.functional.scaled_dot_product_attention(query, key, key).isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("stored", "value"),
    [
        (torch.float32, math.nan),
        (torch.float32, -1e11),
        (torch.bfloat16, math.inf),
        (torch.float16, -math.inf),
        (torch.float8_e4m3fn, math.nan),
    ],
)
def test_one_value_of_a_file(tmp_path, stored, value, dtype):
    state = {name: tensor.to(stored) for name, tensor in damaged(tiny.model().state_dict(), QUERY, value).items()}
    file = layouts.save(tmp_path / "acestep_turbo.safetensors", state)
    assert refusal(load_network, file, dtype=dtype) == (
        f"{file} is damaged: {QUERY} holds {abs(value):g}, weights are finite and below 1e+10; download it again"
    )


def test_every_network(tmp_path, tiny_encoder, tiny_tokenizer_dir):
    vae = tiny.vae().state_dict()
    layouts.save(tmp_path / "vae.safetensors", damaged(vae, "decoder.conv1.weight", math.nan))
    assert "decoder.conv1.weight holds nan" in refusal(load_vae, tmp_path / "vae.safetensors")

    text = damaged(tiny_encoder.module.state_dict(), "layers.0.self_attn.k_norm.weight", math.inf)
    layouts.save(tmp_path / "text.safetensors", text)
    message = refusal(load_text_encoder, tmp_path / "text.safetensors", tokenizer=tiny_tokenizer_dir)
    assert "k_norm.weight holds inf" in message

    tiny_planner.write_tiny_planner(tmp_path / "planner", codes=20)
    file = next((tmp_path / "planner").glob("*.safetensors"))
    state = load_file(file)
    name = next(name for name in state if name.endswith("k_proj.weight"))
    layouts.save(file, damaged(state, name, math.nan))
    assert f"{name} holds nan" in refusal(load_planner_network, tmp_path / "planner")


def test_a_weight_norm_with_a_damaged_gain(tmp_path):
    state = layouts.vae_state(tiny.vae(), layouts.pair, stable_audio=False)
    name = "decoder.conv1.weight_g"
    file = layouts.save(tmp_path / "vae.safetensors", damaged(state, name, math.nan))
    assert f"{name} holds nan" in refusal(load_vae, file)


def test_a_weight_norm_without_direction(tmp_path):
    state = layouts.vae_state(tiny.vae(), layouts.pair, stable_audio=False)
    name = "decoder.conv1.weight_v"
    file = layouts.save(tmp_path / "vae.safetensors", state | {name: torch.zeros_like(state[name])})
    assert f"{name} holds nan" in refusal(load_vae, file)


def test_a_value_beyond_float16(tmp_path):
    file = layouts.save(tmp_path / "acestep_turbo.safetensors", damaged(tiny.model().state_dict(), QUERY, 1e5))
    message = refusal(load_network, file, dtype=torch.float16)
    assert message == f"{file}: {QUERY} holds 100000, too large for float16; choose bfloat16"
    loaded, _ = load_network(file, dtype=torch.bfloat16)
    assert loaded.state_dict()[QUERY].max() == torch.tensor(1e5, dtype=torch.bfloat16)


class Fp8(nn.Linear):
    """A layer that is loaded in fp8, as under ComfyUI's `fp8_e4m3fn`."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.weight = nn.Parameter(self.weight.to(torch.float8_e4m3fn), requires_grad=False)


def test_fp8_layers(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_CHUNK", 100)
    ops = SimpleNamespace(Linear=Fp8, Conv1d=nn.Conv1d, ConvTranspose1d=nn.ConvTranspose1d)
    state = tiny.model().state_dict()
    loaded, _ = load_network(layouts.save(tmp_path / "acestep_turbo.safetensors", state), ops=ops)
    assert torch.equal(loaded.get_parameter(QUERY).float(), state[QUERY].to(torch.float8_e4m3fn).float())
    file = layouts.save(tmp_path / "acestep_turbo.safetensors", damaged(state, QUERY, 500.0))
    message = refusal(load_network, file, ops=ops)
    assert message == f"{file}: {QUERY} holds 500, too large for float8_e4m3fn; choose bfloat16"
    file = layouts.save(tmp_path / "acestep_turbo.safetensors", damaged(state, QUERY, math.nan))
    assert "is damaged" in refusal(load_network, file, ops=ops)


def test_an_adapter_that_drives_a_weight_out_of_range(tmp_path):
    file = layouts.save(tmp_path / "acestep_turbo.safetensors", tiny.model().state_dict())
    adapter = read_adapter(comfyui_file(tmp_path / "lora.safetensors", factors(modules=("layers.0.mlp.up_proj",))))
    factor = adapter.modules["decoder.layers.0.mlp.up_proj"].factors
    factor.up.mul_(1e5)
    uses = [AdapterUse(adapter, 1.0)]
    message = "adapter: decoder.layers.0.mlp.up_proj.weight would become inf in float16; lower the strength"
    with pytest.raises(NonFiniteError) as caught:
        load_network(file, dtype=torch.float16, changes_of=lambda network: parameter_changes(network, uses))
    assert str(caught.value) == message
    network, _ = load_network(file, dtype=torch.float16)
    with pytest.raises(NonFiniteError) as caught:
        merge(network, uses)
    assert str(caught.value) == message
    assert all(weight.isfinite().all() for weight in network.parameters())
    merge(load_network(file, dtype=torch.bfloat16)[0], uses)
