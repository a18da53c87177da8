"""Loading tensors into a network: precision, the memory map, progress, cancel."""

from __future__ import annotations

import struct

import pytest
import torch
from torch import nn

from acestep_core.callbacks import Callbacks
from acestep_core.checkpoints import reader
from acestep_core.checkpoints.build import load_network, load_vae
from acestep_core.errors import Cancelled, CheckpointError
from tests.support import layouts, tiny

WEIGHT = "decoder.layers.1.mlp.down_proj.weight"
FP8 = torch.float8_e4m3fn


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture
def folder(tmp_path, model):
    return layouts.original(tmp_path / "acestep-v15-turbo", model)


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        (torch.float32, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.bfloat16),
        (torch.float64, torch.float16),
    ],
)
def test_every_tensor_is_the_stored_value_cast(tmp_path, model, stored, dtype):
    state = {name: tensor.to(stored) for name, tensor in model.state_dict().items()}
    loaded, report = load_network(layouts.save(tmp_path / "turbo.safetensors", state), dtype=dtype)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, state[name].to(dtype)), name
    assert report.size == sum(tensor.numel() for tensor in state.values()) * stored.itemsize


def test_weights_for_another_device(folder):
    """The meta device stands in for a GPU."""
    loaded, report = load_network(folder, device="meta", dtype=torch.float16)
    assert {(weight.device.type, weight.dtype) for weight in loaded.parameters()} == {("meta", torch.float16)}
    assert report.device.type == "meta"


def test_weights_stay_in_the_map_and_writing_to_them_leaves_the_file_alone(folder):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    loaded, _ = load_network(folder)
    entries = reader.read_index(folder).entries
    assert len({weight.data_ptr() - entries[name].start for name, weight in loaded.named_parameters()}) == 1
    with torch.no_grad():
        for weight in loaded.parameters():
            weight.zero_()
    assert file.read_bytes() == content


def test_the_file_may_be_replaced_after_the_load(folder, model):
    loaded, _ = load_network(folder)
    file = folder / "model.safetensors"
    layouts.save(folder / "new", {name: torch.zeros_like(value) for name, value in model.state_dict().items()})
    (folder / "new").replace(file)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert not any(weight.any() for weight in load_network(folder)[0].parameters())


def test_a_file_whose_tensors_are_not_aligned(tmp_path, model):
    """Old writers did not pad the header, so tensors may start at any address."""
    file = layouts.save(tmp_path / "turbo.safetensors", model.state_dict())
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = content[8 : 8 + length].rstrip() + b" " * 3
    file.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
    loaded, _ = load_network(file)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_the_result_can_be_trained_even_when_a_host_loads_in_inference_mode(folder):
    with torch.inference_mode():
        loaded, _ = load_network(folder)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not any(parameter.is_inference() for parameter in loaded.parameters())
    weight = loaded.decoder.condition_embedder.requires_grad_(True)
    weight(torch.ones(1, loaded.config.encoder_hidden_size)).sum().backward()


def test_layers_come_from_ops(folder):
    class Mine:
        class Linear(nn.Linear):
            pass

        Conv1d, ConvTranspose1d = nn.Conv1d, nn.ConvTranspose1d

    loaded, _ = load_network(folder, ops=Mine)
    assert isinstance(loaded.decoder.condition_embedder, Mine.Linear)
    loaded, _ = load_network(folder, encoder_ops=Mine)
    assert not isinstance(loaded.decoder.condition_embedder, Mine.Linear)
    assert isinstance(loaded.encoder.text_projector, Mine.Linear)


# --- fp8 --------------------------------------------------------------------------------------------------------------


def test_fp8_without_scale(tmp_path, model):
    state = model.state_dict()
    state[WEIGHT] = state[WEIGHT].to(FP8)
    loaded, _ = load_network(layouts.save(tmp_path / "turbo_fp8.safetensors", state), dtype=torch.bfloat16)
    assert torch.equal(loaded.state_dict()[WEIGHT], state[WEIGHT].to(torch.bfloat16))


@pytest.mark.parametrize("suffix", ["weight_scale", "scale_weight"])
@pytest.mark.parametrize("shape", [(), (1,), (48,), (48, 1)], ids=str)
def test_fp8_scales_are_applied(tmp_path, model, suffix, shape):
    state = model.state_dict()
    scale = torch.rand(shape) + 0.5
    stored = state[WEIGHT].to(FP8)
    layer = WEIGHT.removesuffix("weight")
    state |= {
        WEIGHT: stored,
        layer + suffix: scale,
        layer + "input_scale": torch.ones(()),
        layer + "comfy_quant": torch.zeros(4, dtype=torch.uint8),
        "scaled_fp8": torch.zeros(2, dtype=FP8),
    }
    file = layouts.save(tmp_path / "turbo.safetensors", layouts.prefixed("model.diffusion_model.", state))
    loaded, report = load_network(file)
    expected = stored.float() * (scale if scale.numel() == 1 else scale.reshape(-1, 1))
    assert torch.equal(loaded.state_dict()[WEIGHT], expected)
    assert report.unexpected == ()
    assert sorted(name.rsplit(".", 1)[-1] for name in report.dropped) == ["comfy_quant", "input_scale", "scaled_fp8"]


