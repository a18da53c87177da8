"""What an edit cannot be, and what of it has no effect: said in one sentence, where the user looks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pack_under_test.nodes.audio import EncodeAudioNode
from pack_under_test.nodes.codes import AudioCodesNode
from pack_under_test.nodes.cover import CoverNode
from pack_under_test.nodes.morph import MorphNode
from pack_under_test.nodes.repaint import ExtendNode, RepaintNode
from pack_under_test.nodes.stems import StemsNode
from pack_under_test.nodes.timbre import TimbreNode

from .edits import FRAMES, RATE, SOURCE, latent_of, task
from .odd_inputs import refusal
from .world import World, difference, shown


def check_bad_input_is_refused_in_one_sentence(world: World) -> None:
    silent = {"waveform": torch.zeros(1, 2, RATE), "sample_rate": RATE}
    endless = {"waveform": torch.ones(1, 1, 601 * 100), "sample_rate": 100}
    third = torch.cat([0 * SOURCE["waveform"], SOURCE["waveform"][:, :1]], dim=1)
    flat = {"waveform": torch.ones(2, RATE), "sample_rate": RATE}
    cases = [
        (CoverNode, {"latent": None}, "nothing to cover"),
        (CoverNode, {"audio": SOURCE}, "audio needs a vae"),
        (CoverNode, {"latent": None, "codes": "64000"}, "whole numbers from 0 to 63999, got 64000"),
        (CoverNode, {"latent": None, "codes": "la la"}, "audio codes: cannot parse 'la la'"),
        (CoverNode, {"latent": None, "codes": "1 2 3\n4 5"}, "must have one length, got codes for 0.4, 0.6 seconds"),
        (CoverNode, {"latent": {"samples": torch.zeros(1, 64, 50)}}, "are empty"),
        (CoverNode, {"latent": {"samples": torch.zeros(1, 4, 8, 8)}}, "this latent is not a song"),
        (CoverNode, {"audio": {**SOURCE, "sample_rate": 0}}, "the sample rate must be a positive number"),
        (RepaintNode, {"latent": None}, "there is no song to work on"),
        (RepaintNode, {"audio": silent}, "the audio is silent"),
        (RepaintNode, {"audio": endless}, "601 seconds long"),
        (RepaintNode, {"audio": {**SOURCE, "waveform": third}}, "first 2 of 3 channels"),
        (RepaintNode, {"audio": flat}, "audio must be [batch, channels, samples]"),
        (RepaintNode, {"start": 3.0, "end": 2.0}, "a region ends after it starts, got 3 to 2 seconds"),
        (RepaintNode, {"start": 3.0, "end": 9.0}, "reaches out of the song, which is 6 seconds long"),
        (RepaintNode, {"more_ranges": "soon"}, "a range is two numbers of seconds"),
        (RepaintNode, {"mask": torch.zeros(1, 8, 8)}, "the mask is empty"),
        (CoverNode, {"codes": "1 2 3", "through_codes": False}, "codes are connected, and through_codes is off"),
        (CoverNode, {"codes": "1 2 3", "keep_sound": 0.5, "latent": None}, "keep_sound needs sound beside the codes"),
        (RepaintNode, {"mode": "wild"}, "unknown mode 'wild'"),
        (ExtendNode, {"after": 0.0}, "nothing to extend"),
        (ExtendNode, {"overlap": 10.0}, "an overlap of 10 seconds leaves nothing of the song, which is 6 seconds long"),
        (ExtendNode, {"after": 595.0}, "601 seconds long, the model makes at most 600"),
        (StemsNode, {"operation": "complete", "more_tracks": "kazoo"}, "unknown track 'kazoo'; allowed are woodwinds"),
    ]
    stretched = {**latent_of(world), "noise_mask": torch.ones(1, 1, 1, 120)}
    cases.append((RepaintNode, {"latent": stretched}, "the latent's noise mask is 120 frames long, the song 150"))
    for node, inputs, said in cases:
        inputs = inputs if inputs.get("audio", SOURCE) is SOURCE else {**inputs, "vae": world.vae}
        sentence = refusal(lambda node=node, inputs=inputs: task(world, node, **inputs))
        assert said in sentence and "\n" not in sentence, (said, sentence)
    assert "silent" in refusal(lambda: TimbreNode.execute(world.conditioning, world.vae, silent))


def said_on_the_node(work: Callable[[], object]) -> str:
    """What the running node shows in the end."""
    with shown() as texts:
        work()
    return texts[-1] if texts else ""


def masked(world: World) -> dict:
    return {**latent_of(world), "noise_mask": torch.ones(1, 1, 1, FRAMES)}


def check_a_task_says_what_it_ignores(world: World) -> None:
    latent, vae = latent_of(world), world.vae
    mask = "the latent's noise mask is ignored"
    cases = [
        (CoverNode, {"audio": SOURCE, "vae": vae, "latent": latent}, "the latent is ignored"),
        (CoverNode, {"vae": vae, "latent": latent}, "the vae is ignored"),
        (CoverNode, {"latent": masked(world)}, mask),
        (CoverNode, {"codes": "1 2 3"}, "the source gives only the length: what is followed are the audio codes"),
        (CoverNode, {"codes": "1 2 3", "keep_sound": 0.5}, "only the length and the sound to begin with"),
        (RepaintNode, {"mask": torch.ones(1, 8, 8)}, "start, end and more ranges are ignored"),
        (RepaintNode, {"mask": torch.ones(1, 8, 8), "latent": masked(world)}, mask),
        (RepaintNode, {"mode": "aggressive", "mode_strength": 0.1}, "mode strength is ignored"),
        (ExtendNode, {"latent": masked(world)}, mask),
        (StemsNode, {"latent": masked(world)}, mask),
        (StemsNode, {"more_tracks": "drums"}, "more tracks are ignored"),
        (StemsNode, {"start": 1.0}, "start, end, more ranges and mask are ignored: extract works on the whole song"),
        (StemsNode, {"mask": torch.ones(1, 8, 8)}, "more ranges and mask are ignored"),
        (StemsNode, {"operation": "add", "mask": torch.ones(1, 8, 8), "end": 2.0}, "start, end and more ranges are"),
        (StemsNode, {"operation": "add", "mask": torch.ones(1, 8, 8), "latent": masked(world)}, mask),
    ]
    for node, inputs, said in cases:
        text = said_on_the_node(lambda node=node, inputs=inputs: task(world, node, **inputs))
        assert said in text, (said, text)
    surround = {**SOURCE, "waveform": SOURCE["waveform"].repeat(1, 3, 1)}
    for work in (
        lambda: task(world, RepaintNode, audio=surround, vae=vae),
        lambda: EncodeAudioNode.execute(vae, surround),
        lambda: TimbreNode.execute(world.conditioning, vae, surround),
    ):
        assert "first 2 of 6 channels" in said_on_the_node(work)
    for node in (CoverNode, RepaintNode, ExtendNode, StemsNode):
        assert said_on_the_node(lambda node=node: task(world, node)) == ""
    assert mask in said_on_the_node(lambda: AudioCodesNode.execute(world.model, latent=masked(world)))


def check_encode_song_says_when_a_song_lasts_as_long_as_its_source(world: World) -> None:
    """The world's song lasts 6 seconds, shorter than the model has learned, which is said as well."""
    longer, same = (task(world, ExtendNode), task(world, CoverNode))
    said = said_on_the_node(lambda: world.encode(longer)).splitlines()
    assert said[0] == (
        "Song's duration of 6 seconds is ignored: the song is as long as what it is made of, 8 seconds"
    ) and said[1].startswith("a duration of 8 s is shorter")
    assert said_on_the_node(lambda: world.encode(same)).startswith("a duration of 6 s is shorter")
    morph = {"start": 0.0, "end": 1.0, "draws": 1, "latent": {"samples": latent_of(world)["samples"][..., :100]}}
    text = said_on_the_node(lambda: MorphNode.execute(world.conditioning, world.conditioning, **morph))
    assert text.startswith("Song's duration of 6 seconds is ignored") and text.endswith("4 seconds")


