"""Files that were damaged or made to mislead are refused with one sentence."""

from __future__ import annotations

import json
import struct
from functools import partial
from pathlib import Path

import pytest
import torch

from acestep_core.checkpoints import build
from acestep_core.checkpoints.build import load_network, load_text_encoder, load_vae
from acestep_core.checkpoints.catalog import Kind
from acestep_core.checkpoints.configs import read_config
from acestep_core.checkpoints.find import find_checkpoint, find_part, find_planner
from acestep_core.checkpoints.installed import _weight_folders, default_roots, list_releases
from acestep_core.checkpoints.reader import read_index
from acestep_core.checkpoints.shards import weight_files
from acestep_core.errors import CheckpointError, first_line, shown
from acestep_core.planner.load_planner import load_planner_network
from acestep_core.text.tokenizer import Tokenizer
from tests.support import layouts, tiny

DEEP = "[" * 100_000
LONG = "x" * 300


def refused(call, *args) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


def write_header(file: Path, header: dict | str, data: int) -> Path:
    raw = (header if isinstance(header, str) else json.dumps(header)).encode()
    file.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(data))
    return file


def entry(shape: object = (2,), begin: object = 0, end: object = 8, dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_librarys_error_is_cut_to_its_first_line():
    assert first_line(RuntimeError("bad zip\nframe #0: c10::Error\nframe #1")) == "bad zip"
    assert first_line(ValueError()) == "ValueError" and len(first_line(ValueError("x" * 999))) == 201
    assert "nested" in first_line(RecursionError("maximum recursion depth exceeded"))
    assert shown("a\nb") == r"'a\nb'" and len(shown("x" * 999)) < 90


# --- safetensors headers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "item",
    [
        entry([2.0]),
        entry([2.5], 0, 10),
        entry([True, 2]),
        entry([-2, -1]),
        entry(2),
        entry("2"),
        entry([2], 0.0, 8.0),
        entry([2], -8, 0),
        entry([2], 8, 0),
        entry([2], "0", "8"),
        entry([1] * 99 + [2]),
        entry([2], 0, 8, ["F32"]),
        entry([2], 0, 8, LONG),
        {"dtype": "F32", "shape": [2]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]},
        [],
        None,
    ],
    ids=str,
)
def test_a_header_with_an_impossible_tensor(tmp_path, item):
    assert "corrupt" in refused(read_index, write_header(tmp_path / "model.safetensors", {"a\n" + LONG: item}, 8))


@pytest.mark.parametrize("metadata", [{"a": 1}, {"a": {"b": "c"}}, {"a": [LONG]}, ["a"], "a", 5])
def test_metadata_that_is_no_text(tmp_path, metadata):
    file = write_header(tmp_path / "model.safetensors", {"__metadata__": metadata, "a": entry()}, 8)
    assert "corrupt" in refused(read_index, file)


@pytest.mark.parametrize("start", ['{"a":', '{"__metadata__": {"a":', '{"a": {"shape":'])
def test_a_header_that_is_nested_too_deeply(tmp_path, start):
    file = write_header(tmp_path / "model.safetensors", start + DEEP, 0)
    assert "nested too deeply" in refused(read_index, file)


@pytest.mark.parametrize(
    ("offsets", "size", "word"),
    [
        ([(0, 8), (4, 12)], 12, "overlaps"),
        ([(0, 8), (0, 8)], 8, "overlaps"),
        ([(0, 8), (12, 20)], 20, "unused bytes"),
        ([(4, 12)], 12, "unused bytes"),
        ([(0, 8)], 12, "4 bytes after"),
        ([], 1, "1 bytes after"),
        ([(0, 8)], 7, "truncated"),
    ],
)
def test_tensors_that_do_not_fill_the_file(tmp_path, offsets, size, word):
    header = {f"t{i}": entry([2], *pair) for i, pair in enumerate(offsets)}
    assert word in refused(read_index, write_header(tmp_path / "model.safetensors", header, size))


def test_an_empty_tensor_takes_no_place(tmp_path):
    file = layouts.save(tmp_path / "a.safetensors", {"b": torch.zeros(0), "a": torch.ones(2), "c": torch.zeros(3, 0)})
    assert len(read_index(file).entries) == 3


def test_an_error_of_a_library_is_one_line(tmp_path, monkeypatch):
    from acestep_core.checkpoints import reader

    def broken(*args, **options):
        raise reader.SafetensorError("bad file\nframe #0")

    folder = layouts.original(tmp_path / "acestep-v15-turbo", tiny.model())
    monkeypatch.setattr(reader, "safe_open", broken)
    assert refused(load_network, folder).endswith("bad file")


@pytest.mark.parametrize("error", [RuntimeError, OverflowError, ZeroDivisionError])
def test_a_network_that_torch_cannot_build(tmp_path, monkeypatch, error):
    def broken(*args, **options):
        raise error("Storage size calculation overflowed\nException raised from computeStorageNbytes\nframe #0")

    folder = layouts.original(tmp_path / "acestep-v15-turbo", tiny.model())
    monkeypatch.setattr(build, "AceStepModel", broken)
    assert refused(load_network, folder).endswith("overflowed")


# --- JSON files and names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, "", "[]", "5", "9" * 5000, "\udcff"])
def test_a_json_file_that_is_no_object(tmp_path, text):
    for name in ("config.json", "model.safetensors.index.json", "model_index.json"):
        (tmp_path / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    assert "config.json" in refused(read_config, tmp_path)
    assert "index.json" in refused(weight_files, tmp_path)
    assert _weight_folders(tmp_path) == [tmp_path]


@pytest.mark.parametrize(
    "places", [None, [], "text", {}, {"a": None}, {"a": ["b"]}, {"a": {}}, {"a": 5}, {"a": [[""]]}]
)
def test_an_index_without_shards(tmp_path, places):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert "index.json" in refused(weight_files, tmp_path)


@pytest.mark.parametrize("name", [LONG, "a\0b", "a\nb", "\ud800", "é" * 200])
def test_an_index_with_an_impossible_name(tmp_path, name):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "lacks 1 of its 1 shards" in refused(weight_files, tmp_path)


def test_shards_of_two_models_in_one_folder(tmp_path):
    for name in ("model-00001-of-00002", "model-00002-of-00002", "model-00001-of-00003", "model-a-of-b"):
        (tmp_path / f"{name}.safetensors").touch()
    assert "in 2 and of one in 3 files" in refused(weight_files, tmp_path)
    (tmp_path / "model-00001-of-00003.safetensors").unlink()
    assert len(weight_files(tmp_path)) == 2


@pytest.mark.parametrize("name", [LONG, f"{LONG}/model.safetensors", "a\0b"])
def test_an_impossible_path(tmp_path, name):
    assert "does not exist" in refused(load_network, tmp_path / name)


def test_an_impossible_path_to_a_model():
    for name in (LONG, f"~{LONG}", "~nobody-of-that-name/x", "a\0b", "x/" * 3000):
        for find in (find_checkpoint, find_planner, partial(find_part, Kind.VAE)):
            refused_path(find, name, [Path(LONG), Path("~nobody-of-that-name")])
    list_releases([Path(LONG)])
    default_roots("~nobody-of-that-name")
    for load in (load_vae, load_text_encoder, load_network, load_planner_network, Tokenizer.from_folder):
        refused_path(load, LONG)


def refused_path(call, *args) -> None:
    with pytest.raises(CheckpointError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
