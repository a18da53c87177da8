"""The templates. Each is a graph in columns of about 1500 x 760 pixels, which a small laptop shows as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from acestep_core.checkpoints.catalog import RELEASES

from .graph import Graph, Node, Output
from .notes import note_texts

RECORDING = "ACE-Step example.ogg"
RECORDING_SECONDS = 12
SOURCE_CAPTION = "gentle pop, flute, piano, soft pads, bass guitar and drums"
POP = "upbeat indie pop, bright electric guitars, warm female voice, summer evening"
JAZZ = "smoky jazz trio, upright bass, brushed drums, piano, late night"
LYRICS = """[Verse]
Streetlights hum along the water
Every window holds a tune

[Chorus]
Oh, we sing it to the morning
We were dancing with the moon"""
INSTRUMENTAL = "[Instrumental]"
SEED = 7
EDIT_COLUMNS = [290, 330, 300, 270, 260]
# Pixels of a node without its title bar, in both renderers and with the messages of a run.
LOAD_MODEL, PLANNER, SONG, ENCODE, SAMPLE, PLAN = 280, 110, 350, 118, 334, 372
DECODE, PLAYER, LOAD_AUDIO = 106, 110, 140
FINISH, SAVE, MIX, EXTEND, STEMS, COMPARE = 330, 330, 540, 355, 415, 420
TIMES, SAVE_LYRICS, PICK, REPAINT = 310, 210, 330, 385
SONG_FOLDER, TRAIN, LORA = 150, 620, 246
BELOW_SAMPLE = 680.0  # below the title bar, the messages and the picture of Sample Song


class Builder:
    """A graph with the nodes that every template has.

    The result is at the top of the last column, because ComfyUI's minimap hides the space below.
    """

    def __init__(self, name: str, object_info: dict[str, dict], columns: list[int]):
        self.graph = Graph(name, object_info, columns)
        self.last = len(columns) - 1

    def model(self, column: int = 0, **values: object) -> Node:
        return self.graph.add("LoadModel", column, LOAD_MODEL, **{"model": "nano", **values})

    def song(self, column: int, height: int = SONG, caption: str = POP, **values: object) -> Node:
        title = values.pop("title", None)
        values = {"lyrics": INSTRUMENTAL, "duration": RECORDING_SECONDS, **values}
        return self.graph.add("Song", column, height, title=title, caption=caption, **values)  # type: ignore[arg-type]

    def vocal_song(self, column: int, height: int = SONG) -> Node:
        return self.song(column, height, lyrics=LYRICS, language="English", duration=30)

    def recording(self, column: int) -> Node:
        return self.graph.add("LoadAudio", column, LOAD_AUDIO, audio=RECORDING)

    def encode(self, column: int, model: Node, song: Output, **inputs: object) -> Node:
        return self.graph.add("Encode", column, ENCODE, text_encoder=model["text_encoder"], song=song, **inputs)

    def sample(self, column: int, model: Node, conditioning: Output, **inputs: object) -> Node:
        inputs = {"seed": SEED, **inputs}
        add = self.graph.add
        return add("Sample", column, SAMPLE, model=model["model"], conditioning=conditioning, **inputs)  # type: ignore[arg-type]

    def play(self, model: Node, latent: Output, normalize: bool = True) -> Node:
        decode = self.graph.add("Decode", self.last, DECODE, vae=model["vae"], latent=latent, normalize=normalize)
        return self.graph.add("PreviewAudio", self.last, PLAYER, audio=decode.out)

    def note(self, column: int, key: str, height: int) -> None:
        self.graph.note(column, height, note_texts(key))


def text_to_music(info: dict, name: str = "01 Text to music") -> Graph:
    b = Builder(name, info, [400, 330, 330, 320])
    model, song = b.model(), b.vocal_song(0)
    encode = b.encode(1, model, song.out)
    b.note(1, "text", 220)
    b.play(model, b.sample(2, model, encode.out).out)
    return b.graph


def downloaded_model(b: Builder, collapsed: bool = False) -> Node:
    """Add Download Model, and Load Model behind it."""
    download = b.graph.add("Download", 0, 210, release="comfy-turbo")
    model = b.model(model=download["name"], collapsed=collapsed)
    model.values["model"] = file_of("comfy-turbo")["name"]  # used if the download is muted or bypassed
    return model


def real_model(info: dict) -> Graph:
    b = Builder("02 Real model", info, [380, 380, 320, 300])
    model = downloaded_model(b)
    song = b.vocal_song(1)
    encode = b.encode(1, model, song.out)
    b.note(1, "real", 150)
    b.play(model, b.sample(2, model, encode.out).out)
    return b.graph


def comfy_files(info: dict) -> Graph:
    b = Builder("03 Files of ComfyUI", info, [310, 350, 270, 270, 260])
    names = {"model": "comfy-turbo", "text_encoder": "comfy-text-encoder", "vae": "comfy-vae"}
    model = b.model(**{widget: file_of(release)["name"] for widget, release in names.items()})
    planner = load_planner(b, planner=file_of("comfy-lm-1.7b")["name"])
    b.note(0, "files", 190)
    model.properties["models"] = [file_of(release) for release in names.values()]
    planner.properties["models"] = [file_of("comfy-lm-1.7b")]
    plan = plan_song(b, 2, planner, b.vocal_song(1, 450).out)
    encode = b.encode(2, model, plan["song"], codes=plan["codes"])
    b.play(model, b.sample(3, model, encode.out).out)
    return b.graph


def file_of(release: str) -> dict[str, str]:
    """Return a single file of ComfyUI, as its dialog for missing models reads it."""
    chosen = RELEASES[release]
    directory, _, name = chosen.target.partition("/")
    return {
        "name": name,
        "url": f"https://huggingface.co/{chosen.repo}/resolve/main/{chosen.files[0]}",
        "directory": directory,
    }


def load_planner(b: Builder, planner: str = "nano") -> Node:
    return b.graph.add("LoadPlanner", 0, PLANNER, planner=planner)


def plan_song(b: Builder, column: int, planner: Node, song: Output, rewrite_caption: bool = True) -> Node:
    inputs = {"planner": planner.out, "song": song, "seed": SEED, "rewrite_caption": rewrite_caption}
    return b.graph.add("Plan", column, PLAN, **inputs)  # type: ignore[arg-type]


def one_line(info: dict) -> Graph:
    b = Builder("04 One line to a song", info, [300, 360, 270, 270, 260])
    model, planner = b.model(1), load_planner(b)
    idea = "a sea shanty about compilers"
    write = b.graph.add("Write", 0, 340, planner=planner.out, idea=idea, seed=SEED, duration=30)
    b.note(0, "line", 170)
    song = b.graph.add("EditSong", 1, 410, song=write.out)
    plan = plan_song(b, 2, planner, song["song"], rewrite_caption=False)
    encode = b.encode(2, model, plan["song"], codes=plan["codes"])
    b.play(model, b.sample(3, model, encode.out).out)
    return b.graph


def planned_song(info: dict) -> Graph:
    b = Builder("05 Planned song", info, [300, 350, 270, 270, 270])
    model, planner = b.model(), load_planner(b)
    b.note(0, "planned", 200)
    song = b.vocal_song(1, 450)
    plan = plan_song(b, 2, planner, song.out)
    encode = b.encode(2, model, plan["song"], codes=plan["codes"])
    b.play(model, b.sample(3, model, encode.out).out)
    b.graph.add("PreviewAny", 4, 100, title="Audio codes", source=plan["codes"])
    b.graph.add("SaveCodes", 2, 114, codes=plan["codes"], song=plan["song"])
    return b.graph


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
        b.play(model, b.sample(3, model, encode.out, seed=8).out, edit.normalize)
        return b.graph

    return build


def timbre(info: dict) -> Graph:
    b = Builder("10 Timbre", info, EDIT_COLUMNS)
    model = b.model()
    b.note(0, "timbre", 200)
    song, audio = b.song(1, 450, JAZZ, duration=30), b.recording(2)
    encode = b.encode(2, model, song.out)
    transfer = b.graph.add("Timbre", 2, 98, conditioning=encode.out, vae=model["vae"], audio=audio.out)
    b.play(model, b.sample(3, model, transfer.out).out)
    return b.graph


def morph(info: dict) -> Graph:
    b = Builder("11 Morph", info, [290, 340, 270, 280, 270])
    model, audio = b.model(), b.recording(0)
    b.note(0, "morph", 190)
    origin = b.song(1, 320, SOURCE_CAPTION, title="Recording")
    target = b.song(1, 320, SOURCE_CAPTION.replace("flute", "brass band"), title="Result")
    encoded = {"origin": b.encode(2, model, origin.out).out, "target": b.encode(2, model, target.out).out}
    morphed = b.graph.add("Morph", 2, 190, audio=audio.out, vae=model["vae"], **encoded)  # type: ignore[arg-type]
    b.play(model, b.sample(3, model, morphed.out).out)
    return b.graph


def listen(info: dict) -> Graph:
    b = Builder("12 Listen and remix", info, [290, 270, 370, 270, 260])
    model, planner, audio = b.model(), load_planner(b), b.recording(0)
    sources = {"planner": planner.out, "model": model["model"], "audio": audio.out, "vae": model["vae"]}
    described = b.graph.add("Listen", 1, 300, seed=SEED, after_generate="fixed", **sources)  # type: ignore[arg-type]
    b.note(1, "listen", 230)
    shown = b.graph.add("EditSong", 2, 490, song=described["song"])
    encode = b.encode(2, model, shown["song"], codes=described["codes"])
    b.play(model, b.sample(3, model, encode.out).out)
    return b.graph


def many_takes(info: dict) -> Graph:
    b = Builder("13 Many takes", info, [370, 260, 280, 280, 260])
    model, song = b.model(), b.vocal_song(0)
    encode = b.encode(1, model, song.out)
    b.note(1, "takes", 260)
    inputs = {"model": model["model"], "conditioning": encode.out, "seed": SEED, "after_generate": "fixed"}
    takes = b.graph.add("Sample", 2, SAMPLE, title="Takes 1 and 2", batch_size=2, **inputs)  # type: ignore[arg-type]
    retake = b.graph.add("Sample", 3, SAMPLE, title="Retake", retake_variance=0.2, retake_seed=1, **inputs)  # type: ignore[arg-type]
    b.graph.y[2] = b.graph.y[3] = BELOW_SAMPLE
    for index, title in enumerate(["Take 1", "Take 2"]):
        latent = pick(b, 2, takes.out, index)
        play_small(b, 3, model, latent, title)
    play_small(b, 3, model, retake.out, "Retake of take 1")
    return b.graph


def pick(b: Builder, column: int, latent: Output, index: int) -> Output:
    """Return one song of a batch."""
    node = b.graph.add("LatentFromBatch", column, 90, title=f"Number {index + 1}", collapsed=True, gap=12,
                       samples=latent, batch_index=index)  # fmt: skip
    return node.out


def play_small(b: Builder, column: int, model: Node, latent: Output, title: str) -> None:
    decode = b.graph.add("Decode", column, DECODE, collapsed=True, gap=12, vae=model["vae"], latent=latent)
    b.graph.add("PreviewAudio", b.last, PLAYER, title=title, gap=15, audio=decode.out)


def batch_of_songs(info: dict) -> Graph:
    b = Builder("14 Batch of songs", info, [290, 340, 260, 280, 270])
    model = b.model()
    b.note(0, "songs", 220)
    first = b.song(1, 320, "warm lo-fi piano, soft drums, vinyl crackle", title="Song 1", duration=30)
    second = b.song(1, 320, "driving synthwave, neon bass, electric drums", title="Song 2", duration=30)
    encoded = {"song_1": b.encode(2, model, first.out).out, "song_2": b.encode(2, model, second.out).out}
    batch = b.graph.add("BatchSongs", 2, 198, **encoded)  # type: ignore[arg-type]
    sample = b.sample(3, model, batch.out)
    for index, title in enumerate(["Song 1", "Song 2"]):
        play_small(b, b.last, model, pick(b, b.last, sample.out, index), title)
    return b.graph


def ksampler(info: dict) -> Graph:
    b = Builder("15 KSampler", info, [400, 320, 320, 300])
    model, song = b.model(), b.vocal_song(0)
    encode = b.encode(1, model, song.out)
    negative = b.graph.add("ConditioningZeroOut", 1, 34, conditioning=encode.out)
    empty = b.graph.add("EmptyLatent", 1, 86, song=song.out)
    sample = b.graph.add("KSampler", 2, 270, model=model["model"], positive=encode.out, negative=negative.out,
                         latent_image=empty.out, seed=SEED, steps=8, cfg=1)  # fmt: skip
    b.note(1, "ksampler", 180)
    b.play(model, sample.out)
    return b.graph


def lora(info: dict) -> Graph:
    b = Builder("16 LoRA", info, [400, 330, 330, 320])
    model, song = b.model(), b.vocal_song(0)
    adapted = b.graph.add("LoadLora", 1, 246, model=model["model"], lora="nano-bells", strength=1.0)
    encode = b.encode(1, model, song.out)
    b.note(1, "lora", 220)
    b.play(model, b.sample(2, adapted, encode.out).out)
    return b.graph


def find_times(b: Builder, column: int, model: Node, conditioning: Output, latent: Output) -> Node:
    inputs = {"model": model["model"], "conditioning": conditioning, "latent": latent}
    return b.graph.add("LyricTimes", column, TIMES, **inputs)  # type: ignore[arg-type]


def lyric_times(info: dict) -> Graph:
    b = Builder("17 Lyric times", info, [350, 260, 270, 290, 260])
    model, song = downloaded_model(b, collapsed=True), b.vocal_song(0)
    encode = b.encode(1, model, song.out)
    b.note(1, "times", 260)
    sample = b.sample(2, model, encode.out)
    times = find_times(b, 3, model, encode.out, sample.out)
    b.play(model, sample.out)
    b.graph.add("SaveLyrics", 4, SAVE_LYRICS, times=times["times"], srt=True)
    return b.graph


def best_of(info: dict) -> Graph:
    b = Builder("18 Best of four takes", info, [350, 260, 270, 290, 260])
    model, song = downloaded_model(b, collapsed=True), b.vocal_song(0)
    encode = b.encode(1, model, song.out)
    b.note(1, "best", 260)
    takes = b.sample(2, model, encode.out, batch_size=4)
    inputs = {"model": model["model"], "conditioning": encode.out, "latent": takes.out}
    best = b.graph.add("PickBest", 3, PICK, **inputs)  # type: ignore[arg-type]
    b.play(model, best["latent"])
    return b.graph


def repaint_by_name(info: dict) -> Graph:
    b = Builder("19 Repaint by name", info, [350, 270, 290, 270, 260])
    model, song = downloaded_model(b, collapsed=True), b.vocal_song(0)
    encode = b.encode(1, model, song.out)
    first = b.sample(1, model, encode.out, title="First take", after_generate="fixed")
    times = find_times(b, 2, model, encode.out, first.out)
    inputs = {"latent": first.out, "times": times["times"], "where": "chorus"}
    task = b.graph.add("Repaint", 2, REPAINT, **inputs)  # type: ignore[arg-type]
    again = b.encode(3, model, song.out, task=task.out)
    result = b.sample(3, model, again.out, title="New chorus", seed=8)
    b.play(model, result.out)
    b.note(4, "by_name", 250)
    return b.graph


def finish_and_save(info: dict) -> Graph:
    b = Builder("20 Finish and save", info, [290, 330, 270, 270, 290])
    model = b.model()
    b.note(0, "finish", 250)
    song = b.vocal_song(1, 450)
    encode = b.encode(2, model, song.out)
    sample = b.sample(2, model, encode.out)
    decode = b.graph.add("Decode", 3, DECODE, vae=model["vae"], latent=sample.out)
    finish = b.graph.add("FinishSong", 3, FINISH, audio=decode.out, fade_out=2, trim=False)
    save = b.graph.add("SaveSong", 4, SAVE, audio=finish.out, song=song.out, filename_prefix="audio/%title%")
    save.values |= {"title": "Streetlights", "artist": "nano"}
    return b.graph


def stems_to_files(info: dict) -> Graph:
    b = Builder("21 Stems to files", info, [280, 300, 280, 290, 290])
    model = b.model(variant="base")
    b.note(0, "stem_files", 250)
    song, audio = b.song(1, 350, SOURCE_CAPTION), b.recording(1)
    encoded = {}
    for number, track in enumerate(("drums", "bass", "keyboard"), 1):
        small = {"title": track.capitalize(), "collapsed": True, "gap": 12}
        task = b.graph.add("Stems", 2, STEMS, audio=audio.out, vae=model["vae"], track=track, **small)  # type: ignore[arg-type]
        encoded[f"song_{number}"] = b.encode(2, model, song.out, task=task.out, collapsed=True, gap=12).out
    batch = b.graph.add("BatchSongs", 2, 198, **encoded)  # type: ignore[arg-type]
    sample = b.sample(3, model, batch.out, seed=8)
    decoded = decode_small(b, 3, model, sample.out)
    b.graph.add("SaveSong", 4, SAVE, audio=decoded, filename_prefix="stems/%date:yyyy-MM-dd%/stem %batch_num%")
    return b.graph


def mix(info: dict) -> Graph:
    b = Builder("22 Mix stems", info, [290, 300, 280, 290, 280])
    model = b.model(variant="base")
    song, audio = b.song(0, 350, "drum kit, dry"), b.recording(1)
    task = b.graph.add("Stems", 1, STEMS, audio=audio.out, vae=model["vae"], track="drums")
    encode = b.encode(1, model, song.out, task=task.out, collapsed=True)
    sample = b.sample(2, model, encode.out, seed=8)
    mixed = b.graph.add("MixStems", 3, MIX, stem_1=audio.out, stem_2=decode_small(b, 2, model, sample.out))
    b.graph.add("PreviewAudio", 4, PLAYER, audio=mixed.out)
    b.note(4, "mix", 250)
    return b.graph


def choose_a_take(info: dict) -> Graph:
    b = Builder("23 Choose a take", info, [320, 250, 270, 320, 280])
    model, song = b.model(), b.vocal_song(0)
    encode = b.encode(1, model, song.out)
    b.note(1, "choose", 280)
    takes = b.sample(2, model, encode.out, batch_size=3, after_generate="fixed")
    decode = b.graph.add("Decode", 3, DECODE, vae=model["vae"], latent=takes.out)
    chosen = b.graph.add("CompareTakes", 3, COMPARE, take_1=decode.out)
    b.graph.add("SaveSong", 4, SAVE, audio=chosen.out, song=song.out)
    return b.graph


def train_lora(info: dict) -> Graph:
    b = Builder("24 Train a LoRA", info, [300, 290, 280, 270, 260])
    songs = b.graph.add("SongFolder", 0, SONG_FOLDER)
    song = b.song(0, 330, f"zorp, {SOURCE_CAPTION}", duration=30)
    model = b.model(0, collapsed=True)
    trained = b.graph.add("TrainLora", 1, TRAIN, songs=songs["songs"], trigger="zorp", steps=120, rank=8,
                          learning_rate=0.004, crop=6)  # fmt: skip
    adapted = b.graph.add("LoadLora", 2, LORA, model=model["model"], lora=trained["lora"])
    adapted.values["lora"] = "nano-bells"  # used if the training is muted or bypassed
    encode = b.encode(2, model, song.out)
    b.note(2, "train", 260)
    b.play(model, b.sample(3, adapted, encode.out).out)
    return b.graph


def decode_small(b: Builder, column: int, model: Node, latent: Output) -> Output:
    """Decode latents at their level, below Sample Song of a column."""
    b.graph.y[column] = BELOW_SAMPLE
    return b.graph.add("Decode", column, DECODE, collapsed=True, vae=model["vae"], latent=latent, normalize=False).out


TEMPLATES: list[Callable[[dict], Graph]] = [
    text_to_music,
    real_model,
    comfy_files,
    one_line,
    planned_song,
    edit_template("06 Cover", EDITS["cover"]),
    edit_template("07 Repaint", EDITS["repaint"]),
    edit_template("08 Extend", EDITS["extend"]),
    edit_template("09 Stems", EDITS["stems"]),
    timbre,
    morph,
    listen,
    many_takes,
    batch_of_songs,
    ksampler,
    lora,
    lyric_times,
    best_of,
    repaint_by_name,
    finish_and_save,
    stems_to_files,
    mix,
    choose_a_take,
    train_lora,
]
