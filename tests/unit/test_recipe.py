import json

import pytest

from acestep_core.errors import RequestError
from acestep_core.recipe import Recipe
from acestep_core.sampling.settings import BASE, SamplingSettings
from acestep_core.song import Metadata, Song

METADATA = Metadata(bpm=90, key="C# minor", time_signature="3", language="en", duration=42.5)
FULL = Recipe(
    song=Song("warm piano", "[Verse]\nla", METADATA),
    seed=2**64 - 1,
    settings=SamplingSettings(timesteps=(0.9, 0.5), guidance_scale=6.0, guidance="adg", guidance_interval=(0.1, 0.9)),
    normalize=False,
    origin={"model": "base", "vae": "scragvae", "text_encoder": "text-encoder", "variant": "sft"},
)


@pytest.mark.parametrize("recipe", [FULL, Recipe(Song("x"), 0)])
def test_a_recipe_survives_json(recipe):
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_auto_is_left_out_and_unknown_names_are_ignored():
    values = Recipe(Song("x"), 0).to_dict()
    assert "bpm" not in values and "steps" not in values
    assert Recipe.from_dict(values | {"from_the_future": 1}) == Recipe(Song("x"), 0)


def test_bad_values_are_refused():
    with pytest.raises(RequestError, match="BPM"):
        Recipe.from_dict(FULL.to_dict() | {"bpm": 9})


@pytest.mark.parametrize("change", [{"guidance_interval": [0.2]}, {"guidance_interval": None}, {"solver": []}])
def test_sampling_that_cannot_be_is_refused_when_it_is_resolved(change):
    """A file's tags can hold anything."""
    recipe = Recipe.from_dict(FULL.to_dict() | change | {"model": 5})
    assert recipe.origin["model"] == "5"
    with pytest.raises(RequestError):
        recipe.settings.resolve(BASE)
