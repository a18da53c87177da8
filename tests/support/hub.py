"""A server with the requests of Hugging Face that a download needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Repos = Mapping[str, Mapping[str, bytes]]  # contents by file and repository


def lfs(name: str, data: bytes) -> dict:
    """Return the hash that the Hub has of large files."""
    about = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
    return {"lfs": about} if name.endswith(".safetensors") else {}


class Hub(BaseHTTPRequestHandler):
    """Serves `repos`, and records the requests for file contents in `served`."""

    protocol_version = "HTTP/1.1"
    repos: Repos = {}
    served: list[tuple[str, str | None]] = []
    ranges = True

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(body=True)

    def answer(self, body: bool):
        path = self.path.partition("?")[0]
        repo = next(
            (repo for repo in self.repos if path.startswith((f"/api/models/{repo}", f"/{repo}/resolve/"))), None
        )
        if repo is None:
            self.send({}, b'{"error": "Repository not found"}', 404)
        elif "/paths-info/" in path or "/tree/" in path:  # which of them depends on huggingface_hub's version
            files = [
                {"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in self.repos[repo].items()
            ]
            self.send({"Content-Type": "application/json"}, json.dumps(files).encode())
        elif path.startswith("/api/"):
            files = [
                {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest(), **lfs(name, data)}
                for name, data in self.repos[repo].items()
            ]
            answer = json.dumps({"id": repo, "sha": "a" * 40, "siblings": files}).encode()
            self.send({"Content-Type": "application/json"}, answer)
        else:
            name = path.split("/", 5)[5]
            self.serve(name, self.repos[repo][name], body)

    def serve(self, name: str, data: bytes, body: bool):
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": "a" * 40, "Accept-Ranges": "bytes"}
        range_header = self.headers.get("Range")
        if body:
            self.served.append((name, range_header))
        status, first, last = 200, 0, len(data) - 1
        if range_header and self.ranges:
            status, (first, last) = 206, map(int, range_header.removeprefix("bytes=").split("-"))
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        data = data[first : last + 1]
        self.send(headers, data if body else b"", status, len(data))

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


@contextmanager
def serve_hub(repos: Repos) -> Iterator[str]:
    """Serve the repositories in a thread, and yield the endpoint."""
    Hub.repos, Hub.served, Hub.ranges = repos, [], True
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
