import logging
import re
from types import SimpleNamespace

import pytest
import torch

from acestep_core.callbacks import Callbacks
from acestep_core.errors import Cancelled, RequestError
from acestep_core.runtime import devices, options, placement
from acestep_core.runtime.devices import Precision, pick_device, pick_dtype
from acestep_core.runtime.options import default_placement
from acestep_core.runtime.phase import phase
from acestep_core.runtime.placement import Offload, Resident

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda:0"), torch.device("mps")


@pytest.fixture
def bfloat16_everywhere(monkeypatch):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)


@pytest.fixture
def bfloat16_nowhere(monkeypatch):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    monkeypatch.setattr(devices, "has_fast_float16", lambda device: False)


@pytest.fixture
def two_gpus(monkeypatch):
    found = {"cuda:0": "first", "cuda:1": "second", "cpu": "processor"}
    monkeypatch.setattr(devices, "available_devices", lambda: found)


def test_devices_by_name(two_gpus):
    assert pick_device() == pick_device("cuda") == pick_device("CUDA:0") == torch.device("cuda:0")
    assert pick_device("cuda:1") == pick_device(torch.device("cuda:1")) == torch.device("cuda:1")
    assert pick_device("cpu") == pick_device(torch.device("cpu", 0)) == CPU


@pytest.mark.parametrize("name", ["cuda:2", "xpu", "tpu", ""])
def test_a_missing_device_raises_and_lists_the_available_ones(two_gpus, name):
    with pytest.raises(RequestError, match=f"device {name!r}.*cuda:0.*first.*cuda:1.*second.*cpu"):
        pick_device(name)


def test_this_machine_has_a_device():
    assert pick_device("cpu") == CPU
    assert str(pick_device("auto")) in devices.available_devices()


def test_auto_is_bfloat16_on_such_hardware_except_for_the_vae(bfloat16_everywhere):
    bf16, fp16, fp32 = torch.bfloat16, torch.float16, torch.float32
    assert Precision.pick(CUDA) == Precision(dit=bf16, condition=bf16, text_encoder=bf16, vae=fp16)
    assert Precision.pick(CPU) == Precision(dit=bf16, condition=bf16, text_encoder=bf16, vae=fp32)


def test_auto_is_float32_elsewhere(bfloat16_nowhere):
    fp32 = torch.float32
    for device in (CUDA, MPS, CPU):
        assert Precision.pick(device) == Precision(fp32, fp32, fp32, fp32)


def test_mps_has_no_bfloat16():
    assert not devices.has_bfloat16(MPS)


@pytest.mark.parametrize(
    ("capability", "name", "expected"),
    [
        ((7, 0), "Tesla V100-SXM2-16GB", True),
        ((7, 5), "Tesla T4", True),
        ((7, 5), "Quadro RTX 6000", True),
        ((7, 5), "NVIDIA GeForce GTX 1660 SUPER", False),
        ((7, 5), "NVIDIA T1000 8GB", False),
        ((6, 1), "NVIDIA GeForce GTX 1080 Ti", False),
        ((8, 6), "NVIDIA GeForce RTX 3060", False),
    ],
)
def test_volta_and_turing_compute_in_float16_if_they_have_tensor_cores(monkeypatch, capability, name, expected):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert devices.has_fast_float16(CUDA) is expected
    assert not devices.has_fast_float16(CPU)


def test_auto_is_float16_on_turing_except_where_that_overflows(monkeypatch, caplog, bfloat16_nowhere):
    """The condition encoder and the text encoder exceed the range of float16."""
    monkeypatch.setattr(devices, "has_fast_float16", lambda device: device.type == "cuda")
    fp16, fp32 = torch.float16, torch.float32
    assert Precision.pick(CUDA) == Precision(dit=fp16, condition=fp32, text_encoder=fp32, vae=fp16)
    assert pick_dtype(CUDA, "planner") == fp16
    assert Precision.pick(CUDA, dit="float32") == Precision(fp32, fp32, fp32, fp32)
    pick_dtype(CUDA, "dit", "bf16")
    assert "auto would choose float16" in caplog.text


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_nvidia_has_bfloat16_since_ampere(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.has_bfloat16(CUDA) is expected


@pytest.mark.parametrize(
    ("arch", "expected"),
    [("gfx906", False), ("gfx1030", False), ("gfx90a:sramecc+:xnack-", True), ("gfx942", True), ("gfx1100", True)],
)
def test_amd_has_bfloat16_since_cdna_and_rdna3(monkeypatch, arch, expected):
    monkeypatch.setattr(torch.version, "hip", "6.2")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(gcnArchName=arch))
    assert devices.has_bfloat16(CUDA) is expected


