"""The notes of the templates, in English, Chinese and Japanese. `{Load Model}` is a node's name in that language."""

from __future__ import annotations

import json
import re
from pathlib import Path

from .edit_notes import EDIT_NOTES
from .song_notes import SONG_NOTES

TRANSLATIONS = Path(__file__).resolve().parents[1] / "translations"
TITLES = {"en": "Read me first", "zh": "使用说明", "ja": "はじめに"}
CORE_NAMES = {
    "zh": {"Load Audio": "加载音频", "KSampler": "K采样器"},
    "ja": {"Load Audio": "音声を読み込む", "KSampler": "Kサンプラー"},
}
NAME = re.compile(r"\{([^}]+)\}")
NOTES = {**SONG_NOTES, **EDIT_NOTES}


def note_texts(key: str) -> dict[str, dict[str, str]]:
    """Return title and text of a note per language, with the nodes' translated names."""
    return {
        language: {"title": TITLES[language], "text": "\n\n".join(named(line, language) for line in lines) + "\n"}
        for language, lines in NOTES[key].items()
    }


def named(text: str, language: str) -> str:
    names = node_names(language)
    return NAME.sub(lambda match: names.get(match[1], match[1]), text)


def node_names(language: str) -> dict[str, str]:
    """Return the translated names of nodes, as far as there are any."""
    path = TRANSLATIONS / f"{language}.json"
    known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return {**known, **CORE_NAMES.get(language, {})}
