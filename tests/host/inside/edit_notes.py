"""Errors and notes of the edit nodes, Sample Song and Decode Song."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import soundfile
import torch
from pack_under_test.acestep_core.lyrics.times import LyricTimes, TimedLine, TimedSection
from pack_under_test.nodes.audio import EncodeAudioNode
from pack_under_test.nodes.codes import AudioCodesNode
from pack_under_test.nodes.cover import CoverNode
from pack_under_test.nodes.morph import MorphNode
from pack_under_test.nodes.repaint import ExtendNode, RepaintNode
from pack_under_test.nodes.stems import StemsNode
from pack_under_test.nodes.timbre import TimbreNode

from .edits import FRAMES, RATE, SOURCE, latent_of, task
from .odd_inputs import refusal
from .world import World, difference, lines_of, notes_of


def masked(world: World) -> dict:
    return {**latent_of(world), "noise_mask": torch.ones(1, 1, 1, FRAMES)}


def check_bad_input_raises_one_sentence(world: World) -> None:
    silent = {"waveform": torch.zeros(1, 2, RATE), "sample_rate": RATE}
    endless = {"waveform": torch.ones(1, 1, 601 * 4000), "sample_rate": 4000}
    third = torch.cat([0 * SOURCE["waveform"], SOURCE["waveform"][:, :1]], dim=1)
    flat = {"waveform": torch.ones(2, RATE), "sample_rate": RATE}
    stretched = {**latent_of(world), "noise_mask": torch.ones(1, 1, 1, 120)}
    cases = [
        (CoverNode, {"latent": None}, ["codes", "missing"]),
        (CoverNode, {"audio": SOURCE}, ["vae", "missing"]),
        (CoverNode, {"latent": None, "codes": "64000"}, ["63999", "64000"]),
        (CoverNode, {"latent": None, "codes": "la la"}, ["codes", "'la la'"]),
        (CoverNode, {"latent": None, "codes": "1 2 3\n4 5"}, ["codes", "0.4, 0.6 seconds"]),
        (CoverNode, {"latent": {"samples": torch.zeros(1, 64, 50)}}, ["empty"]),
        (CoverNode, {"latent": {"samples": torch.zeros(1, 4, 8, 8)}}, ["latent", "[1, 4, 8, 8]"]),
        (CoverNode, {"audio": {**SOURCE, "sample_rate": 0}}, ["sample rate", "0"]),
        (RepaintNode, {"latent": None}, ["audio or latent", "missing"]),
        (RepaintNode, {"audio": silent}, ["silent"]),
        (RepaintNode, {"audio": endless}, ["601 seconds"]),
        (RepaintNode, {"audio": {**SOURCE, "waveform": third}}, ["3 channels"]),
        (RepaintNode, {"audio": flat}, ["[batch, channels, samples]"]),
        (RepaintNode, {"start": 3.0, "end": 2.0}, ["region", "3 to 2"]),
        (RepaintNode, {"start": 3.0, "end": 9.0}, ["region", "6 seconds"]),
        (RepaintNode, {"more_ranges": "soon"}, ["'soon'"]),
        (RepaintNode, {"mask": torch.zeros(1, 8, 8)}, ["mask", "empty"]),
        (RepaintNode, {"latent": stretched}, ["noise mask", "120", "150"]),
        (CoverNode, {"codes": "1 2 3", "use_codes": False}, ["use_codes", "codes are given"]),
        (CoverNode, {"codes": "1 2 3", "noise_strength": 0.5, "latent": None}, ["noise_strength", "audio"]),
        (RepaintNode, {"mode": "wild"}, ["mode", "'wild'"]),
        (ExtendNode, {"after": 0.0}, ["before", "after"]),
        (ExtendNode, {"overlap": 10.0}, ["overlap", "6 seconds"]),
        (ExtendNode, {"after": 595.0}, ["601 seconds", "600"]),
        (StemsNode, {"operation": "complete", "more_tracks": "kazoo"}, ["'kazoo'", "woodwinds"]),
    ]
    for node, inputs, words in cases:
        inputs = inputs if inputs.get("audio", SOURCE) is SOURCE else {**inputs, "vae": world.vae}
        sentence = refusal(lambda node=node, inputs=inputs: task(world, node, **inputs))
        assert all(word in sentence for word in words) and "\n" not in sentence, (words, sentence)
    assert "silent" in refusal(lambda: TimbreNode.execute(world.conditioning, world.vae, silent))


def check_ignored_inputs_are_noted(world: World) -> None:
    latent, vae, mask = latent_of(world), world.vae, torch.ones(1, 8, 8)
    cases = [
        (CoverNode, {"audio": SOURCE, "vae": vae, "latent": latent}, "latent is ignored"),
        (CoverNode, {"latent": masked(world)}, "noise mask"),
        (CoverNode, {"codes": "1 2 3"}, "source"),
        (CoverNode, {"codes": "1 2 3", "noise_strength": 0.5}, "source"),
        (RepaintNode, {"mask": mask}, "start, end and more_ranges"),
        (RepaintNode, {"mask": mask, "latent": masked(world)}, "noise mask"),
        (RepaintNode, {"mode": "aggressive", "mode_strength": 0.1}, "mode_strength"),
        (ExtendNode, {"latent": masked(world)}, "noise mask"),
        (StemsNode, {"latent": masked(world)}, "noise mask"),
        (StemsNode, {"more_tracks": "drums"}, "more_tracks"),
        (StemsNode, {"start": 1.0}, "start, end, more_ranges and mask"),
        (StemsNode, {"mask": mask}, "start, end, more_ranges and mask"),
        (StemsNode, {"operation": "add", "mask": mask, "end": 2.0}, "start, end and more_ranges"),
        (StemsNode, {"operation": "add", "mask": mask, "latent": masked(world)}, "noise mask"),
    ]
    for node, inputs, words in cases:
        lines = notes_of(lambda node=node, inputs=inputs: task(world, node, **inputs))
        assert any(words in line for line in lines), (words, lines)
    surround = {**SOURCE, "waveform": SOURCE["waveform"].repeat(1, 3, 1)}
    for work in (
        lambda: task(world, RepaintNode, audio=surround, vae=vae),
        lambda: EncodeAudioNode.execute(vae, surround),
        lambda: TimbreNode.execute(world.conditioning, vae, surround),
    ):
        assert "6 channels" in notes_of(work)[0]
    for node in (CoverNode, RepaintNode, ExtendNode, StemsNode):
        assert notes_of(lambda node=node: task(world, node)) == []
    (note,) = notes_of(lambda: AudioCodesNode.execute(world.model, latent=masked(world)))
    assert "noise mask" in note


def check_another_duration_than_the_source_is_noted(world: World) -> None:
    """The song of 6 seconds is shorter than trained songs, which is a note as well."""
    longer, same = task(world, ExtendNode), task(world, CoverNode)
    first, second = notes_of(lambda: world.encode(longer))
    assert "duration of 6 seconds is ignored" in first and "8 seconds" in first and "8 s" in second
    (note,) = notes_of(lambda: world.encode(same))
    assert "6 s" in note and "ignored" not in note
    morph = {"start": 0.0, "end": 1.0, "draws": 1, "latent": {"samples": latent_of(world)["samples"][..., :100]}}
    (note,) = notes_of(lambda: MorphNode.execute(world.conditioning, world.conditioning, **morph))
    assert "duration of 6 seconds is ignored" in note and "4 seconds" in note


def check_sample_song_shows_the_values_of_auto(world: World) -> None:
    (line,) = lines_of(lambda: world.sample(steps=0))
    assert line == "auto: 8 steps, shift 3"
    assert lines_of(lambda: world.sample(steps=2, shift=2.0)) == []


def check_ignored_inputs_of_sample_song_are_noted(world: World) -> None:
    morph = {"start": 0.0, "end": 1.0, "draws": 1, "latent": latent_of(world)}
    morphed = MorphNode.execute(world.conditioning, world.conditioning, **morph).args[0]
    half = world.encode(task(world, CoverNode, strength=0.5))
    cases = [
        ({"sigmas": torch.tensor([1.0, 0.5, 0.0])}, ["timesteps"]),
        ({"guidance": 7.0}, ["guidance 7"]),
        ({"conditioning": MorphNode.execute(half, half, **morph).args[0]}, ["strength, blend and noise_strength"]),
        ({"conditioning": morphed, "retake_variance": 0.1, "retake_seed": 3}, ["retake variance"]),
        ({"conditioning": morphed, "solver": "heun"}, ["solver heun"]),
        ({"conditioning": morphed, "dcw": "low"}, ["dcw"]),
        ({"retake_seed": 3, "guidance": 7.0}, ["retake_seed", "guidance 7"]),
        ({"latent": masked(world)}, ["noise mask"]),
        ({}, []),
        ({"retake_variance": 0.1, "retake_seed": 3}, []),
        ({"conditioning": morphed, "retake_variance": 1.0, "retake_seed": 3}, []),
    ]
    for inputs, words in cases:
        lines = notes_of(lambda inputs=inputs: world.sample(steps=2, **inputs))
        assert len(lines) == len(words), (words, lines)
        assert all(word in line for word, line in zip(words, lines, strict=True)), (words, lines)


def check_normalize_skips_the_kept_part(world: World) -> None:
    for inputs, noted in (({"audio": SOURCE, "vae": world.vae}, True), ({}, False)):
        latent = world.sample_latent(steps=2, conditioning=world.encode(task(world, RepaintNode, **inputs)))
        sounds = []
        lines = notes_of(lambda latent=latent, sounds=sounds: sounds.append(world.decode_latent(latent)))
        assert len(lines) == noted and all("normalize" in line for line in lines)
        assert (abs(float(sounds[0].abs().max()) - 10 ** (-1 / 20)) < 1e-4) != noted


def check_a_morph_uses_its_retake_seed_at_any_variance(world: World) -> None:
    morph = {"start": 0.0, "end": 1.0, "draws": 1, "latent": latent_of(world)}
    other = MorphNode.execute(world.encode(caption="a brass band"), world.conditioning, **morph).args[0]
    usual, little, full = (
        world.sample(steps=2, conditioning=other, retake_variance=v, retake_seed=5) for v in (0.0, 0.01, 1.0)
    )
    assert difference(usual, world.sample(steps=2, conditioning=other)) == 0
    assert difference(little, full) == 0 and difference(little, usual) > 1e-3


def check_repaint_shows_its_source_and_regions(world: World) -> None:
    usual = {"start": 2.0, "end": 4.0, "more_ranges": "5-", "mode": "balanced", "mode_strength": 0.5}
    shown = RepaintNode.execute(audio=SOURCE, vae=world.vae, **usual).ui["waveform"][0]
    assert shown["seconds"] == FRAMES / 25 and shown["regions"] == [[2.0, 4.0], [5.0, 6.0]]
    assert len(shown["low"]) == len(shown["high"]) > 100
    file = shown["file"]
    heard, rate = soundfile.read(Path(folder_paths.get_temp_directory(), file["subfolder"], file["filename"]))
    assert rate == SOURCE["sample_rate"] and abs(heard.T - SOURCE["waveform"][0].numpy()).max() < 1e-6
    assert min(shown["low"]) == round(100 * float(SOURCE["waveform"].min())) < 0 < max(shown["high"])
    shown = RepaintNode.execute(latent=latent_of(world), **usual).ui["waveform"][0]
    assert (
        shown["low"] == []
        and shown["file"] is None
        and shown["seconds"] == FRAMES / 25
        and shown["sections"] == shown["lines"] == []
    )
    times = LyricTimes(
        lines=(TimedLine("hello", 1.0, 2.004, found=1.0), TimedLine("again", 2.5, 3.0, found=0.0)),
        sections=(TimedSection("Verse 1", "verse", "Verse", 1.0, 3.0),),
    )
    shown = RepaintNode.execute(latent=latent_of(world), times=times, **usual).ui["waveform"][0]
    assert shown["sections"] == [[1.0, "Verse"]] and shown["lines"] == [[1.0, 2.0, "hello"]], (
        "missing lines have no place"
    )


def check_extend_shows_its_source_and_the_place(world: World) -> None:
    usual = {"after": 2.0, "before": 1.0, "overlap": 0.0, "mode": "balanced", "mode_strength": 0.5}
    for source in ({"audio": SOURCE, "vae": world.vae}, {"latent": latent_of(world)}):
        shown = ExtendNode.execute(**source, **usual).ui["waveform"][0]
        assert shown["seconds"] == FRAMES / 25 and shown["regions"] == [], "the source has no silence added"
        shown = ExtendNode.execute(**source, **usual, where=" 4 ").ui["waveform"][0]
        assert (shown["where"], shown["regions"]) == ("4", [[4.0, None]]) and shown["seconds"] == FRAMES / 25


def check_seconds_of_where_replace_start_and_end(world: World) -> None:
    usual = {"start": 0.0, "end": 5.0, "more_ranges": "", "mode": "balanced", "mode_strength": 0.5}
    repaint = lambda where: RepaintNode.execute(latent=latent_of(world), **usual, where=where)  # noqa: E731
    assert notes_of(lambda: repaint("1-2")) == ["where: 1-2 replaces start and end"]
    assert notes_of(lambda: repaint("")) == []
