"""MODEL, CONDITIONING, LATENT and files in states that other nodes may leave them in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import comfy.model_sampling
import comfy.sample
import latent_preview
import torch
from comfy_extras.nodes_custom_sampler import BasicScheduler
from comfy_extras.nodes_model_advanced import ModelSamplingSD3
from pack_under_test.acestep_core.errors import CheckpointError, RequestError, shown
from pack_under_test.acestep_core.lyrics.check import estimate_duration
from pack_under_test.acestep_core.song.song import Song
from pack_under_test.nodes import files
from pack_under_test.nodes.codes import LoadCodesNode
from pack_under_test.nodes.comfy_runtime import load
from pack_under_test.nodes.comfy_runtime.progress import node_callbacks, show_notes
from pack_under_test.nodes.empty import EmptyLatentNode
from pack_under_test.nodes.encode import EncodeNode
from pack_under_test.nodes.loaders import LoadModelNode, LoadPlannerNode
from pack_under_test.nodes.song import EditSongNode, SongNode

from .world import FRAMES, World, difference, lines_of, network_of, notes_of, similarity


def refusal(work) -> str:
    """Return the sentence of the RequestError that `work` raises."""
    try:
        work()
    except RequestError as error:
        return str(error)
    raise AssertionError("no RequestError")


def with_data(world: World, **data: object) -> list:
    return [[caption, {**entry, **data}] for caption, entry in world.conditioning]


def check_an_area_changes_its_part_of_the_song(world: World) -> None:
    late = world.ksample(conditioning=with_data(world, area=("percentage", 0.5, 0.5)))
    assert torch.isfinite(late).all() and late.shape == world.ksample().shape
    assert difference(late, world.ksample()) > 1e-2


def check_latents_of_images_are_refused(world: World) -> None:
    for shape in ((1, 4, 64, 64), (1, 8, 16, 60)):
        sentence = refusal(lambda shape=shape: world.ksample(latent=torch.zeros(shape)))
        assert sentence.startswith("latent") and str(list(shape)) in sentence


def check_conditioning_without_text_is_refused(world: World) -> None:
    whole, world.conditioning = world.conditioning, [[None, {}]]
    try:
        assert "Encode Song" in refusal(world.sample)
    finally:
        world.conditioning = whole


def check_a_zeroed_conditioning_is_refused_by_sample_song(world: World) -> None:
    zeroed = [[torch.zeros_like(caption), data] for caption, data in world.conditioning]
    assert "negative" in refusal(lambda: world.sample(conditioning=zeroed))


def check_guidance_covers_a_share_of_the_steps(world: World) -> None:
    base = world.load(variant="base")[0]
    usual = world.sample(base, guidance=4.0)
    for share in ({"guidance_start": 0.5}, {"guidance_end": 0.5}):
        assert difference(world.sample(base, guidance=4.0, **share), usual) > 1e-3
    off = world.sample(base, guidance=4.0, guidance_start=0.5, guidance_end=0.5)
    assert difference(off, world.sample(base, guidance=1.0)) == 0
    turned = {"guidance_start": 0.6, "guidance_end": 0.5}
    assert refusal(lambda: world.sample(base, guidance=4.0, **turned)).startswith("guidance start")


def check_an_odd_negative_is_named(world: World) -> None:
    base = world.load(variant="base")[0]
    two = [*world.conditioning, *world.conditioning]
    assert refusal(lambda: world.sample(base, negative=two, guidance=4.0)).startswith("negative: 2 combined")
    foreign = [[torch.ones(1, 3, 5), {}]]
    assert refusal(lambda: world.sample(base, negative=foreign, guidance=4.0)).startswith("negative: made for another")
    voice = with_data(world, reference_audio_timbre_latents=[torch.ones(1, 64, 750)])
    (note,) = notes_of(lambda: world.sample(base, negative=voice, guidance=4.0, steps=1))
    assert "negative" in note and "timbre" in note
    (note,) = notes_of(lambda: world.sample(negative=world.conditioning, steps=1))
    assert "negative" in note and "guidance is off" in note


def check_empty_sigmas_and_those_of_other_models_are_refused(world: World) -> None:
    assert refusal(lambda: world.sample(sigmas=torch.FloatTensor([]))).startswith("sigmas: empty")
    foreign = torch.tensor([14.6146, 3.0, 0.0])
    assert "14.61" in refusal(lambda: world.sample(sigmas=foreign))
    noise = comfy.sample.prepare_noise(torch.zeros(1, 64, FRAMES), 1)
    usual = (2, 1.0, "euler", "simple", world.conditioning, [], torch.zeros_like(noise))
    sentence = refusal(lambda: comfy.sample.sample(world.model, noise, *usual, sigmas=foreign, disable_pbar=True))
    assert sentence.startswith("sigmas") and "14.61" in sentence


def check_a_shift_that_rounds_sigmas_above_one_works(world: World) -> None:
    shifted = ModelSamplingSD3().patch(world.model, shift=0.15)[0]
    sigmas = BasicScheduler.execute(shifted, "simple", 2, 1.0).args[0]
    assert sigmas[0] > 1
    assert world.sample(shifted, sigmas=sigmas).isfinite().all() and world.ksample(shifted).isfinite().all()


def check_song_values_out_of_range_are_refused_before_the_run(world: World) -> None:
    assert SongNode.validate_inputs(10.0, 0) is SongNode.validate_inputs(None, None) is True
    assert SongNode.validate_inputs(0.0, 90) is True  # auto
    assert SongNode.validate_inputs(-1.0, 90).startswith("duration")
    assert SongNode.validate_inputs(10.0, 10).startswith("bpm")


def check_inputs_that_only_ksampler_starts_from_are_noted(world: World) -> None:
    for inputs, word in (
        ({"sigmas": torch.tensor([0.5, 0.25, 0.0])}, "noise_strength"),
        ({"latent": {"samples": torch.ones(4, 64, FRAMES)}}, "batch_size"),
    ):
        assert word in notes_of(lambda inputs=inputs: world.sample(**inputs))[0]
    inputs = {"sigmas": torch.tensor([0.97, 0.5, 0.0]), "latent": {"samples": torch.ones(1, 64, FRAMES)}}
    lines = notes_of(lambda: world.sample(**inputs))
    assert not any(word in line for line in lines for word in ("noise_strength", "batch_size")), lines


def check_a_song_without_a_duration_fits_its_lyrics(world: World) -> None:
    song = Song("slow jazz", "[Verse]\nhello again\nmy friend")
    seconds = estimate_duration(song.lyrics)
    assert EmptyLatentNode.execute(song, 1).args[0]["samples"].shape[-1] == seconds * 25
    conditioning: list = []
    (note,) = [line for line in lines_of(lambda: conditioning.append(encoded(world, song))) if "estimated" in line]
    assert f"{seconds:g} seconds" in note
    assert world.sample(conditioning=conditioning[0], steps=1).shape[-1] == seconds * 25
    shorter = {"samples": torch.zeros(1, 64, FRAMES)}
    assert world.sample(conditioning=conditioning[0], latent=shorter, steps=1).shape[-1] == FRAMES
    values = ("", song.lyrics, "auto", 0.0, 0, "auto", "auto")
    (line,) = lines_of(lambda: SongNode.execute(*values))
    assert f"{seconds:g} seconds" in line and SongNode.execute(*values).args[0].metadata.duration is None


def check_lyrics_are_checked_without_blocking(world: World) -> None:
    lyrics = "[Vers]\n你好 世界"
    for node, before in ((SongNode, ()), (EditSongNode, ("edits",))):
        values = (*before, "pop", lyrics, "auto", 60.0, 0, "auto", "auto")
        notes = notes_of(lambda node=node, values=values: node.execute(*values))
        assert [note.split(":")[0] for note in notes] == ["language", "lyrics", "lyrics"], notes
        assert node.execute(*values).args[0].lyrics == lyrics


def encoded(world: World, song: Song):
    return EncodeNode.execute(world.text_encoder, song).args[0]


def check_a_text_encoder_of_another_width_is_refused(world: World) -> None:
    parts = files.resolve_model(files.NANO_ENTRY, "auto", "auto")
    try:
        load.load_model_sockets(replace(parts, text_encoder=Path.cwd() / "models" / "text-encoder"), "float32", None)
    except CheckpointError as error:
        assert "text encoder" in str(error)
    else:
        raise AssertionError("no CheckpointError")


def check_other_files_do_not_change_a_fingerprint(world: World) -> None:
    folder = Path.cwd() / "fingerprints"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    before = files.fingerprint(folder)
    (folder / ".DS_Store").write_bytes(b"1")
    (folder / "notes.md").write_bytes(b"1")
    (folder / "gone.safetensors").symlink_to(folder / "nowhere")
    assert files.fingerprint(folder) == before != []
    (folder / "config.json").write_bytes(b"{}")
    assert files.fingerprint(folder) != before


def check_a_foreign_noise_schedule_is_refused(world: World) -> None:
    model = world.model.clone()
    model.add_object_patch("model_sampling", comfy.model_sampling.ModelSamplingFlux())
    assert "noise schedule" in refusal(lambda: world.sample(model))


def check_conditioning_keys_that_only_ksampler_follows_are_noted(world: World) -> None:
    plain, timed = world.sample(), with_data(world, start_percent=0.0, end_percent=0.5)
    assert difference(world.sample(conditioning=timed), plain) == 0
    (note,) = notes_of(lambda: world.sample(conditioning=timed))
    assert "end_percent, start_percent" in note and "KSampler" in note


def check_float16_keeps_the_condition_encoder_in_float32(world: World) -> None:
    usual = load.network_dtypes
    load.network_dtypes = lambda *_: (torch.float16, torch.float16)  # as with --fp16-unet
    try:
        model, _, _ = world.load("auto")
    finally:
        load.network_dtypes = usual
    network = network_of(model)
    assert network.decoder.dtype == torch.float16 and network.encoder.dtype == torch.float32
    assert {p.dtype for p in network.encoder.parameters()} == {torch.float16}
    assert similarity(world.sample(model), world.sample()) > 0.999


def check_files_from_a_link_may_be_anything(world: World) -> None:
    """A linked input is None during validation, and may be None or of another type during the run."""
    assert LoadCodesNode.validate_inputs(None) is True and LoadCodesNode.fingerprint_inputs(None) is None
    assert LoadModelNode.validate_inputs("nano", None, "auto") is True
    for given in (None, 7, "a\0.json"):
        assert refusal(lambda given=given: LoadCodesNode.execute(given)).startswith(f"file: {given!r}")
    for given in (None, 7, "x" * 300, "a\0b", f"checkpoints/{'é' * 200}", ["nano"], {"a": "b"}):
        loads = {
            "model": lambda given=given: LoadModelNode.execute(given, "auto", "auto", "auto", "auto"),
            "text encoder": lambda given=given: LoadModelNode.execute("nano", given, "auto", "auto", "auto"),
            "VAE": lambda given=given: LoadModelNode.execute("nano", "auto", given, "auto", "auto"),
            "planner": lambda given=given: LoadPlannerNode.execute(given, "auto"),
        }
        for widget, work in loads.items():
            assert refusal(work).startswith(f"{widget}: {shown(given)}")
        if given is not None:
            assert "dtype" in refusal(lambda given=given: LoadModelNode.execute("nano", "auto", "auto", given, "auto"))
            assert "variant" in refusal(
                lambda given=given: LoadModelNode.execute("nano", "auto", "auto", "auto", given)
            )
            assert "dtype" in refusal(lambda given=given: LoadPlannerNode.execute("nano", given))
            for choices in ((given, "auto", "auto"), ("nano", given, "auto"), ("nano", "auto", given)):
                assert shown(given) in LoadModelNode.validate_inputs(*choices)
                assert refusal(lambda choices=choices: LoadModelNode.fingerprint_inputs(*choices, "auto", "auto"))
            assert shown(given) in LoadPlannerNode.validate_inputs(given)
            assert refusal(lambda given=given: LoadPlannerNode.fingerprint_inputs(given, "auto"))


def check_quantised_weights_can_be_trained(world: World) -> None:
    with torch.inference_mode():  # as ComfyUI runs nodes
        model, _, _ = world.load("fp8_e4m3fn")
    assert not any(parameter.is_inference() for parameter in network_of(model).parameters())


def check_a_preview_that_is_on_needs_no_setting(world: World) -> None:
    latents = torch.randn(1, 25, 64)
    with mock.patch.object(latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.NoPreviews):
        for shown, is_drawn in (("auto", False), ("on", True)):
            with node_callbacks(world.model.model.latent_format, shown) as callbacks:
                assert (callbacks.progress._preview(latents) is not None) == is_drawn


def check_notes_of_files_are_escaped_and_shortened(world: World) -> None:
    note = "red \x1b[31m \u202e" + "x" * 10_000
    (shown_note,) = notes_of(lambda: show_notes(note))
    for text in (shown_note, world.log.lines[-1]):
        assert text.startswith(r"red \u001b[31m \u202e") and len(text) < 3000
