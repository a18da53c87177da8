"""What a user sees while a node works, and how a stop reaches it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.latent_formats
import comfy.model_management as mm
import comfy.utils
import torch

from ...acestep_core.errors import Cancelled
from ...acestep_core.rate import TokenRate
from ...acestep_core.runtime import Hooks, Progress
from ..versions import running_node

log = logging.getLogger("acestep")

SHOWN_EVERY = 0.25  # seconds: often enough to be read, seldom enough not to slow the planner down


class _Pace:
    """How many tokens the planner has written, and how many it writes a second."""

    def __init__(self) -> None:
        self._rate = TokenRate()
        self._shown = 0.0

    def __call__(self, tokens: int, done: bool) -> None:
        rate, now = self._rate(tokens), time.perf_counter()
        if done or now - self._shown >= SHOWN_EVERY:
            self._shown = now
            show_on_node(f"{tokens} tokens, {rate:.0f} tokens/s")


class _NodeProgress:
    """The bar on the running node, one for each stage, and while sampling the song's picture."""

    def __init__(self, previewer: Any) -> None:
        self._stage: str | None = None
        self._bar: comfy.utils.ProgressBar | None = None
        self._previewer = previewer
        self._pace = _Pace()

    def __call__(self, progress: Progress) -> None:
        if progress.tokens is not None:
            self._pace(progress.tokens, progress.step >= progress.total)
        if progress.stage != self._stage:
            self._stage, self._bar = progress.stage, comfy.utils.ProgressBar(progress.total)
        self._bar.update_absolute(progress.step, progress.total, self._picture(progress.estimate))

    def _picture(self, estimate: torch.Tensor | None) -> tuple | None:
        if estimate is None or self._previewer is None:
            return None
        return self._previewer.decode_latent_to_preview_image("JPEG", estimate.movedim(-1, 1))


def _previewer(latent_format: comfy.latent_formats.LatentFormat) -> Any:
    """What ComfyUI's own samplers show, by the user's settings: None where previews are off."""
    import latent_preview

    return latent_preview.get_previewer(mm.get_torch_device(), latent_format)


@contextmanager
def watched(previewed: comfy.latent_formats.LatentFormat | None = None, notes: Sequence[str] = ()) -> Iterator[Hooks]:
    """Hooks for one node's work, drawing latents of the format `previewed`. `notes`, and what the core warns of, are
    shown on the node. A stop by the user leaves this block as ComfyUI's own interrupt."""
    previewer = None if previewed is None else _previewer(previewed)
    said = list(notes)
    show_note("\n".join(said))

    def add(sentence: str) -> None:
        if sentence not in said:
            said.append(sentence)
            show_on_node("\n".join(said))

    try:
        yield Hooks(progress=_NodeProgress(previewer), cancelled=mm.processing_interrupted, warned=add)
    except Cancelled:
        mm.throw_exception_if_processing_interrupted()  # clears the flag, too
        raise mm.InterruptProcessingException() from None


def show_note(note: str) -> None:
    """One line in the log and on the running node."""
    if note:
        log.warning(note)
        show_on_node(note)


def show_on_node(text: str) -> None:
    """Below the widgets of the running node."""
    server = sys.modules.get("server")  # not there when ComfyUI is used as a library
    node_id = running_node()
    if server is not None and node_id is not None:
        server.PromptServer.instance.send_progress_text(text, node_id)
