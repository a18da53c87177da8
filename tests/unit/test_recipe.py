import json

import pytest
import torch

from acestep_core.audio import Finish
from acestep_core.edit.edit import Edit
from acestep_core.edit.morph import Morph
from acestep_core.edit.tasks import COVER, REPAINT, TEXT2MUSIC
from acestep_core.errors import RequestError
from acestep_core.pipeline import Model, encode, generate
from acestep_core.recipe import Recipe
from acestep_core.sampling.settings import TURBO, SamplingSettings
from acestep_core.song.song import Metadata, Song
from tests.support import tiny, tiny_checkpoint, tiny_text
from tests.support.tiny import draw

tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder

METADATA = Metadata(bpm=90, key="C# minor", time_signature="3", language="en", duration=42.5)
FULL = Recipe(
    song=Song("warm piano", "[Verse]\nla", METADATA),
    seed=2**64 - 1,
    settings=SamplingSettings(
        timesteps=(0.9, 0.5),
        guidance_scale=6.0,
        guidance_method="adg",
        guidance_interval=(0.1, 0.9),
        guidance_end=0.8,
        dcw="low",
        dcw_strength=0.5,
        negative_caption="distorted",
        solver="dpmpp_3m",
    ),
    normalize=False,
    origin={"model": "base", "vae": "scragvae", "text_encoder": "text-encoder", "variant": "sft"},
    codes=(1, 63999, 0),
    unrecorded=("a recording (repaint)",),
    finish=Finish("club", fade_out=3, trim=True),
)


@pytest.mark.parametrize("recipe", [FULL, Recipe(Song("x"), 0)])
def test_a_recipe_survives_json(recipe):
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_auto_is_left_out_and_unknown_names_are_ignored():
    values = Recipe(Song("x"), 0).to_dict()
    assert not {"bpm", "steps", "codes", "unrecorded"} & values.keys()
    assert Recipe.from_dict(values | {"from_the_future": 1}) == Recipe(Song("x"), 0)
    assert Recipe.from_dict(values | {"besides": ["a retake"]}).unrecorded == ("a retake",)  # of earlier versions


def test_a_recipe_of_an_earlier_version_has_the_new_settings_at_their_defaults():
    new = ("guidance_start", "guidance_end", "dcw", "dcw_strength", "negative_caption")
    values = {name: value for name, value in Recipe(Song("x"), 0).to_dict().items() if name not in new}
    assert Recipe.from_dict(values) == Recipe(Song("x"), 0)


def test_bad_values_are_refused():
    with pytest.raises(RequestError, match="BPM"):
        Recipe.from_dict(FULL.to_dict() | {"bpm": 9})
    with pytest.raises(RequestError, match="63999"):
        Recipe.from_dict(FULL.to_dict() | {"codes": [64000]})
    for name in ("codes", "timesteps", "guidance_interval"):
        with pytest.raises(RequestError, match=f"{name}.* 5"):
            Recipe.from_dict(FULL.to_dict() | {name: 5})
    with pytest.raises(RequestError, match="seed"):
        Recipe.from_dict({"caption": "x"})
    for finish in (5, {"loudness": 3}, {"trim": 1}):
        with pytest.raises(RequestError, match="finish|loudness|trim"):
            Recipe.from_dict(FULL.to_dict() | {"finish": finish})
    assert Recipe.from_dict(FULL.to_dict() | {"finish": {}}).finish is None
    assert Recipe.from_dict(FULL.to_dict() | {"codes": "<|audio_code_7|>", "unrecorded": 3}).codes == (7,)


@pytest.mark.parametrize("change", [{"guidance_interval": [0.2]}, {"guidance_interval": None}, {"solver": []}])
def test_invalid_settings_of_a_file_are_refused_when_resolved(change):
    recipe = Recipe.from_dict(FULL.to_dict() | change)
    with pytest.raises(RequestError):
        recipe.settings.resolve(TURBO)


@pytest.fixture(scope="module")
def model(tiny_encoder) -> Model:
    return Model(tiny.model(tiny_checkpoint.NETWORK), tiny_encoder, tiny.vae(tiny_checkpoint.VAE))


