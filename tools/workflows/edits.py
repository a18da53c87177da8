"""The templates that start from a recording or change a song."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .graph import Graph
from .parts import (
    EDIT_COLUMNS,
    EXTEND,
    JAZZ,
    MIX,
    RECORDING_SECONDS,
    REPAINT,
    SEED,
    SOURCE_CAPTION,
    STEMS,
    Builder,
    decode_small,
    find_times,
    load_planner,
)


@dataclass(frozen=True)
class Edit:
    """An edit task. `task` and `height` are its node; `values`, `song` and `model` are widgets that differ."""

    note: str
    task: str
    height: int
    values: dict[str, object]
    song: dict[str, object]
    model: dict[str, object] = field(default_factory=dict)
    normalize: bool = True


EDITS = {
    "cover": Edit("cover", "Cover", 250, {}, {"caption": JAZZ}),
    "repaint": Edit("repaint", "Repaint", REPAINT, {"start": 4, "end": 8},
                    {"caption": SOURCE_CAPTION}, normalize=False),
    "extend": Edit("extend", "Extend", EXTEND, {"after": 8},
                   {"caption": SOURCE_CAPTION, "duration": RECORDING_SECONDS + 8}, normalize=False),
    "stems": Edit("stems", "Stems", STEMS, {"track": "drums"}, {"caption": "drum kit, dry"}, {"variant": "base"}),
}  # fmt: skip


def edit_template(name: str, edit: Edit) -> Callable[[dict], Graph]:
    """Return a template: a recording, the node of an edit task, and the song of the result."""

    def build(info: dict) -> Graph:
        b = Builder(name, info, EDIT_COLUMNS)
        model = b.model(**edit.model)
        b.note(0, edit.note, 200)
        song = b.song(1, 450, **edit.song)  # type: ignore[arg-type]
        sources = {"audio": b.recording(1).out, "vae": model["vae"]}
        task = b.graph.add(edit.task, 2, edit.height, **sources, **edit.values)  # type: ignore[arg-type]
        encode = b.encode(2, model, song.out, task=task.out)
        inputs = {"song": song.out, "filename_prefix": f"audio/{edit.note}"}
        b.end(model, b.sample(3, model, encode.out, seed=8).out, edit.normalize, **inputs)
        return b.graph

    return build


def timbre(info: dict) -> Graph:
    b = Builder("10 Timbre", info, EDIT_COLUMNS)
    model = b.model()
    b.note(0, "timbre", 200)
    song, audio = b.song(1, 450, JAZZ, duration=30), b.recording(2)
    encode = b.encode(2, model, song.out)
    transfer = b.graph.add("Timbre", 2, 234, conditioning=encode.out, vae=model["vae"], audio=audio.out)
    b.end(model, b.sample(3, model, transfer.out).out, song=song.out)
    return b.graph


def morph(info: dict) -> Graph:
    b = Builder("11 Morph", info, [280, 330, 270, 280, 300])
    model, audio = b.model(), b.recording(0)
    b.note(0, "morph", 190)
    origin = b.song(1, 320, SOURCE_CAPTION, title="Recording")
    target = b.song(1, 320, SOURCE_CAPTION.replace("flute", "brass band"), title="Result")
    encoded = {"origin": b.encode(2, model, origin.out).out, "target": b.encode(2, model, target.out).out}
    morphed = b.graph.add("Morph", 2, 190, audio=audio.out, vae=model["vae"], **encoded)  # type: ignore[arg-type]
    b.end(model, b.sample(3, model, morphed.out).out, song=target.out, filename_prefix="audio/morph")
    return b.graph


def listen(info: dict) -> Graph:
    b = Builder("12 Listen and remix", info, [280, 260, 360, 260, 300])
    model, planner, audio = b.model(), load_planner(b), b.recording(0)
    sources = {"planner": planner.out, "model": model["model"], "audio": audio.out, "vae": model["vae"]}
    described = b.graph.add("Listen", 1, 300, seed=SEED, after_generate="fixed", **sources)  # type: ignore[arg-type]
    b.note(1, "listen", 230)
    shown = b.graph.add("EditSong", 2, 490, song=described["song"])
    encode = b.encode(2, model, shown["song"], codes=described["codes"])
    b.end(model, b.sample(3, model, encode.out).out, song=shown["song"], filename_prefix="audio/remix")
    return b.graph


def repaint_by_name(info: dict) -> Graph:
    b = Builder("19 Repaint by name", info, [330, 270, 290, 270, 300])
    model, song = b.model(collapsed=True), b.vocal_song(0)
    b.note(0, "by_name", 230)
    encode = b.encode(1, model, song.out)
    first = b.sample(1, model, encode.out, title="First take", after_generate="fixed")
    times = find_times(b, 2, model, encode.out, first.out)
    inputs = {"latent": first.out, "times": times["times"], "where": "chorus"}
    task = b.graph.add("Repaint", 2, REPAINT, **inputs)  # type: ignore[arg-type]
    again = b.encode(3, model, song.out, task=task.out)
    result = b.sample(3, model, again.out, title="New chorus", seed=8)
    b.end(model, result.out, song=song.out, filename_prefix="audio/repaint")
    return b.graph


def stems_to_files(info: dict) -> Graph:
    b = Builder("21 Stems to files", info, [290, 300, 280, 290, 300])
    model = b.model(variant="base", collapsed=True)
    song, audio = b.song(0, 350, SOURCE_CAPTION), b.recording(1)
    b.note(0, "stem_files", 260)
    encoded = {}
    for number, track in enumerate(("drums", "bass", "keyboard"), 1):
        small = {"title": track.capitalize(), "collapsed": True, "gap": 12}
        task = b.graph.add("Stems", 1, STEMS, audio=audio.out, vae=model["vae"], track=track, **small)  # type: ignore[arg-type]
        encoded[f"song_{number}"] = b.encode(1, model, song.out, task=task.out, collapsed=True, gap=12).out
    batch = b.graph.add("BatchSongs", 1, 198, **encoded)  # type: ignore[arg-type]
    sample = b.sample(2, model, batch.out, seed=8)
    decoded = decode_small(b, 2, model, sample.out)
    inputs = {"stem_1": decoded, "reference": audio.out, "batch": "together", "headroom": 0}
    mixed = b.graph.add("MixStems", 3, MIX, **inputs)  # type: ignore[arg-type]
    b.save(mixed["stems"], filename_prefix="stems/%date:yyyy-MM-dd%/stem %batch_num%")
    return b.graph


def mix(info: dict) -> Graph:
    b = Builder("22 Mix stems", info, [290, 300, 280, 290, 300])
    model = b.model(variant="base", collapsed=True)
    song, audio = b.song(0, 350, "drum kit, dry"), b.recording(1)
    b.note(0, "mix", 250)
    task = b.graph.add("Stems", 1, STEMS, audio=audio.out, vae=model["vae"], track="drums")
    encode = b.encode(1, model, song.out, task=task.out, collapsed=True)
    sample = b.sample(2, model, encode.out, seed=8)
    mixed = b.graph.add("MixStems", 3, MIX, stem_1=audio.out, stem_2=decode_small(b, 2, model, sample.out))
    b.save(mixed.out, filename_prefix="audio/mix")
    return b.graph
