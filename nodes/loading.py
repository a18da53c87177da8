"""From the files of a model to the sockets that carry it."""

from __future__ import annotations

from ..acestep_core import pipeline
from ..acestep_core.checkpoints.build import load_network, load_text_encoder, load_vae
from ..acestep_core.checkpoints.dimensions import read_config
from ..acestep_core.checkpoints.find import Checkpoint
from ..acestep_core.checkpoints.layouts import open_network
from ..acestep_core.load import check_widths, prompt_style
from . import comfy_runtime as runtime


def load_parts(
    parts: Checkpoint, dtype: str, variant: str | None
) -> tuple[object, runtime.PlacedTextEncoder, runtime.SongVAE]:
    """MODEL, text encoder and VAE, each read to where ComfyUI keeps what is not in use. What the checkpoint wants its
    user to know is shown on the node."""
    storage, compute = runtime.network_dtypes(dtype, open_network(parts.network, variant).parameters)
    has_tokenizer = parts.tokenizer is not None or parts.text_encoder.is_dir()
    tokenizer = parts.tokenizer if has_tokenizer else runtime.BUNDLED_TOKENIZER
    vae_dtype, home = runtime.vae_dtype(), runtime.homes()
    with runtime.watched() as callbacks:
        network, report = load_network(
            parts.network,
            device=home.network,
            dtype=compute,
            variant=variant,
            ops=runtime.comfy_ops(storage, compute),
            encoder_ops=runtime.comfy_ops(storage, runtime.encoder_dtype(compute)),
            callbacks=callbacks,
        )
        encoder, _ = load_text_encoder(
            parts.text_encoder,
            device=home.text_encoder,
            dtype=runtime.text_encoder_dtype(),
            tokenizer=tokenizer,
            callbacks=callbacks,
        )
        check_widths(network, encoder)
        vae, _ = load_vae(
            parts.vae,
            device=home.vae,
            dtype=vae_dtype,
            ops=runtime.comfy_ops(vae_dtype, vae_dtype),
            callbacks=callbacks,
        )
        song_vae = runtime.SongVAE(vae)
        if network.silence_latent is None:
            song_vae.hear_silence(network, callbacks)
    runtime.show_note(read_config(parts.network).get("acestep_note", ""))
    model = runtime.wrap_network(network, pipeline.recommended(report.variant), storage, compute)
    return model, runtime.PlacedTextEncoder(encoder, prompt_style(network)), song_vae
