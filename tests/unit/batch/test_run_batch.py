"""The flow of a batch with a maker that writes text files."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext
from dataclasses import replace

import fsspec
import pytest

from acestep_core import RequestError
from acestep_core.batch import remote_output
from acestep_core.batch.jobs import Outcome, chunks_of
from acestep_core.batch.local_pool import LocalPool
from acestep_core.batch.manifest import read_manifest
from acestep_core.batch.outputs import BatchOutput
from acestep_core.batch.remote_output import RemoteOutput
from acestep_core.batch.run_batch import BatchStoppedError, run_batch
from acestep_core.errors import Cancelled
from tests.support.text_maker import TextMaker, rows_of, text_jobs

JOBS = text_jobs(6)


def run(folder, jobs=JOBS, refused=(), threads=1, together=1, **options):
    output = BatchOutput(folder)
    maker = TextMaker(output.store, **options)
    reports = []
    pool = LocalPool(maker, threads, lambda: None)
    progress = run_batch(jobs, refused, pool, output, lambda p, o: reports.append(str(p)), together=together)
    return progress, maker.seen, reports


@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_that_failed_goes_on_where_it_stopped(tmp_path, threads):
    progress, seen, reports = run(tmp_path, threads=threads, bad=(2,), refused=[Outcome(9, error="row 9 is bad")])
    assert (progress.done, progress.failed, progress.refused) == (5, 1, 1) and sorted(seen) == [1, 2, 3, 4, 5, 6]
    assert rows_of(tmp_path) == [1, 3, 4, 5, 6] and "5 of 7 songs, 2 failed" in reports[-1]
    assert {e["row"]: e["error"] for e in read_manifest(tmp_path / "manifest.jsonl") if "error" in e} == {
        2: "it failed", 9: "row 9 is bad",
    }  # fmt: skip
    (tmp_path / "5.txt").unlink()
    changed = [replace(job, key="new") if job.number == 3 else job for job in JOBS]
    progress, seen, _ = run(tmp_path, changed, threads=threads)
    assert sorted(seen) == [2, 3, 5] and (progress.earlier, progress.done) == (3, 3)
    assert rows_of(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert len(read_manifest(tmp_path / "manifest.jsonl")) == 6  # no errors of earlier runs
    assert run(tmp_path, changed)[1] == []


def test_an_unfinished_line_of_the_manifest_is_dropped(tmp_path):
    run(tmp_path)
    path = tmp_path / "manifest.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    _, seen, _ = run(tmp_path)
    assert len(seen) == 1 and rows_of(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert sorted(path.read_bytes().split(b"\n")) == sorted(whole.split(b"\n"))


def test_a_full_disk_stops_the_batch_and_what_is_written_stays(tmp_path):
    with pytest.raises(BatchStoppedError, match="it failed"):
        run(tmp_path, full=(5,))
    assert rows_of(tmp_path) == [1, 3]
    assert sorted(run(tmp_path)[1]) == [2, 4, 5, 6]


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RequestError, match="output"):
        BatchOutput(tmp_path / "file")


def test_songs_of_one_group_follow_each_other():
    assert [[job.number for job in chunk] for chunk in chunks_of(JOBS, 2)] == [[1, 3], [5], [2, 4], [6]]
    other = [replace(job, model="m" if job.number < 4 else "n") for job in JOBS]
    assert [[job.number for job in chunk] for chunk in chunks_of(other, 8)] == [[1, 3], [2], [4, 6], [5]]


def test_the_threads_end_when_the_caller_stops(tmp_path):
    cancelled, waiting = threading.Event(), threading.Semaphore(0)

    class Endless:
        def make(self, jobs):
            if jobs[0].number == 1:
                return [Outcome(1)]
            waiting.release()
            assert cancelled.wait(20)
            raise Cancelled("stopped")

    results = LocalPool(Endless(), 2, cancelled.set).run(chunks_of(JOBS))
    assert next(results) == [Outcome(1)]
    assert waiting.acquire(timeout=20)
    results.close()
    assert cancelled.is_set()
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_a_disk_that_is_full_for_the_manifest_stops_the_batch(tmp_path, monkeypatch):
    def full(entries):
        raise RequestError("manifest.jsonl cannot be written: No space left on device")

    output = BatchOutput(tmp_path)
    output.finish([])
    monkeypatch.setattr(output.manifest, "add", full)
    pool = LocalPool(TextMaker(output.store), 1, lambda: None)
    with pytest.raises(RequestError, match="No space"):
        run_batch(JOBS, [], pool, output, lambda *_: None)
    assert sorted(run(tmp_path)[1]) == [1, 2, 3, 4, 5, 6]


def test_an_output_may_be_a_url(monkeypatch):
    monkeypatch.setattr(remote_output, "INTERVAL", 0)
    for full in (4,), ():
        output = RemoteOutput("memory://bucket/songs")
        maker = TextMaker(output.store, full=full)
        pool = LocalPool(maker, 1, lambda: None)
        with nullcontext() if not full else pytest.raises(BatchStoppedError):
            run_batch(JOBS, [], pool, output, lambda *_: None)
    files = fsspec.filesystem("memory")
    assert maker.seen == [4, 6]
    names = sorted(name.rsplit("/")[-1] for name in files.ls("/bucket/songs", detail=False))
    assert names == [*(f"{n}.txt" for n in range(1, 7)), "manifest.jsonl"]
    assert files.cat("/bucket/songs/3.txt") == b"song 3"
    lines = [json.loads(line) for line in files.cat("/bucket/songs/manifest.jsonl").decode().splitlines()]
    assert sorted(line["row"] for line in lines) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(RequestError, match="nowhere"):
        RemoteOutput("nowhere://x")
