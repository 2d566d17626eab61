"""Read hostile files, each in a process of its own: nothing but an answer or a :class:`PeaknetError` may come of it.

``python -m peaknet_pipeline_tests.hdf5.fuzz --files 3000`` tries 3,000 files and tells the numbers of those that ended in a
signal, in an exception of no known kind, took more than 5 s of processor time or more than 1 GiB. ``--number 123`` reads
one of them in this process, to be looked into. The numbers stand for the same files on every machine.
"""

import argparse
import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from peaknet_pipeline.errors import PeaknetError
from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.hdf5.trial import try_file
from peaknet_pipeline.infer.arrivals import Patience
from peaknet_pipeline.infer.swmr_file import follow_file
from peaknet_pipeline.labels.store import open_labels
from peaknet_pipeline.runs.calibrated import read_calibration
from peaknet_pipeline.runs.cxi import read_cxi_peaks
from peaknet_pipeline.runs.inspect import inspect_path
from peaknet_pipeline.runs.masks import read_layers, read_mask
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.simulate.truth import read_truth
from peaknet_pipeline.types import Geometry
from peaknet_pipeline_tests.hdf5.hostile_files import ENERGY, draw, write_hostile
from peaknet_pipeline_tests.runs.files import CXI_DATA, slab_geometry

CPU_S = 5
EXTRA_BYTES = 2**30
ANSWERED, REFUSED, UNKNOWN_ERROR, TOO_MUCH_MEMORY = 0, 1, 3, 4
OUTCOMES = {
    ANSWERED: "read",
    REFUSED: "refused",
    UNKNOWN_ERROR: "unknown exception",
    TOO_MUCH_MEMORY: f"more than {EXTRA_BYTES >> 20} MiB",
    -signal.SIGPROF: f"more than {CPU_S} s of processor time",
}


def doors(path: Path, geometry: Geometry) -> Iterator[Callable[[], object]]:
    """Yield every way in which this program reads an HDF5 file."""
    yield lambda: _read_run(path, geometry)
    yield lambda: _read_run(path, None)
    yield lambda: inspect_path(path, geometry)
    yield lambda: read_cxi_peaks(path)
    yield lambda: read_mask(path)
    yield lambda: read_layers(path)
    yield lambda: read_calibration(path)
    yield lambda: read_truth(path)
    yield lambda: open_labels(path).close()
    yield lambda: list(
        follow_file(path, CXI_DATA, geometry=geometry, n_frames=8, patience=Patience(0.0, 0.0))
    )


def _read_run(path: Path, geometry: Geometry | None) -> None:
    with open_run(path, geometry) as run:
        for _ in run.batches(2, 0, min(run.n_frames, 8)):
            pass
        run.read(run.n_frames - 1, run.n_frames)


def read_hostile(path: Path) -> int:
    """Read a file by every door; return how that ended. Each door may take the whole of time and memory."""
    geometry = parse_geometry(
        slab_geometry().text.replace("photon_energy = 9500 eV", f"photon_energy = {ENERGY} eV")
    )
    refused, before = 0, _peak_bytes()
    for number, door in enumerate(doors(path, geometry)):
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        try:
            door()
        except PeaknetError:
            refused |= 1 << number
        except Exception:
            traceback.print_exc()
            return UNKNOWN_ERROR
    if _peak_bytes() - before > EXTRA_BYTES:
        return TOO_MUCH_MEMORY
    return REFUSED if refused & 1 else ANSWERED  # as a run with its geometry


def outcome_of(number: int, folder: Path) -> str:
    """Write the hostile file of a number and read it in a child; return how that ended."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = write_hostile(folder, number)
    with contextlib.suppress(PeaknetError):
        try_file(path)  # the child knows the answer, and starts no helper of its own
    child = os.fork()
    if child == 0:
        limit = _mapped_bytes() + 4 * EXTRA_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os._exit(read_hostile(path))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return OUTCOMES.get(status) or (signal.Signals(-status).name if status < 0 else f"exit status {status}")


def run(numbers: range, folder: Path) -> tuple[Counter[str], list[str]]:
    """Try the hostile files of some numbers; return how often each outcome came, and what must not have been."""
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    failures = []
    for number in numbers:
        outcome = outcome_of(number, folder)
        counts[outcome] += 1
        if outcome not in (OUTCOMES[ANSWERED], OUTCOMES[REFUSED]):
            failures.append(f"{outcome}: {draw(number)[0]}")
            print(failures[-1], flush=True)
    return counts, failures


def main() -> None:
    """Try many hostile files, or look into one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--files", type=int, default=3000, help="How many files to try.")
    parser.add_argument("--first", type=int, default=0, help="Number of the first.")
    parser.add_argument("--number", type=int, help="Read the file of this number in this process.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "files"
        if options.number is not None:
            folder.mkdir()
            sys.exit(read_hostile(write_hostile(folder, options.number)))
        started = time.monotonic()
        counts, failures = run(range(options.first, options.first + options.files), folder)
    print(f"{options.files} files in {time.monotonic() - started:.0f} s: {dict(counts)}")
    sys.exit(1 if failures else 0)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
