"""A run's log with a torn line."""

import json
import socket
import time

from avemo.runs import metrics_log


def test_event_files_do_not_name_the_host(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "secret.lab.example")
    writer = metrics_log.MetricsWriter(tmp_path)
    writer.write(1, "train", {"loss": 0.5})
    writer.close()
    (path,) = tmp_path.glob("*tfevents*")
    assert "secret" not in path.name
    assert b"train/loss" in path.read_bytes()


def test_a_run_may_be_opened_twice_in_one_second(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_795_830_257.0)
    for step in (0, 1):
        metrics_log.MetricsWriter(tmp_path, step).close()
    assert len(list(tmp_path.glob("*tfevents*"))) == 2


def torn(folder):
    lines = [json.dumps({"step": step, "split": "train", "loss": 1.0}) for step in (1, 2, 3, 4)]
    lines[1] = lines[1][:20]
    path = folder / "metrics.jsonl"
    path.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe{\n[3]\n")
    return path


def test_a_torn_line_costs_only_itself_and_is_said(tmp_path, caplog):
    path = torn(tmp_path)
    assert [line["step"] for line in metrics_log.read(path)] == [1, 3, 4]
    assert [f"line {number} is damaged" in caplog.text for number in range(1, 7)] == [
        False,
        True,
        False,
        False,
        True,
        True,
    ]
    assert str(path) in caplog.text


def test_a_resumed_run_keeps_the_lines_around_a_torn_one(tmp_path):
    torn(tmp_path)
    metrics_log.MetricsWriter(tmp_path, 3).close()
    assert [line["step"] for line in metrics_log.read(tmp_path / "metrics.jsonl")] == [1, 3]


def test_a_run_without_a_log_has_no_lines(tmp_path):
    assert metrics_log.read(tmp_path / "metrics.jsonl") == []
