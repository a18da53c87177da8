from __future__ import annotations

import pytest

from acestep_core.edit.tasks import COMPLETE, COVER, LEGO, TASKS, TEXT2MUSIC
from acestep_core.song.song import Metadata, Song
from acestep_core.text.prompts import STEMS, caption_of, caption_prompt, lyric_prompt, metadata_lines


def test_caption_prompt_without_metadata():
    assert caption_prompt(Song("x"), TEXT2MUSIC).text == (
        "# Instruction\nFill the audio semantic mask based on the given conditions:\n\n# Caption\nx\n\n# Metas\n"
        "- bpm: N/A\n- timesignature: N/A\n- keyscale: N/A\n- duration: 30 seconds\n<|endoftext|>\n"
    )


def test_caption_prompt_with_metadata_and_codes():
    song = Song(" a, b ", metadata=Metadata(bpm=120, key="c♯ minor", time_signature="6/8", duration=59.9))
    assert caption_prompt(song, COVER).text == (
        "# Instruction\nGenerate audio semantic tokens based on the given conditions:\n\n# Caption\n a, b \n\n# Metas\n"
        "- bpm: 120\n- timesignature: 6\n- keyscale: C# minor\n- duration: 59 seconds\n<|endoftext|>\n"
    )


def test_lyric_prompt():
    assert lyric_prompt(Song("x")).text == "# Languages\nunknown\n\n# Lyric\n[Instrumental]<|endoftext|>"
    song = Song("x", "[Verse]\nla la\n", Metadata(language="yue"))
    assert lyric_prompt(song).text == "# Languages\nyue\n\n# Lyric\n[Verse]\nla la\n<|endoftext|>"
    assert lyric_prompt(Song("x", "la")).text == "# Languages\nunknown\n\n# Lyric\nla<|endoftext|>"


def test_metadata_lines():
    assert metadata_lines(Song("x", metadata=Metadata(duration=0.5))).endswith("- duration: 0 seconds\n")
    assert metadata_lines(Song("x", metadata=Metadata(bpm=30))).startswith("- bpm: 30\n- timesignature: N/A\n")


def test_every_instruction_ends_in_a_colon():
    for task in TASKS.values():
        assert task.instruction.endswith(":") and task.track_instruction[-1:] in ("", ":")


@pytest.mark.parametrize("end", ["", "\n\n# Metas\n- bpm: 90\n<|endoftext|>\n", "\n# Metas\n"])
def test_the_caption_of_a_formatted_prompt_is_extracted(end):
    assert caption_of(f"# Instruction\nDo it:\n\n# Caption\n soft\n\npiano {end}") == "soft\n\npiano"


def test_a_formatted_prompt_is_not_formatted_twice():
    song = Song("soft piano")
    prompt = caption_prompt(song, TEXT2MUSIC)
    assert caption_prompt(Song(prompt.text), TEXT2MUSIC) == prompt


@pytest.mark.parametrize("text", ["# Caption\nx", "# Metas\nx", "# Instruction\nx", "Instruction Caption Metas", ""])
def test_other_captions_are_unchanged(text):
    assert caption_of(text) == text


def test_tracks_are_named_in_the_instruction():
    text = caption_prompt(Song("x"), COMPLETE, tracks=["bass", "vocals"]).text
    assert text.startswith("# Instruction\nComplete the input track with BASS | VOCALS:\n\n# Caption\nx\n\n# Metas\n")


def test_captions_of_stem_models():
    song, head = Song("dry snare"), "# Instruction\nGenerate the DRUMS track based on the audio context:\n\n# Caption\n"
    whole = caption_prompt(song, LEGO, STEMS, ["drums"], whole_caption="a waltz").text
    assert whole.startswith(f"{head}Global: a waltz\nLocal: dry snare\nMask Control: true\n\n# Metas\n- bpm: N/A\n")
    auto = caption_prompt(song, LEGO, STEMS, ["drums"], explicit_mask=False).text
    assert auto.startswith(f"{head}Global: \nLocal: dry snare\nMask Control: false\n\n# Metas\n")
    assert "Mask Control" not in caption_prompt(song, LEGO, tracks=["drums"], whole_caption="a waltz").text
