"""Qwen's real vocabulary, which ComfyUI ships for its text encoders."""

from __future__ import annotations

from pathlib import Path

import pytest

from .comfyui import find_comfyui


def find_qwen_tokenizer() -> Path:
    """Return the folder with vocab.json and merges.txt. Raises NoComfyUI."""
    return find_comfyui() / "comfy" / "text_encoders" / "qwen25_tokenizer"


@pytest.fixture(scope="session")
def qwen_tokenizer_dir() -> Path:
    return find_qwen_tokenizer()
