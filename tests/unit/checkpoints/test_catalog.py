"""The catalog, the variants, and which releases are installed."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import pytest

from acestep_core.checkpoints.catalog import NANO, RELEASES, Kind, find_release
from acestep_core.checkpoints.installed import default_roots, list_releases
from acestep_core.checkpoints.variants import VARIANTS, Family, pick_variant, variant_from_name
from acestep_core.errors import RequestError
from tests.support import manifest


def test_names_that_users_type():
    assert list(VARIANTS) == [
        "turbo", "turbo-shift1", "turbo-shift3", "turbo-continuous", "sft", "base", "xl-turbo", "xl-sft", "xl-base",
    ]  # fmt: skip
    assert {"nano", *VARIANTS, "vae", "text-encoder", "lm-0.6b", "lm-1.7b", "lm-4b"} <= RELEASES.keys()


def test_recommended_settings():
    for variant in VARIANTS.values():
        expected = (8, 1.0 if variant.name == "turbo-shift1" else 3.0, 1.0) if variant.is_turbo else (50, 3.0, 7.0)
        assert (variant.steps, variant.shift, variant.guidance) == expected


def test_every_release_makes_a_song_or_is_a_part():
    for item in RELEASES.values():
        needs = {RELEASES[name].kind for name in item.needs}
        alone = item.repo is None or item.kind is not Kind.NETWORK or "diffusers" in item.name
        reads = item.variant is not None or item.kind is Kind.PLANNER
        tokenizer = {Kind.TOKENIZER} if item.is_file and reads else set()  # single files hold none
        assert needs == (set() if alone else {Kind.VAE, Kind.TEXT_ENCODER}) | tokenizer
        assert item.kind not in (Kind.NETWORK, Kind.ALL_IN_ONE) or item.variant is not None or item.repo is None


def test_turbo_is_three_folders_of_the_main_repository_and_not_the_planner():
    parts = [RELEASES[name] for name in ("turbo", *RELEASES["turbo"].needs)]
    assert {part.repo for part in parts} == {"ACE-Step/Ace-Step1.5"}
    assert [part.target for part in parts] == ["acestep-v15-turbo", "vae", "Qwen3-Embedding-0.6B"]
    assert all(pattern.startswith(part.target + "/") for part in parts for pattern in part.files)


def test_sizes_are_those_of_the_networks():
    def bfloat16(names):
        return 2 * sum(map(prod, names.values()))

    assert RELEASES["comfy-xl-sft"].size == pytest.approx(bfloat16(manifest.network(manifest.XL)), rel=0.01)
    sizes = {"turbo": manifest.network(manifest.TWO_B), "xl-sft": manifest.network(manifest.XL), "vae": manifest.vae()}
    for name, names in sizes.items():
        assert RELEASES[name].approximate
        stored_as_float32 = name == "xl-sft"
        assert RELEASES[name].size == pytest.approx((1 + stored_as_float32) * bfloat16(names), rel=0.01)


def test_only_data_is_downloaded():
    endings = (".safetensors", ".json", ".txt", ".jinja", ".pt", "/*")
    assert all(pattern.endswith(endings) for item in RELEASES.values() for pattern in item.files)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("acestep_v1.5_turbo.safetensors", "turbo"),
        ("acestep_v1.5_xl_base_bf16.safetensors", "xl-base"),
        ("acestep-v15-turbo-shift1", "turbo-shift1"),
        ("acestep-v15-turbo-fix-inst-shift3", "turbo-shift3"),
        ("acestep-v15-turbo-rl", "turbo"),
        ("models--ACE-Step--acestep-v15-xl-sft", "xl-sft"),
        ("aceStep15_sftV10.safetensors", "sft"),
        ("acestepV15Base_fp8.safetensors", "base"),
        ("ace_step_v1_5_xlsft.safetensors", "xl-sft"),
        ("ACE-Step-v1.5-XL-Turbo", "xl-turbo"),
        ("acestep_v1.5_merge_sft_turbo_ta_0.5.safetensors", "sft"),
        ("xl_merge_base_turbo.safetensors", "xl-base"),
        ("database.safetensors", None),
        ("model.safetensors", None),
    ],
)
def test_variant_from_name(name, variant):
    named = variant_from_name(name)
    assert (named and named.name) == variant


def test_a_stated_family_wins_over_the_name():
    assert pick_variant(Family.SFT, "turbo", False) == (VARIANTS["sft"], False)
    assert pick_variant(None, "xl_turbo", False) == (VARIANTS["turbo"], False)
    assert pick_variant(None, "model", True) == (VARIANTS["xl-turbo"], True)


def test_a_merged_model_keeps_its_guidance_and_is_a_guess():
    assert pick_variant(None, "merge_sft_turbo_ta_0.5", False) == (VARIANTS["sft"], True)
    assert pick_variant(None, "merge_base_turbo", True) == (VARIANTS["xl-base"], True)
    assert pick_variant(Family.TURBO, "merge_sft_turbo", False) == (VARIANTS["turbo"], False)


def test_installed_releases(tmp_path):
    (tmp_path / "acestep-v15-sft").mkdir()
    (tmp_path / "acestep-v15-sft" / "model.safetensors").touch()
    (tmp_path / "acestep" / "vae").mkdir(parents=True)
    (tmp_path / "acestep" / "vae" / "diffusion_pytorch_model.safetensors").touch()
    (tmp_path / "acestep-v15-base").mkdir()  # an interrupted download
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "ace_1.5_vae.safetensors").touch()
    (tmp_path / "Qwen3-Embedding-0.6B").mkdir()
    (tmp_path / "Qwen3-Embedding-0.6B" / "tokenizer.json").touch()
    rows = {row.release.name: row for row in list_releases([tmp_path])}
    assert rows.keys() == RELEASES.keys()
    assert rows["sft"].found == tmp_path / "acestep-v15-sft"
    assert rows["comfy-vae"].found == tmp_path / "vae" / "ace_1.5_vae.safetensors"
    assert rows["tokenizer"].found == tmp_path / "Qwen3-Embedding-0.6B" and rows["text-encoder"].found is None
    assert rows["base"].found is None
    assert rows["base"].searched == (tmp_path / "acestep-v15-base", tmp_path / "acestep" / "acestep-v15-base")
    assert rows["nano"].searched == (NANO,) and rows["nano"].found == NANO


def is_installed(root: Path, name: str) -> bool:
    return next(row for row in list_releases([root]) if row.release.name == name).found is not None


def test_half_a_download_is_not_installed(tmp_path):
    folder = tmp_path / "acestep-v15-xl-base"
    folder.mkdir()
    first, second = (folder / f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    first.touch()
    assert not is_installed(tmp_path, "xl-base")
    index = {"weight_map": {"a": first.name, "b": second.name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert not is_installed(tmp_path, "xl-base")
    second.touch()
    assert is_installed(tmp_path, "xl-base")


def test_half_a_diffusers_folder_is_not_installed(tmp_path):
    folder = tmp_path / "acestep-v15-xl-turbo-diffusers"
    for part in ("transformer", "vae", "tokenizer"):
        (folder / part).mkdir(parents=True)
    parts = {part: ["diffusers", "Any"] for part in ("transformer", "vae", "tokenizer", "scheduler")}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "X", "_parts": [None, None], **parts}))
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").touch()
    assert not is_installed(tmp_path, "xl-turbo-diffusers")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").touch()
    assert is_installed(tmp_path, "xl-turbo-diffusers")


def test_where_a_release_comes_from():
    assert RELEASES["turbo"].source == "ACE-Step/Ace-Step1.5: acestep-v15-turbo"
    assert RELEASES["lm-4b"].source == "ACE-Step/acestep-5Hz-lm-4B"
    assert RELEASES["comfy-turbo-aio"].source.endswith("_files: checkpoints/ace_step_1.5_turbo_aio.safetensors")
    assert RELEASES["nano"].source == "this package"


def test_default_roots(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_roots(str(tmp_path)) == (tmp_path,)
    user, here = default_roots()
    assert here == Path("models/acestep")
    assert user.name == "acestep" and user.is_relative_to(Path.home())
    (tmp_path / "models").mkdir()
    assert default_roots() == (here, user)


def test_unknown_release():
    with pytest.raises(RequestError, match="'huge'.*turbo"):
        find_release("huge")
