"""Lyric Times against the core, under ComfyUI's placement, patches and conditioning nodes."""

from __future__ import annotations

from dataclasses import replace

import comfy.sd
import node_helpers
import torch
from pack_under_test.acestep_core.edit.edit import Edit
from pack_under_test.acestep_core.lyrics.capture import lyric_times
from pack_under_test.acestep_core.lyrics.times import LyricTimes, TimedLine, TimedSection
from pack_under_test.acestep_core.pipeline import Model, encode
from pack_under_test.acestep_core.song.song import Metadata, Song
from pack_under_test.nodes.comfy_runtime.conditioning import LYRIC_TOKENS_KEY, LYRICS_KEY
from pack_under_test.nodes.encode import BatchSongsNode
from pack_under_test.nodes.lyrics import LyricTimesNode
from pack_under_test.nodes.repaint import ExtendNode, RepaintNode

from .odd_inputs import refusal
from .partial import keep_partly, weights_of_an_adapter
from .world import FRAMES, World, difference, network_of, notes_of

HEADS = {1: (0,), 2: (1, 3)}  # any: the numbers are compared, not the music
SONG = Song("slow jazz", "[Verse]\nhello again\nmy friend\n[Chorus]\ngood night", Metadata(duration=FRAMES / 25))


def singing(model):
    """Return the MODEL with known heads."""
    network = network_of(model)
    network.config = replace(network.config, lyric_alignment_layers_config=HEADS)
    return model


def loaded(world: World, dtype: str = "float32"):
    return singing(world.load(dtype)[0])


def encoded(world: World, song: Song = SONG, task: object = None):
    return world.encode(task, caption=song.caption, lyrics=song.lyrics, metadata=song.metadata)


def with_data(conditioning: list, **data: object) -> list:
    return [[caption, {**entry, **data}] for caption, entry in conditioning]


def latents_of(items: int, frames: int = FRAMES) -> torch.Tensor:
    return torch.randn(items, 64, frames, generator=torch.Generator().manual_seed(3))


def times_of(model, conditioning, samples: torch.Tensor, item: int = 1) -> LyricTimes:
    return LyricTimesNode.execute(model, conditioning, {"samples": samples}, item).args[0]


def core_times(world: World, samples: torch.Tensor, song: Song = SONG, **options: object) -> LyricTimes:
    model = loaded(world)
    text = encode(world.text_encoder.model, song, options["edit"].task) if "edit" in options else None
    text = text or encode(world.text_encoder.model, song)
    (times,) = lyric_times(Model(network_of(model)), samples.movedim(1, -1), text, **options)
    return times


def apart(a: LyricTimes, b: LyricTimes) -> float:
    return abs(a.score.value - b.score.value)


def check_the_node_equals_the_core_for_each_item(world: World) -> None:
    samples, model = latents_of(2), loaded(world)
    for item in (1, 2):
        found = times_of(model, encoded(world), samples, item)
        assert found == core_times(world, samples[item - 1 : item])
    assert found.duration == FRAMES / 25 and [line.text for line in found.lines] == [
        "hello again",
        "my friend",
        "good night",
    ]


def check_the_texts_and_the_report(world: World) -> None:
    out = LyricTimesNode.execute(loaded(world), encoded(world), {"samples": latents_of(1)})
    _, lrc, srt = out.args
    (text,) = out.ui.as_dict()["text"]
    assert "hello again" in lrc and lrc.startswith("[length:00:06]") and " --> " in srt
    assert "Score 0." in text and "3 lines" in text and lrc in text


def check_tokens_pass_the_nodes_for_conditioning(world: World) -> None:
    samples, model, plain = latents_of(2), loaded(world), encoded(world)
    expected = times_of(model, plain, samples)
    marked = node_helpers.conditioning_set_values(plain, {"start_percent": 0.0, "end_percent": 0.9})
    assert times_of(model, marked, samples) == expected
    other = encoded(world, replace(SONG, lyrics="[Verse]\nanother day"))
    batch = BatchSongsNode.execute(plain, song_2=other).args[0]
    assert times_of(model, batch, samples) == expected
    second = times_of(model, batch, samples, 2)
    assert [line.text for line in second.lines] == ["another day"]
    takes = torch.cat([samples, samples])  # two takes of each song
    assert times_of(model, batch, takes, 2).lines[0].text == "hello again"
    assert times_of(model, batch, takes, 4) == second
    assert "conditioning: for 2 songs" in refusal(lambda: times_of(model, batch, latents_of(3)))


def check_an_edit_and_a_timbre_reach_the_network(world: World) -> None:
    samples = latents_of(1)
    edit = Edit("cover", source=torch.randn(1, FRAMES, 64), use_codes=False)
    conditioning = encoded(world, task=edit)
    model = loaded(world)
    assert times_of(model, conditioning, samples) == core_times(world, samples, edit=edit)
    longer = latents_of(1, 2 * FRAMES)  # a recording: the edit is of another song
    text = encode(world.text_encoder.model, SONG, edit.task)
    (expected,) = lyric_times(Model(network_of(loaded(world))), longer.movedim(1, -1), text)
    assert times_of(model, conditioning, longer) == expected


def check_patches_partial_loading_and_fp8(world: World) -> None:
    samples, conditioning = latents_of(1), encoded(world)
    plain = times_of(loaded(world), conditioning, samples)
    weights = weights_of_an_adapter(world.model)

    def adapted(model):
        return comfy.sd.load_lora_for_models(model, None, weights, 1.0, 0)[0]

    patched = times_of(adapted(loaded(world)), conditioning, samples)
    assert apart(patched, plain) > 1e-4
    model = adapted(loaded(world))
    partly = times_of(keep_partly(model, share=0.05), conditioning, samples)
    assert apart(partly, patched) < 1e-4 and partly.lines[0].start == patched.lines[0].start
    small = times_of(loaded(world, "fp8_e4m3fn"), conditioning, samples)
    assert 0 < apart(small, plain) < 0.1


