"""What a run writes down is whole at every moment, and tells the state of the code it ran."""

from __future__ import annotations

import json
import math
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from framework import record
from framework.record import Record, read_json, write_json, write_text

WRITER = """
import itertools, sys
from pathlib import Path
from framework.record import write_json
for i in itertools.count():
    write_json(Path(sys.argv[1]), {"number": i, "filling": [i] * 20000})
"""


def test_a_kill_at_any_moment_leaves_readable_json(tmp_path):
    path = tmp_path / "record.json"
    seen = set()
    for round in range(6):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as writer:
            deadline = time.monotonic() + 60
            first = path.read_bytes() if path.exists() else b""
            while (not path.exists() or path.read_bytes() == first) and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(0.003 * round)
            writer.send_signal(signal.SIGKILL)
        content = read_json(path)  # a torn file would raise
        assert content["filling"] == [content["number"]] * 20000
        seen.add(content["number"])
    assert len(seen) > 1


def test_a_reader_beside_a_writer_never_sees_half_a_file(tmp_path):
    path = tmp_path / "record.json"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as writer:
        while not path.exists():
            time.sleep(0.002)
        for _ in range(200):
            content = read_json(path)
            assert content["filling"] == [content["number"]] * 20000
        writer.kill()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})

    def fail(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_written_files_have_the_permissions_of_ordinary_ones(tmp_path):
    ordinary, written = tmp_path / "ordinary", tmp_path / "written"
    ordinary.write_text("x")
    write_text(written, "x")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_numbers_that_json_has_no_word_for(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"a": math.nan, "b": [math.inf, -math.inf], "c": 1.5, "d": None, 3: (1, 2)})
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()
    content = read_json(path)
    assert content == {"a": "nan", "b": ["inf", "-inf"], "c": 1.5, "d": None, "3": [1, 2]}
    assert math.isnan(float(content["a"])) and float(content["b"][1]) == -math.inf


CONFIG = {"seed": 3, "stages": ["fit", "test"], "description": "Ünïcode."}


def test_life_of_a_record(tmp_path):
    first = Record.open(tmp_path, CONFIG, "toy/example", ["seed=3"])
    content = first.content
    assert content["status"] == "running" and content["pid"] == os.getpid()
    assert content["seed"] == 3 and content["stages"] == ["fit", "test"] and content["overrides"] == ["seed=3"]
    assert content["experiment"] == "toy/example" and content["description"] == "Ünïcode."
    assert content["versions"]["framework"] and content["versions"]["torch"] and content["versions"]["python"]
    assert content["host"]["cpus"] == os.cpu_count() and content["command"] == sys.argv
    first.stage_done("fit", {"train/loss": 1.0, "val/loss": math.nan})
    assert read_json(tmp_path / "metrics.json") == {"train/loss": 1.0, "val/loss": "nan"}
    first.stage_done("test", {"train/loss": 0.5, "test/loss": 2.0})
    assert first.content["stages_done"] == ["fit", "test"]
    assert first.content["metrics"] == {"train/loss": 0.5, "val/loss": "nan", "test/loss": 2.0}
    assert read_json(tmp_path / "metrics.json") == first.content["metrics"]
    first.close("failed", "a reason")
    assert first.content["status"] == "failed" and first.content["reason"] == "a reason"
    assert first.content["finished"] >= first.content["started"]
    assert first.content["peak_memory_bytes"] > 10e6


def test_a_resumed_record_goes_on_counting_and_forgets_the_failure(tmp_path):
    first = Record.open(tmp_path, CONFIG, "toy/example", [])
    time.sleep(0.05)
    first.stage_done("fit", {"a": 1.0})
    first.close("interrupted", "stopped by signal 15")
    before = first.content
    again = Record.open(tmp_path, CONFIG, "ignored", ["ignored"])
    content = again.content
    assert content["status"] == "running" and "reason" not in content and "finished" not in content
    assert len(content["resumed"]) == 1 and content["started"] == before["started"]
    assert content["experiment"] == "toy/example" and content["stages_done"] == ["fit"]
    time.sleep(0.05)
    again.close("finished")
    assert again.content["duration_seconds"] >= before["duration_seconds"] + 0.04
    attached = Record.attach(tmp_path)
    attached.update(extra=1)
    assert attached.content["status"] == "finished" and attached.content["extra"] == 1
    assert attached.content["duration_seconds"] >= again.content["duration_seconds"] - 0.01


@pytest.fixture
def repository(tmp_path, monkeypatch):
    folder = tmp_path / "repository"
    (folder / "inner").mkdir(parents=True)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text("[color]\n  ui = always\n[diff]\n  external = false\n")
    (folder / "code.py").write_text("x = 1\n")
    (folder / "latin.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    (folder / "image.bin").write_bytes(bytes(range(256)))
    (folder / ".gitignore").write_text("runs/\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    subprocess.run(["git", "commit", "-q", "-m", "one"], cwd=folder, check=True)
    monkeypatch.chdir(folder)
    return folder


def git(*arguments: str, **options) -> bytes:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, **options).stdout


def test_clean_repository(repository):
    run = repository / "runs" / "one"
    state = record._git(run)
    commit = git("rev-parse", "HEAD").decode().strip()
    assert state == {"commit": commit, "dirty": False, "untracked": []}
    assert not (run / "git.diff").exists()


def test_dirty_diff_restores_the_code_that_ran(repository):
    (repository / "code.py").write_text("x = 2\n")
    (repository / "latin.txt").write_bytes("caf\xe8\n".encode("latin-1"))
    (repository / "image.bin").write_bytes(bytes(range(255, -1, -1)))
    run = repository / "runs" / "one"
    assert record._git(run)["dirty"]
    git("stash")
    git("apply", str(run / "git.diff"))
    assert (repository / "code.py").read_text() == "x = 2\n"
    assert (repository / "latin.txt").read_bytes() == b"caf\xe8\n"
    assert (repository / "image.bin").read_bytes() == bytes(range(255, -1, -1))


def test_staged_changes_belong_to_the_diff(repository):
    (repository / "code.py").write_text("x = 2\n")
    git("add", "code.py")
    run = repository / "runs" / "one"
    assert record._git(run)["dirty"]
    assert b"+x = 2" in (run / "git.diff").read_bytes()


def test_untracked_files_are_named_wherever_the_run_is_launched_from(repository, monkeypatch):
    (repository / "new.py").write_text("")
    (repository / "inner" / "ünïcode name.py").write_text("")
    monkeypatch.chdir(repository / "inner")
    state = record._git(repository / "runs" / "one")
    assert state["dirty"] and state["untracked"] == ["inner/ünïcode name.py", "new.py"]


def test_outside_a_repository_and_without_a_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert record._git(tmp_path / "run") is None
    git("init", "-q")
    assert record._git(tmp_path / "run") is None


def test_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record._git(tmp_path / "run") is None


def test_record_of_a_real_run(plugin, cli, workplace):
    assert cli("+experiment=toy/example", "debug=fast", "seed=5").status == 0
    (path,) = workplace.glob("runs/toy/example/*/record.json")
    content = json.loads(path.read_text())
    assert content["status"] == "finished" and content["seed"] == 5
    assert content["stages_done"] == ["fit", "test"]
    assert content["overrides"] == ["experiment=toy/example", "debug=fast", "seed=5"]
    assert content["metrics"] == json.loads((path.parent / "metrics.json").read_text())
    assert content["duration_seconds"] > 0 and content["versions"]["framework-toy"] == "0.1"