@pytest.mark.parametrize("amx", [True, False])
def test_a_cpu_has_bfloat16_if_it_has_amx(monkeypatch, amx):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": amx}, raising=False)
    assert devices.has_bfloat16(CPU) is amx
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert devices.has_bfloat16(CPU) is amx


def test_float16_keeps_the_condition_encoder_in_float32(bfloat16_everywhere):
    fp16, fp32 = torch.float16, torch.float32
    assert Precision.pick(CUDA, dit="fp16") == Precision(dit=fp16, condition=fp32, text_encoder=fp16, vae=fp16)


def test_each_component_can_be_chosen(bfloat16_everywhere):
    chosen = Precision.pick(CPU, dit="float32", text_encoder=torch.bfloat16, vae="bfloat16")
    assert chosen == Precision(torch.float32, torch.float32, torch.bfloat16, torch.bfloat16)
    assert Precision.pick(CPU, dit="bf16").vae == torch.float32


@pytest.mark.parametrize(("dit", "vae"), [("bf16", "float16"), ("fp16", "float16"), ("fp32", "float32")])
def test_the_vae_dtype_follows_the_dit_except_bfloat16(bfloat16_everywhere, dit, vae):
    assert Precision.pick(CUDA, dit=dit).vae == getattr(torch, vae)
    assert Precision.pick(CUDA, dit=dit, vae="bf16").vae == torch.bfloat16


def test_requested_float16_includes_the_vae_on_a_gpu(bfloat16_nowhere):
    assert Precision.pick(CUDA, dit="fp16").vae == torch.float16
    assert Precision.pick(CPU, dit="fp16").vae == torch.float32


@pytest.mark.parametrize("name", ["int8", "", torch.float64])
def test_unknown_dtypes_raise(name):
    with pytest.raises(RequestError, match="dtype.*unknown.*bfloat16"):
        pick_dtype(CPU, "dit", name)


def test_storage_by_name():
    assert options.pick_storage(CPU) is None and options.pick_storage(CPU, "none") is None
    assert options.pick_storage(CPU, "int8") == torch.int8
    assert options.pick_storage(CPU, " FP8 ") == torch.float8_e4m3fn
    with pytest.raises(RequestError, match="storage 'bfloat16'.*int8, fp8"):
        options.pick_storage(CPU, "bfloat16")


def test_a_device_without_fp8_raises(monkeypatch):
    def no_fp8(*_, **__):
        raise TypeError("cannot convert a Tensor to float8_e4m3fn")

    monkeypatch.setattr(torch, "zeros", no_fp8)
    with pytest.raises(RequestError, match=r"storage 'fp8'.*cpu.*cannot convert.*int8"):
        options.pick_storage(CPU, "fp8")


def test_emulated_bfloat16_warns(bfloat16_nowhere, caplog):
    assert pick_dtype(CPU, "dit", "bf16") == torch.bfloat16
    assert "no fast bfloat16" in caplog.text


def test_offload_copies_the_tensors_and_restores_them(monkeypatch):
    monkeypatch.setattr(placement, "_copy_to", lambda tensor, device: tensor.clone())
    module = torch.nn.BatchNorm1d(3)  # has parameters and buffers
    before = [*module.parameters(), *module.buffers()]
    stored = [tensor.data_ptr() for tensor in before]
    with pytest.raises(KeyError), torch.inference_mode(), Offload(CPU).use(module) as device:
        assert device == CPU
        assert not set(stored) & {tensor.data_ptr() for tensor in [*module.parameters(), *module.buffers()]}
        raise KeyError  # errors and cancelling restore them, too
    assert [tensor.data_ptr() for tensor in [*module.parameters(), *module.buffers()]] == stored
    assert not any(tensor.is_inference() for tensor in before)


