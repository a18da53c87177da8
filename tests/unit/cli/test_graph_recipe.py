"""Songs that ComfyUI saved, as the input of --from."""

import json

import av
import numpy
import pytest
import torch

from acestep_core import read_audio, read_settings
from acestep_core.audio import Finish
from acestep_core.cli.graph_recipe import graph_settings
from acestep_core.errors import RequestError
from acestep_core.lyrics.check import estimate_duration
from acestep_core.recipe import Recipe

GRAPH = {
    "1": {"class_type": "AS15_LoadModel", "inputs": {"model": "nano", "text_encoder": "auto", "vae": "auto",
                                                     "dtype": "fp8_e4m3fn", "variant": "auto"}},
    "2": {"class_type": "AS15_Song", "inputs": {"caption": "slow piano", "lyrics": "[Instrumental]", "language": "auto",
                                                "duration": 1.0, "bpm": 90, "key": "C# minor",
                                                "time_signature": "3/4"}},
    "3": {"class_type": "AS15_Encode", "inputs": {"text_encoder": ["1", 1], "song": ["2", 0]}},
    "4": {"class_type": "AS15_Sample", "inputs": {"model": ["1", 0], "conditioning": ["3", 0], "seed": 2**32 + 7,
                                                  "batch_size": 1, "steps": 2, "guidance": 0.0, "shift": 0.0,
                                                  "solver": "euler", "guidance_method": "apg", "preview": "auto"}},
    "5": {"class_type": "AS15_Decode", "inputs": {"vae": ["1", 2], "latent": ["4", 0], "normalize": True}},
    "6": {"class_type": "SaveAudioMP3", "inputs": {"audio": ["5", 0], "filename_prefix": "a", "quality": "V0"}},
}  # fmt: skip


def changed(node: str, **inputs) -> dict:
    return {**GRAPH, node: {**GRAPH[node], "inputs": {**GRAPH[node]["inputs"], **inputs}}}


def save_as_comfyui(path, graph, codec):
    """Write a file with its graph in the tags, through PyAV."""
    samples = numpy.zeros((2, 48000), dtype=numpy.float32)
    with av.open(str(path), "w") as file:
        file.metadata["prompt"] = json.dumps(graph)
        file.metadata["workflow"] = json.dumps({"nodes": [], "text": "夜 🎵" * 3000})
        stream = file.add_stream(codec, rate=48000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1), format="flt", layout="stereo")
        frame.sample_rate, frame.pts = 48000, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


@pytest.mark.parametrize(("suffix", "codec"), [("flac", "flac"), ("mp3", "libmp3lame"), ("opus", "libopus")])
def test_a_file_of_comfyui_is_made_again(acestep, tmp_path, suffix, codec):
    save_as_comfyui(tmp_path / f"a.{suffix}", GRAPH, codec)
    code, out, err = acestep("--from", f"a.{suffix}", "--storage", "none", "--steps", 2, "-o", "b.wav")
    assert code == 0 and "seed 7" in out, err
    settings = read_settings("b.wav")
    assert settings.items() >= {"caption": "slow piano", "bpm": 90, "key": "C# minor", "time_signature": "3"}.items()
    # The tests' model is not the graph's, so the steps of the graph do not apply.
    options = ("--duration", 1, "--bpm", 90, "--key", "C# minor", "--time-signature", 3, "--steps", 2, "--seed", 7)
    (tmp_path / "lyrics.txt").write_text("[Instrumental]")
    acestep("slow piano", *options, "--lyrics", "lyrics.txt", "-o", "c.wav")
    assert torch.equal(read_audio("b.wav"), read_audio("c.wav"))


