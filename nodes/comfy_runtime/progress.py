"""Progress bars, previews, notes and interrupts of the running node."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management as mm
import comfy.utils
import torch
from comfy.latent_formats import LatentFormat

from ...acestep_core.callbacks import Callbacks, Progress, TokenRate
from ...acestep_core.errors import Cancelled, printable, shortened
from .versions import running_node

log = logging.getLogger("acestep")

RATE_INTERVAL = 0.25  # seconds between two updates of the token rate


class _NodeText:
    """The text below the widgets of the running node: the notes of its run, then a status line."""

    def __init__(self) -> None:
        self._node: tuple[str, str] | None = None
        self._notes: list[str] = []

    def add_note(self, sentence: str) -> None:
        sentence = _safe(sentence)
        if sentence not in self._notes_of(running_node()):
            self._notes.append(sentence)
            self.show()

    def show(self, status: str = "") -> None:
        node, server = running_node(), sys.modules.get("server")  # missing if ComfyUI is used as a library
        if node is not None and server is not None:
            browser = server.PromptServer.instance
            text = "\n".join([*self._notes_of(node), *([status] if status else [])])
            # Shown by web/js/text.js: ComfyUI's own text on a node has two lines and breaks words anywhere.
            browser.send_sync("acestep.notes", {"node": node[1], "text": text}, browser.client_id)

    def _notes_of(self, node: tuple[str, str] | None) -> list[str]:
        if node is None or node != self._node:  # another node starts without notes
            self._node, self._notes = node, []
        return self._notes


def _safe(note: str) -> str:
    """Shorten and escape a note, which may hold text of a file, for terminals and browsers."""
    return printable(shortened(note))


_node_text = _NodeText()  # one, because ComfyUI runs one node at a time


class _NodeProgress:
    """The progress bar of the running node, with the token rate of a planner and the preview of a sampler."""

    def __init__(self, previewer: Any) -> None:
        self._stage: str | None = None
        self._bar: comfy.utils.ProgressBar | None = None
        self._previewer = previewer
        self._rate = TokenRate()
        self._rate_shown = 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.tokens is not None:
            self._show_rate(progress.tokens, progress.step >= progress.total)
        if self._bar is None or progress.stage != self._stage:
            self._stage, self._bar = progress.stage, comfy.utils.ProgressBar(progress.total)
        self._bar.update_absolute(progress.step, progress.total, self._preview(progress.estimate))

    def _show_rate(self, tokens: int, done: bool) -> None:
        rate, now = self._rate(tokens), time.perf_counter()
        if done or now - self._rate_shown >= RATE_INTERVAL:
            self._rate_shown = now
            _node_text.show(f"{tokens} tokens, {rate:.0f} tokens/s")

    def _preview(self, estimate: torch.Tensor | None) -> tuple | None:
        if estimate is None or self._previewer is None:
            return None
        return self._previewer.decode_latent_to_preview_image("JPEG", estimate.movedim(-1, 1))


def _find_previewer(preview: LatentFormat, always: bool) -> Any:
    """Return ComfyUI's previewer, or None if its setting is off and `always` is not."""
    import latent_preview

    found = latent_preview.get_previewer(mm.get_torch_device(), preview)
    if found is None and always:
        colours, draw = preview.latent_rgb_factors, preview.latent_rgb_factors_reshape
        found = latent_preview.Latent2RGBPreviewer(colours, latent_rgb_factors_reshape=draw)
    return found


@contextmanager
def node_callbacks(preview: LatentFormat | None = None, shown: str = "auto") -> Iterator[Callbacks]:
    """Yield callbacks for the running node, with previews of latents in the format `preview`.

    shown: "on", "off", or "auto" for ComfyUI's setting. An interrupt by the user leaves the block as ComfyUI's own
    exception.
    """
    previewer = None if preview is None or shown == "off" else _find_previewer(preview, shown == "on")
    try:
        yield Callbacks(_NodeProgress(previewer), cancelled=mm.processing_interrupted, warning=_node_text.add_note)
    except Cancelled:
        mm.throw_exception_if_processing_interrupted()  # clears ComfyUI's flag
        raise mm.InterruptProcessingException() from None


def show_notes(*notes: str) -> None:
    """Write notes to the log and below the running node, one line each. Empty ones are skipped."""
    for note in filter(None, notes):
        log.warning(_safe(note))
        _node_text.add_note(note)


def show_values(line: str) -> None:
    """Show a line below the running node, as notes are shown. An empty one is skipped."""
    if line:
        _node_text.add_note(line)
