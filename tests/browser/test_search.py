"""The search box of the canvas finds our nodes by the words that people type."""

from __future__ import annotations

from .conftest import PACK_FOLDER
from .frontend import Frontend

# The first of our nodes for each word. The frontend ranks nodes with the word in their own name before these.
FOUND = {
    "Load Model": ["ace step", "acestep", "ace-step 1.5"],
    "Song": ["music", "song", "text to music", "bpm", "caption", "vocal", "voice", "instrumental"],
    "Sample Song": ["generate music", "variation"],
    "Cover": ["cover", "remix", "style transfer"],
    "Repaint": ["repaint", "inpaint audio"],
    "Edit Song": ["edit"],
    "Extend": ["extend", "outpaint", "continue"],
    "Stems": ["stems", "stem separation", "isolate", "karaoke"],
    "Listen": ["transcribe", "understand"],
    "Plan Song": ["LLM"],
    "Load Planner": ["planner"],
    "Load LoRA": ["LoRA", "lokr", "peft"],
    "Batch Songs": ["batch"],
    "Compare Takes": ["ab test", "blind test"],
    "Mix Stems": ["mixer", "overlay"],
    "Song Picture": ["waveform image", "spectrogram image"],
    "Finish Song": ["finish", "mastering", "lufs", "limiter"],
    "Save Song": ["export", "id3", "save song"],
    "Timbre": ["timbre", "reference"],
    "Lyric Times": ["lyric times", "lrc", "subtitles", "timestamps"],
    "Pick Best": ["pick best", "best of n", "best take"],
    "Song Folder": ["dataset", "training data", "song folder"],
    "Train LoRA": ["train lora", "finetune", "trainer"],
    "Save Lyrics": ["save lyrics", "save subtitles", "lyrics"],
}


def test_every_word_finds_its_node(tab: Frontend) -> None:
    has_aliases = "search_aliases" in tab.server.object_info()["AS15_Song"]
    tab.open()
    wrong = {}
    for node, words in FOUND.items():
        for word in words:
            if has_aliases:
                ours = [text.splitlines()[0] for text in tab.search(word) if PACK_FOLDER in text]
                if not ours or ours[0] != node:
                    wrong[word] = ours
            elif word in node.lower():  # earlier frontends find names alone
                assert node in tab.library(word).all_inner_texts()
    assert not wrong
