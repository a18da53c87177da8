"""Mix Stems: every input changes the mix, and wrong ones are refused."""

from __future__ import annotations

import torch
from pack_under_test.nodes.mix import STEMS, MixStemsNode

from .odd_inputs import refusal
from .saving import RATE, recording
from .world import World, difference

GAINS = {f"gain_{number}": 0.0 for number in range(1, STEMS + 1)}
USUAL = {"delays": "", "headroom": 1.0, "batch": "separate", **GAINS}


def mix(**inputs) -> torch.Tensor:
    return MixStemsNode.execute(**{**USUAL, "stem_1": recording(), **inputs}).args[0]["waveform"]


def text(**inputs) -> str:
    shown = MixStemsNode.execute(**{**USUAL, "stem_1": recording(), **inputs}).ui
    return "" if shown is None else shown.as_dict()["text"][0]


def check_every_stem_and_gain_is_in_the_mix(world: World) -> None:
    alone = recording()["waveform"]
    assert difference(mix(), alone) == 0
    for number in range(2, STEMS + 1):
        both = mix(**{f"stem_{number}": recording(), "headroom": 0.0})
        assert difference(both, 2 * alone) < 1e-6
        assert difference(mix(**{f"stem_{number}": recording(), f"gain_{number}": -60.0}), alone) == 0
    assert difference(mix(gain_1=-6.0), alone * 10 ** (-6 / 20)) < 1e-6
    late = mix(delays="0.5")
    assert late.shape[-1] == alone.shape[-1] + RATE // 2 and not late[..., : RATE // 2].any()


def check_batches_and_rates(world: World) -> None:
    batch = recording(batch=2)
    assert mix(stem_1=batch).shape[0] == 2
    assert difference(mix(stem_1=batch, batch="together"), batch["waveform"].sum(dim=0, keepdim=True)) < 1e-6
    assert mix(stem_1=batch, stem_2=recording()).shape[0] == 2
    three = recording(batch=3)
    assert refusal(lambda: mix(stem_1=batch, stem_2=three)).startswith("stem_1: ")
    slow = {"waveform": recording()["waveform"][..., ::2], "sample_rate": RATE // 2}
    assert mix(stem_2=slow).shape == recording()["waveform"].shape
    assert mix(stem_1=recording(channels=1), stem_2=recording()).shape[1] == 2


def check_the_node_shows_headroom_and_distance(world: World) -> None:
    assert text() == ""
    assert text(reference=recording()) == "-inf dB from the reference"
    assert text(gain_1=-20.0, reference=recording()) == "-0.9 dB from the reference"
    assert "turned down by" in text(gain_1=24.0)
    assert "1: " in text(stem_1=recording(batch=2), reference=recording())


def check_stems_and_their_rest_add_up_to_the_reference(world: World) -> None:
    song, batch = recording(), recording(batch=2)
    inputs = {"gain_1": -6.0, "gain_2": -9.0, "delays": "0 0.5", "stem_2": batch}

    def stems(**changed) -> torch.Tensor:
        return MixStemsNode.execute(**{**USUAL, "stem_1": batch, **inputs, **changed}).args[1]["waveform"]

    together = stems(batch="together", reference=song)
    assert together.shape[0] == 5 and difference(together.sum(0), padded(song, together)[0]) < 1e-6
    separate = stems(reference=song)
    assert separate.shape[0] == 6, "two stems and a rest of each song"
    for three in separate.split(3):
        assert difference(three.sum(0), padded(song, three)[0]) < 1e-6
    loud = {"gain_1": 24.0, "reference": song}
    assert "stems turned down by" in text(**loud)
    assert stems(**loud).abs().max() <= 10 ** (-1 / 20) + 1e-6 < stems(**loud, headroom=0.0).abs().max()


def check_stems_without_a_reference_end_the_run_that_takes_them(world: World) -> None:
    blocked = MixStemsNode.execute(**{**USUAL, "stem_1": recording()}).args[1]
    assert blocked.message.startswith("reference: ")


def padded(audio: dict, like: torch.Tensor) -> torch.Tensor:
    missing = like.shape[-1] - audio["waveform"].shape[-1]
    return torch.nn.functional.pad(audio["waveform"], (0, missing))


def check_wrong_stems_are_refused(world: World) -> None:
    for inputs, start in (
        ({"stem_1": None}, "stem_1: "),
        ({"stem_3": {"waveform": torch.zeros(2, 5), "sample_rate": RATE}}, "stem_3: "),
        ({"reference": {}}, "reference: "),
        ({"reference": recording(batch=3)}, "reference: "),
        ({"delays": "soon"}, "delays: "),
        ({"delays": "0 " * 9}, "delays: "),
        ({"delays": "-1"}, "delays: "),
        ({"delays": "inf"}, "delays: "),
    ):
        sentence = refusal(lambda inputs=inputs: mix(**inputs))
        assert sentence.startswith(start) and "\n" not in sentence, sentence
