"""What the edits do to the sound of pieces that nano never heard."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acestep_core import Edit, extend, generate
from training.examples import song_of

from . import ears
from .conftest import SECONDS

RATE = ears.RATE


def _made(nano, piece, edit=None, seed=5, **more) -> np.ndarray:
    return generate(nano, song_of(piece), seed=seed, edit=edit, **more).waveform[0].numpy()


@pytest.mark.parametrize(
    ("use_codes", "rhythm", "harmony"), [(True, 0.2, 0.1), (False, 0.2, 0.3)], ids=["codes", "latents"]
)
def test_a_cover_keeps_its_source(nano, sources, use_codes, rhythm, harmony):
    """And not what another source would have left in the same song."""
    gained = {"rhythm": [], "harmony": []}
    for index, (piece, wave, latents) in enumerate(sources):
        other = sources[index - 1][2]
        own, foreign = (
            _made(nano, piece, Edit("cover", source=source, use_codes=use_codes)) for source in (latents, other)
        )
        gained["rhythm"].append(ears.likeness_of_rhythm(own, wave) - ears.likeness_of_rhythm(foreign, wave))
        gained["harmony"].append(ears.likeness_of_harmony(own, wave) - ears.likeness_of_harmony(foreign, wave))
    assert np.mean(gained["rhythm"]) > rhythm, gained
    assert np.mean(gained["harmony"]) > harmony, gained


def test_the_strength_of_a_cover_goes_from_the_words_alone_to_the_whole_source(nano, sources):
    piece, wave, latents = sources[0]

    def cover(strength: float) -> np.ndarray:
        return _made(nano, piece, Edit("cover", source=latents, strength=strength))

    assert np.array_equal(cover(0.0), _made(nano, piece))
    assert np.array_equal(cover(1.0), _made(nano, piece, Edit("cover", source=latents)))
    half = cover(0.5)
    assert not np.array_equal(half, cover(0.0)) and not np.array_equal(half, cover(1.0))


def test_what_a_repaint_keeps_is_the_source_and_what_it_makes_is_not(nano, sources):
    piece, wave, latents = sources[1]
    edit = Edit("repaint", source=latents, regions=[(4, 8)], waveform=torch.from_numpy(wave)[None])
    made = _made(nano, piece, edit)
    rest = int(0.1 * RATE)
    kept = np.r_[0 : 4 * RATE - rest, 8 * RATE + rest : wave.shape[1]]
    assert np.array_equal(made[:, kept], wave[:, kept])
    inside = slice(5 * RATE, 7 * RATE)
    assert np.corrcoef(made[0, inside], wave[0, inside])[0, 1] < 0.9
    assert abs(ears.level(made[:, inside]) - ears.level(wave[:, inside])) < 8
    assert max(ears.click(made, 4), ears.click(made, 8)) < 6


@pytest.fixture(scope="module")
def extended(nano, sources) -> list[np.ndarray]:
    """Two extensions of every source, by four seconds."""
    made = []
    for piece, wave, latents in sources:
        longer, regions = extend(torch.from_numpy(wave)[None], after=4)
        frames, _ = extend(latents, after=4)
        edit = Edit("repaint", source=frames, regions=regions, waveform=longer)
        made += [*generate(nano, song_of(piece), batch=2, seed=5, edit=edit).waveform.numpy()]
    return made


@pytest.fixture(scope="module")
def strangers(sources) -> list[tuple[float, float]]:
    """The kinship of each source with the others, part by part."""
    waves = [wave for _, wave, _ in sources]
    found = []
    for wave in waves:
        others = [other[:, i * 4 * RATE :][:, : 4 * RATE] for other in waves if other is not wave for i in range(3)]
        found.append(tuple(np.mean([ears.kinship(wave[:, -8 * RATE :], other) for other in others], axis=0)))
    return found


def test_an_extension_goes_on_where_the_source_ended(sources, extended, strangers):
    rest = int(0.1 * RATE)
    for i, made in enumerate(extended):
        wave = sources[i // 2][1]
        assert made.shape[1] == wave.shape[1] + 4 * RATE
        assert np.array_equal(made[:, : wave.shape[1] - rest], wave[:, :-rest])
    assert ears.strange_at(extended, SECONDS, np.repeat(strangers, 2, axis=0)) == set()


def _joined(waves, after) -> list[np.ndarray]:
    """Each source and something else, as loud, right behind it."""
    loud = [np.sqrt(np.mean(wave**2) / np.mean(new**2)) * new for wave, new in zip(waves, after, strict=True)]
    return [np.concatenate((wave, new), axis=1) for wave, new in zip(waves, loud, strict=True)]


@pytest.mark.parametrize("start", [0, 4, 8])
@pytest.mark.parametrize("other", [1, 2, 3])
def test_another_song_would_not_pass_for_an_extension(sources, strangers, start, other):
    waves = [wave for _, wave, _ in sources]
    after = [waves[(i + other) % len(waves)][:, start * RATE : (start + 4) * RATE] for i in range(len(waves))]
    assert ears.strange_at(_joined(waves, after), SECONDS, strangers) >= {"timbre", "notes"}


def test_noise_would_not_pass_for_an_extension(sources, strangers):
    waves, random = [wave for _, wave, _ in sources], np.random.default_rng(0)
    joined = _joined(waves, [random.standard_normal((2, 4 * RATE)).astype(np.float32) for _ in waves])
    assert ears.strange_at(joined, SECONDS, strangers) >= {"timbre", "flux"}


@pytest.mark.parametrize(("change", "heard"), [(lambda x: x + 0.3, "click"), (lambda x: 4 * x, "level")])
def test_a_broken_seam_would_be_heard(extended, strangers, change, heard):
    seam = SECONDS * RATE
    broken = [np.concatenate((made[:, :seam], change(made[:, seam:])), axis=1) for made in extended]
    assert heard in ears.strange_at(broken, SECONDS, np.repeat(strangers, 2, axis=0))


def test_the_codes_of_a_song_are_a_song_of_the_same_length(nano, sources):
    from acestep_core import tokenize

    piece, wave, latents = sources[3]
    codes = tokenize(nano, latents)
    made = _made(nano, piece, Edit("text2music", codes=codes))
    assert made.shape == wave.shape
    other = _made(nano, piece, Edit("text2music", codes=(codes[0][::-1],)))
    assert not np.array_equal(made, other)


@pytest.mark.parametrize("variance", [0.0, 0.2, 1.0])
def test_a_retake_is_nearer_the_less_it_varies(nano, sources, variance):
    piece, _, _ = sources[0]
    first = _made(nano, piece)
    again = _made(nano, piece, retake=(99, variance))
    if variance == 0:
        assert np.array_equal(first, again)
    elif variance == 1:
        assert np.allclose(again, _made(nano, piece, seed=99), atol=1e-4)
    else:
        other = _made(nano, piece, seed=99)
        assert np.corrcoef(first[0], again[0])[0, 1] > np.corrcoef(first[0], other[0])[0, 1]
