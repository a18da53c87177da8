"""`acestep plan`, `write` and `listen`, on a tiny planner."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch

from acestep_core import cli, write_audio
from acestep_core.planner import functions
from acestep_core.planner.functions import codes, plan
from acestep_core.planner.load_planner import load_planner
from acestep_core.planner.token_sampling import Sampling
from acestep_core.recipe import Recipe
from acestep_core.song.codes import format_codes, parse_codes
from acestep_core.song.song import Metadata, Song
from acestep_core.song.song_file import SavedSong, save_songs
from tests.support import layouts, tiny_checkpoint, tiny_planner, tiny_text

tiny_tokenizer_dir, vocabulary = tiny_text.tiny_tokenizer_dir, tiny_planner.vocabulary


@pytest.fixture(scope="module")
def planner_dir(tmp_path_factory, tiny_tokenizer_dir, vocabulary):
    folder = tmp_path_factory.mktemp("planner")
    config = replace(tiny_planner.config_of(vocabulary), max_position_embeddings=900)
    layouts.save(folder / "model.safetensors", tiny_planner.network(config).state_dict())
    layouts.save_config(folder, asdict(config))
    return shutil.copytree(tiny_tokenizer_dir, folder, dirs_exist_ok=True)


@pytest.fixture
def acestep(planner_dir, tmp_path, monkeypatch, capfdbinary):
    """Runs a command in an empty folder; returns exit code, output (as the object that it is, if any) and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, planner=planner_dir, stdin=""):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="cp1252"))
        options = ["--planner", str(planner), "--device", "cpu", "--dtype", "float32"] if planner else []
        try:
            code = cli.main([*map(str, arguments), *options])
        except SystemExit as stop:
            code = stop.code
        out, err = (content.decode() for content in capfdbinary.readouterr())
        return code, json.loads(out) if out.startswith("{") else out, err

    return run


SONG = Song("warm piano", "[Verse]\nriver", Metadata(bpm=90, key="C# minor", duration=2, language="en"))
OPTIONS = ("--bpm", 90, "--key", "c# min", "--duration", 2, "--language", "en", "--seed", 3)


def test_a_plan_is_the_functions_result_as_json(acestep, planner_dir, tmp_path):
    (tmp_path / "song.txt").write_text("[Verse]\nriver", encoding="utf-8")
    code, out, err = acestep("plan", "warm piano", "--lyrics", "song.txt", *OPTIONS, "--guidance", 1.5)
    assert code == 0 and "plan" in err and "█" in err
    planner = load_planner(planner_dir, device="cpu", dtype="float32")
    (planned,) = plan(planner, SONG, [3])
    (wanted,) = codes(planner, planned, [3], sampling=replace(functions.CODING, guidance=1.5))
    assert parse_codes(out.pop("codes")) == wanted and len(wanted) == 10
    facts = {"bpm": 90, "key": "C# minor", "duration": 2.0, "language": "en"}
    facts["time_signature"] = planned.song.metadata.time_signature
    assert out == {"caption": planned.song.caption, "lyrics": "[Verse]\nriver", "seed": 3, **facts}


def test_a_plan_may_leave_things_out_or_choose_the_best(acestep):
    _, out, _ = acestep("plan", "warm piano", *OPTIONS, "--no-codes", "--no-rewrite", "--quiet")
    assert out["caption"] == "warm piano" and "codes" not in out and out["time_signature"] in "2346"
    song = ("--time-signature", "3", *OPTIONS, "-q")
    found = {}
    for seed in (3, 4):
        _, one, _ = acestep("plan", "warm piano", *song, "--seed", seed, "--best-of", 1)
        found[one["codes"]] = seed
    _, best, _ = acestep("plan", "warm piano", *song, "--best-of", 2)
    assert best["codes"] in found and 0 < best["score"] < 1


def test_wishes_for_codes_are_said_to_be_in_vain_without_them(acestep, monkeypatch):
    planned, original = [], functions.plan
    monkeypatch.setattr(functions, "plan", lambda *given, **more: planned.append(given[2]) or original(*given, **more))
    wishes = ("--best-of", 3, "--guidance", 1.5, "--negative", "noise", "--first-layout")
    _, out, err = acestep("plan", "warm piano", *OPTIONS, "--no-codes", *wishes)
    assert len(planned[0]) == 1 and out["caption"]
    assert "without codes these change nothing: --best-of, --guidance, --negative, --first-layout" in err
    _, _, err = acestep("plan", "warm piano", *OPTIONS, "--negative", "noise", "--guidance", 1)
    assert "negative is ignored: it needs guidance above 1" in err
    _, _, err = acestep("plan", "warm piano", *OPTIONS, "--time-signature", "3", "--no-codes")
    assert "the caption stays as it is" in err