def check_the_model_samples_as_before(world: World) -> None:
    model, conditioning = loaded(world), encoded(world)
    before = world.sample(model, conditioning=conditioning)
    times_of(model, conditioning, before)
    assert difference(world.sample(model, conditioning=conditioning), before) == 0


def check_an_instrumental(world: World) -> None:
    out = LyricTimesNode.execute(
        loaded(world), encoded(world, replace(SONG, lyrics="[Instrumental]")), {"samples": latents_of(1)}
    )
    assert out.args[0].lines == () and "Nothing is sung" in out.ui.as_dict()["text"][0]


def check_what_is_refused(world: World) -> None:
    samples, plain = latents_of(2), encoded(world)
    model = loaded(world)
    assert "item: 3" in refusal(lambda: times_of(model, plain, samples, 3))
    assert "Encode Song" in refusal(lambda: times_of(model, with_data(plain, **{LYRIC_TOKENS_KEY: None}), samples))
    cut = with_data(plain, **{LYRICS_KEY: plain[0][1][LYRICS_KEY][:, :-3]})  # tokens of other lyrics
    assert "Encode Song" in refusal(lambda: times_of(model, cut, samples))
    unknown, _, _ = world.load()
    network = network_of(unknown)
    network.config = replace(network.config, lyric_alignment_layers_config={})
    assert "no head is known" in refusal(lambda: times_of(unknown, plain, samples))
    assert "MODEL is not ACE-Step" in refusal(lambda: times_of(object(), plain, samples))
    assert not notes_of(lambda: times_of(model, plain, samples))


PLACES = LyricTimes(
    (TimedLine("hello again", 0.5, 1.5, (), 0, 1.0), TimedLine("good night", 3.0, 4.2, (), 1, 0.0)),
    (TimedSection("Verse", "verse", "Verse", 0.5, 1.5), TimedSection("Chorus", "chorus", "Chorus", 3.0, 4.2)),
    6.0,
)


def repainted(**changes: object) -> Edit:
    usual = {"start": 1.0, "end": 2.0, "more_ranges": "", "mode": "balanced", "mode_strength": 0.5}
    return RepaintNode.execute(**{**usual, "latent": {"samples": latents_of(1)}, **changes}).args[0]


def extended(**changes: object) -> Edit:
    usual = {"after": 2.0, "before": 0.0, "overlap": 0.0, "mode": "balanced", "mode_strength": 0.5}
    return ExtendNode.execute(**{**usual, "latent": {"samples": latents_of(1)}, **changes}).args[0]


def check_repaint_by_name(world: World) -> None:
    assert repainted().regions == repainted(times=PLACES).regions == ((1, 2),)
    notes = notes_of(lambda: repainted(times=PLACES, where="chorus"))
    assert notes == ["where: Chorus is 2.7-4.5 seconds"]
    assert repainted(times=PLACES, where="chorus").regions == ((2.7, 4.5),)
    assert repainted(times=PLACES, where="missing lines", more_ranges="5-").regions == ((1.5, 6), (5, 6))
    assert repainted(where="3-4").regions == ((3, 4),)
    mask = torch.ones(1, 4, 4)
    ignored = notes_of(lambda: repainted(times=PLACES, where="chorus", mask=mask))
    assert ignored[0].startswith("where is ignored")
    assert "bridge" in refusal(lambda: repainted(times=PLACES, where="bridge"))


def check_extend_from_a_section(world: World) -> None:
    samples = latents_of(1)
    notes = notes_of(lambda: extended(times=PLACES, where="verse"))
    assert notes == ["where: the song continues after Verse, at 1.8 seconds"]
    edit = extended(times=PLACES, where="verse")
    assert edit.frames == 45 + 50 and edit.regions == ((1.8, 3.8),)
    assert difference(edit.source[:, :45].movedim(1, -1), samples[..., :45]) == 0
    assert extended(where="2").frames == 100 and extended(where="").frames == extended(where="9").frames == FRAMES + 50
    sound = {"waveform": torch.rand(1, 2, 6 * 48_000) - 0.5, "sample_rate": 48_000}
    edit = extended(audio=sound, vae=world.vae, latent=None, where="2")
    assert edit.frames == 100 and edit.waveform.shape[-1] == 4 * 48_000
    assert difference(edit.waveform[..., :96_000], sound["waveform"][..., :96_000]) == 0
    ignored = notes_of(lambda: extended(times=PLACES, where="verse", after=0.0, before=1.0))
    assert ignored[-1].startswith("where is ignored: after is 0")


def check_places_are_checked_before_the_run(world: World) -> None:
    valid = {"start": 1.0, "end": 2.0, "more_ranges": "", "latent": None}
    assert RepaintNode.validate_inputs(**valid, audio=None, vae=None) is True  # an old graph
    named = {**valid, "audio": None, "vae": None, "where": "chorus 2"}
    assert "times: missing" in RepaintNode.validate_inputs(**named)
    assert RepaintNode.validate_inputs(**named, times=None) is True
    assert "42" in RepaintNode.validate_inputs(**{**named, "where": "42"})
    assert "after the start" in RepaintNode.validate_inputs(**{**named, "where": "9-5"})
    assert RepaintNode.validate_inputs(**{**named, "where": "5-9", "start": 3.0}) is True  # start and end are replaced
    assert ExtendNode.validate_inputs("balanced", latent=None, where="42") is True
    assert "times: missing" in ExtendNode.validate_inputs("balanced", latent=None, where="chorus")
