"""ComfyUI's own VAE, CONDITIONING and MODEL for ACE-Step 1.5 in our nodes."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace

import comfy.latent_formats
import comfy.lora
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.sample
import comfy.sd
import comfyui_version
import torch
from pack_under_test.acestep_core.audio import resample
from pack_under_test.acestep_core.edit.edit import Edit
from pack_under_test.acestep_core.edit.tasks import TEXT2MUSIC
from pack_under_test.nodes import AceStepExtension
from pack_under_test.nodes.comfy_runtime import versions

from .odd_inputs import refusal, with_data
from .partial import weights_of_an_adapter
from .world import FRAMES, World, difference, notes_of

LONG = 530  # frames: more than a tile


class Autoencoder(torch.nn.Module):
    """ComfyUI's layout over our VAE: channels before frames. It may have a lower sample rate."""

    def __init__(self, network: torch.nn.Module, every: int = 1):
        super().__init__()
        self.network, self.every = network, every

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.network.decode(latents.movedim(1, -1))[..., :: self.every]

    def encode(self, sound: torch.Tensor) -> torch.Tensor:
        return self.network.encode(sound.repeat_interleave(self.every, dim=-1)).movedim(1, -1)


def native_vae(world: World, rate: int | None = 48_000, hop: int = 1920) -> comfy.sd.VAE:
    """Return ComfyUI's VAE object around our network, with the attributes of its constructor."""
    vae = comfy.sd.VAE.__new__(comfy.sd.VAE)
    vae.first_stage_model = Autoencoder(world.vae.first_stage_model, 1920 // hop)
    vae.device, vae.output_device, vae.vae_dtype = mm.vae_device(), mm.intermediate_device(), torch.float32
    vae.patcher = comfy.model_patcher.ModelPatcher(vae.first_stage_model, vae.device, mm.vae_offload_device())
    vae.memory_used_encode = vae.memory_used_decode = lambda shape, dtype: 1000 * shape[2]
    vae.process_input = vae.process_output = lambda sound: sound
    vae.latent_channels, vae.latent_dim, vae.output_channels = 64, 1, 2
    vae.upscale_ratio = vae.downscale_ratio = hop
    vae.disable_offload, vae.not_video, vae.crop_input, vae.format_encoded = True, False, True, None
    vae.extra_1d_channel, vae.pad_channel_value, vae.size = None, "replicate", None
    if rate is not None:  # a newer attribute
        vae.audio_sample_rate = rate
    return vae


def latents(frames: int) -> torch.Tensor:
    return torch.randn(2, 64, frames, generator=torch.Generator().manual_seed(0))


def tone(seconds: float) -> torch.Tensor:
    return 0.5 * torch.sin(torch.arange(int(48_000 * seconds)) * (440 * 2 * torch.pi / 48_000)).expand(1, 2, -1)


def check_its_vae_equals_ours(world: World) -> None:
    vae, samples = native_vae(world), latents(LONG)
    sound = world.decode(samples)
    assert difference(world.decode(samples, vae), sound) <= 1e-5
    assert difference(world.encode_audio(sound, vae), world.encode_audio(sound)) <= 1e-4
    odd = sound[:1, :1, : 30 * 1920 + 700]  # mono, with a partial last frame
    assert difference(world.encode_audio(odd, vae), world.encode_audio(odd)) <= 1e-4


def check_its_vae_may_have_another_sample_rate(world: World) -> None:
    vae, samples = native_vae(world, 24_000, 960), latents(50)
    sound = world.decode(samples, vae)
    raw = world.vae.to_waveform(samples.movedim(1, -1), callbacks(), normalize=False)
    expected = resample(raw[..., ::2], 24_000)
    assert sound.shape == raw.shape
    assert difference(sound / sound.abs().amax((1, 2), True), expected / expected.abs().amax((1, 2), True)) <= 1e-4
    encoded = world.encode_audio(tone(2), vae)
    repeated = resample(tone(2), 48_000, 24_000).repeat_interleave(2, dim=-1)
    assert encoded.shape == (1, 64, 50) and difference(encoded, world.encode_audio(repeated)) <= 1e-3
    vae.audio_sample_rate_output = 48_000  # the decoder's rate may differ
    vae.upscale_ratio, vae.first_stage_model.every = 1920, 1
    assert difference(world.decode(samples, vae), world.decode(samples)) <= 1e-5


def callbacks():
    from pack_under_test.acestep_core.callbacks import Callbacks

    return Callbacks()


def check_an_interrupt_stops_its_vae_between_tiles(world: World) -> None:
    vae = native_vae(world)
    decode, calls = vae.decode, []

    def stopping(samples):
        calls.append(samples.shape[-1])
        mm.interrupt_current_processing()
        return decode(samples)

    vae.decode = stopping
    try:
        world.decode(latents(LONG), vae)
    except mm.InterruptProcessingException:
        assert len(calls) == 1 and calls[0] < LONG
    else:
        raise AssertionError("no interrupt")


def check_a_wrong_vae_is_refused(world: World) -> None:
    image = SimpleNamespace(latent_channels=4, latent_dim=2)
    for vae in (image, object()):
        for work in (lambda vae=vae: world.decode(latents(50), vae), lambda vae=vae: world.encode_audio(tone(1), vae)):
            assert refusal(work).startswith("vae")
    for stable_audio in (native_vae(world, 44_100, 2048), native_vae(world, None, 2048)):
        stable_audio.upscale_ratio = stable_audio.downscale_ratio = 2048
        assert "21.5 frames" in refusal(lambda vae=stable_audio: world.decode(latents(50), vae))


def check_a_sample_rate_of_zero_is_refused(world: World) -> None:
    from pack_under_test.nodes.audio import EncodeAudioNode

    for vae in (world.vae, native_vae(world)):
        for rate in (0, -1):
            audio = {"waveform": tone(1), "sample_rate": rate}
            sentence = refusal(lambda vae=vae, audio=audio: EncodeAudioNode.execute(vae, audio))
            assert "sample rate" in sentence or "sample_rate" in sentence


def check_its_conditioning_works(world: World) -> None:
    """It has no song. The duration comes from a latent, or from the audio codes of ComfyUI's text encoder."""
    ((caption, data),) = world.conditioning
    native = [[caption, {"pooled_output": None, "conditioning_lyrics": data["conditioning_lyrics"]}]]
    latent = {"samples": torch.zeros(1, 64, FRAMES)}
    whole = world.sample()
    assert difference(world.sample(conditioning=native, latent=latent), whole) == 0
    assert notes_of(lambda: world.sample(conditioning=native, latent=latent)) == []
    codes = list(range(FRAMES // 5))
    planned = with_data(world, audio_codes=[codes], acestep_song=None)
    ours = with_data(world, acestep_edit=Edit(TEXT2MUSIC, codes=[codes]), acestep_song=None)
    for work in (world.sample, world.ksample):
        assert difference(work(conditioning=planned), work(conditioning=ours)) == 0
        assert difference(work(conditioning=planned), work()) > 0.1
        assert notes_of(lambda work=work: work(conditioning=planned)) == []


def check_an_empty_latent_of_its_own_is_not_stretched(world: World) -> None:
    """Later versions resize it to the ratio of the model's latent format."""
    own = getattr(comfy.latent_formats, "ACEAudio15", None)
    ratio = getattr(own, "temporal_downscale_ratio", 1)
    assert world.model.model.latent_format.temporal_downscale_ratio == ratio
    fix, name = comfy.sample.fix_empty_latent_channels, "downscale_ratio_temporal"
    options = {name: ratio} if name in inspect.signature(fix).parameters else {}
    assert fix(world.model, torch.zeros(1, 64, FRAMES), **options).shape[-1] == FRAMES


def check_its_model_is_refused(world: World) -> None:
    class ACEStep15:
        pass

    assert "same file in Load Model" in refusal(lambda: world.sample(SimpleNamespace(model=ACEStep15())))
    assert "Connect the one of Load Model" in refusal(lambda: world.sample(SimpleNamespace(model=object())))


def check_its_loader_matches_peft_names(world: World) -> None:
    """If ComfyUI has a class for ACE-Step 1.5, our MODEL derives from it, so its LoRA names match."""
    ours = comfy.model_base.__dict__.get("ACEStep15", comfy.model_base.BaseModel)
    assert versions.model_class() is ours and isinstance(world.model.model, ours)
    if ours is comfy.model_base.BaseModel:
        newer = type("ACEStep15", (ours,), {})
        comfy.model_base.ACEStep15 = newer
        try:
            assert versions.model_class() is newer
        finally:
            del comfy.model_base.ACEStep15
        return
    if "ACEStep15" not in inspect.getsource(comfy.lora):  # 0.11.1 does not know them yet
        return
    plain = weights_of_an_adapter(world.model)
    peft = {name.replace("diffusion_model.decoder.", "base_model.model."): value for name, value in plain.items()}
    assert peft.keys().isdisjoint(plain)
    with_peft, usual = (comfy.sd.load_lora_for_models(world.model, None, w, 1.0, 0)[0] for w in (peft, plain))
    assert difference(world.sample(with_peft), world.sample(usual)) == 0
    assert difference(world.sample(with_peft), world.sample()) > 1e-2


def check_the_network_is_set_by_the_constructor(world: World) -> None:
    """ComfyUI 0.11.1 reads it at the end of its constructor."""
    base, usual, networks = comfy.model_base.BaseModel, comfy.model_base.BaseModel.__init__, []

    def reading(self, *arguments, **options):
        usual(self, *arguments, **options)
        networks.append(self.diffusion_model)

    model = world.model.model
    dtype = model.get_dtype()
    base.__init__ = reading
    try:
        again = type(model)(model.diffusion_model, model.defaults, dtype, dtype)
    finally:
        base.__init__ = usual
    assert networks == [model.diffusion_model] == [again.diffusion_model]


def check_a_comfyui_that_is_too_old_raises(world: World) -> None:
    usual = comfyui_version.__version__
    try:
        for version, refused in (("0.3.74", True), ("0.3.75", False), ("0.20.1", False), ("1.0.0-rc", False)):
            comfyui_version.__version__ = version
            try:
                asyncio.run(AceStepExtension().get_node_list())
            except RuntimeError as error:
                assert refused and version in str(error) and "0.3.75" in str(error)
            else:
                assert not refused, version
    finally:
        comfyui_version.__version__ = usual