def test_one_command_reads_what_another_wrote(acestep, tmp_path):
    code, out, _ = acestep("write", "a sea shanty", "--seed", 5, "--language", "de", "-q", "-o", "song.json")
    assert (code, out) == (0, "song.json\n")
    written = json.loads((tmp_path / "song.json").read_text(encoding="utf-8"))
    assert written["language"] == "de" and written["genres"] and written["caption"] != "a sea shanty"
    _, out, _ = acestep("plan", "--from", "song.json", "--duration", 1, "--no-codes", "-q")
    assert out == written | {"duration": 1.0, "seed": out["seed"]}
    _, piped, _ = acestep("plan", "--from", "-", "--duration", 1, "--no-codes", "-q", "--seed", out["seed"],
                          stdin=json.dumps(written, ensure_ascii=False))  # fmt: skip
    assert piped == out


def test_instrumental_and_polish(acestep, monkeypatch, tmp_path):
    asked = []

    def answer(network, vocabulary, rows, **_):
        asked.extend(rows)
        return [[vocabulary.think, *vocabulary.encode("\nbpm: 99\ncaption: Höhe\n"), vocabulary.think_end]]

    monkeypatch.setattr(functions, "generate", answer)
    _, out, _ = acestep("write", "x", "--instrumental", "--seed", 1)
    assert out == {"caption": "Höhe", "lyrics": "[Instrumental]", "bpm": 99, "seed": 1}
    (tmp_path / "a.json").write_text(json.dumps({"caption": "rough", "lyrics": "la", "bpm": 70}))
    _, out, _ = acestep("write", "--from", "a.json", "--seed", 1, "--key", "C major")
    assert out == {"caption": "Höhe", "lyrics": "la", "bpm": 70, "key": "C major", "seed": 1}
    assert asked[-1].grammar.then_lyrics


def test_listening_to_codes_and_to_audio(acestep, monkeypatch, tmp_path, tiny_tokenizer_dir):
    monkeypatch.setattr(functions, "LISTENING", Sampling(temperature=1.0))
    (tmp_path / "codes.json").write_text(json.dumps({"codes": [1, 2, 3]}))
    code, out, _ = acestep("listen", "codes.json", "--seed", 1)
    assert code == 0 and out["codes"] == format_codes((1, 2, 3)) and out["duration"] == 0.6
    assert {"caption", "bpm", "key", "time_signature", "language"} <= out.keys()

    tiny_checkpoint.write_tiny_checkpoint(tmp_path / "models", tiny_tokenizer_dir)
    write_audio(tmp_path / "song.wav", torch.rand(2, 48_000, generator=torch.Generator().manual_seed(0)) - 0.5)
    heard = []

    def understand(planner, codes, seeds, **_):
        heard.extend(codes)
        return [functions.Written(SONG)]

    monkeypatch.setattr(functions, "understand", understand)
    code, out, _ = acestep("listen", "song.wav", "--model", tmp_path / "models", "--seed", 1)
    assert code == 0 and parse_codes(out["codes"]) == heard[0] and len(heard[0]) == 5
    assert out["caption"] == "warm piano"


@pytest.fixture
def asked(monkeypatch):
    """Stands in for the decoding loop: notes rows and sampling of each call, and answers something."""
    calls = []

    def answer(network, vocabulary, rows, *, sampling, stage, **_):
        calls.append((stage, rows, sampling))
        block = [vocabulary.think, *vocabulary.encode("\nbpm: 99\ncaption: Höhe\n"), vocabulary.think_end]
        return [block if row.codes is None else vocabulary.code_ids([row.seed] * row.codes) for row in rows]

    monkeypatch.setattr(functions, "generate", answer)
    return calls


