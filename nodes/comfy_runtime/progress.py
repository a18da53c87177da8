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

from ...acestep_core.callbacks import Callbacks, Progress, TokenRate
from ...acestep_core.errors import Cancelled
from .versions import running_node

log = logging.getLogger("acestep")

SHOWN_EVERY = 0.25  # seconds: often enough to be read, seldom enough not to slow the planner down


class _Board:
    """What stands below the widgets of the running node: its notes, then what it is at. All that a node says in one
    run stays there, as what is shown takes the place of what was."""

    def __init__(self) -> None:
        self._node: tuple[str, str] | None = None
        self._notes: list[str] = []

    def note(self, sentence: str) -> None:
        if sentence not in self._of(running_node()):
            self._notes.append(sentence)
            self.show()

    def show(self, status: str = "") -> None:
        node, server = running_node(), sys.modules.get("server")  # not there when ComfyUI is used as a library
        if node is not None and server is not None:
            browser = server.PromptServer.instance
            text = "\n".join([*self._of(node), *([status] if status else [])])
            # web/js/text.js shows it: ComfyUI's own text on a node is two lines high and breaks words anywhere.
            browser.send_sync("acestep.notes", {"node": node[1], "text": text}, browser.client_id)

    def _of(self, node: tuple[str, str] | None) -> list[str]:
        """The notes of a node, which are none where it is another than before."""
        if node is None or node != self._node:
            self._node, self._notes = node, []
        return self._notes


_board = _Board()  # one, as there is one screen


class _Pace:
    """How many tokens the planner has written, and how many it writes a second."""

    def __init__(self) -> None:
        self._rate = TokenRate()
        self._shown = 0.0

    def __call__(self, tokens: int, done: bool) -> None:
        rate, now = self._rate(tokens), time.perf_counter()
        if done or now - self._shown >= SHOWN_EVERY:
            self._shown = now
            _board.show(f"{tokens} tokens, {rate:.0f} tokens/s")


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
def watched(
    previewed: comfy.latent_formats.LatentFormat | None = None, notes: Sequence[str] = ()
) -> Iterator[Callbacks]:
    """Callbacks for one node's work, drawing latents of the format `previewed`. `notes` and the core's warnings appear
    on the node. A stop by the user leaves this block as ComfyUI's own interrupt."""
    previewer = None if previewed is None else _previewer(previewed)
    for note in notes:
        show_note(note)
    try:
        yield Callbacks(progress=_NodeProgress(previewer), cancelled=mm.processing_interrupted, warning=_board.note)
    except Cancelled:
        mm.throw_exception_if_processing_interrupted()  # clears the flag, too
        raise mm.InterruptProcessingException() from None


def show_note(*notes: str) -> None:
    """In the log and on the running node, a line each; empty ones are none."""
    for note in notes:
        if note:
            log.warning(note)
            _board.note(note)