def test_resident_moves_to_the_device():
    module = torch.nn.Linear(2, 2)
    with torch.inference_mode(), Resident(torch.device("meta")).use(module) as device:
        assert device.type == "meta"
    assert module.weight.device.type == "meta"
    assert not module.weight.is_inference()


def test_offload_needs_a_device_with_memory_of_its_own():
    assert default_placement(CUDA, offload=True) == Offload(CUDA)
    assert default_placement(CUDA) == Resident(CUDA)
    warnings = []
    assert default_placement(CPU, offload=True, callbacks=Callbacks(warning=warnings.append)) == Resident(CPU)
    assert default_placement(MPS, stream=True, callbacks=Callbacks(warning=warnings.append)) == Resident(MPS)
    assert ["cpu" in warnings[0], "mps" in warnings[1], len(warnings)] == [True, True, 2]


def test_graphs_are_for_cuda_and_not_for_streamed_layers(monkeypatch):
    warnings = []
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "native")
    assert options.pick_graphs(CUDA, True, stream=False) is True
    assert options.pick_graphs(CUDA, False, stream=True) is options.pick_graphs(CPU, False, stream=False) is False
    assert options.pick_graphs(CPU, True, stream=False, callbacks=Callbacks(warning=warnings.append)) is False
    assert options.pick_graphs(CPU, True, stream=True, callbacks=Callbacks(warning=warnings.append)) is False
    assert len(warnings) == 2 and "graphs are ignored" in warnings[0]
    with pytest.raises(RequestError, match="graphs and stream"):
        options.pick_graphs(CUDA, True, stream=True)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert options.pick_graphs(CUDA, True, stream=False) is False


def test_compile_needs_a_gpu_with_triton(monkeypatch):
    warnings = []
    assert options.pick_compile(CPU, True, Callbacks(warning=warnings.append)) is False
    assert len(warnings) == 1 and "compile is ignored" in warnings[0]
    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: name == "triton" or None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(options.shutil, "which", lambda name: name == "clang" or None)
    assert options.pick_compile(CUDA, True) is True and options.pick_compile(CUDA, False) is False
    with monkeypatch.context() as without:
        without.delenv("CC", raising=False)
        without.setattr(options.shutil, "which", lambda name: None)
        with pytest.raises(RequestError, match="compile.*C compiler"):
            options.pick_compile(CUDA, True)
        without.setattr(options.os, "name", "nt")  # whose Triton includes one
        assert options.pick_compile(CUDA, True) is True
        without.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
        with pytest.raises(RequestError, match=r"compile.*capability.*6\.1"):
            options.pick_compile(CUDA, True)
    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: None)
    assert options.pick_compile(CUDA, False) is False
    with pytest.raises(RequestError, match="compile.*triton"):
        options.pick_compile(CUDA, True)


def test_a_phase_logs_one_line(caplog):
    with caplog.at_level(logging.INFO, "acestep"), phase("decode", CPU, torch.float32):
        pass
    [record] = caplog.records
    assert re.fullmatch(r"decode: \d+\.\d\d s, cpu, float32, .*", record.message)


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_a_phase_logs_the_peak_and_leaves_the_statistics_of_the_process(monkeypatch, caplog, kind):
    statistics = {"max_memory_allocated": lambda device: 2**30, "synchronize": lambda device: None}
    monkeypatch.setattr(torch, kind, SimpleNamespace(**statistics))  # a reset would raise
    with caplog.at_level(logging.INFO, "acestep"), phase("decode", torch.device(kind), torch.float32):
        pass
    assert caplog.records[0].message.endswith("1.00 GiB peak")


def test_a_phase_on_an_xpu_without_statistics(monkeypatch, caplog):
    monkeypatch.setattr(torch, "xpu", SimpleNamespace(synchronize=lambda device: None))  # as in torch 2.5
    with caplog.at_level(logging.INFO, "acestep"), phase("decode", torch.device("xpu"), torch.float32):
        pass
    assert caplog.records[0].message.endswith("memory unknown")


def test_callbacks_report_and_cancel():
    reports = []
    Callbacks(progress=reports.append).report("decode", 1, 2)
    assert [(p.stage, p.step, p.total, p.estimate) for p in reports] == [("decode", 1, 2, None)]
    Callbacks().check("decode")
    with pytest.raises(Cancelled, match="decode"):
        Callbacks(cancelled=lambda: True).check("decode")
