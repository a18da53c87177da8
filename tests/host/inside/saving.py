"""Save Song with lyric times, and inputs of Finish Song and Save Song that are refused or noted."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import torch
from pack_under_test.acestep_core.audio import read_tags
from pack_under_test.acestep_core.lyrics.times import LyricTimes, TimedLine
from pack_under_test.nodes.finish import FinishSongNode
from pack_under_test.nodes.save import SaveSongNode, date_text, filename_of, graph_text

from .odd_inputs import refusal
from .world import World, notes_of

RATE = 48_000
FINISH = {"loudness": "streaming (-14)", "lufs": -14.0, "true_peak": -1.0, "fade_in": 0.0, "fade_out": 0.0,
          "trim": False, "ending": 0.0, "one_gain": False}  # fmt: skip
SAVE = {"filename_prefix": "inside/song", "format": "flac", "title": "Hello", "artist": "", "album": "",
        "workflow": False}  # fmt: skip
TIMES = LyricTimes(lines=(TimedLine("hello", 0.5, 1.0), TimedLine("again", 1.25, 2.0)))


def recording(channels: int = 2, batch: int = 1) -> dict:
    noise = torch.randn(batch, channels, 3 * RATE, generator=torch.Generator().manual_seed(1))
    return {"waveform": (0.1 * noise).clamp(-1, 1), "sample_rate": RATE}


def save(world: World, audio: dict | None = None, **inputs) -> list[Path]:
    output = SaveSongNode.execute(recording() if audio is None else audio, **{**SAVE, **inputs}).ui
    root = Path(folder_paths.get_output_directory())
    return [root / file["subfolder"] / file["filename"] for file in output["audio"]]


def check_times_become_a_tag_and_a_file(world: World) -> None:
    (path,) = save(world, times=TIMES, song=world.song)
    tags = read_tags(path)
    assert "[00:01.25]again" in tags.timed_lyrics and tags.lyrics == world.song.lyrics
    lrc = path.with_suffix(".lrc").read_text("utf-8")
    assert "[ti:Hello]" in lrc and "[00:00.50]hello" in lrc
    (path,) = save(world, times=LyricTimes(lines=()))
    assert not path.with_suffix(".lrc").exists() and not read_tags(path).timed_lyrics
    assert "one by one" in refusal(lambda: save(world, recording(batch=2), times=TIMES))


def check_a_batch_has_a_file_per_song(world: World) -> None:
    first, second = save(world, recording(batch=2), filename_prefix="inside/%title% %batch_num%")
    assert (first.name, second.name) == ("Hello 0_00001_.flac", "Hello 1_00001_.flac")


def check_audio_that_is_none_is_refused(world: World) -> None:
    broken = {"waveform": torch.full((1, 2, RATE), float("nan")), "sample_rate": RATE}
    for audio in (None, {}, {"waveform": torch.zeros(2, 5), "sample_rate": RATE}, broken,
                  {"waveform": torch.zeros(1, 2, 5), "sample_rate": 0}):  # fmt: skip
        for work in (
            lambda audio=audio: FinishSongNode.execute(audio, **FINISH),
            lambda audio=audio: SaveSongNode.execute(audio, **SAVE),
        ):
            assert refusal(work).startswith("audio: ")
    surround = recording(channels=6)
    assert "6 channels" in notes_of(lambda: FinishSongNode.execute(surround, **FINISH))[0]


def check_finish_leaves_its_source_alone(world: World) -> None:
    audio = recording(batch=2)
    before = audio["waveform"].clone()
    finished = FinishSongNode.execute(audio, **{**FINISH, "fade_out": 1.0}).args[0]
    assert torch.equal(audio["waveform"], before)
    assert finished["waveform"].shape == before.shape and not torch.equal(finished["waveform"], before)


def check_names_and_graphs_are_written_safely(world: World) -> None:
    assert filename_of("a/%title%", {"title": "../..\\x:%year%"}) == "a/_.._x__year_"
    assert filename_of("%title%%album%", {"title": "", "album": "夜" * 99}) == "song" + "夜" * 40
    assert len(date_text("yyyy-MM-dd")) == 10 and date_text("yyyy-MM-dd")[4] == "-"
    for length in range(100, 140):
        text = graph_text("workflow", {"text": "x" * length})
        assert b"}" not in len(f"workflow={text}").to_bytes(4, "little")