def test_how_words_and_codes_are_chosen_can_be_said(acestep, asked):
    choice = ("--temperature", 0.5, "--top-p", 1.0, "--seed", 1, "-q")
    wishes = ("--guidance", 3, "--negative", "drums", "--first-layout")
    code, _, _ = acestep("plan", "warm piano", "--bpm", 90, "--duration", 2, *choice, *wishes)
    (_, _, planning), (_, (row,), coding) = asked
    assert code == 0 and planning == Sampling(0.5, 1.0) and coding == Sampling(0.5, 1.0, 0, 3.0)
    planner = row.negative
    acestep("plan", "warm piano", "--bpm", 90, "--duration", 2, *choice, "--guidance", 3, "--negative", "drums")
    assert asked[-1][1][0].negative != planner and asked[-1][1][0].prompt != row.prompt  # the layout
    acestep("plan", "warm piano", "--bpm", 90, "--duration", 2, *choice, "--guidance", 3)
    assert asked[-1][1][0].negative != asked[-3][1][0].negative and asked[-1][1][0].prompt == asked[-3][1][0].prompt
    acestep("write", "x", *choice)
    acestep("write", "--from", "-", *choice, stdin='{"caption": "x"}')
    acestep("listen", "-", *choice, stdin='{"codes": "1, 2"}')
    assert [(stage, sampling) for stage, _, sampling in asked[-3:]] == [
        (stage, Sampling(0.5, 1.0)) for stage in ("write", "polish", "listen")
    ]