def test_every_widget_has_its_setting():
    graph = changed("1", model="checkpoints/ace\\mine.safetensors", vae="other", dtype="bfloat16", variant="sft")
    graph["4"] = changed("4", guidance=5.0, shift=2.0, solver="heun", batch_size=3)["4"]
    assert graph_settings(json.dumps(graph), "a.flac") == {
        "caption": "slow piano", "lyrics": "[Instrumental]", "duration": 1.0, "bpm": 90, "key": "C# minor",
        "time_signature": "3/4", "steps": 2, "shift": 2.0, "guidance_scale": 5.0, "solver": "heun",
        "guidance_method": "apg", "model": "mine.safetensors", "vae": "other", "dtype": "bfloat16", "variant": "sft",
        "seed": 7, "normalize": True,
    }  # fmt: skip
    assert graph_settings(json.dumps(GRAPH), "a.flac")["storage"] == "fp8"
    options = {"guidance_start": 0.0, "guidance_end": 0.7, "dcw": "double"}
    assert graph_settings(json.dumps(changed("4", **options)), "a.flac").items() >= options.items()


FINISH = {"class_type": "AS15_FinishSong", "inputs": {"audio": ["5", 0], "loudness": "apple (-16)", "lufs": -9.0,
                                                     "true_peak": -2.0, "fade_in": 0.5, "fade_out": 1.0, "trim": True,
                                                     "ending": 0.0, "one_gain": False}}  # fmt: skip


def with_finish(duration=1.0, **inputs) -> dict:
    save = {"class_type": "AS15_SaveSong", "inputs": {"audio": ["7", 0], "title": "A"}}
    finish = {**FINISH, "inputs": {**FINISH["inputs"], **inputs}}
    return {**GRAPH, "2": changed("2", duration=duration)["2"], "6": save, "7": finish}


def test_the_finish_of_a_graph_is_that_of_the_command_line():
    settings = graph_settings(json.dumps(with_finish()), "a.flac")
    assert Recipe.from_dict(settings).finish == Finish(-16.0, -2.0, 0.5, 1.0, True)
    settings = graph_settings(json.dumps(with_finish(20.0, loudness="number", ending=15.0)), "a.flac")
    assert settings["duration"] == 5 and Recipe.from_dict(settings).finish.loudness == -9


def test_a_duration_on_auto_fits_the_lyrics():
    lyrics = "[Verse]\n" + "we are walking down the road\n" * 20
    graph = changed("2", duration=0, lyrics=lyrics)
    assert graph_settings(json.dumps(graph), "a.flac")["duration"] == estimate_duration(lyrics) > 60
    graph = {**with_finish(ending=15.0), "2": graph["2"]}
    assert graph_settings(json.dumps(graph), "a.flac")["duration"] == estimate_duration(lyrics) - 15


OTHER = {"class_type": "KSampler", "inputs": {}}


@pytest.mark.parametrize(
    ("graph", "keyword"),
    [
        ({**changed("5", latent=["9", 0]), "9": OTHER}, r"'KSampler' \(node 9\)"),
        ({**changed("2", caption=["9", 0]), "9": OTHER}, "KSampler"),
        ({**changed("3", task=["9", 0]), "9": {"class_type": "AS15_Cover", "inputs": {}}}, "AS15_Cover"),
        ({**changed("4", model=["9", 0]), "9": {"class_type": "LoraLoader", "inputs": {}}}, "LoraLoader"),
        ({**changed("4", model=["9", 0]), "9": GRAPH["1"]}, "2 models"),
        ({**changed("6", audio=["9", 0]), "9": GRAPH["5"], "8": GRAPH["6"]}, "2 songs"),
        ({key: value for key, value in GRAPH.items() if key != "6"}, "no songs"),
        (changed("4", retake_variance=0.5), "retake"),
        ({**changed("4", negative=["9", 0]), "9": {"class_type": "AS15_Encode", "inputs": {}}}, "AS15_Encode"),
        (changed("5", latent=["99", 0]), "node 99"),
        (changed("5", latent=None), "latent"),
        ({**GRAPH, "4": 5}, "node 4"),
        ({**GRAPH, "4": {"class_type": "AS15_Sample", "inputs": []}}, "conditioning"),
        (with_finish(audio=["4", 0]), "AS15_Sample"),
        (with_finish(ending=2.0), "as long as its song"),
        ([], "not an object"),
        ("{", "object|JSON"),
    ],
)
def test_a_graph_that_the_command_line_cannot_make_is_refused(graph, keyword):
    with pytest.raises(RequestError, match=f"^a.flac: .*{keyword}"):
        graph_settings(json.dumps(graph), "a.flac")
