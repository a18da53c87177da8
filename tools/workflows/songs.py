"""The templates of songs from text, and of what follows: takes, lyric times, finishing, LoRAs."""

from __future__ import annotations

from .graph import Graph
from .parts import (
    COMPARE,
    DECODE,
    FINISH,
    LORA,
    PICK,
    SAMPLE,
    SAVE_LYRICS,
    SEED,
    SONG_FOLDER,
    SOURCE_CAPTION,
    TRAIN,
    TRAIN_OPTIONS,
    Builder,
    downloaded_model,
    file_of,
    find_times,
    load_planner,
    plan_song,
)


def text_to_music(info: dict, name: str = "01 Text to music") -> Graph:
    b = Builder(name, info, [400, 330, 330, 320])
    model, song = b.model(), b.vocal_song(0)
    encode = b.encode(1, model, song.out)
    b.note(1, "text", 220)
    b.end(model, b.sample(2, model, encode.out).out, song=song.out)
    return b.graph


def real_model(info: dict) -> Graph:
    b = Builder("02 Real model", info, [380, 380, 320, 300])
    model = downloaded_model(b)
    song = b.vocal_song(1)
    encode = b.encode(1, model, song.out)
    b.note(1, "real", 150)
    b.end(model, b.sample(2, model, encode.out).out, song=song.out)
    return b.graph


def comfy_files(info: dict) -> Graph:
    b = Builder("03 Files of ComfyUI", info, [300, 330, 270, 260, 300])
    names = {"model": "comfy-turbo", "text_encoder": "comfy-text-encoder", "vae": "comfy-vae"}
    model = b.model(**{widget: file_of(release)["name"] for widget, release in names.items()})
    planner = load_planner(b, planner=file_of("comfy-lm-1.7b")["name"])
    b.note(0, "files", 190)
    model.properties["models"] = [file_of(release) for release in names.values()]
    planner.properties["models"] = [file_of("comfy-lm-1.7b")]
    plan = plan_song(b, 2, planner, b.vocal_song(1, 450).out)
    encode = b.encode(2, model, plan["song"], codes=plan["codes"])
    b.end(model, b.sample(3, model, encode.out).out, song=plan["song"])
    return b.graph


def one_line(info: dict) -> Graph:
    b = Builder("04 One line to a song", info, [300, 330, 270, 260, 300])
    model, planner = b.model(1), load_planner(b)
    idea = "a sea shanty about compilers"
    write = b.graph.add("Write", 0, 340, planner=planner.out, idea=idea, seed=SEED, duration=30)
    b.note(0, "line", 170)
    song = b.graph.add("EditSong", 1, 410, song=write.out)
    plan = plan_song(b, 2, planner, song["song"], rewrite_caption=False)
    encode = b.encode(2, model, plan["song"], codes=plan["codes"])
    b.end(model, b.sample(3, model, encode.out).out, song=plan["song"])
    return b.graph


def planned_song(info: dict) -> Graph:
    b = Builder("05 Planned song", info, [300, 330, 270, 260, 300])
    model, planner = b.model(), load_planner(b)
    b.note(0, "planned", 200)
    song = b.vocal_song(1, 450)
    plan = plan_song(b, 2, planner, song.out)
    encode = b.encode(2, model, plan["song"], codes=plan["codes"])
    b.graph.add("SaveCodes", 2, 114, codes=plan["codes"], song=plan["song"])
    b.end(model, b.sample(3, model, encode.out).out, song=plan["song"])
    return b.graph


def many_takes(info: dict) -> Graph:
    b = Builder("13 Many takes", info, [320, 250, 260, 320, 300])
    model, song = b.model(collapsed=True), b.vocal_song(0)
    b.note(0, "takes", 260)
    encode = b.encode(1, model, song.out)
    inputs = {"model": model["model"], "conditioning": encode.out, "seed": SEED, "after_generate": "fixed"}
    takes = b.graph.add("Sample", 1, SAMPLE, title="Takes 1 and 2", batch_size=2, **inputs)  # type: ignore[arg-type]
    retake = b.graph.add("Sample", 2, SAMPLE, title="Retake", retake_variance=0.2, retake_seed=1, **inputs)  # type: ignore[arg-type]
    decoded = {f"take_{n}": b.decode(3, model, sample.out).out for n, sample in enumerate((takes, retake), 1)}
    chosen = b.graph.add("CompareTakes", 3, COMPARE, **decoded)  # type: ignore[arg-type]
    b.save(chosen.out, song=song.out)
    return b.graph


