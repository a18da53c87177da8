"""Nothing stays in memory after the work."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management as mm
from pack_under_test.acestep_core.models.dit import DiT, Prepared
from pack_under_test.nodes.comfy_runtime.conds import SongCond

from .world import World, network_of


@contextmanager
def weak_references(owner: type, name: str) -> Iterator[list[weakref.ref]]:
    """Collect weak references to the results of a method, or to constructed objects."""
    original, references = getattr(owner, name), []

    def method(self, *arguments, **named):
        result = original(self, *arguments, **named)
        references.append(weakref.ref(self if result is None else result))
        return result

    setattr(owner, name, method)
    try:
        yield references
    finally:
        setattr(owner, name, original)


def check_no_state_outlives_its_sampling(world: World) -> None:
    with weak_references(DiT, "prepare") as prepared, weak_references(SongCond, "__init__") as conditions:
        results = [world.sample(steps=2), world.ksample(steps=2), world.ksample(steps=2, cfg=3.0)]
        assert len(prepared) >= 4 and len(conditions) >= 3
        gc.collect()
        assert not [one for one in (*prepared, *conditions) if one() is not None]
    assert not [one for one in gc.get_objects() if type(one) is Prepared]
    assert results


def check_unload_models_frees_everything(world: World) -> None:
    """POST /free: the networks leave their device, and are freed with their last socket."""
    parts = world.load()
    model, text_encoder, vae = parts
    patchers = [model, text_encoder.model.placement.patcher, vae.patcher]
    samples = world.sample(model, steps=1)
    world.decode(samples, vae)
    mm.load_models_gpu(patchers)
    assert len(mm.current_loaded_models) == 3
    assert all(patcher.loaded_size() > 0 for patcher in patchers)
    mm.unload_all_models()
    mm.soft_empty_cache()
    assert mm.current_loaded_models == []
    assert all(patcher.loaded_size() == 0 for patcher in patchers)
    assert model.model.current_patcher is None
    networks = [weakref.ref(one) for one in (network_of(model), text_encoder.model.text_encoder, vae.first_stage_model)]
    del parts, model, text_encoder, vae, patchers, samples
    gc.collect()
    assert [one() for one in networks] == [None, None, None]
