"""Work beside the training: one job at a time, left out when the one before takes too long, errors kept."""

import json
import threading
from pathlib import Path

import pytest
import torch

from latentscale.telemetry.run_log import MetricsFile
from latentscale.training.background_jobs import BackgroundJobs

CPU = torch.device("cpu")


def test_a_job_runs_beside_and_a_second_one_waits_for_it() -> None:
    background, first, order = BackgroundJobs("test", 30, CPU), threading.Event(), []

    def long() -> None:
        first.wait(30)
        order.append("first")

    assert background.start(long)
    assert not background.wait(0.01)
    assert order == []
    threading.Timer(0.05, first.set).start()
    assert background.start(lambda: order.append("second"))
    assert background.wait()
    assert order == ["first", "second"]


def test_a_job_is_left_out_where_the_one_before_is_still_at_work() -> None:
    background, first, order = BackgroundJobs("test", 0.02, CPU), threading.Event(), []
    assert background.start(lambda: first.wait(30))
    assert not background.start(lambda: order.append("second"))
    first.set()
    assert background.wait()
    assert background.start(lambda: order.append("third"))
    assert background.wait()
    assert order == ["third"]


def test_what_a_job_raises_is_kept() -> None:
    background = BackgroundJobs("test", 1, CPU)

    def fail() -> None:
        raise ValueError("no paper")

    background.start(fail)
    background.wait()
    assert isinstance(background.error, ValueError)


def test_lines_of_several_threads_are_whole_and_cut_back_to_the_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 3}\n{"step": 9}\n{"st')
    metrics = MetricsFile(path, 5)
    threads = [
        threading.Thread(target=lambda k=k: [metrics.write({"step": 6, "k": k, "text": "x" * 3000}) for _ in range(50)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrics.close()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert records[0] == {"step": 3}
    assert sorted(record["k"] for record in records[1:]) == sorted(list(range(4)) * 50)


def test_a_file_that_vanished_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    metrics = MetricsFile(path, 0)
    metrics.write({"step": 1})
    path.unlink()
    path.parent.rmdir()
    metrics.write({"step": 2, "value": float("nan")})
    metrics.close()
    assert path.read_text() == '{"step": 2, "value": null}\n'


def test_what_cannot_be_written_is_held_for_the_next_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # no disk is full here (test_faults.py fills a real one): the file takes half a line once, as a full disk does
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, 0)
    metrics.write({"step": 1})
    whole = metrics._file

    class Full:
        def write(self, data: bytes) -> int:
            return whole.write(data[: len(data) // 2])

        def fileno(self) -> int:
            return whole.fileno()

    monkeypatch.setattr(metrics, "_file", Full())
    for step in (2, 3):
        with pytest.raises(OSError, match="No space left"):
            metrics.write({"step": step})
    assert path.read_text() == '{"step": 1}\n'
    monkeypatch.setattr(metrics, "_file", whole)
    metrics.write({"step": 4})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]
