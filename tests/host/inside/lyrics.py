"""Lyric Times against the core, under ComfyUI's placement, patches and conditioning nodes."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import comfy.sd
import folder_paths
import node_helpers
import torch
from pack_under_test.acestep_core.edit.edit import Edit
from pack_under_test.acestep_core.lyrics.capture import lyric_times
from pack_under_test.acestep_core.lyrics.times import LyricTimes, TimedLine, TimedSection
from pack_under_test.acestep_core.pipeline import Model, encode
from pack_under_test.acestep_core.song.song import Metadata, Song
from pack_under_test.nodes.comfy_runtime.conditioning import LYRIC_TOKENS_KEY, LYRICS_KEY
from pack_under_test.nodes.comfy_runtime.latents import EDITS_KEY, edits_of
from pack_under_test.nodes.encode import BatchSongsNode
from pack_under_test.nodes.files import resolve_planner
from pack_under_test.nodes.lyrics import LyricTimesNode, PickBestNode, SaveLyricsNode
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


HOSTILE = {
    "no newline": "la " * 300,
    "beyond 2048 tokens": "slow river ocean fire\n" * 900,
    "emoji": "love 🎵\n👩‍👩‍👧 fire 🎵🎵\n\n🎵",
    "right to left": "[Verse]\nשלום עולם \u202eabc\u202c\nمرحبا می‌خواهم",
    "control characters": "slow\x07 river\n\x1b[31mfire\x0b\u2028ocean\x85love",
    "brackets": "[[[[\n]]][\n[]\n[ ]la[]la]\n" * 9,
}


def check_hostile_lyrics_have_times_in_their_order(world: World) -> None:
    model, samples = loaded(world), latents_of(1)
    for name, lyrics in HOSTILE.items():
        conditioning = encoded(world, replace(SONG, lyrics=lyrics))
        times, lrc, srt = LyricTimesNode.execute(model, conditioning, {"samples": samples}).args
        spans = [(word.start, word.end) for line in times.lines for word in line.words]
        assert spans and all(0 <= start <= end <= times.duration for start, end in spans), name
        assert all(before[1] <= after[0] + 1e-9 for before, after in zip(spans, spans[1:], strict=False)), name
        assert lrc.count("\n") >= len(times.lines) and srt.count("-->") == len(times.lines), name
        if name == "beyond 2048 tokens":  # the lines that the model does not get
            assert times.missing and times.missing[-1] == 899


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


def picked(model, conditioning, latent: dict, keep: int = 1, planner=None) -> tuple[dict, str, list[float]]:
    return PickBestNode.execute(model, conditioning, latent, keep, planner).args


def check_takes_are_sorted_by_their_scores(world: World) -> None:
    model, plain = loaded(world), encoded(world)
    sampled = world.sample_latent(model, conditioning=plain, batch=4)
    scores = [times_of(model, plain, sampled["samples"], i + 1).score.value for i in range(4)]
    order = sorted(range(4), key=lambda i: -scores[i])
    latent, text, best = picked(model, plain, sampled, keep=4)
    assert difference(latent["samples"], sampled["samples"][order]) == 0 and latent["type"] == "audio"
    assert best == [scores[i] for i in order] and len(set(best)) == 4
    lines = text.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"{rank}. take {i + 1}" for rank, i in enumerate(order, 1)]
    assert f"{scores[order[0]]:.3f}" in lines[0] and "missing" in lines[0]
    latent, text, best = picked(model, plain, sampled)
    assert difference(latent["samples"], sampled["samples"][order[:1]]) == 0 and len(best) == 1
    assert len(text.splitlines()) == 4


def check_ties_instrumentals_and_single_takes_have_a_sentence(world: World) -> None:
    model, plain, samples = loaded(world), encoded(world), latents_of(2)
    same = {"samples": samples[:1].expand(2, -1, -1)}
    (note,) = notes_of(lambda: picked(model, plain, same))
    assert "share their score" in note
    silent = encoded(world, replace(SONG, lyrics="[Instrumental]"))
    (note,) = notes_of(lambda: picked(model, silent, {"samples": samples}))
    assert "nothing is sung" in note
    latent, text, scores = picked(model, silent, {"samples": samples}, 2)
    assert difference(latent["samples"], samples) == 0 and scores == [0, 0] and "no score" in text
    assert "one take" in notes_of(lambda: picked(model, plain, {"samples": samples[:1]}))[0]
    assert "all of them" in notes_of(lambda: picked(model, plain, {"samples": samples}, 3))[0]
    both = BatchSongsNode.execute(plain, song_2=silent).args[0]
    notes = notes_of(lambda: picked(model, both, {"samples": samples}))
    assert "1 of 2 takes" in notes[0] and "different lyrics" in notes[1]


def check_the_planner_scores_instrumentals(world: World) -> None:
    from pack_under_test.nodes.comfy_runtime.load import load_planner_socket

    planner = load_planner_socket(*resolve_planner("nano"), "float32")
    model, samples = loaded(world), latents_of(3)
    silent = encoded(world, replace(SONG, lyrics="[Instrumental]"))
    latent, text, scores = picked(model, silent, {"samples": samples}, 3, planner)
    assert sorted(scores, reverse=True) == scores and 0 < scores[-1] < scores[0] and "audio codes" not in text
    _, text, mixed = picked(model, encoded(world), {"samples": samples}, 3, planner)
    assert "lyrics 0." in text and "audio codes 0." in text and mixed != scores


def check_a_picked_edit_keeps_its_source(world: World) -> None:
    model = loaded(world)
    sources = torch.randn(2, FRAMES, 64, generator=torch.Generator().manual_seed(1))
    edit = Edit("repaint", source=sources, regions=[(2, 4)])
    conditioning = encoded(world, task=edit)
    sampled = world.sample_latent(model, conditioning=conditioning, batch=2)
    latent, text, _ = picked(model, conditioning, sampled, keep=4)
    order = [int(line.split()[2].rstrip(":")) - 1 for line in text.splitlines()]
    found = edits_of(latent)
    assert [count for _, count in found] == [1, 1, 1, 1]
    for i, (own, _) in zip(order, found, strict=True):
        assert difference(own.source[0], sources[i // 2]) == 0
    plain, _, _ = picked(model, encoded(world), {"samples": latents_of(2), "batch_index": [4, 5]}, keep=2)
    assert EDITS_KEY not in plain and sorted(plain["batch_index"]) == [4, 5]


def saved(folder: Path, **changes: object) -> list[str]:
    usual = {"filename_prefix": "songs/take", "lrc": True, "word_times": False, "srt": False, "vtt": False}
    out = SaveLyricsNode.execute(PLACES, **{**usual, "json": False, **changes})
    assert out.ui["text"][0].splitlines() == [f"songs/{each['filename']}" for each in out.ui["lyrics"]]
    return [each["filename"] for each in out.ui["lyrics"]]


def check_lyrics_are_saved(world: World) -> None:
    output = folder_paths.get_output_directory()
    with tempfile.TemporaryDirectory() as name:
        folder_paths.set_output_directory(name)
        folder = Path(name, "songs")
        try:
            assert saved(folder) == ["take_00001_.lrc"]
            assert "hello again" in (folder / "take_00001_.lrc").read_text("utf-8")
            names = saved(folder, srt=True, vtt=True, json=True)
            assert names == [f"take_00002_{end}" for end in (".lrc", ".srt", ".vtt", ".lyrics.json")]
            content = json.loads((folder / names[-1]).read_text("utf-8"))
            assert LyricTimes.from_dict(content) == PLACES
            assert saved(folder, word_times=True) == ["take_00003_.lrc"]
            (folder / "take_00004_.srt").write_text("mine")
            assert saved(folder, srt=True, lrc=False) == ["take_00005_.srt"]
            (dated,) = SaveLyricsNode.execute(PLACES, "%year%/x", True, False, False, False, False).ui["lyrics"]
            assert dated["subfolder"].isdigit()
            assert "outside" in refusal(lambda: saved(folder, filename_prefix="../x"))
            assert "all off" in refusal(lambda: saved(folder, lrc=False))
        finally:
            folder_paths.set_output_directory(output)
    assert "all off" in SaveLyricsNode.validate_inputs(False, False, False, False, False)
    assert SaveLyricsNode.validate_inputs(None, False, False, False, False) is True
