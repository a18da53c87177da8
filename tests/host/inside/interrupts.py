"""Interrupts at any point of the work."""

from __future__ import annotations

import gc
from collections.abc import Callable

import comfy.model_management as mm
import comfy.utils
import torch
from pack_under_test.acestep_core.checkpoints.silence import encode_silence
from pack_under_test.acestep_core.models.dit import Prepared
from pack_under_test.acestep_core.models.model import AceStepModel
from pack_under_test.acestep_core.models.oobleck import OobleckVAE
from pack_under_test.nodes.codes import AudioCodesNode
from pack_under_test.nodes.cover import CoverNode

from .partial import keep_partly, with_lora
from .world import World, counted, difference, network_of


def interrupted(work: Callable[[], object]) -> bool:
    """Return True if the work raised ComfyUI's interrupt. The flag must be clear then."""
    try:
        work()
    except mm.InterruptProcessingException:
        assert not mm.processing_interrupted()
        return True
    return False


def stop_at(number: int) -> Callable[[int], None]:
    return lambda call: mm.interrupt_current_processing() if call == number else None


def stop_when_shown(value: int) -> None:
    """Interrupt when the progress bar reaches that value."""

    def hook(now, total, preview, node_id=None) -> None:
        if now >= value:
            mm.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(hook)


def alive(kind: type) -> int:
    gc.collect()
    return sum(type(one) is kind for one in gc.get_objects())


def check_while_loading(world: World) -> None:
    networks = alive(AceStepModel), alive(OobleckVAE)
    stop_when_shown(1)
    assert interrupted(world.load)
    assert (alive(AceStepModel), alive(OobleckVAE)) == networks
    assert mm.current_loaded_models == []
    comfy.utils.set_progress_bar_global_hook(None)
    model, _, _ = world.load()
    assert difference(world.sample(model, steps=2), world.sample(steps=2)) == 0


def check_while_silence_is_encoded(world: World) -> None:
    vae = world.vae.first_stage_model
    own = encode_silence(vae, vae.device, torch.float32)[:, :8]
    with world.without_silence() as encode_again, counted(world.vae.first_stage_model.encoder) as calls:
        mm.interrupt_current_processing()
        assert interrupted(encode_again)
        assert calls[0] == 0
        encode_again()
        assert difference(network_of(world.model).silence_latent[:, :8], own) < 0.1


def check_while_encoding(world: World) -> None:
    """The text encoder runs in one step, which an interrupt before it prevents."""
    mm.interrupt_current_processing()
    module = world.text_encoder.model.text_encoder.module
    with counted(module) as calls:
        assert interrupted(world.encode)
    assert calls[0] == 0
    ((again, _),) = world.encode()
    assert difference(again, world.conditioning[0][0]) == 0


def check_while_sampling(world: World) -> None:
    whole = world.sample()
    decoder = network_of(world.model).decoder
    for work in (world.sample, world.ksample):
        with counted(decoder, stop_at(2)) as calls:
            assert interrupted(work)
        assert calls[0] == 2
        assert alive(Prepared) == 0
        assert world.model.model.current_patcher is None
        assert difference(work(), whole) <= 1e-4
    stop_when_shown(3)
    with counted(decoder) as calls:
        assert interrupted(world.sample)
    assert calls[0] == 3


def check_while_the_condition_is_encoded(world: World) -> None:
    network = network_of(world.model)
    with counted(network.encoder, stop_at(1)), counted(network.decoder) as calls:
        assert interrupted(world.sample)
        assert interrupted(world.ksample) is False  # the hook was for the first call only
    assert calls[0] == 4


def check_with_a_lora_on_a_partly_loaded_model(world: World) -> None:
    model, _, _ = world.load()
    plain, patched = world.sample(model), world.sample(with_lora(model))
    for share in (2.0, 0.4, 0.05):
        for work in (world.sample, world.ksample):
            partly = keep_partly(with_lora(model), share)
            with counted(network_of(model).decoder, stop_at(2)) as calls:
                assert interrupted(lambda work=work, partly=partly: work(partly))
            assert calls[0] == 2
            assert difference(world.sample(partly), patched) <= 1e-5, share
            assert difference(world.sample(model), plain) == 0, share


def check_while_decoding(world: World) -> None:
    samples = torch.randn(1, 64, 600, generator=torch.Generator().manual_seed(0))
    whole = world.decode(samples)
    network = world.vae.first_stage_model
    with counted(network.decoder, stop_at(2)) as calls:
        assert interrupted(lambda: world.decode(samples))
    assert calls[0] == 2
    stop_when_shown(1)
    with counted(network.decoder) as calls:
        assert interrupted(lambda: world.decode(samples))
    assert calls[0] == 1
    comfy.utils.set_progress_bar_global_hook(None)
    assert difference(world.decode(samples), whole) == 0


def check_while_encoding_audio(world: World) -> None:
    sound = torch.randn(1, 2, 600 * 1920, generator=torch.Generator().manual_seed(0)) * 0.1
    with counted(world.vae.first_stage_model.encoder, stop_at(1)) as calls:
        assert interrupted(lambda: world.encode_audio(sound))
    assert calls[0] == 1


def check_while_extracting_codes(world: World) -> None:
    latent = {"samples": torch.randn(1, 64, 2000, generator=torch.Generator().manual_seed(0))}  # 80 s, in two chunks
    task = CoverNode.execute(strength=1.0, noise_strength=0.0, latent=latent).args[0]
    usual, world.conditioning = world.conditioning, world.encode(task)
    network = network_of(world.model)
    try:
        for work in (
            lambda: AudioCodesNode.execute(world.model, latent=latent),
            world.sample,
            lambda: world.ksample(latent=latent["samples"]),
        ):
            with counted(network.tokenizer, stop_at(1)) as calls, counted(network.decoder) as steps:
                assert interrupted(work)
            assert (calls[0], steps[0]) == (1, 0)
    finally:
        world.conditioning = usual
