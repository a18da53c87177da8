"""Download released files from the Hugging Face Hub. Nothing else in this package accesses the internet.

Files are read in blocks through `HfFileSystem` into a part beside the target, so an interrupted download continues.
`hf_hub_download` cannot continue: recent versions delete an interrupted file and start again from zero.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from ..callbacks import Callbacks
from ..errors import AceStepError, RequestError
from .catalog import RELEASES, Release, find_release

if TYPE_CHECKING:
    from huggingface_hub import HfFileSystem

log = logging.getLogger("acestep")

SPARE = 500_000_000  # bytes left free on the disk
BLOCK = 2**20  # bytes of the first request; later ones grow and shrink to take about BLOCK_SECONDS
MAX_BLOCK = 2**26
BLOCK_SECONDS = 1.5


class DownloadError(AceStepError):
    """A download cannot start or did not finish."""


@dataclass(frozen=True)
class RemoteFile:
    """One file to download: `name` in `repo` at `revision` becomes `path`.

    version: identifies the contents.
    sha256: hash of the contents. None for small files, for which the Hub stores no hash.
    """

    repo: str
    name: str
    revision: str | None
    version: str
    size: int
    path: Path
    sha256: str | None = None

    @property
    def part(self) -> Path:
        """The incomplete file."""
        return self.path.with_name(f"{self.path.name}.{self.version[:12]}.part")

    @property
    def downloaded(self) -> int:
        """Bytes in the incomplete file."""
        return self.part.stat().st_size if self.part.is_file() else 0


@dataclass(frozen=True)
class DownloadPlan:
    """The files of a download, shown before it starts. Files in `present` are complete on disk already."""

    root: Path
    files: tuple[RemoteFile, ...]
    present: tuple[RemoteFile, ...]
    free: int

    @property
    def size(self) -> int:
        """Bytes to download, without the bytes already in incomplete files."""
        return sum(file.size - file.downloaded for file in self.files)

    def __str__(self) -> str:
        lines = [f"{file.size / 1e9:8.3f} GB  {file.path}" for file in self.files]
        lines.append(f"{self.size / 1e9:8.3f} GB  to download; {self.free / 1e9:.1f} GB free in {self.root}")
        if self.present:
            lines.append(f"{len(self.present)} files are there already")
        return "\n".join(lines)


def plan_download(
    name: str, root: str | Path, *, without: Collection[str] = (), endpoint: str | None = None
) -> DownloadPlan:
    """List the files of a release, and of the releases it needs to make a song, with their exact sizes.

    without: names of releases that are left out, because they are elsewhere. endpoint: another server than
    huggingface.co. Raises RequestError for an unknown name, DownloadError if the server
    cannot be reached.
    """
    release = find_release(name)
    if release.repo is None:
        raise RequestError(f"{name} comes with the package; there is nothing to download")
    root = Path(os.path.expanduser(root))
    releases = [RELEASES[each] for each in (name, *release.needs) if each not in without]
    files = [file for each in releases for file in _remote_files(each, root, endpoint)]
    files.sort(key=lambda file: file.name.endswith(".safetensors"))  # a folder with its weights counts as complete
    present = tuple(file for file in files if os.path.isfile(file.path) and file.path.stat().st_size == file.size)
    return DownloadPlan(root, tuple(file for file in files if file not in present), present, _free_space(root))


def download(
    name: str,
    root: str | Path,
    *,
    without: Collection[str] = (),
    callbacks: Callbacks | None = None,
    announce: Callable[[DownloadPlan], None] | None = None,
    endpoint: str | None = None,
) -> DownloadPlan:
    """Download a release, and the releases it needs, into `root`. Complete files stay, incomplete ones continue.

    without: as in `plan_download`. announce: receives the plan before the first byte. Progress is reported in bytes as
    stage "download". Raises DownloadError if the disk is too small or the server fails; another call continues.
    """
    from huggingface_hub import HfFileSystem

    callbacks, root = callbacks or Callbacks(), Path(os.path.expanduser(root))
    plan = plan_download(name, root, without=without, endpoint=endpoint)
    if announce is not None:
        announce(plan)
    if plan.files and plan.size + SPARE > plan.free:
        needed, free = f"{(plan.size + SPARE) / 1e9:.1f} GB", f"{plan.free / 1e9:.1f} GB"
        raise DownloadError(f"{name} needs {needed} of free space in {plan.root}, where {free} are free")
    hub = HfFileSystem(endpoint=endpoint, skip_instance_cache=True)
    total, done = sum(file.size for file in plan.files), 0
    for file in plan.files:
        callbacks.check("download")
        for count in _continue_part(hub, file):
            callbacks.report("download", done + count, total)
            callbacks.check("download")
        _finish_part(file)
        done += file.size
    log.info("download %s: %d files, %.2f GB into %s", name, len(plan.files), total / 1e9, plan.root)
    return plan


def _remote_files(release: Release, root: Path, endpoint: str | None) -> list[RemoteFile]:
    from huggingface_hub import HfApi

    assert release.repo is not None
    with _as_download_error(release.repo):
        info = HfApi(endpoint=endpoint).model_info(release.repo, files_metadata=True)
    files = [
        RemoteFile(
            repo=release.repo,
            name=sibling.rfilename,
            revision=info.sha,
            version=sibling.blob_id or "unknown",
            size=sibling.size or 0,
            path=root / _target(release, sibling.rfilename),
            sha256=getattr(sibling.lfs, "sha256", None),
        )
        for sibling in info.siblings or []
        if any(fnmatchcase(sibling.rfilename, pattern) for pattern in release.files)
    ]
    if not files:
        raise DownloadError(f"{release.repo} has no {', '.join(release.files)}; its files may have been moved")
    return files


def _target(release: Release, name: str) -> PurePosixPath:
    """Return the path of a repository's file below the root. Every model gets a folder of its own."""
    target = PurePosixPath(release.target)
    if release.is_file:
        return target
    inside = PurePosixPath(name)
    anywhere = PureWindowsPath(name)  # splits at both kinds of slash
    if anywhere.drive or anywhere.root or ".." in anywhere.parts:
        raise DownloadError(f"{release.repo} has a file with an unsafe name: {name}")
    return inside if inside.is_relative_to(target) else target / inside


