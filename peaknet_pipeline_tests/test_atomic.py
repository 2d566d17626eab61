"""A final name holds something complete or nothing, and what killed writers leave goes away."""

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from peaknet_pipeline import atomic
from peaknet_pipeline.atomic import replace_atomically, replace_folder_atomically, temporary_prefix

KILLED_WRITER = """
import os, sys
from pathlib import Path
from peaknet_pipeline.atomic import replace_atomically, replace_folder_atomically
folder = Path(sys.argv[1])
with replace_atomically(folder / "table") as file, replace_folder_atomically(folder / "model") as model:
    file.write_text("half")
    (model / "weights").write_text("half")
    os.kill(os.getpid(), 9)
"""


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_a_failure_while_writing_keeps_the_old_file(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="power"), replace_atomically(path) as temporary:
        temporary.write_text("new, half")
        raise RuntimeError("power")
    assert path.read_text() == "old"
    assert hidden(tmp_path) == []


def test_what_a_killed_writer_leaves_is_removed_by_the_next_writer_of_the_same_name(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", KILLED_WRITER, str(tmp_path)], env=environment, check=False)
    assert len(hidden(tmp_path)) == 2
    assert not (tmp_path / "table").exists()
    assert not (tmp_path / "model").exists()
    with replace_atomically(tmp_path / "table") as temporary:
        temporary.write_text("whole")
    with replace_folder_atomically(tmp_path / "model") as folder:
        (folder / "weights").write_text("whole")
    assert hidden(tmp_path) == []
    assert (tmp_path / "model" / "weights").read_text() == "whole"


def test_a_living_writer_and_another_name_are_left_alone(tmp_path):
    mine = tmp_path / f"{temporary_prefix(tmp_path / 'table')}x1.tmp"
    other = tmp_path / ".table.recipe.json.host-1.x2.tmp"
    for path in (mine, other):
        path.write_text("being written")
    with replace_atomically(tmp_path / "table") as temporary:
        temporary.write_text("whole")
    assert mine.exists()
    assert other.exists()


@pytest.mark.parametrize(("age_s", "stays"), [(3600.0, True), (3 * 86400.0, False)])
def test_another_machines_temporary_goes_after_two_days(tmp_path, age_s, stays):
    foreign = tmp_path / ".table.elsewhere-12.x3.tmp"
    foreign.write_text("half")
    then = time.time() - age_s
    os.utime(foreign, (then, then))
    with replace_atomically(tmp_path / "table") as temporary:
        temporary.write_text("whole")
    assert foreign.exists() is stays


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_replaced_whole(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    for text in ("first", "second"):
        with replace_folder_atomically(tmp_path / "model") as folder:
            (folder / text).write_text(text)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["second"]
    assert hidden(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="names are exchanged on Linux only")
def test_a_folder_that_is_replaced_is_never_missing(tmp_path):
    missing, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            if not (tmp_path / "model").exists():
                missing.append(time.monotonic())

    with replace_folder_atomically(tmp_path / "model") as folder:
        (folder / "n").write_text("0")
    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(200):
        with replace_folder_atomically(tmp_path / "model") as folder:
            (folder / "n").write_text(str(number))
    stop.set()
    watcher.join()
    assert missing == []


def test_a_full_disk_is_told_with_the_name_of_the_file_that_was_written(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, replace_atomically(tmp_path / "a.parquet"):
        raise OSError(errno.ENOSPC, "Error writing bytes to file")
    assert caught.value.filename == str(tmp_path / "a.parquet")
    with pytest.raises(OSError, match="odd") as caught, replace_atomically(tmp_path / "a.parquet"):
        raise OSError("odd")
    assert caught.value.filename is None
