"""Nano with heads for lyric times in its config. Any heads show that everything works, not that the times are right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from acestep_core.checkpoints.catalog import NANO

HEADS = {"1": [0], "2": [1, 3]}
NAME = "nano-singing/acestep-v15-nano"  # its entry in Load Model


def write_singing_nano(models: Path) -> str:
    """Write the model into a folder of models, unless it is there, and return its name in this folder."""
    target = models / NAME
    if not target.exists():
        shutil.copytree(NANO, target.parent, ignore=shutil.ignore_patterns("acestep-5Hz-lm-nano", "loras", "*.md"))
        config = json.loads((target / "config.json").read_text("utf-8"))
        (target / "config.json").write_text(json.dumps({"lyric_alignment_layers_config": HEADS, **config}))
    return NAME
