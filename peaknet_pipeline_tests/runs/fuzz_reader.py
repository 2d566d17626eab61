"""Read damaged run files in a process of its own with bounded memory; anything but a RunError ends it.

Run as a script: ``fuzz_reader.py FOLDER SEED N``. Prints the counts as JSON.
"""

import json
import os
import resource
import signal
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np

from peaknet_pipeline.errors import PeaknetError
from peaknet_pipeline.runs.cxi import read_cxi_peaks
from peaknet_pipeline.runs.inspect import inspect_path
from peaknet_pipeline.runs.open import open_run

MAX_EXTRA_BYTES = 1536 * 2**20
TIMEOUT_S = 3


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flip bits, overwrite with extreme numbers, or swap stretches."""
    data = bytearray(content)
    if rng.random() < 0.15:
        del data[rng.integers(len(data)) :]
    for _ in range(rng.integers(1, 12)):
        if len(data) < 64:
            break
        # Metadata sit at the beginning: hit them more often than pixels.
        place = int(rng.integers(min(len(data), 6000) - 8 if rng.random() < 0.7 else len(data) - 8))
        kind = rng.integers(3)
        if kind == 0:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[place : place + 8] = int(rng.choice([0, 1, 2**31 - 1, 2**40, 2**63 - 1])).to_bytes(
                8, "little"
            )
        else:
            other = int(rng.integers(len(data) - 8))
            data[place : place + 8] = data[other : other + 8]
    return bytes(data)


def main(folder: Path, seed: int, n: int) -> None:
    """Damage the folder's files ``n`` times and read each in a child; count how that ended."""
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(seed)
    sources = [path for path in sorted(folder.glob("good*")) if path.suffix != ".geom"]
    path = folder / "damaged.cxi"
    counts = dict.fromkeys(("read", "refused", "hung", "crashed"), 0)
    for i in range(n):
        path.write_bytes(damage(sources[i % len(sources)].read_bytes(), rng))
        child = os.fork()
        if child == 0:
            os._exit(_child(path, folder / "good.geom"))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        outcome = {0: "read", 1: "refused", -signal.SIGPROF: "hung", -signal.SIGSEGV: "crashed"}.get(status)
        if outcome is None:
            sys.exit(f"file {i}: exit status {status}")
        if outcome in ("hung", "crashed"):
            path.replace(folder / f"{outcome}.cxi")
        counts[outcome] += 1
    sys.stdout.write(json.dumps(counts))


def _child(path: Path, geometry: Path) -> int:
    """Return 0 when everything was read, 1 when something was refused, 3 on any other exception."""
    signal.setitimer(signal.ITIMER_PROF, TIMEOUT_S)  # of processor time: a busy machine hangs nothing
    soft = _memory_bytes() + MAX_EXTRA_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
    refused = 0
    try:
        for step in (lambda: _read(path, geometry), lambda: _read(path, None), lambda: read_cxi_peaks(path)):
            try:
                step()
            except PeaknetError:
                refused = 1
        inspect_path(path, geometry)
    except Exception:
        traceback.print_exc()
        return 3
    return refused


def _read(path: Path, geometry: Path | None) -> None:
    with open_run(path, geometry) as run:
        for _ in run.batches(2, 0, min(run.n_frames, 8)):
            pass


def _memory_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
