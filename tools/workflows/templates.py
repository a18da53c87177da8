"""The templates, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Callable

from . import edits, songs
from .graph import Graph

TEMPLATES: list[Callable[[dict], Graph]] = [
    songs.text_to_music,
    songs.real_model,
    songs.comfy_files,
    songs.one_line,
    songs.planned_song,
    edits.edit_template("06 Cover", edits.EDITS["cover"]),
    edits.edit_template("07 Repaint", edits.EDITS["repaint"]),
    edits.edit_template("08 Extend", edits.EDITS["extend"]),
    edits.edit_template("09 Stems", edits.EDITS["stems"]),
    edits.timbre,
    edits.morph,
    edits.listen,
    songs.many_takes,
    songs.batch_of_songs,
    songs.ksampler,
    songs.lora,
    songs.lyric_times,
    songs.best_of,
    edits.repaint_by_name,
    songs.finish_and_save,
    edits.stems_to_files,
    edits.mix,
    songs.choose_a_take,
    songs.train_lora,
]
