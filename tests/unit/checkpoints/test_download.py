"""Downloads, through the real huggingface_hub, from a server in this process."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from acestep_core.callbacks import Callbacks
from acestep_core.checkpoints import download as downloading
from acestep_core.checkpoints.catalog import COMFY_REPO, MAIN_REPO
from acestep_core.checkpoints.download import DownloadError, download, plan_download
from acestep_core.errors import Cancelled, RequestError

MAIN_FILES = {
    "README.md": b"read me",
    "acestep-v15-turbo/config.json": b'{"is_turbo": true}',
    "acestep-v15-turbo/model.safetensors": bytes(range(256)) * 4000,
    "acestep-v15-turbo/modeling_acestep_v15_turbo.py": b"print('never fetched')",
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


def lfs(name: str, data: bytes) -> dict:
    """Large files say their hash."""
    about = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
    return {"lfs": about} if name.endswith(".safetensors") else {}


class Hub(BaseHTTPRequestHandler):
    """As much of a Hugging Face server as a download asks for."""

    protocol_version = "HTTP/1.1"
    served: list[tuple[str, str | None]] = []

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        path = self.path.partition("?")[0]
        repo = next((repo for repo in REPOS if path.startswith((f"/api/models/{repo}", f"/{repo}/resolve/"))), None)
        if repo is None:
            self.send({}, b'{"error": "Repository not found"}', 404)
        elif path.startswith("/api/"):
            files = [
                {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest(), **lfs(name, data)}
                for name, data in REPOS[repo].items()
            ]
            answer = json.dumps({"id": repo, "sha": "a" * 40, "siblings": files}).encode()
            self.send({"Content-Type": "application/json"}, answer)
        else:
            name = path.split("/", 5)[5]
            self.serve(name, REPOS[repo][name], body)

    def serve(self, name: str, data: bytes, body: bool):
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": "a" * 40, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if body:
            self.served.append((name, wanted))
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.send(headers, data[start:] if body else b"", 206 if start else 200, len(data) - start)

    def send(self, headers: dict[str, str], body: bytes, status: int = 200, length: int | None = None):
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body) if length is None else length)}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except ConnectionError:  # the other side has stopped
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    Hub.served = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


WANTED = {name: data for name, data in MAIN_FILES.items()
          if not name.startswith(("README", "acestep-5Hz")) and not name.endswith(".py")}  # fmt: skip


def test_turbo_with_its_parts(hub, tmp_path):
    told, seen = [], []

    def announce(plan):
        told.append((plan, tree(tmp_path)))

    plan = download("turbo", tmp_path, callbacks=Callbacks(progress=seen.append), announce=announce, endpoint=hub)
    assert tree(tmp_path) == WANTED
    assert told == [(plan, {})]
    size = sum(map(len, WANTED.values()))
    assert plan.size == size and f"{size / 1e9:8.3f} GB  to fetch" in str(plan)
    assert {(progress.stage, progress.total) for progress in seen} == {("download", size)}
    steps = [progress.step for progress in seen]
    assert steps == sorted(steps) and steps[-1] == size


def test_what_is_there_is_not_fetched_again(hub, tmp_path):
    download("turbo", tmp_path, endpoint=hub)
    Hub.served.clear()
    plan = download("turbo", tmp_path, endpoint=hub)
    assert Hub.served == [] and plan.files == () and len(plan.present) == len(WANTED)
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


def test_a_cancelled_download_goes_on_where_it_stopped(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)  # as far as it may run on, else 10 MB
    name = "acestep-v15-turbo/model.safetensors"
    steps = [0]
    callbacks = Callbacks(progress=lambda progress: steps.append(progress.step), cancelled=lambda: steps[-1] > 300_000)
    with pytest.raises(Cancelled, match="during download"):
        download("turbo", tmp_path, callbacks=callbacks, endpoint=hub)
    assert not (tmp_path / name).exists() and steps[-1] < 500_000
    (begun,) = [file.begun for file in plan_download("turbo", tmp_path, endpoint=hub).files if file.name == name]
    assert begun > 300_000
    Hub.served.clear()
    seen = []
    download("turbo", tmp_path, callbacks=Callbacks(progress=seen.append), endpoint=hub)
    assert tree(tmp_path) == WANTED
    assert dict(Hub.served)[name] == f"bytes={begun}-"
    assert min(progress.step for progress in seen) > begun


def test_a_part_of_another_version_is_not_continued(hub, tmp_path, monkeypatch):
    name = "acestep-v15-turbo/model.safetensors"
    (plan,) = [file for file in plan_download("turbo", tmp_path, endpoint=hub).files if file.name == name]
    plan.part.parent.mkdir(parents=True)
    plan.part.write_bytes(b"begun")
    monkeypatch.setitem(REPOS, MAIN_REPO, {**MAIN_FILES, name: b"changed since" * 10})
    download("turbo", tmp_path, endpoint=hub)
    assert (tmp_path / name).read_bytes() == b"changed since" * 10
    assert dict(Hub.served)[name] is None
    assert not list(tmp_path.rglob("*.part"))


def test_a_part_that_is_too_long_is_thrown_away(hub, tmp_path):
    for file in plan_download("sft", tmp_path, endpoint=hub).files:
        file.part.parent.mkdir(parents=True, exist_ok=True)
        file.part.write_bytes(b"much too long" * 1000)
    download("sft", tmp_path, endpoint=hub)
    assert tree(tmp_path)["acestep-v15-sft/model.safetensors"] == b"sft" * 100
    assert not list(tmp_path.rglob("*.part"))


def test_a_damaged_part_is_thrown_away(hub, tmp_path):
    name = "acestep-v15-turbo/model.safetensors"
    (file,) = [file for file in plan_download("turbo", tmp_path, endpoint=hub).files if file.name == name]
    file.part.parent.mkdir(parents=True)
    file.part.write_bytes(b"damaged" * 100)
    with pytest.raises(DownloadError, match="model.safetensors of ACE-Step/Ace-Step1.5 arrived damaged"):
        download("turbo", tmp_path, endpoint=hub)
    assert not file.path.exists() and not file.part.exists()
    download("turbo", tmp_path, endpoint=hub)
    assert tree(tmp_path) == WANTED


def test_the_disk_must_be_large_enough(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "_free_space", lambda root: 400_000_000)
    told = []
    with pytest.raises(DownloadError, match="turbo needs 0.5 GB of free space in .*, where 0.4 GB are free"):
        download("turbo", tmp_path, announce=told.append, endpoint=hub)
    assert len(told) == 1 and tree(tmp_path) == {} and Hub.served == []


def test_a_folder_that_cannot_be_made_is_one_sentence(hub, tmp_path):
    (tmp_path / "acestep-v15-sft").write_text("a file is in the way")
    with pytest.raises(DownloadError, match="cannot be fetched: .*acestep-v15-sft"):
        download("sft", tmp_path, endpoint=hub)


def test_planning_fetches_nothing(hub, tmp_path):
    plan = plan_download("turbo", tmp_path / "new" / "folder", endpoint=hub)
    assert {file.path.relative_to(plan.root).as_posix(): file.size for file in plan.files} == {
        name: len(data) for name, data in WANTED.items()
    }
    assert Hub.served == [] and not (tmp_path / "new").exists()


def test_what_cannot_be_fetched(hub, tmp_path):
    with pytest.raises(RequestError, match="nano comes with the package"):
        download("nano", tmp_path, endpoint=hub)
    with pytest.raises(RequestError, match="unknown model 'huge'"):
        download("huge", tmp_path, endpoint=hub)
    with pytest.raises(DownloadError, match="ACE-Step/acestep-v15-base cannot be fetched"):
        download("base", tmp_path, endpoint=hub)
    with pytest.raises(DownloadError, match=f"{COMFY_REPO} has no split_files/.*turbo.safetensors"):
        download("comfy-turbo", tmp_path, endpoint=hub)
    with pytest.raises(DownloadError, match="cannot be fetched: .*; run it again"):
        download("turbo", tmp_path, endpoint="http://127.0.0.1:9")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "name", ["../../evil.safetensors", "/evil.safetensors", "..\\..\\evil.safetensors", "C:\\evil.safetensors"]
)
def test_unsafe_names_are_refused(hub, tmp_path, monkeypatch, name):
    monkeypatch.setitem(REPOS, "ACE-Step/acestep-v15-sft", {name: b"x"})
    with pytest.raises(DownloadError, match="unsafe name"):
        plan_download("sft", tmp_path, endpoint=hub)
