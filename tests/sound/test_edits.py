"""Effects of edits on the sound of held-out pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acestep_core import Edit, extend, generate, tokenize
from training.examples import song_of

from . import metrics
from .conftest import SECONDS

RATE = metrics.RATE


def _generate(nano, piece, edit=None, seed=5, **more) -> np.ndarray:
    return generate(nano, song_of(piece), seed=seed, edit=edit, **more).waveform[0].numpy()


@pytest.mark.parametrize(
    ("use_codes", "rhythm", "harmony"), [(True, 0.2, 0.1), (False, 0.2, 0.3)], ids=["codes", "latents"]
)
def test_a_cover_keeps_its_source(nano, sources, use_codes, rhythm, harmony):
    """More than a cover of another source with the same text."""
    gain = {"rhythm": [], "harmony": []}
    for index, (piece, wave, latents) in enumerate(sources):
        other = sources[index - 1][2]
        own, foreign = (
            _generate(nano, piece, Edit("cover", source=source, use_codes=use_codes)) for source in (latents, other)
        )
        gain["rhythm"].append(metrics.rhythm_similarity(own, wave) - metrics.rhythm_similarity(foreign, wave))
        gain["harmony"].append(metrics.harmony_similarity(own, wave) - metrics.harmony_similarity(foreign, wave))
    assert np.mean(gain["rhythm"]) > rhythm, gain
    assert np.mean(gain["harmony"]) > harmony, gain


def test_cover_strength_is_between_text_and_source(nano, sources):
    piece, wave, latents = sources[0]

    def cover(strength: float) -> np.ndarray:
        return _generate(nano, piece, Edit("cover", source=latents, strength=strength))

    assert np.array_equal(cover(0.0), _generate(nano, piece))
    assert np.array_equal(cover(1.0), _generate(nano, piece, Edit("cover", source=latents)))
    half = cover(0.5)
    assert not np.array_equal(half, cover(0.0)) and not np.array_equal(half, cover(1.0))


def test_repaint_changes_only_its_region(nano, sources):
    piece, wave, latents = sources[1]
    edit = Edit("repaint", source=latents, regions=[(4, 8)], waveform=torch.from_numpy(wave)[None])
    repainted = _generate(nano, piece, edit)
    fade = int(0.1 * RATE)
    outside = np.r_[0 : 4 * RATE - fade, 8 * RATE + fade : wave.shape[1]]
    assert np.array_equal(repainted[:, outside], wave[:, outside])
    inside = slice(5 * RATE, 7 * RATE)
    assert np.corrcoef(repainted[0, inside], wave[0, inside])[0, 1] < 0.9
    assert abs(metrics.level(repainted[:, inside]) - metrics.level(wave[:, inside])) < 8
    assert max(metrics.click(repainted, 4), metrics.click(repainted, 8)) < 6


@pytest.fixture(scope="module")
def extended(nano, sources) -> list[np.ndarray]:
    """Two extensions of each source by four seconds."""
    waves = []
    for piece, wave, latents in sources:
        longer, regions = extend(torch.from_numpy(wave)[None], after=4)
        frames, _ = extend(latents, after=4)
        edit = Edit("repaint", source=frames, regions=regions, waveform=longer)
        waves += [*generate(nano, song_of(piece), batch=2, seed=5, edit=edit).waveform.numpy()]
    return waves


@pytest.fixture(scope="module")
def unrelated(sources) -> list[tuple[float, float]]:
    """Mean timbre distance and chroma similarity of each source and parts of the others."""
    waves = [wave for _, wave, _ in sources]
    result = []
    for wave in waves:
        others = [other[:, i * 4 * RATE :][:, : 4 * RATE] for other in waves if other is not wave for i in range(3)]
        result.append(
            tuple(np.mean([metrics.timbre_and_chroma(wave[:, -8 * RATE :], other) for other in others], axis=0))
        )
    return result


def test_extension_continues_the_source(sources, extended, unrelated):
    fade = int(0.1 * RATE)
    for i, longer in enumerate(extended):
        wave = sources[i // 2][1]
        assert longer.shape[1] == wave.shape[1] + 4 * RATE
        assert np.array_equal(longer[:, : wave.shape[1] - fade], wave[:, :-fade])
    assert metrics.discontinuities(extended, SECONDS, np.repeat(unrelated, 2, axis=0)) == set()


def _joined(waves, after) -> list[np.ndarray]:
    """Append another sound of the same level to each source."""
    levelled = [np.sqrt(np.mean(wave**2) / np.mean(new**2)) * new for wave, new in zip(waves, after, strict=True)]
    return [np.concatenate((wave, new), axis=1) for wave, new in zip(waves, levelled, strict=True)]


@pytest.mark.parametrize("start", [0, 4, 8])
@pytest.mark.parametrize("other", [1, 2, 3])
def test_another_song_is_a_discontinuity(sources, unrelated, start, other):
    waves = [wave for _, wave, _ in sources]
    after = [waves[(i + other) % len(waves)][:, start * RATE : (start + 4) * RATE] for i in range(len(waves))]
    assert metrics.discontinuities(_joined(waves, after), SECONDS, unrelated) >= {"timbre", "notes"}


def test_noise_is_a_discontinuity(sources, unrelated):
    waves, random = [wave for _, wave, _ in sources], np.random.default_rng(0)
    joined = _joined(waves, [random.standard_normal((2, 4 * RATE)).astype(np.float32) for _ in waves])
    assert metrics.discontinuities(joined, SECONDS, unrelated) >= {"timbre", "flux"}


@pytest.mark.parametrize(("change", "metric"), [(lambda x: x + 0.3, "click"), (lambda x: 4 * x, "level")])
def test_a_broken_seam_is_a_discontinuity(extended, unrelated, change, metric):
    seam = SECONDS * RATE
    broken = [np.concatenate((wave[:, :seam], change(wave[:, seam:])), axis=1) for wave in extended]
    assert metric in metrics.discontinuities(broken, SECONDS, np.repeat(unrelated, 2, axis=0))


def test_audio_codes_determine_length_and_sound(nano, sources):
    piece, wave, latents = sources[3]
    codes = tokenize(nano, latents)
    coded = _generate(nano, piece, Edit("text2music", codes=codes))
    assert coded.shape == wave.shape
    other = _generate(nano, piece, Edit("text2music", codes=(codes[0][::-1],)))
    assert not np.array_equal(coded, other)


@pytest.mark.parametrize("variance", [0.0, 0.2, 1.0])
def test_retake_distance_follows_its_variance(nano, sources, variance):
    piece, _, _ = sources[0]
    first = _generate(nano, piece)
    again = _generate(nano, piece, retake=(99, variance))
    if variance == 0:
        assert np.array_equal(first, again)
    elif variance == 1:
        assert np.allclose(again, _generate(nano, piece, seed=99), atol=1e-4)
    else:
        other = _generate(nano, piece, seed=99)
        assert np.corrcoef(first[0], again[0])[0, 1] > np.corrcoef(first[0], other[0])[0, 1]
