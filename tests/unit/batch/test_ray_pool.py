"""Batches on a real Ray cluster of two workers on this machine."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import ray

from acestep_core import RequestError, cli
from acestep_core.batch import outputs, ray_pool
from acestep_core.batch.manifest import read_manifest
from acestep_core.batch.outputs import BatchOutput
from acestep_core.batch.ray_pool import RayPool, RayWorkers
from acestep_core.batch.remote_output import ReturnedFiles
from acestep_core.batch.run_batch import BatchStoppedError, run_batch
from tests.support import tiny_checkpoint, tiny_text
from tests.support.text_maker import TextMaker, rows_of, text_jobs

tiny_tokenizer_dir = tiny_text.tiny_tokenizer_dir
REPO = Path(__file__).parents[3]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """A cluster of two cores, whatever this machine has."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def run(folder, count=8, workers=2, **options):
    output = BatchOutput(folder)
    pool = RayPool(partial(TextMaker, ReturnedFiles(), **options), RayWorkers(workers))
    return run_batch(text_jobs(count), [], pool, output, lambda *_: None)


def test_a_dead_worker_loses_only_the_songs_in_its_hands(tmp_path, monkeypatch):
    """Row 3 kills its worker once, row 6 always."""
    monkeypatch.setattr(ray_pool, "ATTEMPTS", 2)
    trace = tmp_path / "trace"
    trace.mkdir()
    progress = run(tmp_path / "out", deadly=(6,), deadly_once=(3,), trace=trace)
    assert (progress.done, progress.failed) == (7, 1) and rows_of(tmp_path / "out") == [1, 2, 3, 4, 5, 7, 8]
    (error,) = [entry for entry in read_manifest(tmp_path / "out" / "manifest.jsonl") if "error" in entry]
    assert error["row"] == 6 and "row 6" in error["error"] and "2 times" in error["error"]
    begun = {int(path.name): len(path.read_text().split()) for path in trace.iterdir()}
    assert begun[6] >= 2 and begun[3] == 2 and all(begun[n] <= 4 for n in begun)


DRIVER = """
import sys
from functools import partial
from pathlib import Path
import ray
from tests.support.text_maker import TextMaker, text_jobs
from acestep_core.batch.outputs import BatchOutput
from acestep_core.batch.ray_pool import RayPool, RayWorkers
from acestep_core.batch.remote_output import ReturnedFiles
from acestep_core.batch.run_batch import run_batch

ray.init(sys.argv[2], log_to_driver=False)
pool = RayPool(partial(TextMaker, ReturnedFiles(), seconds=0.2), RayWorkers(2))
run_batch(text_jobs(100), [], pool, BatchOutput(Path(sys.argv[1])), lambda progress, _: print(progress, flush=True))
"""


def test_a_killed_batch_frees_its_workers_and_goes_on(tmp_path, cluster):
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-c", DRIVER, str(tmp_path), cluster]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    lines = [driver.stdout.readline() for _ in range(4)]
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=60)
    done = len(read_manifest(tmp_path / "manifest.jsonl"))
    assert "of 100 songs" in lines[-1] and 3 <= done < 100
    limit = time.monotonic() + 60
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < limit:
        time.sleep(0.2)
    progress = run(tmp_path, count=100)
    assert (progress.earlier, progress.done) == (done, 100 - done) and rows_of(tmp_path) == list(range(1, 101))


def test_a_full_disk_stops_the_batch(tmp_path, monkeypatch):
    whole, names = outputs.atomic_write, []

    def full(path):
        names.append(path)
        if len(names) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(path)

    with monkeypatch.context() as context:
        context.setattr(outputs, "atomic_write", full)
        with pytest.raises(BatchStoppedError, match=os.strerror(errno.ENOSPC)):
            run(tmp_path, workers=1)
    assert len(rows_of(tmp_path)) == 3
    with pytest.raises(BatchStoppedError, match="it failed"):  # of a worker
        run(tmp_path, workers=1, full=(2,))
    run(tmp_path, workers=1)
    assert rows_of(tmp_path) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_workers_that_cannot_start_stop_the_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_pool, "DEATHS", 3)
    pool = RayPool(partial(TextMaker, unknown=1), RayWorkers(1))
    with pytest.raises(BatchStoppedError, match="unknown"):
        run_batch(text_jobs(2), [], pool, BatchOutput(tmp_path), lambda *_: None)


def test_workers_that_do_not_fit_are_refused():
    for workers in (RayWorkers(gpus=1), RayWorkers(cpus=4)):
        with pytest.raises(RequestError, match="fits"):
            RayPool(partial(TextMaker, ReturnedFiles()), workers)


def test_songs_are_those_of_one_process(tmp_path, tmp_path_factory, monkeypatch, tiny_tokenizer_dir, capsys):
    models = tmp_path_factory.mktemp("models")
    tiny_checkpoint.write_tiny_checkpoint(models, tiny_tokenizer_dir)
    monkeypatch.chdir(tmp_path)
    placement = ("--model", str(models), "--device", "cpu", "--dtype", "float32")
    song = '"duration": 1, "steps": 2'
    assert cli.main(["rock", "--duration", "2", "--steps", "1", "-o", "a.flac", "-q", *placement]) == 0
    Path("songs.jsonl").write_text(
        f'{{"caption": "piano", {song}, "batch": 2}}\n'
        f'{{"caption": "rock", {song}, "lyrics": "la", "ending": true, "output": "r.mp3"}}\n'
        '{"caption": "again", "command": "repaint", "file": "a.flac", "where": "0.5-1", "steps": 2}\n'
    )
    assert cli.main(["batch", "songs.jsonl", "-o", "here", "-q", *placement]) == 0
    url = f"file://{tmp_path}/there"  # workers write to a URL themselves
    assert cli.main(["batch", "songs.jsonl", "-o", url, "-q", "--ray", "--workers", "2", *placement]) == 0
    files = sorted(path.name for path in Path("here").iterdir())
    assert len(files) == 5 and sorted(path.name for path in Path("there").iterdir()) == files
    for name in files[1:]:
        assert Path("here", name).read_bytes() == Path("there", name).read_bytes()


def test_ray_is_optional(tmp_path, monkeypatch, capsys):
    (tmp_path / "songs.jsonl").write_text('{"caption": "x"}')
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(["batch", str(tmp_path / "songs.jsonl"), "-o", str(tmp_path / "out"), "--ray"]) == 2
    assert "acestep-nodes[ray]" in capsys.readouterr().err
    assert cli.main(["batch", str(tmp_path / "songs.jsonl"), "-o", str(tmp_path / "out"), "--workers", "2"]) == 2
