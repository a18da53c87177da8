"""A real ComfyUI server in a subprocess, used over HTTP.

`COMFYUI_PATH` selects another version; see `tests.support.comfyui`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.comfyui import find_comfyui

REPO = Path(__file__).resolve().parents[2]
COLOUR, LEVEL = re.compile(r"\x1b\[[0-9;]*m"), re.compile(r"^\[[A-Z]+\] ", re.MULTILINE)


# A pack that says which models are loaded, as ComfyUI unloads them some time after it has answered. Its nodes make a
# list of a batch, and a batch of two recordings.
PROBE = """
import comfy.model_management
import torch
from aiohttp import web
from server import PromptServer

class ListOfBatch:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"samples": ("LATENT",)}})
    RETURN_TYPES, OUTPUT_IS_LIST, FUNCTION, CATEGORY = ("LATENT",), (True,), "split", "tests"

    def split(self, samples):
        return ([{"samples": one[None]} for one in samples["samples"]],)

class BatchAudio:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"first": ("AUDIO",), "second": ("AUDIO",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("AUDIO",), "join", "tests"

    def join(self, first, second):
        return ({**first, "waveform": torch.cat([first["waveform"], second["waveform"]])},)

NODE_CLASS_MAPPINGS = {"TestsListOfBatch": ListOfBatch, "TestsBatchAudio": BatchAudio}

@PromptServer.instance.routes.get("/tests/unloading")
async def unloading(request):
    pending = bool(PromptServer.instance.prompt_queue.flags)
    return web.json_response(pending or bool(comfy.model_management.current_loaded_models))
"""


class ComfyError(AssertionError):
    """The server failed. The message ends with the tail of its log."""


class PromptRejected(Exception):
    """POST /prompt returned an error. `node_errors` maps node ids to lists of error details."""

    def __init__(self, body: dict):
        self.body = body
        self.error = body.get("error", {})
        self.node_errors = {k: [e["details"] for e in v["errors"]] for k, v in body.get("node_errors", {}).items()}
        super().__init__(json.dumps(body)[:2000])


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@dataclass
class Run:
    """One finished prompt, with the server's status messages and the UI outputs by node id."""

    prompt_id: str
    completed: bool
    messages: list[tuple[str, dict]]
    outputs: dict[str, dict]

    def message(self, kind: str) -> dict | None:
        return next((data for name, data in self.messages if name == kind), None)

    @property
    def cached(self) -> set[str]:
        """The ids of the cached nodes."""
        return set((self.message("execution_cached") or {}).get("nodes", []))

    @property
    def error(self) -> str | None:
        """The error text on the node, or None."""
        data = self.message("execution_error")
        return data["exception_message"].strip() if data else None

    def files(self, key: str = "audio") -> list[dict]:
        return [f for output in self.outputs.values() for f in output.get(key, [])]


@dataclass
class ComfyServer:
    """A base directory (models, input, output, temp, custom_nodes) and the server process for it."""

    base: Path
    args: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    comfyui: Path = field(default_factory=find_comfyui)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen | None = None

    def __post_init__(self) -> None:
        for name in ("custom_nodes", "models", "input", "output", "user"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        (self.base / "custom_nodes" / "tests_probe.py").write_text(PROBE)
        self.log_path = self.base / "server.log"

    # -- process ------------------------------------------------------------------------------------------------------

    def install(self, source: Path, name: str) -> Path:
        """Link a pack into custom_nodes under any folder name. If the system allows no link, copy it."""
        target = self.base / "custom_nodes" / name
        try:
            target.symlink_to(source, target_is_directory=True)
        except OSError:
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(".git", "build", "__pycache__"))
        return target

    def start(self, timeout: float = 180.0) -> ComfyServer:
        command = [sys.executable, str(self.comfyui / "main.py"), "--port", str(self.port)]
        command += ["--base-directory", str(self.base), "--database-url", "sqlite:///:memory:", "--disable-api-nodes"]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *self.args],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.base,
                env={**os.environ, **self.environment},
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ComfyError(f"ComfyUI exited with {self.process.returncode} while starting.{self.log_tail()}")
            try:
                self.get("/system_stats")
                return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        self.stop()
        raise ComfyError(f"ComfyUI was not ready after {timeout:.0f} s.{self.log_tail()}")

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def __enter__(self) -> ComfyServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """The server's log, without the coloured levels of later versions."""
        text = self.log_path.read_text("utf-8", errors="replace") if self.log_path.exists() else ""
        return LEVEL.sub("", COLOUR.sub("", text))

    def log_tail(self, lines: int = 40) -> str:
        return "\n--- server log ---\n" + "\n".join(self.log.splitlines()[-lines:])

    # -- HTTP ---------------------------------------------------------------------------------------------------------

    def request(self, path: str, body: dict | None = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()

    def get(self, path: str) -> Any:
        return json.loads(self.request(path))

    def object_info(self) -> dict[str, dict]:
        return self.get("/object_info")

    def queue(self, prompt: dict[str, dict], **extra: object) -> str:
        """Post an API-format prompt and return its id. Raises PromptRejected."""
        try:
            return json.loads(self.request("/prompt", {"prompt": prompt, **extra}))["prompt_id"]
        except urllib.error.HTTPError as error:
            raise PromptRejected(json.loads(error.read())) from None

    def wait(self, prompt_id: str, timeout: float = 300.0) -> Run:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                raise ComfyError(f"ComfyUI exited with {self.process.returncode} during a prompt.{self.log_tail()}")
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry:
                status = entry["status"]
                messages = [(name, data) for name, data in status["messages"]]
                return Run(prompt_id, status["completed"], messages, entry["outputs"])
            time.sleep(0.05)
        raise ComfyError(f"The prompt was not done after {timeout:.0f} s.{self.log_tail()}")

    def run(self, prompt: dict[str, dict], timeout: float = 300.0) -> Run:
        """Queue a prompt and wait until it succeeded, failed or was interrupted."""
        return self.wait(self.queue(prompt), timeout)

    def play(self, prompt: dict[str, dict], timeout: float = 300.0) -> Run:
        """Run a prompt that must succeed."""
        run = self.run(prompt, timeout)
        if not run.completed:
            raise ComfyError(f"The prompt failed: {run.error or run.messages}{self.log_tail()}")
        return run

    def fetch(self, file: dict) -> bytes:
        """Return the bytes of a file that an output node reported."""
        query = urllib.parse.urlencode({k: file[k] for k in ("filename", "subfolder", "type")})
        return self.request(f"/view?{query}")

    def wait_for_log(self, sign: str, since: int, timeout: float = 120.0) -> None:
        """Wait until the log has a sign after its first `since` letters."""
        self.wait_until(lambda: sign in self.log[since:], f"The log does not have {sign!r}", timeout)

    def wait_until(self, condition: Callable[[], object], complaint: str, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise ComfyError(f"{complaint} after {timeout:.0f} s.{self.log_tail()}")
            time.sleep(0.05)

    def interrupt(self) -> None:
        self.request("/interrupt", {})

    def unload_models(self, *, forget: bool = False) -> None:
        """Press "Unload models", and wait until none is loaded. `forget` also drops the cached results."""

        def unloaded() -> bool:
            # ComfyUI's worker misses what is asked while it collects garbage: ask again until it has happened.
            self.request("/free", {"unload_models": True, "free_memory": forget})
            time.sleep(0.5)
            return not self.get("/tests/unloading")

        self.wait_until(unloaded, "Models are still loaded")
