"""How many clients of the metrics endpoint slow a stream down.

``python -m peaknet_pipeline_tests.commands.metrics_load CLIENTS ROUNDS``

The same frames are streamed in turn without clients and with so many that ask for figures and picture all the time. Prints a
line of JSON: the median rates in frames per second, their ratio, and how many answers the clients got and were refused.
"""

import json
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import h5py

from peaknet_pipeline_tests.commands.kill_driver import DATA, FRAMES, GEOMETRY, SIDE, ended, free_port, start

PATHS = ("/metrics", "/figures.json", "/powder.png")


def write_run(folder: Path, side: int, n_frames: int) -> list[str]:
    """Write a run of larger frames, and return how it is streamed."""
    grown = GEOMETRY.replace(f"= {SIDE - 1}", f"= {side - 1}").replace(f"{-SIDE / 2}", f"{-side / 2}")
    (folder / "g.geom").write_text(grown)
    tiled = FRAMES.repeat(1, axis=0)
    with h5py.File(folder / "run.h5", "w", libver="latest") as file:
        data = file.create_dataset(
            DATA, (n_frames, side, side), "i4", maxshape=(None, side, side), chunks=(1, side, side)
        )
        for number in range(n_frames):
            frame = tiled[number % len(tiled)]
            data[number, : SIDE * (side // SIDE), : SIDE * (side // SIDE)] = (
                frame[None, :, None, :]
                .repeat(side // SIDE, 0)
                .repeat(side // SIDE, 2)
                .reshape(side // SIDE * SIDE, -1)
            )
    told = ["stream", str(folder / "run.h5"), "--geometry", str(folder / "g.geom"), "--finder", "peakfinder8"]
    return [*told, "--set", f"n_frames={n_frames}", "--json", "--out", str(folder / "p.parquet")]


def ask(address: str, path: str, over: threading.Event, answers: Counter[str]) -> None:
    """Ask again and again."""
    while not over.is_set():
        try:
            with urllib.request.urlopen(f"{address}{path}", timeout=60) as answer:  # noqa: S310
                answer.read()
                answers["answered"] += 1
        except OSError:
            answers["refused"] += 1
            time.sleep(0.2)


def rate(folder: Path, command: list[str], n_clients: int, answers: Counter[str]) -> float:
    """Stream once with so many clients; return the frames per second."""
    log, port, over = folder / f"log{time.monotonic()}", free_port(), threading.Event()
    process = start([*command, "--port", str(port)], log)
    while process.is_alive() and not (log.exists() and b"waiting for frames" in log.read_bytes()):
        time.sleep(0.02)
    address = f"http://127.0.0.1:{port}"
    clients = [
        threading.Thread(target=ask, args=(address, PATHS[i % len(PATHS)], over, answers))
        for i in range(n_clients)
    ]
    for client in clients:
        client.start()
    status = ended(process)
    over.set()
    for client in clients:
        client.join()
    if status:
        raise RuntimeError(log.read_text())
    return float(json.loads(log.read_text().splitlines()[-1])["frames_per_second"])


def main(n_clients: int, rounds: int, *, side: int = 480, n_frames: int = 9000) -> dict[str, float]:
    """Measure in turn; return medians and ratio."""
    answers: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        command = write_run(folder, side, n_frames)
        pairs = [[rate(folder, command, n, answers) for n in (0, n_clients)] for _ in range(rounds)]
    alone, served = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    return {"alone": alone, "with_clients": served, "ratio": round(ratio, 3), **answers}


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"clients": int(sys.argv[1]), **main(*map(int, sys.argv[1:]))}) + "\n")
