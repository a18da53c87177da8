"""The parts that several templates have. A graph has columns of about 1500 x 760 pixels, which a small laptop shows."""

from __future__ import annotations

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
EDIT_COLUMNS = [280, 320, 300, 260, 300]
# Pixels of a node without its title bar, in both renderers and with the messages of a run.
LOAD_MODEL, PLANNER, SONG, ENCODE, SAMPLE, PLAN = 280, 110, 350, 118, 334, 372
DECODE, LOAD_AUDIO = 106, 140
FINISH, SAVE, MIX, EXTEND, STEMS, COMPARE = 330, 410, 540, 355, 415, 420
TIMES, SAVE_LYRICS, PICK, REPAINT = 310, 210, 330, 385
SONG_FOLDER, TRAIN, TRAIN_OPTIONS, LORA = 150, 645, 210, 246
BELOW_SAMPLE = 680.0  # below the title bar, the messages and the picture of Sample Song


class Builder:
    """A graph with the nodes that every template has.

    The result is at the top of the last column, because ComfyUI's minimap hides the space below.
    Notes and other nodes go elsewhere.
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

    def save(self, audio: Output, **inputs: object) -> Node:
        """Save and play a song in the last column. `inputs` are those of Save Song: song, times, a filename prefix."""
        return self.graph.add("SaveSong", self.last, SAVE, audio=audio, **inputs)  # type: ignore[arg-type]

    def end(self, model: Node, latent: Output, normalize: bool = True, **inputs: object) -> Node:
        """Decode, save and play a song in the last column."""
        return self.save(self.decode(self.last, model, latent, normalize).out, **inputs)

    def decode(self, column: int, model: Node, latent: Output, normalize: bool = True) -> Node:
        inputs = {"vae": model["vae"], "latent": latent, "normalize": normalize}
        return self.graph.add("Decode", column, DECODE, collapsed=True, gap=12, **inputs)  # type: ignore[arg-type]

    def note(self, column: int, key: str, height: int) -> None:
        self.graph.note(column, height, note_texts(key))


def downloaded_model(b: Builder) -> Node:
    """Add Download Model, and Load Model behind it."""
    download = b.graph.add("Download", 0, 210, release="comfy-turbo")
    model = b.model(model=download["name"])
    model.values["model"] = file_of("comfy-turbo")["name"]  # used if the download is muted or bypassed
    return model


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


def find_times(b: Builder, column: int, model: Node, conditioning: Output, latent: Output) -> Node:
    inputs = {"model": model["model"], "conditioning": conditioning, "latent": latent}
    return b.graph.add("LyricTimes", column, TIMES, **inputs)  # type: ignore[arg-type]


def decode_small(b: Builder, column: int, model: Node, latent: Output) -> Output:
    """Decode latents at their level, below Sample Song of a column."""
    b.graph.y[column] = BELOW_SAMPLE
    return b.decode(column, model, latent, normalize=False).out