def test_several_songs_at_once(acestep, asked, tmp_path):
    song = ("warm piano", "--duration", 2, "--seed", 7, "-q")
    _, out, _ = acestep("plan", *song, "--batch", 3)
    assert [each["seed"] for each in out["songs"]] == [7, 8, 9]
    assert [parse_codes(each["codes"]) for each in out["songs"]] == [(seed,) * 10 for seed in (7, 8, 9)]
    assert [[row.seed for row in rows] for _, rows, _ in asked] == [[7], [7, 8, 9]]  # one plan for all
    asked.clear()
    acestep("plan", *song, "--batch", 3, "--plan-each")
    assert [[row.seed for row in rows] for _, rows, _ in asked] == [[7, 8, 9], [7, 8, 9]]
    asked.clear()
    _, out, _ = acestep("plan", *song, "--batch", 2, "--no-codes", "-o", "two.json")
    assert [row.seed for row in asked[0][1]] == [7, 8]
    code, out, _ = acestep("plan", "--from", "two.json", "--no-codes", "-q", "--seed", 1)
    assert code == 0 and len(out["songs"]) == 2
    for command in (("write", "x"), ("write", "--from", "two.json")):
        _, out, _ = acestep(*command, "--batch", 2, "--seed", 4, "-q")
        assert [each["seed"] for each in out["songs"]] == [4, 5] * (len(out["songs"]) // 2)


def test_the_best_of_several_plans(acestep):
    options = ("warm piano", "--duration", 2, "--seed", 3, "-q", "--no-rewrite")
    found = {}
    for seed in (3, 4, 5):
        _, one, _ = acestep("plan", *options, "--seed", seed)
        found[one["codes"]] = one
    _, best, _ = acestep("plan", *options, "--best-of", 3, "--batch", 2, "--plan-each")
    scores = [each.pop("score") for each in best["songs"]]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 2
    assert best["songs"] == [found[each["codes"]] for each in best["songs"]]


def test_facts_of_an_idea_are_kept(acestep):
    facts = {"bpm": 77, "key": "Eb minor", "time_signature": "3", "language": "fr", "duration": 9.0}
    options = [part for name, value in facts.items() for part in (f"--{name.replace('_', '-')}", value)]
    code, out, _ = acestep("write", "a sea shanty", *options, "--seed", 5, "-q")
    assert code == 0 and {name: out[name] for name in facts} == facts and out["genres"] and out["lyrics"]


def test_a_planner_can_be_stored_small(acestep):
    options = ("warm piano", *OPTIONS, "-q")
    found = [acestep("plan", *options, *storage)[1]["codes"] for storage in ((), ("--storage", "int8"))]
    assert found[0] != found[1]
    code, _, err = acestep("plan", *options, "--storage", "int4")
    assert code == 2 and "storage 'int4' is unknown; choose int8, fp8 or none" in err


def test_what_save_audio_codes_wrote_is_heard_and_planned_anew(acestep, asked, tmp_path):
    save_songs(tmp_path / "kept.json", [SavedSong(SONG, (1, 2)), SavedSong(SONG, (3,))])
    _, out, _ = acestep("listen", "kept.json", "--seed", 1, "-q")
    assert [parse_codes(each["codes"]) for each in out["songs"]] == [(1, 2), (3,)]
    assert [each["duration"] for each in out["songs"]] == [0.4, 0.2]
    (tmp_path / "lines.txt").write_text("1, 2\n3\n")
    assert acestep("listen", "lines.txt", "--seed", 1, "-q")[1] == out
    shutil.copy(tmp_path / "kept.json", tmp_path / "without-suffix")
    assert acestep("listen", "without-suffix", "--seed", 1, "-q")[1] == out
    _, out, _ = acestep("plan", "--from", "kept.json", "--no-codes", "-q")
    assert [each["lyrics"] for each in out["songs"]] == [SONG.lyrics] * 2


def test_a_song_that_sounds_can_be_planned_anew(acestep, asked, tmp_path):
    settings = Recipe(SONG, 5, codes=(1, 2)).to_dict() | {"steps": 3}
    write_audio(tmp_path / "song.flac", torch.rand(2, 4800), settings=settings)
    _, out, _ = acestep("plan", "--from", "song.flac", "--seed", 9, "-q")
    assert (out["lyrics"], out["bpm"], out["seed"]) == (SONG.lyrics, 90, 9) and parse_codes(out["codes"]) == (9,) * 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "x", "--bpm", "3"], "BPM must be a whole number from 30 to 300"),
        (["plan", "x", "--best-of", "0"], "--best-of must be at least 1, got 0"),
        (["plan", "x", "--seed=-1"], "a seed is a whole number from 0"),
        (["plan", "x", "-o", "missing/song.json"], "the folder missing does not exist"),
        (["plan", "x", "-o", "."], "cannot write .: it is a folder"),
        (["plan", "--from", "-", "--lyrics", "-"], "--from and --lyrics cannot both be read from standard input"),
        (["write", "--from", "list.json", "--instrumental"], "--instrumental is for an idea; a song that is there"),
        (["plan", "--from", "missing.json"], "the song file missing.json cannot be read"),
        (["plan", "--from", "list.json"], "list.json holds no words of a song: say how it shall sound"),
        (
            ["plan", "--from", "tempo.json"],
            "tempo.json: 'tempo' is nothing that a song has; it has caption, lyrics, bpm",
        ),
        (["plan", "x", "--batch", "0"], "--batch must be at least 1, got 0"),
        (["write", "x", "--batch", "-1"], "--batch must be at least 1, got -1"),
        (["plan", "x", "--temperature", "-1"], "temperature must be a number 0 or more, got -1.0"),
        (["listen", "wrong.json", "--top-p", "2"], "audio codes are whole numbers"),
        (["write", "x", "--top-p", "2"], "top_p must be a number from 0 to 1, got 2.0"),
        (["plan", "x", "--guidance", "-1"], "guidance must be a number 0 or more, got -1.0"),
        (["plan", "--from", "broken.json"], "broken.json is no song in JSON"),
        (["plan", "x", "--lyrics", "missing.txt"], "the lyrics file missing.txt cannot be read"),
        (["write", "x", "--bpm", "9"], "BPM must be a whole number from 30 to 300"),
        (["write", "x", "--lyrics", "y.txt"], "--lyrics is for a song that is there already"),
        (["write", "x", "--from", "y.json"], "--from is for a song that is there already"),
        (["write", "x", "--language", "xx"], "unknown language 'xx'"),
        (["listen", "missing.flac"], "there is no audio file missing.flac"),
        (["listen", "empty.json"], "empty.json holds no audio codes"),
        (["listen", "wrong.json"], "audio codes are whole numbers from 0 to 63999, got 64000"),
        (["listen", "odd.json"], "odd.json: codes should be text or a list of numbers, they are 3"),
    ],
)
def test_a_bad_request_is_one_sentence_before_anything_is_loaded(acestep, monkeypatch, tmp_path, arguments, message):
    monkeypatch.setattr("acestep_core.planner.load_planner.load_planner", None)
    contents = {"list": "[1]", "broken": "{", "empty": "{}", "wrong": '{"codes": [64000]}', "odd": '{"codes": 3}'}
    contents["tempo"] = '{"tempo": 90}'
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(content)
    code, out, err = acestep(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("acestep: ") and message in err and err.count("\n") == 1


def test_a_missing_planner_is_one_sentence(acestep):
    code, _, err = acestep("write", "x", "--planner", "nothing-here", planner=None)
    assert code == 1 and "no planner LM 'nothing-here'; looked for" in err and err.count("\n") == 1


@pytest.mark.parametrize("command", ["plan", "write", "listen"])
def test_nothing_asked_for_is_a_usage_error(acestep, command):
    code, _, err = acestep(command, planner=None)
    assert code == 2 and f"usage: acestep {command}" in err
