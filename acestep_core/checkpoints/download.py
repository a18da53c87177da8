"""Fetching released files through huggingface_hub. Nothing else in this package ever reaches out."""

from __future__ import annotations

import hashlib
import inspect
import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..callbacks import Callbacks
from ..errors import AceStepError, RequestError
from .catalog import RELEASES, Release, release

log = logging.getLogger("acestep")

SPARE = 500_000_000  # bytes left free on the disk


class DownloadError(AceStepError):
    """A download cannot start or did not finish."""


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch: `name` in `repo` becomes `path`. `version` tells apart contents that had the same name.
    `sha256` is of the contents; None where the repository does not say, as for small files.
    """

    repo: str
    name: str
    version: str
    size: int
    path: Path
    sha256: str | None = None

    @property
    def part(self) -> Path:
        """Where the file grows until it is complete."""
        return self.path.with_name(f"{self.path.name}.{self.version[:12]}.part")

    @property
    def begun(self) -> int:
        """Bytes that an earlier download left."""
        return self.part.stat().st_size if self.part.is_file() else 0


@dataclass(frozen=True)
class Plan:
    """What a download would fetch: shown before it starts. `present` is on disk in full already."""

    root: Path
    files: tuple[RemoteFile, ...]
    present: tuple[RemoteFile, ...]
    free: int

    @property
    def size(self) -> int:
        """Bytes to fetch, those of parts begun earlier not counted."""
        return sum(file.size - file.begun for file in self.files)

    def __str__(self) -> str:
        lines = [f"{file.size / 1e9:8.3f} GB  {file.path}" for file in self.files]
        lines.append(f"{self.size / 1e9:8.3f} GB  to fetch; {self.free / 1e9:.1f} GB free in {self.root}")
        if self.present:
            lines.append(f"{len(self.present)} files are there already")
        return "\n".join(lines)


def plan_download(name: str, root: str | Path, *, endpoint: str | None = None) -> Plan:
    """Asks the repositories for the files of a release, and of what it needs to make a song, with their exact sizes.

    `endpoint`: another server than huggingface.co. Raises RequestError for an unknown name, DownloadError when the
    server cannot be reached.
    """
    item = release(name)
    if item.repo is None:
        raise RequestError(f"{name} comes with the package; there is nothing to fetch")
    root = Path(root).expanduser()
    wanted = [file for one in (item, *(RELEASES[need] for need in item.needs)) for file in _files(one, root, endpoint)]
    present = tuple(file for file in wanted if file.path.is_file() and file.path.stat().st_size == file.size)
    files = tuple(file for file in wanted if file not in present)
    return Plan(root, files, present, _free_space(root))


def download(
    name: str,
    root: str | Path,
    *,
    callbacks: Callbacks | None = None,
    announce: Callable[[Plan], None] | None = None,
    endpoint: str | None = None,
) -> Plan:
    """Fetches a release, and what it needs, into `root`; what was fetched before is kept, a part is continued.

    `announce` is told the plan before the first byte. Progress is reported in bytes as stage "download". Raises
    DownloadError when the disk is too small or the server fails; calling again continues.
    """
    callbacks, root = callbacks or Callbacks(), Path(root).expanduser()
    plan = plan_download(name, root, endpoint=endpoint)
    if announce is not None:
        announce(plan)
    if plan.files and plan.size + SPARE > plan.free:
        needed, free = f"{(plan.size + SPARE) / 1e9:.1f} GB", f"{plan.free / 1e9:.1f} GB"
        raise DownloadError(f"{name} needs {needed} of free space in {plan.root}, where {free} are free")
    total = sum(file.size for file in plan.files)
    done = 0
    for file in plan.files:
        callbacks.check("download")
        _fetch(file, _Meter(callbacks, done, total), endpoint)
        done += file.size
        callbacks.report("download", done, total)
    log.info("download %s: %d files, %.2f GB into %s", name, len(plan.files), total / 1e9, plan.root)
    return plan


def _files(item: Release, root: Path, endpoint: str | None) -> list[RemoteFile]:
    from huggingface_hub import HfApi

    with _as_download_error(item.repo):
        siblings = HfApi(endpoint=endpoint).model_info(item.repo, files_metadata=True).siblings or []
    files = [
        RemoteFile(
            repo=item.repo,
            name=sibling.rfilename,
            version=sibling.blob_id or "unknown",
            size=sibling.size or 0,
            path=root / _place(item, sibling.rfilename),
            sha256=getattr(sibling.lfs, "sha256", None),
        )
        for sibling in siblings
        if any(fnmatchcase(sibling.rfilename, pattern) for pattern in item.files)
    ]
    if not files:
        raise DownloadError(f"{item.repo} has no {', '.join(item.files)}; its files may have been moved")
    return files


def _place(item: Release, name: str) -> PurePosixPath:
    """Where a file of the repository goes below the root: repositories with many models hold each in its folder."""
    target = PurePosixPath(item.target)
    if item.is_file:
        return target
    inside = PurePosixPath(name)
    anywhere = PureWindowsPath(name)  # knows both kinds of slash
    if anywhere.drive or anywhere.root or ".." in anywhere.parts:
        raise DownloadError(f"{item.repo} has a file with an unsafe name: {name}")
    return inside if inside.is_relative_to(target) else target / inside


def _fetch(file: RemoteFile, meter: _Meter, endpoint: str | None) -> None:
    """Fetches into a part beside the target, which the next call continues. `hf_hub_download` would start anew."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    extra: dict[str, Any] = {}
    if "tqdm_class" in inspect.signature(http_get).parameters:  # older versions draw a bar of their own
        extra["tqdm_class"] = _silent_bar()
    with _as_download_error(file.repo):
        file.path.parent.mkdir(parents=True, exist_ok=True)
        for other in file.path.parent.glob(f"{file.path.name}.*.part"):
            if other != file.part or file.begun > file.size:  # of another version, or spoilt
                other.unlink()
        with _Part(file.part, meter) as part:
            http_get(
                hf_hub_url(file.repo, file.name, endpoint=endpoint),
                part,
                resume_size=file.begun,
                headers=build_hf_headers(),
                expected_size=file.size,
                **extra,
            )
        _verify(file)
        os.replace(file.part, file.path)