def test_fp8_scales_by_blocks_are_refused(tmp_path, model):
    state = model.state_dict()
    state |= {WEIGHT: state[WEIGHT].to(FP8), WEIGHT + "_scale": torch.ones(4, 4)}
    with pytest.raises(CheckpointError, match="one scale"):
        load_network(layouts.save(tmp_path / "turbo.safetensors", state))


# --- the report, progress, cancel -------------------------------------------------------------------------------------


def test_report(tmp_path, model, caplog):
    state = layouts.network_state(model) | {"extra.weight": torch.ones(2), "model_ema.x": torch.ones(2)}
    file = layouts.save(tmp_path / "acestep_v1.5_sft.safetensors", state)
    with caplog.at_level("INFO", "acestep"):
        _, report = load_network(file, dtype=torch.bfloat16)
    count = len(model.state_dict())
    assert (report.matched, report.unexpected, len(report.dropped)) == (count, ("extra.weight",), 3)
    assert str(report).startswith(f"diffusion model sft: {count} tensors, 1 unexpected, 3 dropped, 0.00 GB in ")
    assert str(report).endswith("single file, cpu, bfloat16")
    assert str(report) in caplog.text and "1 unused tensors: extra.weight" in caplog.text


def test_a_guessed_variant_is_a_warning(tmp_path, model, caplog):
    load_network(layouts.save(tmp_path / "mystery.safetensors", model.state_dict()))
    assert "variant" in caplog.text and "turbo" in caplog.text
    (tmp_path / "acestep-v15-sft").mkdir()
    file = layouts.save(tmp_path / "acestep-v15-sft" / "model.safetensors", model.state_dict())
    warnings = []
    _, report = load_network(file, callbacks=Callbacks(warning=warnings.append))
    assert (report.variant.name, warnings) == ("sft", [])
    load_network(
        layouts.save(tmp_path / "mystery.safetensors", model.state_dict()), callbacks=Callbacks(warning=warnings.append)
    )
    assert len(warnings) == 1


def test_progress_counts_the_bytes(folder):
    reports = []
    _, report = load_network(folder, callbacks=Callbacks(progress=reports.append))
    steps = [progress.step for progress in reports]
    assert {progress.stage for progress in reports} == {"load diffusion model"}
    assert {progress.total for progress in reports} == {report.size}
    assert steps[0] == 0 and steps[-1] == report.size and steps == sorted(steps)
    assert len(reports) == report.matched + 1


def test_cancel_stops_within_a_tensor(folder):
    reports = []
    callbacks = Callbacks(progress=reports.append, cancelled=lambda: len(reports) > 5)
    with pytest.raises(Cancelled, match="load"):
        load_network(folder, callbacks=callbacks)
    assert len(reports) == 6


def test_an_error_of_a_callback_ends_the_load(folder):
    def interrupt(progress):
        raise InterruptedError("by the host")

    with pytest.raises(InterruptedError):
        load_network(folder, callbacks=Callbacks(progress=interrupt))


def test_names_and_shapes_are_checked_before_anything_is_read(folder, monkeypatch):
    monkeypatch.setattr(reader, "safe_open", None)  # would fail if it were called
    (folder / "silence_latent.pt").unlink()
    state = layouts.network_state(tiny.model())
    state.pop("decoder.norm_out.weight")
    layouts.save(folder / "model.safetensors", state)
    with pytest.raises(CheckpointError, match="lacks"):
        load_network(folder)


def test_vae_in_half_precision_is_folded_in_float32(tmp_path):
    vae = tiny.vae()
    state = {name: tensor.half() for name, tensor in layouts.vae_state(vae, layouts.pair, stable_audio=True).items()}
    loaded, _ = load_vae(layouts.save(tmp_path / "vae.safetensors", state), dtype=torch.float16)
    name = "decoder.block.1.conv_t1.weight"
    gain, direction = (state[f"decoder.layers.2.layers.1.weight_{part}"].float() for part in "gv")
    expected = layouts.fused(name, gain, direction)[name].half()
    assert torch.equal(loaded.state_dict()[name], expected)