SONG = Song("warm piano", metadata=Metadata(duration=1.0))
STEPS = SamplingSettings(steps=2)
SOURCE = draw(1, 140, 64, seed=5)


def test_a_recipe_with_codes_generates_the_same_song(model):
    edit = Edit(TEXT2MUSIC, codes=[(1, 2, 3, 4, 5), (900, 901, 902, 903, 904)])
    result = generate(model, [SONG, SONG], batch=2, seed=7, settings=STEPS, edit=edit)
    recipe = Recipe.from_dict(json.loads(json.dumps(result.recipe(3).to_dict())))
    assert (recipe.codes, recipe.unrecorded) == ((900, 901, 902, 903, 904), ())
    again = generate(model, recipe.song, seed=recipe.seed, settings=recipe.settings, edit=recipe.edit)
    assert tiny.relative_error(again.waveform, result.waveform[3:]) < 1e-5
    assert generate(model, SONG, seed=7, settings=STEPS).recipe() == Recipe(SONG, 7, result.settings)
    assert Recipe(SONG, 7).edit is None


@pytest.mark.parametrize(
    ("extras", "unrecorded"),
    [
        ({"edit": Edit(REPAINT, SOURCE, regions=[(1, 2)])}, ["a recording (repaint)"]),
        ({"edit": Edit(COVER, SOURCE)}, ["a recording (cover)"]),
        ({"edit": Edit(COVER, codes=[(1,) * 28], strength=0.5)}, ["the strength of its audio codes"]),
        ({"timbre": [SOURCE]}, ["a recording for its timbre"]),
        ({"retake": (3, 0.5)}, ["a retake"]),
    ],
)
def test_unrecorded_inputs(model, extras, unrecorded):
    result = generate(model, Song("piano", metadata=Metadata(duration=5.6)), seed=7, settings=STEPS, **extras)
    assert result.recipe().to_dict()["unrecorded"] == unrecorded


def test_a_morph_is_unrecorded(model):
    morph = Morph((encode(model, SONG),), SOURCE)
    result = generate(model, SONG, seed=7, settings=SamplingSettings(steps=4), morph=morph)
    assert result.recipe().unrecorded == ("a recording (morph)",)
    assert torch.isfinite(result.waveform).all()


@pytest.mark.parametrize("part", ["model", "vae", "text_encoder"])
@pytest.mark.parametrize(
    "path",
    ["/models/mine", "../mine", "a/../../mine", "..", ".", "", "./", "./..", "~", "~/mine", "~root", "a/b", ".//a"]
    + ["C:\\mine", "C:mine", "\\mine", "a\\b", "\\\\server\\share\\mine", "//server/share/mine", "a\0b"],
)
def test_a_song_may_not_choose_a_path(part, path):
    with pytest.raises(RequestError, match=f"^{part}.*path.*--{part.replace('_', '-')}"):
        Recipe.from_dict({"caption": "x", "seed": 1, part: path})


@pytest.mark.parametrize("name", ["model", "vae", "text_encoder", "variant", "storage", "dtype"])
@pytest.mark.parametrize("value", [5, ["nano"], {"a": 1}, True])
def test_a_model_is_named_by_text(name, value):
    with pytest.raises(RequestError, match=f"^{name} must be text"):
        Recipe.from_dict({"caption": "x", "seed": 1, name: value})


@pytest.mark.parametrize("value", ["no", "false", 0, 1, [], {}])
def test_normalize_is_true_or_false(value):
    with pytest.raises(RequestError, match="normalize"):
        Recipe.from_dict({"caption": "x", "seed": 1, "normalize": value})
    assert not Recipe.from_dict({"caption": "x", "seed": 1, "normalize": False}).normalize
    assert Recipe.from_dict({"caption": "x", "seed": 1, "normalize": None}).normalize


@pytest.mark.parametrize("name", ["turbo", "./turbo", "my model.safetensors", "夜"])
def test_a_portable_name_is_read_back(name):
    assert Recipe.from_dict({"caption": "x", "seed": 1, "model": name}).origin == {"model": name}
