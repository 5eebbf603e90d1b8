"""Two preparations never share a folder, children end with their parent, and finished work outlives a failed run."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from data_prep import corpora, lock, task_runner
from data_prep.preparation import prepare
from media.errors import UserError


def test_a_second_run_is_told_who_holds_the_folder(tmp_path, draw):
    source = draw.affectnet(tmp_path / "a", train=2, dev=1)
    folder = tmp_path / "out" / "affectnet"
    folder.mkdir(parents=True)
    with lock.held(folder), pytest.raises(UserError) as refused:
        prepare("affectnet", source, tmp_path / "out", workers=1, quiet=True)
    assert f"is being prepared by process {os.getpid()} on " in str(refused.value)
    assert f", since {time.strftime('%Y')}-" in str(refused.value)
    assert list(folder.iterdir()) == []
    target, done = prepare("affectnet", source, tmp_path / "out", workers=1, quiet=True)
    assert done
    assert os.listdir(target.parent) == ["1.0.0"]


def test_a_stale_lock_is_taken_over(tmp_path, monkeypatch):
    (tmp_path / ".lock").write_text('{"host": "elsewhere", "pid": 1, "since": "then", "command": ""}\n')
    with lock.held(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path) == []

    def unsupported(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)  # a file system without locks
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], check=True, capture_output=True)
    about = {"host": os.uname().nodename, "pid": int(dead.stdout), "since": "then", "command": "x"}
    (tmp_path / ".lock").write_text(json.dumps(about))
    with lock.held(tmp_path):
        pass
    (tmp_path / ".lock").write_text(json.dumps({**about, "pid": os.getppid()}))
    with pytest.raises(UserError, match=f"process {os.getppid()} on .* since then"), lock.held(tmp_path):
        pass


@pytest.fixture
def failing(tmp_path, draw, monkeypatch):
    """AffectNet in six tasks, of which the fourth has three damaged pictures, and what the first run of it did."""
    source = draw.affectnet(tmp_path / "a")
    monkeypatch.setattr(corpora.affectnet.AffectNet, "chunk", 6)
    names = [item.key for item in corpora.affectnet.AffectNet(source, corpora.affectnet.Options()).items()][19:22]
    pictures = [source / name.replace("/", "/images/") for name in names]
    good = [path.read_bytes() for path in pictures]
    for path in pictures:
        path.write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(UserError, match="3 of 36 items of affectnet failed"):
        prepare("affectnet", source, tmp_path / "out", workers=1, quiet=True)

    def repair():
        for path, data in zip(pictures, good, strict=True):
            path.write_bytes(data)

    return source, repair


@pytest.fixture
def tasks_done(monkeypatch):
    real, done = task_runner.run_task, []
    monkeypatch.setattr(task_runner, "run_task", lambda *task: done.append(task) or real(*task))
    return done


def test_a_failed_run_keeps_what_was_finished_and_repeats_what_changed(tmp_path, failing, tasks_done):
    source, repair = failing
    with pytest.raises(UserError, match="3 of 36"):
        prepare("affectnet", source, tmp_path / "out", workers=1, quiet=True)
    assert len(tasks_done) == 1  # the one in which items failed
    repair()
    target, _ = prepare("affectnet", source, tmp_path / "out", workers=1, quiet=True)
    assert len(tasks_done) == 1 + 3
    assert json.loads((target / "card.json").read_text())["items_skipped"] == 0
    assert os.listdir(target.parent) == ["1.0.0"]


def test_damaged_finished_work_is_named_and_done_again(tmp_path, failing, tasks_done):
    source, repair = failing
    repair()
    (spool,) = (tmp_path / "out" / "affectnet").iterdir()
    first, second, third = sorted(spool.glob("*.records"))
    data = bytearray(first.read_bytes())
    data[100] ^= 1
    first.write_bytes(data)
    second.write_bytes(second.read_bytes()[:-1])
    (spool / (third.name + ".json")).write_text("{")
    (spool / f"{third.name}.0123").write_bytes(b"a killed worker's")
    with pytest.raises(UserError, match=r"damaged and was removed: run the same command again"):
        prepare("affectnet", source, tmp_path / "out", workers=1, quiet=True)
    assert len(tasks_done) == 3 + 2  # the three that were never done, and two of the damaged ones
    prepare("affectnet", source, tmp_path / "out", workers=1, quiet=True)
    assert len(tasks_done) == 3 + 2 + 1


def test_a_worker_that_died_costs_its_own_task_only(tmp_path, draw, monkeypatch):
    source = draw.affectnet(tmp_path / "a", train=4, dev=2)
    monkeypatch.setattr(corpora.affectnet.AffectNet, "chunk", 2)

    def dies(corpus, waiting, workers, finished):
        task_runner.run_task(corpus, *waiting[0][:1], str(waiting[0][1]))
        raise UserError("a worker process died")

    monkeypatch.setattr(task_runner, "_run_parallel", dies)
    with pytest.raises(UserError, match="died"):
        prepare("affectnet", source, tmp_path / "out", workers=2, quiet=True)
    (spool,) = (tmp_path / "out" / "affectnet").iterdir()
    assert len(list(spool.glob("*.records"))) == 1


@pytest.mark.parametrize(("kind", "status", "said"), [
    (signal.SIGTERM, 143, "terminated: "), (signal.SIGINT, 130, "interrupted: "), (signal.SIGKILL, -9, ""),
])  # fmt: skip
def test_workers_end_with_their_parent(tmp_path, draw, kind, status, said):
    source = draw.recola(tmp_path / "a", (16, 21, 19, 26), seconds=8)
    command = [sys.executable, "-m", "data_prep", "recola", f"--source={source}", f"--output={tmp_path / 'out'}"]
    options = ("--workers=2", "--quiet", "--detect_every=1", "--detect_side=1280", "--crop_size=512")
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    spool = tmp_path / "out" / "recola"
    children = []
    deadline = time.monotonic() + 60
    while not list(spool.glob(".spool-*/*.records.*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3  # a fork server and two workers
    process.send_signal(kind)
    _, err = process.communicate(timeout=20)
    assert process.returncode == status
    assert err.startswith(said)
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    if kind != signal.SIGKILL:
        left = [path for path in spool.rglob("*") if path.is_file()] if spool.exists() else []
        assert all(path.name.endswith((".records", ".records.json")) for path in left)
        with contextlib.suppress(StopIteration):
            assert json.loads(next(path for path in left if path.suffix == ".json").read_text())["skipped"] == []