def batch_of_songs(info: dict) -> Graph:
    b = Builder("14 Batch of songs", info, [290, 330, 260, 280, 300])
    model = b.model()
    b.note(0, "songs", 220)
    first = b.song(1, 320, "warm lo-fi piano, soft drums, vinyl crackle", title="Song 1", duration=30)
    second = b.song(1, 320, "driving synthwave, neon bass, electric drums", title="Song 2", duration=30)
    encoded = {"song_1": b.encode(2, model, first.out).out, "song_2": b.encode(2, model, second.out).out}
    batch = b.graph.add("BatchSongs", 2, 198, **encoded)  # type: ignore[arg-type]
    b.end(model, b.sample(3, model, batch.out).out, filename_prefix="audio/song %batch_num%")
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
    b.end(model, sample.out, song=song.out)
    return b.graph


def lora(info: dict) -> Graph:
    b = Builder("16 LoRA", info, [400, 330, 330, 320])
    model, song = b.model(), b.vocal_song(0)
    adapted = b.graph.add("LoadLora", 1, 246, model=model["model"], lora="nano-bells", strength=1.0)
    encode = b.encode(1, model, song.out)
    b.note(1, "lora", 220)
    b.end(model, b.sample(2, adapted, encode.out).out, song=song.out)
    return b.graph


def lyric_times(info: dict) -> Graph:
    b = Builder("17 Lyric times", info, [340, 260, 270, 290, 300])
    model, song = b.model(), b.vocal_song(0)
    encode = b.encode(1, model, song.out)
    b.note(1, "times", 260)
    sample = b.sample(2, model, encode.out)
    times = find_times(b, 3, model, encode.out, sample.out)
    b.graph.add("SaveLyrics", 3, SAVE_LYRICS, times=times["times"], srt=True)
    b.end(model, sample.out, song=song.out, times=times["times"])
    return b.graph


def best_of(info: dict) -> Graph:
    b = Builder("18 Best of four takes", info, [340, 260, 270, 290, 300])
    model, song = b.model(), b.vocal_song(0)
    encode = b.encode(1, model, song.out)
    b.note(1, "best", 260)
    takes = b.sample(2, model, encode.out, batch_size=4)
    inputs = {"model": model["model"], "conditioning": encode.out, "latent": takes.out}
    best = b.graph.add("PickBest", 3, PICK, **inputs)  # type: ignore[arg-type]
    b.end(model, best["latent"], song=song.out)
    return b.graph


def finish_and_save(info: dict) -> Graph:
    b = Builder("20 Finish and save", info, [290, 330, 270, 270, 300])
    model = b.model()
    b.note(0, "finish", 250)
    song = b.vocal_song(1, 450)
    encode = b.encode(2, model, song.out)
    sample = b.sample(2, model, encode.out)
    decode = b.graph.add("Decode", 3, DECODE, vae=model["vae"], latent=sample.out)
    finish = b.graph.add("FinishSong", 3, FINISH, audio=decode.out, fade_out=2, trim=False)
    save = b.save(finish.out, gap=80, song=song.out, filename_prefix="audio/%title%")
    save.values |= {"title": "Streetlights", "artist": "nano"}
    picture = b.graph.add("SongPicture", 3, 130, audio=finish.out, kind="spectrogram")
    b.graph.add("PreviewImage", 4, 200, images=picture.out)
    return b.graph


def choose_a_take(info: dict) -> Graph:
    b = Builder("23 Choose a take", info, [320, 250, 270, 320, 300])
    model, song = b.model(), b.vocal_song(0)
    encode = b.encode(1, model, song.out)
    b.note(1, "choose", 280)
    takes = b.sample(2, model, encode.out, batch_size=3, after_generate="fixed")
    decode = b.graph.add("Decode", 3, DECODE, vae=model["vae"], latent=takes.out)
    chosen = b.graph.add("CompareTakes", 3, COMPARE, take_1=decode.out)
    b.save(chosen.out, song=song.out)
    return b.graph


def train_lora(info: dict) -> Graph:
    b = Builder("24 Train a LoRA", info, [300, 290, 280, 270, 300])
    songs = b.graph.add("SongFolder", 0, SONG_FOLDER)
    options = b.graph.add("TrainOptions", 0, TRAIN_OPTIONS, collapsed=True)
    song = b.song(0, 330, f"zorp, {SOURCE_CAPTION}", duration=30)
    model = b.model(0, collapsed=True)
    trained = b.graph.add("TrainLora", 1, TRAIN, songs=songs["songs"], trigger="zorp", steps=120, rank=8,
                          learning_rate=0.004, crop=6, options=options["options"])  # fmt: skip
    adapted = b.graph.add("LoadLora", 2, LORA, model=model["model"], lora=trained["lora"])
    adapted.values["lora"] = "nano-bells"  # used if the training is muted or bypassed
    encode = b.encode(2, model, song.out)
    b.note(2, "train", 260)
    b.end(model, b.sample(3, adapted, encode.out).out, song=song.out)
    return b.graph
