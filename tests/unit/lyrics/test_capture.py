"""The whole way from latents to times, on a network whose head follows a path written into the latents."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from acestep_core.callbacks import Callbacks
from acestep_core.edit.edit import Edit
from acestep_core.errors import Cancelled, NonFiniteError, RequestError
from acestep_core.lyrics.capture import lyric_heads, lyric_times
from acestep_core.models.cpu import chunked_layer
from acestep_core.models.cpu.plugins import install_cpu_plugins
from acestep_core.models.model import AceStepModel
from acestep_core.models.ops import quantized_ops
from acestep_core.pipeline import Model
from acestep_core.runtime.streaming import Stream
from acestep_core.song.song import Metadata, Song
from acestep_core.text.encoder import TextCondition
from acestep_core.text.lyric_tokens import locate_lyrics
from acestep_core.text.prompts import lyric_prompt
from tests.support import tiny, tiny_text

tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder

SIZE = 64  # one direction for each row of the condition
LAYER, HEAD = 2, 3
CONFIG = replace(
    tiny.STANDARD,
    hidden_size=SIZE, encoder_hidden_size=SIZE, text_hidden_dim=SIZE, head_dim=SIZE, fsq_dim=SIZE,
    num_lyric_encoder_hidden_layers=1, lyric_alignment_layers_config={LAYER: (HEAD,)},
)  # fmt: skip
LYRICS = Song("", "[Verse]\nslow river\nocean fire\n[Chorus]\nlove heart", Metadata(language="en"))
SHORTER = Song("", "[Verse]\nslow river\n[Chorus]\nlove heart", Metadata(language="en"))


def directions() -> torch.Tensor:
    """Return 64 orthogonal directions of ±1."""
    rows = torch.ones(1, 1)
    while len(rows) < SIZE:
        rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
    return rows


def following_network(ops=torch.nn) -> AceStepModel:
    """Return a network whose listed head attends to the row of which the latents hold the direction.

    The layers before leave their input as it is, and so does the lyric encoder.
    """
    network = tiny.randomise(AceStepModel(CONFIG, ops))
    network.silence_latent = 0.01 * tiny.draw(1, 60, SIZE)
    state = network.state_dict()
    for name, value in state.items():
        if "norm" in name:
            value.fill_(1)
        elif name.startswith("encoder.lyric_encoder.layers") and ("o_proj" in name or "down_proj" in name):
            value.zero_()
        elif name.startswith("decoder.layers") and ("o_proj" in name or "down_proj" in name):
            value.zero_()
    eye = torch.eye(SIZE)
    for name in ("encoder.lyric_encoder.embed_tokens", "encoder.text_projector", "decoder.condition_embedder"):
        state[f"{name}.weight"].copy_(eye)
        if f"{name}.bias" in state:
            state[f"{name}.bias"].zero_()
    patch = torch.zeros(SIZE, CONFIG.in_channels, CONFIG.patch_size)
    patch[:, -SIZE:] = eye[..., None] / CONFIG.patch_size
    state["decoder.proj_in.1.weight"].copy_(patch)
    state["decoder.proj_in.1.bias"].zero_()
    attention = f"decoder.layers.{LAYER}.cross_attn"
    own = HEAD // (CONFIG.num_attention_heads // CONFIG.num_key_value_heads)
    state[f"{attention}.q_proj.weight"][HEAD * SIZE : (HEAD + 1) * SIZE].copy_(eye)
    state[f"{attention}.k_proj.weight"][own * SIZE : (own + 1) * SIZE].copy_(eye)
    network.load_state_dict(state)
    return network


@pytest.fixture(scope="module")
def network() -> AceStepModel:
    return following_network()


def encoded(tokenizer, song: Song) -> TextCondition:
    """Return a condition in which each row of the lyrics has its own direction."""
    prompt = lyric_prompt(song)
    ids, _ = tokenizer.encode_prompt(prompt)
    tokens = locate_lyrics(tokenizer, prompt)
    assert len(ids) < SIZE - 4
    return TextCondition(directions()[None, -3:], directions()[None, : len(ids)], "", "", (), None, tokens)


def sung(text: TextCondition, spans: dict[str, tuple[int, int]], patches: int) -> torch.Tensor:
    """Return latents [1, 2 * patches, 64] in which each word is sung in its span of patches, token after token."""
    tokens, latents = text.lyric_tokens, torch.zeros(2 * patches, SIZE)
    latents += 0.5 * directions()[-1]  # the caption, where nothing is sung
    for word, (start, end) in spans.items():
        place = tokens.text.index(word)
        rows = [i for i, (a, b) in enumerate(tokens.spans) if a < place + len(word) and b > place]
        edges = torch.linspace(2 * start, 2 * end, len(rows) + 1).round().int().tolist()
        for row, (first, last) in zip(rows, pairwise(edges), strict=True):
            latents[first:last] = directions()[tokens.first + row]
    return latents[None]


SPANS = {
    "slow": (4, 16),
    "river": (16, 30),
    "ocean": (40, 56),
    "fire": (56, 64),
    "love": (100, 112),
    "heart": (112, 130),
}


def starts(times) -> dict[str, float]:
    return {word.text: word.start for line in times.lines for word in line.words}


def assert_sung(times, spans):
    words = {word.text: word for line in times.lines for word in line.words}
    for text, (start, end) in spans.items():
        assert words[text].start == pytest.approx(0.08 * start, abs=0.081), text
        assert words[text].end == pytest.approx(0.08 * end, abs=0.081), text


@pytest.fixture(scope="module")
def text(tiny_encoder):
    return encoded(tiny_encoder.tokenizer, LYRICS)


def test_the_times_are_those_of_the_path_in_the_latents(network, text):
    (times,) = lyric_times(Model(network), sung(text, SPANS, 150), text)
    assert_sung(times, SPANS)
    assert times.duration == 12 and times.missing == ()
    assert [line.text for line in times.lines] == ["slow river", "ocean fire", "love heart"]
    assert [section.label for section in times.sections] == ["Verse", "Chorus"]
    assert times.sections[1].start == times.lines[2].start


def test_each_item_of_a_batch_has_its_own_times(network, text):
    moved = {word: (start + 10, end + 10) for word, (start, end) in SPANS.items()}
    latents = torch.cat([sung(text, SPANS, 150), sung(text, moved, 150)])
    first, second = lyric_times(Model(network), latents, text)
    assert_sung(first, SPANS)
    assert_sung(second, moved)
    assert lyric_times(Model(network), latents[1:], text) == (second,)


def test_the_lyrics_of_a_batch_may_differ(network, text, tiny_encoder):
    shorter = encoded(tiny_encoder.tokenizer, SHORTER)
    spans = {word: span for word, span in SPANS.items() if word not in ("ocean", "fire")}
    first, second = lyric_times(
        Model(network), torch.cat([sung(text, SPANS, 150), sung(shorter, spans, 150)]), [text, shorter]
    )
    assert_sung(first, SPANS)
    assert_sung(second, spans)


def test_a_line_that_is_not_sung_lowers_the_coverage(network, text):
    spans = {word: span for word, span in SPANS.items() if word not in ("ocean", "fire")}
    whole, part = lyric_times(Model(network), torch.cat([sung(text, SPANS, 150), sung(text, spans, 150)]), text)
    assert part.missing == (1,) and part.score.coverage < whole.score.coverage
    assert part.score.value < whole.score.value
    assert_sung(part, spans)


def test_a_short_song_with_an_odd_frame_is_padded(network, text):
    spans = {"slow": (2, 8), "river": (8, 14), "ocean": (16, 24), "fire": (24, 28), "love": (30, 36), "heart": (36, 44)}
    (times,) = lyric_times(Model(network), sung(text, spans, 46)[:, :-1], text)
    assert times.duration == pytest.approx(91 / 25)
    assert_sung(times, spans)


def test_quantised_offloaded_and_chunked_networks_give_the_same_times(network, text, monkeypatch):
    latents = sung(text, SPANS, 150)
    (expected,) = lyric_times(Model(network), latents, text)
    quantised = following_network(quantized_ops(torch.int8))
    assert_sung(lyric_times(Model(quantised), latents, text)[0], SPANS)
    streamed = Model(network, placement=Stream(torch.device("cpu")))
    assert lyric_times(streamed, latents, text) == (expected,)
    chunked = following_network()
    install_cpu_plugins(chunked, torch.device("cpu"))
    monkeypatch.setattr(chunked_layer, "chunk_rows", lambda width: 40)
    assert starts(lyric_times(Model(chunked), latents, text)[0]) == starts(expected)


def test_layers_after_the_last_listed_one_do_not_run(text):
    network = following_network()
    network.decoder.layers[LAYER + 1].forward = None
    assert_sung(lyric_times(Model(network), sung(text, SPANS, 150), text)[0], SPANS)


def test_an_edit_and_a_timbre_reach_the_network(network, text):
    latents = sung(text, SPANS, 150)
    edit = Edit("cover", source=tiny.draw(1, 300, 64))
    (times,) = lyric_times(Model(network), latents, text, edit=edit, timbre=[tiny.draw(1, 40, 64)])
    assert_sung(times, SPANS)


def test_the_released_models_have_known_heads():
    two_b = replace(CONFIG, num_hidden_layers=24, hidden_size=2048, lyric_alignment_layers_config={})
    xl = replace(two_b, num_hidden_layers=32, hidden_size=2560)
    assert sum(map(len, lyric_heads(two_b).values())) == 7 and max(lyric_heads(two_b)) == 6
    assert sum(map(len, lyric_heads(xl).values())) == 11 and max(lyric_heads(xl)) == 7
    assert lyric_heads(CONFIG) == {LAYER: (HEAD,)}
    with pytest.raises(RequestError, match="head.*24 layers.*width 96"):
        lyric_heads(replace(two_b, hidden_size=96))


def test_invalid_requests_are_refused(network, text):
    latents = sung(text, SPANS, 150)
    with pytest.raises(RequestError, match="conditions is for 2 songs"):
        lyric_times(Model(network), latents.expand(3, -1, -1), [text, text])
    with pytest.raises(RequestError, match="lyric tokens"):
        lyric_times(Model(network), latents, replace(text, lyric_tokens=None))
    with pytest.raises(RequestError, match="latents must be"):
        lyric_times(Model(network), latents[0], text)
    with pytest.raises(RequestError, match="diffusion model"):
        lyric_times(Model(None), latents, text)
    with pytest.raises(Cancelled):
        lyric_times(Model(network), latents, text, callbacks=Callbacks(cancelled=lambda: True))
    broken = following_network()
    # Not the queries: for queries of NaN, torch's attention may be zero.
    broken.decoder.layers[0].mlp.down_proj.weight.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="attention"):
        lyric_times(Model(broken), latents, text)
