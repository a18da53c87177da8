"""What other nodes may do to a MODEL, a CONDITIONING or a LATENT before it reaches us."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import comfy.model_sampling
import comfy.sample
import torch
from comfy_extras.nodes_custom_sampler import BasicScheduler
from comfy_extras.nodes_model_advanced import ModelSamplingSD3
from pack_under_test.acestep_core.errors import CheckpointError, RequestError
from pack_under_test.acestep_core.song.song import Song
from pack_under_test.nodes import comfy_runtime, files, loading
from pack_under_test.nodes.codes import LoadCodesNode
from pack_under_test.nodes.empty import EmptyLatentNode
from pack_under_test.nodes.load import LoadModelNode
from pack_under_test.nodes.load_planner import LoadPlannerNode
from pack_under_test.nodes.song import SongNode

from .world import FRAMES, World, difference, network_of, shown, similarity


def refusal(work) -> str:
    """The sentence of the RequestError that `work` raises."""
    try:
        work()
    except RequestError as error:
        return str(error)
    raise AssertionError("it was not refused")


def with_data(world: World, **data: object) -> list:
    return [[caption, {**entry, **data}] for caption, entry in world.conditioning]


def check_an_area_is_heard_where_it_lies(world: World) -> None:
    whole, world.conditioning = world.conditioning, with_data(world, area=("percentage", 0.5, 0.5))
    try:
        late = world.ksample()
    finally:
        world.conditioning = whole
    assert torch.isfinite(late).all() and late.shape == world.ksample().shape
    assert difference(late, world.ksample()) > 1e-2


def check_a_latent_of_something_else_is_refused(world: World) -> None:
    for shape in ((1, 4, 64, 64), (1, 8, 16, 60)):
        sentence = refusal(lambda shape=shape: world.ksample(latent=torch.zeros(shape)))
        assert "this latent is not a song" in sentence and str(list(shape)) in sentence


def check_conditioning_without_text_is_refused(world: World) -> None:
    whole, world.conditioning = world.conditioning, [[None, {}]]
    try:
        assert "connect the one from Encode Song" in refusal(world.sample)
    finally:
        world.conditioning = whole


def check_sigmas_of_nothing_or_of_other_models_are_refused(world: World) -> None:
    assert "the sigmas are empty" in refusal(lambda: world.sample(sigmas=torch.FloatTensor([])))
    foreign = torch.tensor([14.6146, 3.0, 0.0])
    said = "sigmas lie between 0 and 1 for this model, got 14.61"
    assert said in refusal(lambda: world.sample(sigmas=foreign))
    noise = comfy.sample.prepare_noise(torch.zeros(1, 64, FRAMES), 1)
    usual = (2, 1.0, "euler", "simple", world.conditioning, [], torch.zeros_like(noise))
    assert said in refusal(lambda: comfy.sample.sample(world.model, noise, *usual, sigmas=foreign, disable_pbar=True))


def check_a_shift_whose_sigmas_round_to_more_than_one_is_taken(world: World) -> None:
    shifted = ModelSamplingSD3().patch(world.model, shift=0.15)[0]
    sigmas = BasicScheduler.execute(shifted, "simple", 2, 1.0).args[0]
    assert sigmas[0] > 1
    assert world.sample(shifted, sigmas=sigmas).isfinite().all() and world.ksample(shifted).isfinite().all()


def check_facts_that_no_song_has_are_refused_before_the_run(world: World) -> None:
    assert SongNode.validate_inputs(10.0, 0) is SongNode.validate_inputs(None, None) is True
    assert SongNode.validate_inputs(0.0, 90) == "duration is above 0 and at most 600 seconds, got 0"
    assert SongNode.validate_inputs(10.0, 10) == "bpm is 0, for auto, or from 30 to 300, got 10"


def check_sampling_from_noise_is_said_where_something_else_was_meant(world: World) -> None:
    cases = [
        ({"sigmas": torch.tensor([0.5, 0.25, 0.0])}, "the sigmas begin at 0.50, but sampling begins with nothing but"),
        ({"latent": {"samples": torch.ones(4, 64, FRAMES)}}, "of the latent only its length counts: batch_size makes"),
    ]
    for inputs, said in cases:
        with shown() as texts:
            world.sample(**inputs)
        assert texts[-1].startswith(said), texts
    with shown() as texts:
        world.sample(sigmas=torch.tensor([0.97, 0.5, 0.0]), latent={"samples": torch.ones(1, 64, FRAMES)})
    assert not any(said[:12] in text for text in texts for _, said in cases), texts


def check_a_song_without_a_duration_is_refused(world: World) -> None:
    song = Song("slow jazz")
    sentence = "this song has no duration: set one in Song, or let Plan Song choose it"
    assert refusal(lambda: EmptyLatentNode.execute(song, 1)) == sentence
    assert refusal(lambda: world.sample(conditioning=with_data(world, acestep_song=song))) == sentence


def check_a_text_encoder_of_another_width_is_refused(world: World) -> None:
    parts = files.resolve(files.EMBEDDED, "auto", "auto")
    try:
        loading.load_parts(replace(parts, text_encoder=Path.cwd() / "models" / "text-encoder"), "float32", None)
    except CheckpointError as error:
        assert "they do not belong together" in str(error)
    else:
        raise AssertionError("it was not refused")


def check_a_model_stays_what_it_is_beside_other_files(world: World) -> None:
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


def check_a_foreign_schedule_is_refused(world: World) -> None:
    model = world.model.clone()
    model.add_object_patch("model_sampling", comfy.model_sampling.ModelSamplingFlux())
    assert "noise schedule that is not ACE-Step's" in refusal(lambda: world.sample(model))


def check_what_only_ksampler_follows_is_said(world: World) -> None:
    plain = world.sample()
    assert difference(world.sample(conditioning=with_data(world, start_percent=0.0, end_percent=0.5)), plain) == 0
    assert any("does not follow end_percent, start_percent" in line for line in world.log.lines)


def check_float16_keeps_the_condition_encoder_in_float32(world: World) -> None:
    usual = comfy_runtime.network_dtypes
    loading.runtime.network_dtypes = lambda *_: (torch.float16, torch.float16)  # as --fp16-unet makes it
    try:
        model, _, _ = world.load("auto")
    finally:
        loading.runtime.network_dtypes = usual
    network = network_of(model)
    assert network.decoder.dtype == torch.float16 and network.encoder.dtype == torch.float32
    assert {p.dtype for p in network.encoder.parameters()} == {torch.float16}
    assert similarity(world.sample(model), world.sample()) > 0.999


def check_what_another_node_gives_for_a_file_need_not_be_one(world: World) -> None:
    """What is linked is None until it is there, and may be None even then."""
    assert LoadCodesNode.validate_inputs(None) is True and LoadCodesNode.fingerprint_inputs(None) is None
    assert LoadModelNode.validate_inputs("nano", None, "auto") is True
    for given in (None, 7, "a\0.json"):
        sentence = f"there is no file of audio codes {given!r} in ComfyUI's input folder: choose one from the list"
        assert refusal(lambda given=given: LoadCodesNode.execute(given)) == sentence
    for given in (None, 7):
        loads = {
            "model": lambda given=given: LoadModelNode.execute(given, "auto", "auto", "auto", "auto"),
            "text encoder": lambda given=given: LoadModelNode.execute("nano", given, "auto", "auto", "auto"),
            "VAE": lambda given=given: LoadModelNode.execute("nano", "auto", given, "auto", "auto"),
            "planner": lambda given=given: LoadPlannerNode.execute(given, "auto"),
        }
        for what, load in loads.items():
            assert refusal(load) == f"{what}: {given!r} is not in the list: choose one from it"


def check_stored_weights_can_be_trained(world: World) -> None:
    with torch.inference_mode():  # as ComfyUI runs nodes
        model, _, _ = world.load("fp8_e4m3fn")
    assert not any(parameter.is_inference() for parameter in network_of(model).parameters())
