"""Prompts and text states against diffusers' ACE-Step pipeline, with a small random Qwen3 and a small tokenizer."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path
from types import MethodType

import pytest
import torch
from diffusers.pipelines.ace_step.pipeline_ace_step import AceStepPipeline
from transformers import AutoTokenizer, Qwen3Config, Qwen3Model

from acestep_core.edit.tasks import COVER, TEXT2MUSIC
from acestep_core.song.song import Metadata, Song
from acestep_core.text.encoder import TextEncoder
from acestep_core.text.prompts import caption_prompt, lyric_prompt
from tests.support import tiny_text

tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder

LYRICS = "[Verse]\nslow river, café\n\n[Chorus]\n日本語 🎵\n"
LONG = "[Verse]\nnight and fire, slow river ocean\n" * 400


def request(song: Song) -> dict:
    """Return the song as arguments of the pipeline."""
    meta = song.metadata
    return {
        "lyrics": song.prompt_lyrics,
        "vocal_language": song.prompt_language or "unknown",
        # Diffusers has no "not given" for its default; 0 is what it reads as such.
        "audio_duration": meta.duration or 0,
        "bpm": meta.bpm,
        "keyscale": meta.key,
        "timesignature": meta.time_signature,
    }


class Pipeline:
    """The text path of the pipeline, without its other networks."""

    _build_metadata_string = staticmethod(AceStepPipeline._build_metadata_string)

    def __init__(self, encoder: TextEncoder, folder: Path):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        # Built by transformers alone, rotary frequencies too, with the plain form of attention.
        config = Qwen3Config(**asdict(tiny_text.CONFIG), attn_implementation="eager")
        self.text_encoder = Qwen3Model(config).eval()
        self.text_encoder.load_state_dict(encoder.module.state_dict())
        self._format_prompt = MethodType(AceStepPipeline._format_prompt, self)
        self.encode_prompt = MethodType(AceStepPipeline.encode_prompt, self)


@pytest.fixture(scope="module")
def pipeline(tiny_encoder, tiny_tokenizer_dir) -> Pipeline:
    return Pipeline(tiny_encoder, tiny_tokenizer_dir)


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_prompts_are_equal(pipeline):
    for bpm, key, time_signature, duration, language, task in itertools.product(
        (None, 30, 128),
        (None, "C# minor", "Eb major"),
        (None, "4", "6"),
        (None, 0.5, 10, 59.99, 600),
        (None, "en", "yue"),
        (TEXT2MUSIC, COVER),
    ):
        song = Song(" warm\npiano ", LYRICS, Metadata(bpm, key, time_signature, language, duration))
        theirs = pipeline._format_prompt(song.caption, instruction=task.instruction, **request(song))
        assert (caption_prompt(song, task).text, lyric_prompt(song).text) == theirs


@pytest.mark.parametrize("task", [TEXT2MUSIC, COVER])
@pytest.mark.parametrize(
    "song",
    [
        Song("warm piano", LYRICS, Metadata(language="en")),
        Song("warm piano", "", Metadata(bpm=90, key="A minor", time_signature="3", duration=45)),
        Song("", "x"),
        Song("warm piano, " * 100, LONG, Metadata(language="ja")),  # both beyond their limits
    ],
    ids=["lyrics", "instrumental", "empty caption", "too long"],
)
def test_states_are_equal(tiny_encoder, pipeline, song, task):
    ours = tiny_encoder.encode(song, task)
    with torch.no_grad():
        caption, _, lyrics, _ = pipeline.encode_prompt(
            song.caption, device=torch.device("cpu"), instruction=task.instruction, **request(song)
        )
    assert relative_error(ours.caption, caption) <= 1e-5
    assert torch.equal(ours.lyrics, lyrics)


def test_a_batch_of_the_pipeline_is_our_songs_one_by_one(tiny_encoder, pipeline):
    songs = [Song("warm piano", LYRICS, Metadata(language="en")), Song("slow", "la la", Metadata(language="fr"))]
    with torch.no_grad():
        captions, caption_mask, lyrics, lyric_mask = pipeline.encode_prompt(
            [song.caption for song in songs],
            [song.prompt_lyrics for song in songs],
            torch.device("cpu"),
            [song.prompt_language for song in songs],
            audio_duration=30,
        )
    for i, song in enumerate(songs):
        ours = tiny_encoder.encode(song)
        assert relative_error(ours.caption[0], captions[i][caption_mask[i]]) <= 1e-5
        assert torch.equal(ours.lyrics[0], lyrics[i][lyric_mask[i]])


def test_divergence_user_text_that_spells_a_control_token(tiny_encoder, pipeline):
    """A control token in user text is plain text here. In diffusers it ends the caption."""
    song = Song("warm <|endoftext|> piano")
    end = tiny_encoder.tokenizer.end_id
    ours = tiny_encoder.tokenizer.encode_prompt(caption_prompt(song, TEXT2MUSIC))[0]
    theirs = pipeline.tokenizer(caption_prompt(song, TEXT2MUSIC).text).input_ids
    assert (ours.count(end), theirs.count(end)) == (2, 3)


def test_divergence_empty_lyrics(tiny_encoder, pipeline):
    """Empty lyrics are an instrumental, in the trained words."""
    ours = lyric_prompt(Song("x", "", Metadata(language="en"))).text
    _, theirs = pipeline._format_prompt("x", lyrics="", vocal_language="en")
    assert ours == "# Languages\nunknown\n\n# Lyric\n[Instrumental]<|endoftext|>"
    assert theirs == "# Languages\nen\n\n# Lyric\n<|endoftext|>"


def test_divergence_language_not_given(tiny_encoder, pipeline):
    """Without a language, the original writes `unknown` and diffusers `en`."""
    assert lyric_prompt(Song("x", "la")).text.startswith("# Languages\nunknown\n")
    assert pipeline._format_prompt("x", lyrics="la")[1].startswith("# Languages\nen\n")