def check_sample_song_says_what_it_ignores(world: World) -> None:
    morph = {"start": 0.0, "end": 1.0, "draws": 1, "latent": latent_of(world)}
    morphed = MorphNode.execute(world.conditioning, world.conditioning, **morph).args[0]
    half = world.encode(task(world, CoverNode, strength=0.5))
    cases = [
        ({"sigmas": torch.tensor([1.0, 0.5, 0.0])}, ["custom timesteps are used as they are: steps and shift"]),
        ({"guidance": 7.0}, ["guidance 7 is ignored: turbo models have it built in"]),
        ({"conditioning": MorphNode.execute(half, half, **morph).args[0]}, ["strength, blend and noise strength are"]),
        ({"conditioning": morphed, "retake_variance": 0.1, "retake_seed": 3}, ["the retake variance is ignored"]),
        ({"retake_seed": 3, "guidance": 7.0}, ["the retake seed is ignored: a retake variance of 0", "guidance 7"]),
        ({"latent": masked(world)}, ["the latent's noise mask is ignored"]),
        ({}, []),
        ({"retake_variance": 0.1, "retake_seed": 3}, []),
        ({"conditioning": morphed, "retake_variance": 1.0, "retake_seed": 3}, []),
    ]
    for inputs, said in cases:
        lines = said_on_the_node(lambda inputs=inputs: world.sample(steps=2, **inputs)).splitlines()
        assert len(lines) == len(said), (said, lines)
        assert all(line.startswith(part) for line, part in zip(lines, said, strict=True)), (said, lines)


def check_decode_song_normalises_what_has_no_recording_to_agree_with(world: World) -> None:
    """And says so where it cannot."""
    for given, said in (({"audio": SOURCE, "vae": world.vae}, ["normalize is ignored: the kept part"]), ({}, [])):
        made = world.sample_latent(steps=2, conditioning=world.encode(task(world, RepaintNode, **given)))
        sounds = []
        lines = said_on_the_node(lambda made=made, sounds=sounds: sounds.append(world.decode_latent(made))).splitlines()
        assert len(lines) == len(said) and all(line.startswith(part) for line, part in zip(lines, said, strict=True))
        assert (abs(float(sounds[0].abs().max()) - 10 ** (-1 / 20)) < 1e-4) == (not said)


def check_a_morph_takes_the_noise_of_its_retake_seed(world: World) -> None:
    """As the sentence on the node says: at any variance, and at 0 that of its own seed."""
    morph = {"start": 0.0, "end": 1.0, "draws": 1, "latent": latent_of(world)}
    other = MorphNode.execute(world.encode(caption="a brass band"), world.conditioning, **morph).args[0]
    usual, little, all_of_it = (
        world.sample(steps=2, conditioning=other, retake_variance=v, retake_seed=5) for v in (0.0, 0.01, 1.0)
    )
    assert difference(usual, world.sample(steps=2, conditioning=other)) == 0
    assert difference(little, all_of_it) == 0 and difference(little, usual) > 1e-3