def _verify(file: RemoteFile) -> None:
    """Throws a damaged part away: to continue it would never make it whole."""
    if file.begun == file.size and file.sha256 in (None, _sha256(file.part)):
        return
    file.part.unlink()
    raise DownloadError(f"{file.name} of {file.repo} arrived damaged; run it again to fetch it anew")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _Part(io.FileIO):
    """A growing file that tells the callbacks how large it is."""

    def __init__(self, path: Path, meter: _Meter):
        super().__init__(path, "ab")
        self._meter = meter

    def write(self, data: Any) -> int:
        view = memoryview(data)
        while view:
            view = view[super().write(view) :]
        self._meter.report(self.tell())
        return len(data)


def _free_space(root: Path) -> int:
    """Bytes free on the disk that `root` lies, or will lie, on."""
    existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


@dataclass(frozen=True)
class _Meter:
    """Progress of one file as progress of the whole download."""

    callbacks: Callbacks
    before: int
    total: int

    def report(self, count: int) -> None:
        self.callbacks.check("download")
        self.callbacks.report("download", min(self.before + count, self.total), self.total)


def _silent_bar() -> type:
    """A progress bar for huggingface_hub that draws nothing: progress is the callbacks' business."""
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any):
            options.pop("name", None)  # of huggingface_hub's own bars
            super().__init__(*args, **{**options, "disable": True})

    return Bar


@contextmanager
def _as_download_error(repo: str | None) -> Iterator[None]:
    """huggingface_hub raises errors of several libraries; each becomes one sentence."""
    try:
        yield
    except AceStepError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DownloadError(f"{repo} cannot be fetched: {reason}; run it again to continue") from error
