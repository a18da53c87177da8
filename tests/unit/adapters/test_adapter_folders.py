"""Find adapters by name."""

import pytest

from acestep_core.adapters.adapter_file import open_adapter
from acestep_core.adapters.adapter_folders import (
    NANO_LORAS,
    find_adapter,
    find_recorded,
    list_adapter_paths,
    lora_folders,
)
from acestep_core.adapters.recorded_adapter import RecordedAdapter
from acestep_core.errors import CheckpointError, RequestError
from tests.support.adapter_files import LINEAR, comfyui_file, factors, peft_folder

ONE = LINEAR[:1]


@pytest.fixture
def loras(tmp_path):
    folder = tmp_path / "models" / "loras"
    comfyui_file(folder / "style.safetensors", factors(modules=ONE))
    comfyui_file(folder / "voices" / "anna.safetensors", factors(modules=ONE, seed=5))
    peft_folder(folder / "drums", factors(modules=ONE, seed=7))
    peft_folder(folder / "bass" / "adapter", factors(modules=ONE, seed=9))
    (folder / "circle").symlink_to(folder)
    return folder


def test_folders_of_comfyui_and_of_our_own(tmp_path):
    assert lora_folders([tmp_path / "models"]) == (tmp_path / "models" / "loras", NANO_LORAS)
    ours = tmp_path / "models" / "acestep"
    assert lora_folders([ours]) == (ours / "loras", tmp_path / "models" / "loras", NANO_LORAS)
    assert find_adapter("nano-bells", [NANO_LORAS]) == NANO_LORAS / "nano-bells"


def test_files_and_folders_are_listed_once(loras):
    names = [path.relative_to(loras).as_posix() for path in list_adapter_paths([loras])]
    assert sorted(names) == ["bass/adapter", "drums", "style.safetensors", "voices/anna.safetensors"]
    assert list_adapter_paths([loras / "nothing"]) == []


def test_adapters_are_found_by_name_or_path(loras, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = {
        "style": "style.safetensors", "style.safetensors": "style.safetensors", "anna": "voices/anna.safetensors",
        "voices/anna": "voices/anna.safetensors", "drums": "drums", "bass": "bass",
        str(loras / "voices" / "anna"): "voices/anna.safetensors",
    }  # fmt: skip
    for name, path in expected.items():
        assert find_adapter(name, [loras]) == loras / path
    comfyui_file(loras / "other" / "anna.safetensors", factors(modules=ONE))
    with pytest.raises(CheckpointError, match="several.*give a path"):
        find_adapter("anna", [loras])
    for name in ("nothing", "", "/", str(loras / "nothing")):
        if name != "/":
            with pytest.raises(CheckpointError):
                open_adapter(find_adapter(name, [loras]))


def test_a_song_finds_its_adapter_by_name_and_hash(loras):
    for path in list_adapter_paths([loras]):
        adapter = open_adapter(path)
        assert find_recorded(RecordedAdapter(adapter.name, adapter.sha256), [loras]) == path
    with pytest.raises(CheckpointError, match="another file.*--lora"):
        find_recorded(RecordedAdapter("style.safetensors", "0" * 64), [loras])
    with pytest.raises(CheckpointError, match="not in.*--lora"):
        find_recorded(RecordedAdapter("nothing.safetensors", "0" * 64), [loras])


@pytest.mark.parametrize("name", ["/loras/a", "../a", "a/b", "C:\\a", "..", "", "a\0b", 5])
def test_a_song_may_not_choose_a_path(name):
    with pytest.raises(RequestError, match="loras"):
        RecordedAdapter(name, "0")


@pytest.mark.parametrize("values", [5, "a", [5], [{}], [{"name": "a"}], [{"name": "a", "sha256": "0", "strength": "1"}],
                                    [{"name": "a", "sha256": "0", "groups": [1]}]])  # fmt: skip
def test_other_values_are_refused(values):
    with pytest.raises(RequestError, match="loras"):
        RecordedAdapter.from_list(values)


def test_a_record_survives_json():
    for record in (RecordedAdapter("a", "0", 0.5), RecordedAdapter("b", "1", groups={"mlp": 0.0})):
        assert RecordedAdapter.from_list([record.to_dict()]) == (record,)
