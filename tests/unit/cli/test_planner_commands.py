"""`acestep plan`, `write` and `listen`, on a tiny planner."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch

from acestep_core import cli, write_audio
from acestep_core.planner import planning, writing
from acestep_core.planner.load_planner import load_planner
from acestep_core.planner.planning import plan, plan_codes
from acestep_core.planner.token_sampling import TokenSampling
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
    """Run a command in an empty folder. Return its exit code, its output (parsed if it is JSON) and its errors."""
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


@pytest.fixture
def decoder(monkeypatch):
    """Replace the decoding loop. Return a list of the stage, rows and sampling of each call."""
    calls = []

    def generate_tokens(planner, rows, sampling, stage, callbacks):
        calls.append((stage, rows, sampling))
        vocabulary = planner.vocabulary
        block = [vocabulary.think, *vocabulary.encode("\nbpm: 99\ncaption: Höhe\n"), vocabulary.think_end]
        return [vocabulary.code_ids([row.seed] * row.count) if hasattr(row, "count") else block for row in rows]

    for module in (planning, writing):
        monkeypatch.setattr(module, "generate_tokens", generate_tokens)
    return calls


SONG = Song("warm piano", "[Verse]\nriver", Metadata(bpm=90, key="C# minor", duration=2, language="en"))
OPTIONS = ("--bpm", 90, "--key", "c# min", "--duration", 2, "--language", "en", "--seed", 3)


# --- plan -------------------------------------------------------------------------------------------------------------


def test_plan_prints_the_result_of_the_functions(acestep, planner_dir, tmp_path):
    (tmp_path / "song.txt").write_text("[Verse]\nriver", encoding="utf-8")
    code, out, err = acestep("plan", "warm piano", "--lyrics", "song.txt", *OPTIONS, "--guidance", 1.5)
    assert code == 0 and "plan" in err and "█" in err
    planner = load_planner(planner_dir, device="cpu", dtype="float32")
    (planned,) = plan(planner, SONG, [3])
    (codes,) = plan_codes(planner, planned, [3], sampling=replace(planning.CODING, guidance=1.5))
    assert parse_codes(out.pop("codes")) == codes and len(codes) == 10
    metadata = {"bpm": 90, "key": "C# minor", "duration": 2.0, "language": "en"}
    metadata["time_signature"] = planned.song.metadata.time_signature
    assert out == {"caption": planned.song.caption, "lyrics": "[Verse]\nriver", "seed": 3, **metadata}


def test_plan_without_codes(acestep):
    _, out, _ = acestep("plan", "warm piano", *OPTIONS, "--no-codes", "--no-rewrite", "--quiet")
    assert out["caption"] == "warm piano" and "codes" not in out and out["time_signature"] in "2346"


def test_best_of(acestep):
    song = ("--time-signature", "3", *OPTIONS, "-q")
    single = [acestep("plan", "warm piano", *song, "--seed", seed, "--best-of", 1)[1]["codes"] for seed in (3, 4)]
    _, best, _ = acestep("plan", "warm piano", *song, "--best-of", 2)
    assert best["codes"] in single and 0 < best["score"] < 1


def test_best_of_several_plans(acestep):
    options = ("warm piano", "--duration", 2, "--seed", 3, "-q", "--no-rewrite")
    single = {}
    for seed in (3, 4, 5):
        _, one, _ = acestep("plan", *options, "--seed", seed)
        single[one["codes"]] = one
    _, best, _ = acestep("plan", *options, "--best-of", 3, "--batch", 2, "--metadata-per-take")
    scores = [each.pop("score") for each in best["songs"]]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 2
    assert best["songs"] == [single[each["codes"]] for each in best["songs"]]


def test_ignored_options_are_reported(acestep, monkeypatch):
    seeds, original = [], planning.plan
    monkeypatch.setattr(planning, "plan", lambda *args, **options: seeds.append(args[2]) or original(*args, **options))
    _, out, err = acestep(
        "plan", "x", *OPTIONS, "--no-codes", "--best-of", 3, "--guidance", 1.5, "--negative-prompt", "noise"
    )
    assert len(seeds[0]) == 1 and out["caption"]
    assert "--best-of, --guidance, --negative-prompt: ignored" in err
    _, _, err = acestep("plan", "x", *OPTIONS, "--negative-prompt", "noise", "--guidance", 1)
    assert "negative prompt: ignored" in err
    _, _, err = acestep("plan", "x", *OPTIONS, "--time-signature", "3", "--no-codes")
    assert "caption: not rewritten" in err


def test_several_songs_at_once(acestep, decoder, tmp_path):
    song = ("warm piano", "--duration", 2, "--seed", 7, "-q")
    _, out, _ = acestep("plan", *song, "--batch", 3)
    assert [each["seed"] for each in out["songs"]] == [7, 8, 9]
    assert [parse_codes(each["codes"]) for each in out["songs"]] == [(seed,) * 10 for seed in (7, 8, 9)]
    assert [[row.seed for row in rows] for _, rows, _ in decoder] == [[7], [7, 8, 9]]  # one plan for all
    decoder.clear()
    acestep("plan", *song, "--batch", 3, "--metadata-per-take")
    assert [[row.seed for row in rows] for _, rows, _ in decoder] == [[7, 8, 9], [7, 8, 9]]
    decoder.clear()
    _, out, _ = acestep("plan", *song, "--batch", 2, "--no-codes", "-o", "two.json")
    assert [row.seed for row in decoder[0][1]] == [7, 8]
    code, out, _ = acestep("plan", "--from", "two.json", "--no-codes", "-q", "--seed", 1)
    assert code == 0 and len(out["songs"]) == 2
    for command in (("write", "x"), ("write", "--from", "two.json")):
        _, out, _ = acestep(*command, "--batch", 2, "--seed", 4, "-q")
        assert [each["seed"] for each in out["songs"]] == [4, 5] * (len(out["songs"]) // 2)


def test_plan_of_a_song_in_an_audio_file(acestep, decoder, tmp_path):
    settings = Recipe(SONG, 5, codes=(1, 2)).to_dict() | {"steps": 3}
    write_audio(tmp_path / "song.flac", torch.rand(2, 4800), settings=settings)
    _, out, _ = acestep("plan", "--from", "song.flac", "--seed", 9, "-q")
    assert (out["lyrics"], out["bpm"], out["seed"]) == (SONG.lyrics, 90, 9) and parse_codes(out["codes"]) == (9,) * 10


@pytest.mark.parametrize(("flags", "graphs"), [((), True), (("--no-graphs",), False), (("--graphs",), False)], ids=str)
def test_graphs_are_an_option_of_plan(acestep, monkeypatch, flags, graphs):
    received = []
    monkeypatch.setattr(planning, "generate_tokens", lambda planner, *_: received.append(planner.graphs) or [])
    _, _, err = acestep("plan", "piano", *OPTIONS, "--time-signature", 4, "--no-codes", *flags)
    assert received == [graphs]
    assert ("graphs are ignored: cpu" in err) == ("--graphs" in flags)


# --- write, listen ----------------------------------------------------------------------------------------------------


def test_commands_read_the_output_of_each_other(acestep, tmp_path):
    code, out, _ = acestep("write", "a sea shanty", "--seed", 5, "--language", "de", "-q", "-o", "song.json")
    assert (code, out) == (0, "song.json\n")
    written = json.loads((tmp_path / "song.json").read_text(encoding="utf-8"))
    assert written["language"] == "de" and written["genres"] and written["caption"] != "a sea shanty"
    _, out, _ = acestep("plan", "--from", "song.json", "--duration", 1, "--no-codes", "-q")
    assert out == written | {"duration": 1.0, "seed": out["seed"]}
    _, piped, _ = acestep("plan", "--from", "-", "--duration", 1, "--no-codes", "-q", "--seed", out["seed"],
                          stdin=json.dumps(written, ensure_ascii=False))  # fmt: skip
    assert piped == out


def test_instrumental_and_polish(acestep, decoder, tmp_path):
    _, out, _ = acestep("write", "x", "--instrumental", "--seed", 1)
    assert out == {"caption": "Höhe", "lyrics": "[Instrumental]", "bpm": 99, "seed": 1}
    (tmp_path / "a.json").write_text(json.dumps({"caption": "rough", "lyrics": "la", "bpm": 70}))
    _, out, _ = acestep("write", "--from", "a.json", "--seed", 1, "--key", "C major")
    assert out == {"caption": "Höhe", "lyrics": "la", "bpm": 70, "key": "C major", "seed": 1}
    assert decoder[-1][1][0].grammar.then_lyrics


def test_metadata_of_an_idea_is_kept(acestep):
    metadata = {"bpm": 77, "key": "Eb minor", "time_signature": "3", "language": "fr", "duration": 9.0}
    options = [part for name, value in metadata.items() for part in (f"--{name.replace('_', '-')}", value)]
    code, out, _ = acestep("write", "a sea shanty", *options, "--seed", 5, "-q")
    assert code == 0 and {name: out[name] for name in metadata} == metadata and out["genres"] and out["lyrics"]


def test_listen_to_codes(acestep, monkeypatch, tmp_path):
    monkeypatch.setattr(writing, "LISTENING", TokenSampling(temperature=1.0))
    (tmp_path / "codes.json").write_text(json.dumps({"codes": [1, 2, 3]}))
    code, out, _ = acestep("listen", "codes.json", "--seed", 1)
    assert code == 0 and out["codes"] == format_codes((1, 2, 3)) and out["duration"] == 0.6
    assert {"caption", "bpm", "key", "time_signature", "language"} <= out.keys()


def test_listen_to_audio(acestep, monkeypatch, tmp_path, tiny_tokenizer_dir):
    tiny_checkpoint.write_tiny_checkpoint(tmp_path / "models", tiny_tokenizer_dir)
    write_audio(tmp_path / "song.wav", torch.rand(2, 48_000, generator=torch.Generator().manual_seed(0)) - 0.5)
    received = []

    def understand(planner, codes, seeds, **_):
        received.extend(codes)
        return [writing.WrittenSong(SONG)]

    monkeypatch.setattr(writing, "understand", understand)
    code, out, _ = acestep("listen", "song.wav", "--model", tmp_path / "models", "--seed", 1)
    assert code == 0 and parse_codes(out["codes"]) == received[0] and len(received[0]) == 5
    assert out["caption"] == "warm piano"


def test_song_files_of_save_audio_codes(acestep, decoder, tmp_path):
    save_songs(tmp_path / "saved.json", [SavedSong(SONG, (1, 2)), SavedSong(SONG, (3,))])
    _, out, _ = acestep("listen", "saved.json", "--seed", 1, "-q")
    assert [parse_codes(each["codes"]) for each in out["songs"]] == [(1, 2), (3,)]
    assert [each["duration"] for each in out["songs"]] == [0.4, 0.2]
    (tmp_path / "lines.txt").write_text("1, 2\n3\n")
    assert acestep("listen", "lines.txt", "--seed", 1, "-q")[1] == out
    shutil.copy(tmp_path / "saved.json", tmp_path / "without-suffix")
    assert acestep("listen", "without-suffix", "--seed", 1, "-q")[1] == out
    _, out, _ = acestep("plan", "--from", "saved.json", "--no-codes", "-q")
    assert [each["lyrics"] for each in out["songs"]] == [SONG.lyrics] * 2


# --- options of all commands ------------------------------------------------------------------------------------------


def test_token_sampling_options(acestep, decoder):
    sampling = ("--temperature", 0.5, "--top-p", 1.0, "--seed", 1, "-q")
    song = ("plan", "warm piano", "--bpm", 90, "--duration", 2)
    code, _, _ = acestep(*song, *sampling, "--guidance", 3, "--negative-prompt", "drums")
    (_, _, planning_sampling), (_, (guided,), coding_sampling) = decoder
    assert code == 0
    assert planning_sampling == TokenSampling(0.5, 1.0) and coding_sampling == TokenSampling(0.5, 1.0, 0, 3.0)
    acestep(*song, *sampling, "--guidance", 3)
    (plain,) = decoder[-1][1]
    assert plain.negative_prompt != guided.negative_prompt and plain.prompt == guided.prompt
    acestep("write", "x", *sampling)
    acestep("write", "--from", "-", *sampling, stdin='{"caption": "x"}')
    acestep("listen", "-", *sampling, stdin='{"codes": "1, 2"}')
    assert [(stage, each) for stage, _, each in decoder[-3:]] == [
        (stage, TokenSampling(0.5, 1.0)) for stage in ("write", "polish", "listen")
    ]


def test_storage(acestep):
    options = ("warm piano", *OPTIONS, "-q")
    codes = [acestep("plan", *options, *storage)[1]["codes"] for storage in ((), ("--storage", "int8"))]
    assert codes[0] != codes[1]
    code, _, err = acestep("plan", *options, "--storage", "int4")
    assert code == 2 and "storage" in err and "int4" in err


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        (["plan", "x", "--bpm", "3"], "300, 3"),
        (["plan", "x", "--best-of", "0"], "--best-of"),
        (["plan", "x", "--seed=-1"], "seed -1"),
        (["plan", "x", "-o", "missing/song.json"], "folder missing"),
        (["plan", "x", "-o", "."], "cannot folder"),
        (["plan", "x", "-o", "song.flac"], ".json song.flac"),
        (["plan", "--from", "-", "--lyrics", "-"], "--from --lyrics"),
        (["plan", "--from", "missing.json"], "missing.json"),
        (["plan", "--from", "list.json"], "list.json"),
        (["plan", "--from", "tempo.json"], "tempo.json 'tempo' caption"),
        (["plan", "--from", "broken.json"], "broken.json JSON"),
        (["plan", "x", "--lyrics", "missing.txt"], "missing.txt"),
        (["plan", "x", "--temperature", "-1"], "temperature -1.0"),
        (["plan", "x", "--guidance", "-1"], "guidance -1.0"),
        (["write", "x", "--batch", "-1"], "--batch -1"),
        (["write", "x", "--top-p", "2"], "top_p 2.0"),
        (["write", "x", "--bpm", "9"], "300, 9"),
        (["write", "x", "--language", "xx"], "language xx"),
        (["write", "x", "--lyrics", "y.txt"], "--lyrics idea"),
        (["write", "x", "--from", "y.json"], "--from idea"),
        (["write", "--from", "list.json", "--instrumental"], "--instrumental idea"),
        (["listen", "missing.flac"], "missing.flac"),
        (["listen", "empty.json"], "empty.json codes"),
        (["listen", "wrong.json"], "63999, 64000"),
        (["listen", "odd.json"], "odd.json codes"),
    ],
)
def test_bad_request_is_one_line_before_anything_is_loaded(acestep, monkeypatch, tmp_path, arguments, keywords):
    monkeypatch.setattr("acestep_core.planner.load_planner.load_planner", None)
    contents = {"list": "[1]", "broken": "{", "empty": "{}", "wrong": '{"codes": [64000]}', "odd": '{"codes": 3}'}
    contents["tempo"] = '{"tempo": 90}'
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(content)
    code, out, err = acestep(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("acestep: ") and err.count("\n") == 1
    assert all(keyword in err for keyword in keywords.replace(",", "").split()), err


def test_missing_planner_is_one_line(acestep):
    code, _, err = acestep("write", "x", "--planner", "nothing-here", planner=None)
    assert code == 1 and "nothing-here" in err and err.count("\n") == 1


@pytest.mark.parametrize("command", ["plan", "write", "listen"])
def test_usage_error_without_input(acestep, command):
    code, _, err = acestep(command, planner=None)
    assert code == 2 and f"usage: acestep {command}" in err
