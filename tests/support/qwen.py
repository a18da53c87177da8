"""Qwen's real vocabulary, which ComfyUI carries for its own text encoders."""

from __future__ import annotations

from pathlib import Path

import pytest

from .comfyui import find_comfyui


def find_qwen_tokenizer() -> Path:
    """The folder with vocab.json and merges.txt. Raises NoComfyUI when there is no ComfyUI to have it."""
    return find_comfyui() / "comfy" / "text_encoders" / "qwen25_tokenizer"


@pytest.fixture(scope="session")
def qwen_tokenizer_dir() -> Path:
    return find_qwen_tokenizer()
