"""Downloads with the real huggingface_hub from a server in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from acestep_core.callbacks import Callbacks
from acestep_core.checkpoints import download as downloading
from acestep_core.checkpoints.catalog import COMFY_REPO, MAIN_REPO
from acestep_core.checkpoints.download import DownloadError, download, plan_download
from acestep_core.errors import Cancelled, RequestError
from tests.support.hub import Hub, serve_hub

MAIN_FILES = {
    "README.md": b"read me",
    "acestep-v15-turbo/config.json": b'{"is_turbo": true}',
    "acestep-v15-turbo/model.safetensors": bytes(range(256)) * 4000,
    "acestep-v15-turbo/modeling_acestep_v15_turbo.py": b"print('never downloaded')",
    "acestep-v15-turbo/silence_latent.pt": b"silence" * 50,
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": b"vae" * 1000,
    "Qwen3-Embedding-0.6B/model.safetensors": b"text" * 1000,
    "Qwen3-Embedding-0.6B/tokenizer.json": b"{}",
    "acestep-5Hz-lm-1.7B/model.safetensors": b"planner",
}
REPOS = {
    MAIN_REPO: MAIN_FILES,
    "ACE-Step/acestep-v15-sft": {"config.json": b"{}", "model.safetensors": b"sft" * 100, "README.md": b""},
    COMFY_REPO: {"split_files/vae/ace_1.5_vae.safetensors": b"one file", "split_files/vae/other.safetensors": b"no"},
}


@pytest.fixture
def hub():
    with serve_hub(REPOS) as endpoint:
        yield endpoint


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


EXPECTED = {name: data for name, data in MAIN_FILES.items()
          if not name.startswith(("README", "acestep-5Hz")) and not name.endswith(".py")}  # fmt: skip


def test_turbo_with_its_parts(hub, tmp_path):
    announced, reports = [], []

    def announce(plan):
        announced.append((plan, tree(tmp_path)))

    plan = download("turbo", tmp_path, callbacks=Callbacks(progress=reports.append), announce=announce, endpoint=hub)
    assert tree(tmp_path) == EXPECTED
    assert announced == [(plan, {})]
    size = sum(map(len, EXPECTED.values()))
    assert plan.size == size and f"{size / 1e9:8.3f} GB" in str(plan)
    assert {(progress.stage, progress.total) for progress in reports} == {("download", size)}
    steps = [progress.step for progress in reports]
    assert steps == sorted(steps) and steps[-1] == size


def test_weights_come_last_and_parts_that_are_elsewhere_not_at_all(hub, tmp_path):
    plan = plan_download("turbo", tmp_path, without={"vae"}, endpoint=hub)
    weights = [file.name.endswith(".safetensors") for file in plan.files]
    assert weights == sorted(weights) and sum(weights) == 2, "a folder with its weights counts as complete"
    assert not [file.name for file in plan.files if file.name.startswith("vae/")]


def test_complete_files_are_not_downloaded_again(hub, tmp_path):
    download("turbo", tmp_path, endpoint=hub)
    Hub.served.clear()
    plan = download("turbo", tmp_path, endpoint=hub)
    assert Hub.served == [] and plan.files == () and len(plan.present) == len(EXPECTED)
    (tmp_path / "vae" / "config.json").write_bytes(b"cut")
    download("turbo", tmp_path, endpoint=hub)
    assert [name for name, _ in Hub.served] == ["vae/config.json"]


def test_a_repository_with_one_model_gets_a_folder(hub, tmp_path):
    download("sft", tmp_path, endpoint=hub)
    there = tree(tmp_path)
    assert there["acestep-v15-sft/model.safetensors"] == b"sft" * 100
    assert there["acestep-v15-sft/config.json"] == b"{}"
    assert "vae/diffusion_pytorch_model.safetensors" in there and "Qwen3-Embedding-0.6B/tokenizer.json" in there
    assert not any(name.startswith(("acestep-v15-turbo", "README")) for name in there)


def test_a_comfyui_file_goes_to_comfyuis_folder(hub, tmp_path):
    download("comfy-vae", tmp_path, endpoint=hub)
    assert tree(tmp_path) == {"vae/ace_1.5_vae.safetensors": b"one file"}


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(downloading, "BLOCK", 1 << 16)
    monkeypatch.setattr(downloading, "MAX_BLOCK", 1 << 16)


def test_a_cancelled_download_continues(hub, tmp_path, small_blocks):
    name = "acestep-v15-turbo/model.safetensors"
    steps = [0]
    callbacks = Callbacks(progress=lambda progress: steps.append(progress.step), cancelled=lambda: steps[-1] > 300_000)
    with pytest.raises(Cancelled, match="download"):
        download("turbo", tmp_path, callbacks=callbacks, endpoint=hub)
    assert not (tmp_path / name).exists() and steps[-1] < 500_000
    (done,) = [file.downloaded for file in plan_download("turbo", tmp_path, endpoint=hub).files if file.name == name]
    assert 200_000 < done <= steps[-1]
    Hub.served.clear()
    reports = []
    download("turbo", tmp_path, callbacks=Callbacks(progress=reports.append), endpoint=hub)
    assert tree(tmp_path) == EXPECTED
    assert [place for each, place in Hub.served if each == name][0].startswith(f"bytes={done}-")
    assert min(progress.step for progress in reports) > done


def test_a_cut_connection_is_one_error_and_the_next_call_continues(hub, tmp_path, small_blocks, monkeypatch):
    name, send, sent = "acestep-v15-turbo/model.safetensors", Hub.send, []

    def cut(self, headers, body, status=200, length=None):
        sent.append(len(body))
        if sum(size == 1 << 16 for size in sent) > 3 and status == 206:
            status, body, length = 404, b"", 0
        send(self, headers, body, status, length)

    with monkeypatch.context() as failing:
        failing.setattr(Hub, "send", cut)
        with pytest.raises(DownloadError, match="continue"):
            download("turbo", tmp_path, endpoint=hub)
    (file,) = [file for file in plan_download("turbo", tmp_path, endpoint=hub).files if file.name == name]
    assert file.downloaded > 0
    download("turbo", tmp_path, endpoint=hub)
    assert tree(tmp_path) == EXPECTED


def test_a_server_without_ranges(hub, tmp_path, small_blocks, monkeypatch):
    monkeypatch.setattr(Hub, "ranges", False)
    for file in plan_download("turbo", tmp_path, endpoint=hub).files:
        file.part.parent.mkdir(parents=True, exist_ok=True)
        file.part.write_bytes(b"x")
    download("turbo", tmp_path, endpoint=hub)
    assert tree(tmp_path) == EXPECTED


def test_the_error_of_a_callback_stays_itself(hub, tmp_path):
    def interrupt(progress):
        raise InterruptedError("by the host")

    with pytest.raises(InterruptedError):
        download("sft", tmp_path, callbacks=Callbacks(progress=interrupt), endpoint=hub)


def test_a_part_of_another_version_is_removed(hub, tmp_path, monkeypatch):
    name = "acestep-v15-turbo/model.safetensors"
    (file,) = [file for file in plan_download("turbo", tmp_path, endpoint=hub).files if file.name == name]
    file.part.parent.mkdir(parents=True)
    file.part.write_bytes(b"begun")
    monkeypatch.setitem(REPOS, MAIN_REPO, {**MAIN_FILES, name: b"changed since" * 10})
    download("turbo", tmp_path, endpoint=hub)
    assert (tmp_path / name).read_bytes() == b"changed since" * 10
    assert dict(Hub.served)[name].startswith("bytes=0-")
    assert not list(tmp_path.rglob("*.part"))


def test_a_part_that_is_too_long_is_removed(hub, tmp_path):
    for file in plan_download("sft", tmp_path, endpoint=hub).files:
        file.part.parent.mkdir(parents=True, exist_ok=True)
        file.part.write_bytes(b"much too long" * 1000)
    download("sft", tmp_path, endpoint=hub)
    assert tree(tmp_path)["acestep-v15-sft/model.safetensors"] == b"sft" * 100
    assert not list(tmp_path.rglob("*.part"))


def test_a_damaged_part_is_removed(hub, tmp_path):
    name = "acestep-v15-turbo/model.safetensors"
    (file,) = [file for file in plan_download("turbo", tmp_path, endpoint=hub).files if file.name == name]
    file.part.parent.mkdir(parents=True)
    file.part.write_bytes(b"damaged" * 100)
    with pytest.raises(DownloadError, match="model.safetensors .*damaged"):
        download("turbo", tmp_path, endpoint=hub)
    assert not file.path.exists() and not file.part.exists()
    download("turbo", tmp_path, endpoint=hub)
    assert tree(tmp_path) == EXPECTED


def test_the_disk_must_be_large_enough(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "_free_space", lambda root: 400_000_000)
    announced = []
    with pytest.raises(DownloadError, match="0.5 GB .*0.4 GB"):
        download("turbo", tmp_path, announce=announced.append, endpoint=hub)
    assert len(announced) == 1 and tree(tmp_path) == {} and Hub.served == []


def test_a_folder_that_cannot_be_created(hub, tmp_path):
    (tmp_path / "acestep-v15-sft").write_text("a file is in the way")
    with pytest.raises(DownloadError, match="acestep-v15-sft"):
        download("sft", tmp_path, endpoint=hub)


def test_a_plan_downloads_nothing(hub, tmp_path):
    plan = plan_download("turbo", tmp_path / "new" / "folder", endpoint=hub)
    assert {file.path.relative_to(plan.root).as_posix(): file.size for file in plan.files} == {
        name: len(data) for name, data in EXPECTED.items()
    }
    assert Hub.served == [] and not (tmp_path / "new").exists()


def test_releases_that_cannot_be_downloaded(hub, tmp_path):
    with pytest.raises(RequestError, match="nano"):
        download("nano", tmp_path, endpoint=hub)
    with pytest.raises(RequestError, match="'huge'.*turbo"):
        download("huge", tmp_path, endpoint=hub)
    with pytest.raises(DownloadError, match="ACE-Step/acestep-v15-base"):
        download("base", tmp_path, endpoint=hub)
    with pytest.raises(DownloadError, match=f"{COMFY_REPO} has no split_files/.*turbo.safetensors"):
        download("comfy-turbo", tmp_path, endpoint=hub)
    with pytest.raises(DownloadError, match="continues"):
        download("turbo", tmp_path, endpoint="http://127.0.0.1:9")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "name", ["../../evil.safetensors", "/evil.safetensors", "..\\..\\evil.safetensors", "C:\\evil.safetensors"]
)
def test_unsafe_names_are_refused(hub, tmp_path, monkeypatch, name):
    monkeypatch.setitem(REPOS, "ACE-Step/acestep-v15-sft", {name: b"x"})
    with pytest.raises(DownloadError, match="unsafe name"):
        plan_download("sft", tmp_path, endpoint=hub)
