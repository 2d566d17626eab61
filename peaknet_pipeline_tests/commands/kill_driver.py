"""Kill ``peaknet stream`` and ``peaknet find`` at random times, and look at what they leave.

``python -m peaknet_pipeline_tests.commands.kill_driver SOURCE SIGNAL TIMES [SEED]``

SOURCE is ``folder``, ``swmr``, ``zeromq`` (streams), ``find`` or ``ray``; SIGNAL is ``KILL``, ``TERM`` or ``INT``. Each time a
run is taken, one process follows it and is sent the signal once, and the same command is given again until it ends by
itself. A line of JSON tells of all times together: frames without peaks in the output (of ZeroMQ also those that were on their
way, or in the last part), peaks that come twice, frames whose peaks or images are not those of an undisturbed
``peaknet find``, files left beside the outputs, and processes that ended in another way than they should.
"""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq

from peaknet_pipeline.infer.live_sources import FrameSender

N_FRAMES, SIDE, FRAMES_PER_FILE, FRAME_S = 120, 96, 10, 0.02
DATA = "/entry_1/data_1/data"
GEOMETRY = f"""photon_energy = 9500 eV
clen = 0.1 m
res = 10000
adu_per_photon = 1
data = {DATA}
dim0 = %
dim1 = ss
dim2 = fs
p0/min_fs = 0
p0/max_fs = {SIDE - 1}
p0/min_ss = 0
p0/max_ss = {SIDE - 1}
p0/corner_x = {-SIDE / 2}
p0/corner_y = {-SIDE / 2}
p0/fs = x
p0/ss = y
"""
FINDER = ("--finder", "peakfinder8", "--set", "min_snr=4")
Place = tuple[int, float, float]
"""A peak: its frame, ss and fs."""

PRELOADED = (
    "peaknet_pipeline.cli",
    "peaknet_pipeline.steps.live",
    "peaknet_pipeline.steps.find_in_file",
    "zmq",
)
"""Loaded once, instead of in every process that is killed."""

FORKED = multiprocessing.get_context("forkserver")


def draw_frames(n: int = N_FRAMES) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Draw frames (n, ss, fs) of noise with three spots each; the brightest is as high as no other frame's."""
    rng = np.random.default_rng(5)
    frames = rng.poisson(3, (n, SIDE, SIDE)).astype(np.int32)
    for number, frame in enumerate(frames):
        for k in range(3):
            ss, fs = 20 + 25 * k, 15 + (7 * number + 20 * k) % 60
            frame[ss : ss + 2, fs : fs + 2] += 2000 + 10 * number + k
    return frames


FRAMES = draw_frames()


@dataclass
class Told:
    """What was seen over all rounds."""

    rounds: int = 0
    kills: int = 0
    frames: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    leftovers: list[str] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)


def arguments(kind: str, source: str, folder: Path) -> list[str]:
    """Return the command's arguments."""
    if kind in ("find", "ray"):
        finder = [
            "--finder",
            "peaknet",
            "--set",
            "batch_frames=2",
            "--set",
            f"stream={'ray' if kind == 'ray' else 'local'}",
        ]
    else:
        finder = [
            "--finder",
            "peakfinder8",
            "--set",
            "part_s=0.3",
            "--set",
            "poll_s=0.02",
            "--set",
            "min_snr=4",
        ]
        finder += ["--set", f"n_frames={N_FRAMES}"] if kind == "swmr" else []
        finder += ["--set", "idle_s=2", "--set", "settle_s=0"] if kind == "folder" else []
        finder += ["--cxi", str(folder / "p.cxi")]
    command = "find" if kind in ("find", "ray") else "stream"
    return [
        command,
        source,
        "--geometry",
        str(folder / "g.geom"),
        *finder,
        "--out",
        str(folder / "p.parquet"),
    ]


@contextlib.contextmanager
def taken_run(kind: str, folder: Path) -> Iterator[str]:
    """Take a run in a thread within the block, from when someone follows it; give its source."""
    (folder / "in").mkdir(parents=True)
    (folder / "g.geom").write_text(GEOMETRY)
    address = f"tcp://127.0.0.1:{free_port()}"
    source = {"folder": str(folder / "in"), "zeromq": address}.get(kind, str(folder / "in" / "run.h5"))
    work = {"folder": fill_folder, "swmr": grow_file, "zeromq": send_frames}.get(kind, write_whole)
    stop = threading.Event()

    def take() -> None:
        if work is not write_whole:
            wait_for(lambda: stop.is_set() or (folder / ".p.parquet.stream").exists())
        work(folder / "in", address, stop)

    thread = threading.Thread(target=take)
    thread.start()
    if work is write_whole:
        thread.join()
    try:
        yield source
    finally:
        stop.set()
        thread.join()


def fill_folder(folder: Path, address: str, stop: threading.Event) -> None:
    for first in range(0, N_FRAMES, FRAMES_PER_FILE):
        hidden = folder / f".{first:04d}.h5"
        with h5py.File(hidden, "w") as file:
            file[DATA] = FRAMES[first : first + FRAMES_PER_FILE]
        hidden.rename(folder / f"r{first:04d}.h5")
        if stop.wait(FRAMES_PER_FILE * FRAME_S):
            return


def grow_file(folder: Path, address: str, stop: threading.Event) -> None:
    with h5py.File(folder / "run.h5", "w", libver="latest") as file:
        shape = FRAMES.shape[1:]
        data = file.create_dataset(DATA, (0, *shape), "i4", maxshape=(None, *shape), chunks=(1, *shape))
        file.swmr_mode = True
        for number, frame in enumerate(FRAMES):
            data.resize(number + 1, axis=0)
            data[number] = frame
            data.flush()
            if stop.wait(FRAME_S):
                return


