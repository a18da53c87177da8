"""Download Model: released files of ACE-Step 1.5, into ComfyUI's model folders."""

from __future__ import annotations

from collections.abc import Iterable, Set
from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from ..acestep_core.checkpoints.catalog import RELEASES, Kind, Release, find_release
from ..acestep_core.checkpoints.installed import list_releases
from .comfy_runtime.versions import search_aliases
from .files import MODELS, model_roots
from .sockets import LOADERS, ComboSocket

# ComfyUI's own nodes read single files as well. A model folder is offered if there is no single file of the model.
OFFERED = [
    name
    for name, release in RELEASES.items()
    if release.repo is not None
    and (release.is_file or f"comfy-{name}" not in RELEASES)
    and (release.kind in (Kind.NETWORK, Kind.PLANNER, Kind.ALL_IN_ONE) or name == "scragvae")
]
WHERE = {  # the widget that lists a downloaded file
    Kind.NETWORK: "model of Load Model",
    Kind.ALL_IN_ONE: "model of Load Model",
    Kind.VAE: "vae of Load Model",
    Kind.PLANNER: "planner of Load Planner",
}


class DownloadNode(io.ComfyNode):
    """web/js/download.js shows `details` of the chosen release on the node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        release = io.Combo.Input(
            "release",
            options=OFFERED,
            default="comfy-turbo",
            tooltip="Released model to download, with the parts that it needs. The size is shown below. comfy-turbo is "
            "the smallest that makes music, base and sft are better at edits, lm plans songs.",
        )
        found = found_parts()
        release.extra_dict = {"details": {name: describe(RELEASES[name], found) for name in OFFERED}}
        return io.Schema(
            node_id="AS15_Download",
            display_name="Download Model",
            category=LOADERS,
            description="Downloads a released ACE-Step 1.5 model from Hugging Face when you press Run. Files that are "
            "there already stay, and an interrupted download continues.",
            **search_aliases("download ace step, get model, install model, turbo, hugging face"),
            is_output_node=True,
            inputs=[release],
            outputs=[
                ComboSocket.Output(
                    display_name="name",
                    tooltip="Name of the model, for model of Load Model or planner of Load Planner.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, release) -> object:
        """Run again if a file of the release was removed. A linked release is None here."""
        return None if release is None else describe(RELEASES[release], found_parts())

    @classmethod
    def execute(cls, release) -> io.NodeOutput:
        from ..acestep_core.checkpoints.download import download
        from .comfy_runtime.progress import node_callbacks, show_values

        chosen, found = find_release(release), found_parts()
        downloads = not found.issuperset(names_of(chosen))
        if downloads:
            with node_callbacks() as callbacks:
                download(
                    release,
                    target_root(chosen),
                    without=found,
                    callbacks=callbacks,
                    announce=lambda plan: show_values(str(plan)),
                )
        shown = ui.PreviewText(describe(chosen, found_parts())).as_dict()
        return io.NodeOutput(Path(chosen.target).name, ui={**shown, "downloaded": [downloads]})


def found_parts() -> set[str]:
    """Return the names of the releases in ComfyUI's model folders, whatever these are called."""
    installed = {status.release.name for status in list_releases(model_roots()) if status.found is not None}
    return installed | {name for name, release in RELEASES.items() if release.is_file and _listed(release.target)}


def _listed(target: str) -> bool:
    category, _, name = target.partition("/")
    return folder_paths.get_full_path(category, name) is not None


def names_of(release: Release) -> list[str]:
    """Return the names of a release and of the parts it needs."""
    return [release.name, *release.needs]


def target_root(release: Release) -> Path:
    """Return the folder that the paths of a release start from."""
    return Path(folder_paths.models_dir) if release.is_file else Path(folder_paths.models_dir, MODELS)


def describe(release: Release, found: Set[str]) -> str:
    """Return what a release is, how much of it is missing, where it belongs, and the widget that lists it."""
    names = names_of(release)
    missing = [name for name in names if name not in found]
    if not missing:
        return f"{release.about}\nInstalled. Choose {Path(release.target).name} as {WHERE[release.kind]}."
    state = f"{gigabytes(missing)} to download"
    if len(missing) < len(names):
        state += f" of {gigabytes(names)}"
    return f"{release.about}\n{state}, to {target_root(release)}"


def gigabytes(names: Iterable[str]) -> str:
    return f"{sum(RELEASES[name].size for name in names) / 1e9:.1f} GB"
