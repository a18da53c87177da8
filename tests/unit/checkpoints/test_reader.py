"""Each header is opened once, and a load fits into memory that has no room for a second copy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from acestep_core.checkpoints import reader
from acestep_core.checkpoints.build import load_network, load_text_encoder, load_vae
from acestep_core.checkpoints.find import find_checkpoint
from acestep_core.checkpoints.network_layouts import open_network
from acestep_core.checkpoints.reader import read_index
from acestep_core.errors import CheckpointError
from acestep_core.models.model import AceStepModel
from tests.support import layouts, tiny, tiny_checkpoint, tiny_text

ROOT = Path(__file__).parents[3]
tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The safetensors files whose headers were read, in order."""
    files, path_open = [], Path.open

    def count(self, *args, **options):
        if self.suffix == ".safetensors":
            files.append(self.name)
        return path_open(self, *args, **options)

    monkeypatch.setattr(Path, "open", count)
    return files


def test_a_load_reads_each_header_once(tmp_path, tiny_tokenizer_dir, opened):
    tiny_checkpoint.write_tiny_checkpoint(tmp_path, tiny_tokenizer_dir)
    files = sorted(file.name for file in tmp_path.rglob("*.safetensors"))
    for _ in range(3):  # a queue of ComfyUI validates, fingerprints and executes
        found = find_checkpoint(tmp_path)
        open_network(found.network)
    load_network(found.network)
    load_text_encoder(found.text_encoder, tokenizer=found.tokenizer)
    load_vae(found.vae)
    assert sorted(opened) == files


def test_a_changed_file_is_read_again(tmp_path, opened):
    file = layouts.save(tmp_path / "a.safetensors", {"a": torch.zeros(2)})
    assert read_index(file).entries.keys() == {"a"} == read_index(file).entries.keys()
    os.replace(layouts.save(tmp_path / "b.safetensors", {"b": torch.zeros(2)}), file)
    assert read_index(file).entries.keys() == {"b"}
    os.truncate(file, 20)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="truncated"):
            read_index(file)
    assert len(opened) == 4


def test_the_cache_of_headers_is_bounded():
    assert reader._parse_header.cache_info().maxsize == reader.CACHED_HEADERS


# For each case, print whether a load fits, and whether a load beside a second copy fits, into the mapped file, `result`
# bytes for each byte of the file, and a third of the file for the largest tensor.
CHILD = """
import json, re, resource, sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from acestep_core.checkpoints.build import load_network
from acestep_core.models.ops import quantized_ops

folder = Path(sys.argv[1])
torch.set_num_threads(1)

def fits(stored, dtype, storage, result, copy):
    small, file = (folder / f"turbo_{size}_{stored}.safetensors" for size in ("small", "large"))
    options = {"dtype": getattr(torch, dtype), "ops": quantized_ops(getattr(torch, storage)) if storage else torch.nn}
    load_network(small, **options)  # imports and buffers are not the load's
    used = 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    limit = used + int(file.stat().st_size * (1 + result + 1 / 3))
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    try:
        if copy:
            state = {name: tensor.to(options["dtype"], copy=True) for name, tensor in load_file(file).items()}
        network, _ = load_network(file, **options)
        return True
    except (RuntimeError, MemoryError):
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)

print(json.dumps([[fits(*case, copy) for copy in (False, True)] for case in json.loads(sys.argv[2])]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process")
def test_a_load_fits_where_a_second_copy_does_not(tmp_path):
    cases = [
        ("bfloat16", "bfloat16", None, 0),
        ("float32", "bfloat16", None, 0.5),
        ("bfloat16", "float32", None, 2),
        ("bfloat16", "bfloat16", "int8", 0.5),
        ("float32", "bfloat16", "float8_e4m3fn", 0.25),
    ]
    config = replace(tiny.STANDARD, intermediate_size=30_000, num_hidden_layers=8)
    for stored in ("bfloat16", "float32"):
        for size, each in (("small", tiny.STANDARD), ("large", config)):
            state = AceStepModel(each, device="meta").state_dict()
            state = {
                name: torch.full(tensor.shape, 0.5, dtype=getattr(torch, stored)) for name, tensor in state.items()
            }
            layouts.save(tmp_path / f"turbo_{size}_{stored}.safetensors", state)
    child = [sys.executable, "-c", CHILD, str(tmp_path), json.dumps(cases)]
    # A fixed threshold, or malloc keeps freed memory and the limit does not hold.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    output = subprocess.run(child, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert json.loads(output.splitlines()[-1]) == [[True, False]] * len(cases)