def send_frames(folder: Path, address: str, stop: threading.Event) -> None:
    with FrameSender(address, high_water=2, linger_s=5.0) as sender:
        sender._socket.setsockopt(28, 500)  # ZMQ_SNDTIMEO: there may be no receiver for a while
        for number, frame in enumerate(FRAMES):
            while not stop.is_set():
                try:
                    sender.send(number, frame[None])
                    break
                except Exception as error:
                    if type(error).__name__ != "Again":
                        raise
            if stop.wait(FRAME_S):
                break


def write_whole(folder: Path, address: str, stop: threading.Event) -> None:
    with h5py.File(folder / "run.h5", "w") as file:
        file[DATA] = FRAMES


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(told: list[str], log: Path) -> ForkServerProcess:
    """Start the command in a process of its own."""
    FORKED.set_forkserver_preload(list(PRELOADED))
    process = FORKED.Process(target=run_command, args=(told, log))
    process.start()
    return process


def run_command(told: list[str], log: Path) -> None:
    """Be the ``peaknet`` command, its output in a file."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    from peaknet_pipeline.cli import main as peaknet

    peaknet(told)


def ended(process: ForkServerProcess, seconds: float = 180.0) -> int:
    """Wait for a process; return its exit status."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError("the command did not end")
    return process.exitcode


def kill_round(
    kind: str,
    number: signal.Signals,
    folder: Path,
    rng: random.Random,
    expected: set[Place],
    told: Told,
    until: float,
) -> None:
    """Take one run, kill the process that follows it once, let it be followed to its end, and look."""
    log = folder / "log"
    with taken_run(kind, folder) as source:
        command = arguments(kind, source, folder)
        process = start(command, log)
        wait_for(lambda: not process.is_alive() or (folder / ".p.parquet.stream").exists())
        time.sleep(rng.uniform(0.0, until * N_FRAMES * FRAME_S))
        if process.is_alive():
            os.kill(process.pid or 0, number)
            told.kills += 1
        check_ending(ended(process), number, log, told)
        is_over = kind == "zeromq" and (folder / "p.parquet").exists()  # what was sent is not sent again
        if not is_over:
            again = ended(start(command, log))
            if again != 0:
                told.endings.append(f"again: {again} {log.read_text()[-300:]}")
    look(folder, expected, told, is_over=is_over)


def wait_for(ready: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.01)


def check_ending(status: int, number: signal.Signals, log: Path, told: Told) -> None:
    """A stream that is asked to end does so well; SIGKILL leaves no choice; what a user reads is no traceback."""
    text = log.read_text(errors="replace")
    expected = (
        {0, -number} if number == signal.SIGKILL else {0, 130, 143, -number, int(number)}
    )  # the last is Ray's, while it starts
    if status not in expected or "Traceback" in text or "***" in text:
        told.endings.append(f"{number.name}: {status} {text[-300:]}")


def look(folder: Path, expected: set[Place], told: Told, *, is_over: bool) -> None:
    """Compare what was written with what there was, or, if it ``is_over``, with what there was up to the last frame written."""
    counts = Counter(place[0] for place in rows_of(folder / "p.parquet"))
    told.rounds += 1
    n_frames = max(counts, default=-1) + 1 if is_over else N_FRAMES
    told.frames += n_frames
    told.lost += n_frames - len(counts)
    places = rows_of(folder / "p.parquet")
    told.doubled += len(places) - len(set(places))
    told.wrong += len({place[0] for place in set(places) - expected})
    if (folder / "p.cxi").exists():
        with h5py.File(folder / "p.cxi") as file:
            frames, images = file["entry_1/result_1/frame"][()], file[DATA]
            told.doubled += len(frames) - len(set(frames.tolist()))
            told.wrong += sum(not np.array_equal(images[row], FRAMES[n]) for row, n in enumerate(frames))
            told.wrong += len(set(counts) - set(frames.tolist()))
    known = {"p.parquet", "p.cxi", "p.geom", "g.geom", "in", "log"}
    told.leftovers += sorted({path.name for path in folder.iterdir()} - known)


def rows_of(path: Path) -> list[Place]:
    """Return frame and place of every peak."""
    table = pq.read_table(path, columns=["frame", "ss", "fs"]).to_pandas().round(3)
    return [(int(frame), ss, fs) for frame, ss, fs in table.itertuples(index=False)]


def undisturbed(kind: str, folder: Path) -> set[Place]:
    """Find the peaks of the whole run at once."""
    with taken_run("find", folder) as source:
        command = arguments("find", source, folder)
        if kind not in ("find", "ray"):
            command = ["find", source, "--geometry", str(folder / "g.geom"), *FINDER, "--out", command[-1]]
        if ended(start(command, folder / "log")) != 0:
            raise RuntimeError((folder / "log").read_text())
    return set(rows_of(folder / "p.parquet"))


def main(kind: str, name: str, times: int, seed: int = 1, *, until: float = 1.1) -> Told:
    """Kill so many times, within a share of the time that a run takes; return what was seen."""
    rng, told = random.Random(seed), Told()
    with tempfile.TemporaryDirectory() as folder:
        expected = undisturbed(kind, Path(folder) / "work")
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            kill_round(kind, signal.Signals[f"SIG{name}"], Path(folder) / "work", rng, expected, told, until)
    return told


if __name__ == "__main__":
    seen = main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *map(int, sys.argv[4:]))
    sys.stdout.write(json.dumps({"source": sys.argv[1], "signal": sys.argv[2], **vars(seen)}) + "\n")