def _continue_part(hub: HfFileSystem, file: RemoteFile) -> Iterator[int]:
    """Append to the incomplete file until it is complete. Yield its size after each block."""
    with _as_download_error(file.repo):
        file.path.parent.mkdir(parents=True, exist_ok=True)
        for part in file.path.parent.glob(f"{file.path.name}.*.part"):
            if part != file.part or file.downloaded > file.size:  # of another version, or too long
                part.unlink()
        length = BLOCK
        with (
            file.part.open("ab") as output,
            hub.open(f"{file.repo}/{file.name}", revision=file.revision, block_size=BLOCK, cache_type="none") as remote,
        ):
            remote.seek(output.tell())
            while output.tell() < file.size:
                started = time.perf_counter()
                expected = min(length, file.size - output.tell())
                block = remote.read(expected)
                if not block:
                    raise EOFError(f"{file.name} ends after {output.tell():,} of {file.size:,} bytes")
                if len(block) > expected:  # the server sent the whole file, as some do for compressed text
                    output.seek(0)
                    output.truncate()
                output.write(block)
                output.flush()
                # Few requests on a fast line, frequent reports on a slow one.
                quick = time.perf_counter() - started < BLOCK_SECONDS
                length = min(2 * length, MAX_BLOCK) if quick else max(length // 2, BLOCK)
                yield output.tell()


def _finish_part(file: RemoteFile) -> None:
    """Check size and hash and move the part to its place. A damaged part is removed: continuing cannot repair it."""
    with _as_download_error(file.repo):
        if file.downloaded == file.size and file.sha256 in (None, _sha256(file.part)):
            os.replace(file.part, file.path)
            return
        file.part.unlink()
    raise DownloadError(f"{file.name} of {file.repo} is damaged; another download starts it again")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _free_space(root: Path) -> int:
    """Return the free bytes on the disk of `root`, which need not exist yet."""
    existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if os.path.exists(folder))
    return shutil.disk_usage(existing).free


@contextmanager
def _as_download_error(repo: str) -> Iterator[None]:
    """Turn any error into a DownloadError: huggingface_hub raises errors of several libraries."""
    try:
        yield
    except AceStepError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DownloadError(f"{repo} cannot be downloaded: {reason}; another download continues") from error
