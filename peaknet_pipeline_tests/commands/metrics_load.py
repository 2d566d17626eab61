"""How far viewers of a live stream's page slow the stream down.

``python -m peaknet_pipeline_tests.commands.metrics_load CLIENTS ROUNDS [FRAMES]``

The same frames are streamed in turn without viewers and with so many that ask as the page does: figures every two seconds, then
the last hit; a few ask for ``/metrics`` all the time. Prints a line of JSON: the median rates in frames per second and CPU
seconds, the ratios of the pairs, and how many answers the clients got and were refused. Other work on the machine changes the
rates, but hardly the CPU time.
"""

import json
import os
import statistics
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import h5py

from peaknet_pipeline_tests.commands.kill_driver import DATA, FRAMES, GEOMETRY, SIDE, ended, free_port, start

PATHS = ("/live.json", "/hit.bin")
POLL_S = 2.0


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


def look(address: str, over: threading.Event, answers: Counter[str]) -> None:
    """Ask as the page does."""
    tags = dict.fromkeys(PATHS, "")
    while not over.is_set():
        for path in PATHS:
            asked = urllib.request.Request(f"{address}{path}", headers={"If-None-Match": tags[path]})  # noqa: S310
            try:
                with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
                    answer.read()
                    tags[path] = answer.headers["ETag"]
                    answers["answered"] += 1
            except urllib.error.HTTPError as error:
                answers["unchanged" if error.code == 304 else "refused"] += 1
            except OSError:
                answers["refused"] += 1
        over.wait(POLL_S)


def cpu_seconds(process_id: int | None) -> float | None:
    """Return the CPU time of a process so far; None once it is over."""
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stream_once(
    folder: Path, command: list[str], n_clients: int, answers: Counter[str]
) -> tuple[float, float]:
    """Stream once with so many viewers; return frames per second, and CPU seconds from the first request on."""
    log, port, over = folder / f"log{time.monotonic()}", free_port(), threading.Event()
    process = start([*command, "--port", str(port)], log)
    while process.is_alive() and not (log.exists() and b"waiting for frames" in log.read_bytes()):
        time.sleep(0.02)
    before = cpu_seconds(process.pid) or 0.0
    address = f"http://127.0.0.1:{port}"
    clients = [threading.Thread(target=look, args=(address, over, answers)) for _ in range(n_clients)]
    for client in clients:
        client.start()
    after = before
    while (now := cpu_seconds(process.pid)) is not None and process.is_alive():
        after = max(after, now)
        time.sleep(0.05)
    status = ended(process)
    over.set()
    for client in clients:
        client.join()
    if status:
        raise RuntimeError(log.read_text())
    return float(json.loads(log.read_text().splitlines()[-1])["frames_per_second"]), after - before


def main(n_clients: int, rounds: int, n_frames: int = 9000, *, side: int = 480) -> dict[str, float]:
    """Measure in turn; return medians and ratios."""
    answers: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        command = [*write_run(folder, side, n_frames), "--min-peaks", "1"]
        pairs = [[stream_once(folder, command, n, answers) for n in (0, n_clients)] for _ in range(rounds)]
    found: dict[str, float] = dict(answers)
    for place, name in enumerate(("frames_per_second", "cpu_s")):
        found[name] = statistics.median(alone[place] for alone, _ in pairs)
        found[f"{name}_with_viewers"] = statistics.median(served[place] for _, served in pairs)
        found[f"{name}_ratio"] = round(statistics.median(b[place] / a[place] for a, b in pairs), 3)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"viewers": int(sys.argv[1]), **main(*map(int, sys.argv[1:]))}) + "\n")
