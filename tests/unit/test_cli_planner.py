"""`acestep plan`, `write` and `listen`, on a tiny planner."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch

from acestep_core import cli, write_audio
from acestep_core.codes import format_codes, parse_codes
from acestep_core.planner import functions
from acestep_core.planner.functions import codes, plan
from acestep_core.planner.loading import load_planner
from acestep_core.planner.sampling import Sampling
from acestep_core.song import Metadata, Song
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


def test_one_command_reads_what_another_wrote(acestep, tmp_path):
    code, out, _ = acestep("write", "a sea shanty", "--seed", 5, "--language", "de", "-q", "-o", "song.json")
    assert (code, out) == (0, "song.json\n")
    written = json.loads((tmp_path / "song.json").read_text(encoding="utf-8"))
    assert written["language"] == "de" and written["genres"] and written["caption"] != "a sea shanty"
    _, out, _ = acestep("plan", "--from", "song.json", "--duration", 1, "--no-codes", "-q")
    assert out == {name: value for name, value in written.items() if name != "genres"} | {
        "duration": 1.0,
        "seed": out["seed"],
    }
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

    def understand(planner, codes, seeds, hooks):
        heard.append(codes)
        return [functions.Written(SONG)]

    monkeypatch.setattr(functions, "understand", understand)
    code, out, _ = acestep("listen", "song.wav", "--model", tmp_path / "models", "--seed", 1)
    assert code == 0 and parse_codes(out["codes"]) == heard[0] and len(heard[0]) == 5
    assert out["caption"] == "warm piano"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "x", "--bpm", "3"], "BPM must be a whole number from 30 to 300"),
        (["plan", "x", "--best-of", "0"], "--best-of must be at least 1, got 0"),
        (["plan", "x", "--seed=-1"], "a seed is a whole number from 0"),
        (["plan", "x", "-o", "missing/song.json"], "the folder missing does not exist"),
        (["plan", "--from", "missing.json"], "the song file missing.json cannot be read"),
        (["plan", "--from", "list.json"], "list.json should hold one song, an object with a caption; it holds [1]"),
        (["plan", "--from", "broken.json"], "broken.json is no song in JSON"),
        (["plan", "x", "--lyrics", "missing.txt"], "the lyrics file missing.txt cannot be read"),
        (["write", "x", "--bpm", "90"], "--bpm is for a song that is there already"),
        (["write", "x", "--language", "xx"], "unknown language 'xx'"),
        (["listen", "missing.flac"], "there is no audio file missing.flac"),
        (["listen", "empty.json"], "empty.json holds no audio codes"),
        (["listen", "wrong.json"], "audio codes are whole numbers from 0 to 63999, got 64000"),
        (["listen", "odd.json"], "odd.json: codes should be text or a list of numbers, they are 3"),
    ],
)
def test_a_bad_request_is_one_sentence_before_anything_is_loaded(acestep, monkeypatch, tmp_path, arguments, message):
    monkeypatch.setattr("acestep_core.planner.loading.load_planner", None)
    contents = {"list": "[1]", "broken": "{", "empty": "{}", "wrong": '{"codes": [64000]}', "odd": '{"codes": 3}'}
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
