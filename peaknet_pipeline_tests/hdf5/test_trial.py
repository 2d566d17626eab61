"""What ends HDF5 itself ends a child of another process, and is told as an error here."""

import faulthandler
import os
import signal
import threading
from pathlib import Path

import h5py
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5 import trial, trial_process
from peaknet_pipeline.hdf5.files import open_hdf5


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["units"], file["a/b"] = "mm", [1, 2]
        file.create_dataset("chunks", data=[[1] * 4] * 8, chunks=(1, 4), compression="gzip")
    return tmp_path / "x.h5"


def test_a_sound_file_is_looked_into_once_for_each_state(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = trial._helper.ask
    monkeypatch.setattr(trial._helper, "ask", lambda question: asked.append(question) or ask(question))
    for _ in range(3):
        open_hdf5(file).close()
    assert len(asked) == 1
    with h5py.File(file, "a") as changed:
        changed["more"] = list(range(1000))
    open_hdf5(file).close()
    assert len(asked) == 2


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGXCPU])
def test_a_signal_in_the_child_is_an_error_that_names_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def crash(*_: object) -> None:
        faulthandler.disable()
        os.kill(os.getpid(), number)

    monkeypatch.setattr(trial_process, "look_into", crash)
    assert trial_process.ending(str(file), False) == -number
    monkeypatch.setattr(trial._helper, "ask", lambda _: -number)
    with pytest.raises(
        RunError, match=rf"x\.h5: HDF5 itself fails on the file \({number.name}\).*copy it again"
    ):
        open_hdf5(file)


def test_damage_that_h5py_can_tell_is_left_to_it(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:300])
    trial.try_file(file)
    with pytest.raises(RunError, match=r"x\.h5"):
        open_hdf5(file)


def test_a_helper_that_was_killed_is_started_again(file: Path) -> None:
    trial.try_file(file)
    process = trial._helper._process
    assert process is not None
    process.kill()
    process.wait()
    file.touch()
    os.utime(file, (1, 1))
    trial.try_file(file)
    assert trial._helper._process is not process


def test_threads_and_forks_get_their_own_answers(file: Path, tmp_path: Path) -> None:
    """A fork that shared its parent's pipes would take the parent's answers, and the parent would wait for ever."""
    trial.try_file(file)
    child = os.fork()
    if child == 0:
        os.utime(file, (2, 2))
        try:
            trial.try_file(file)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    copies = [tmp_path / f"{i}.h5" for i in range(6)]
    for copy in copies:
        copy.write_bytes(file.read_bytes())
    failures: list[Exception] = []

    def look(copy: Path) -> None:
        try:
            trial.try_file(copy)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=look, args=(copy,)) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
