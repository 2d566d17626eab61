"""CrystFEL's ``indexamajig`` as a second opinion: peaks from a CXI list, lattices from its stream."""

import math
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from peaknet_pipeline.errors import IndexingError
from peaknet_pipeline.indexing.cell import read_cell, write_cell
from peaknet_pipeline.indexing.stream_read import read_stream
from peaknet_pipeline.indexing.stream_tables import Stream
from peaknet_pipeline.params import Parameters, parameter

PROGRAM = "indexamajig"
LOG_TAIL_LINES = 5


@dataclass(frozen=True)
class IndexamajigParams(Parameters):
    """How indexamajig is called."""

    indexing: str = parameter("xgandalf", meaning="indexing methods, as for --indexing")
    fast: bool = parameter(True, meaning="xgandalf's fast mode")
    multi: bool = parameter(False, meaning="look for several lattices per frame")
    retry: bool = parameter(True, meaning="retry without the weakest peaks")
    n_processes: int = parameter(0, meaning="frames at a time; 0: one per processor", ge=0)
    min_peaks: int = parameter(10, meaning="frames with fewer peaks are no hits", ge=0)
    tolerance: str = parameter("5,5,5,1.5", meaning="cell tolerance, % and degrees, as for --tolerance")
    int_radius: str = parameter("3,4,5", meaning="integration radii, as for --int-radius", unit="px")
    control_share: float = parameter(
        0.25,
        meaning="share of the hits that are scrambled as the false-index control; 0: no control",
        ge=0.0,
        le=1.0,
    )
    control_frames: int = parameter(500, meaning="hits of the control at most", ge=0)
    timeout_s: float = parameter(86_400.0, meaning="the whole call may take this long", unit="s", gt=0.0)

    def n_control(self, n_hits: int) -> int:
        """Return how many of a run's hits are scrambled as the false-index control."""
        return min(math.ceil(self.control_share * n_hits), self.control_frames, n_hits)


def find_indexamajig() -> Path:
    """Return the program's path, or raise IndexingError that says how to get it."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise IndexingError(
            f"{PROGRAM} is not on the PATH",
            remedy="Install CrystFEL or load its module, or use --engine lattice, which needs nothing else.",
        )
    return Path(found)


def run_indexamajig(
    cxi: Path, *, geometry: Path, cell: Path, stream: Path, params: IndexamajigParams | None = None
) -> Stream:
    """Index a CXI file's peak lists with indexamajig and read its stream.

    Parameters
    ----------
    cxi : Path
        With the lists in ``/entry_1/result_1``.
    geometry : Path
        The ``.geom`` written beside it, with ``peak_list``.
    cell : Path
        In any form that ``read_cell`` takes.
    stream : Path
        Written by indexamajig, with its log beside it as ``.log`` and its input list as ``.lst``; a stream already there is
        replaced only when the call succeeds.

    Raises
    ------
    IndexingError
        The program is missing, fails (the log's last lines are told), takes too long, or writes no stream.

    """
    params = params or IndexamajigParams()
    program = find_indexamajig()
    for needed in (cxi, geometry, cell):
        if not needed.is_file():
            raise IndexingError("no such file", where=needed)
    if not str(cxi.resolve()).isprintable():
        what = "a path with line breaks or control characters cannot stand in indexamajig's list of files"
        raise IndexingError(what, where=cxi.resolve(), remedy="Rename the folder or the file.")
    stream.parent.mkdir(parents=True, exist_ok=True)
    listing, log, partial, own_cell = (
        stream.with_suffix(s) for s in (".lst", ".log", ".stream.part", ".cell.part")
    )
    listing.write_text(f"{cxi.resolve()}\n", encoding="utf-8")
    command = _command(program, listing, geometry, own_cell, partial, params)
    try:
        write_cell(read_cell(cell), own_cell)  # in CrystFEL's words, whatever the file
        _call(command, log, params.timeout_s)
        result = read_stream(partial)
        partial.replace(stream)
    finally:
        partial.unlink(missing_ok=True)
        own_cell.unlink(missing_ok=True)
    return result


def _command(
    program: Path, listing: Path, geometry: Path, cell: Path, stream: Path, params: IndexamajigParams
) -> list[str]:
    words = [str(program), "-i", str(listing), "-o", str(stream), "-g", str(geometry), "-p", str(cell)]
    words += ["--peaks=cxi", f"--indexing={params.indexing}", f"--tolerance={params.tolerance}"]
    words += [f"--int-radius={params.int_radius}", f"--min-peaks={params.min_peaks}", "-j"]
    words.append(str(params.n_processes or len(os.sched_getaffinity(0))))
    words += ["--xgandalf-fast-execution"] if params.fast and "xgandalf" in params.indexing else []
    words.append("--multi" if params.multi else "--no-multi")
    words.append("--retry" if params.retry else "--no-retry")
    return words


def _call(command: list[str], log: Path, timeout_s: float) -> None:
    with log.open("w", encoding="utf-8") as sink:
        sink.write(" ".join(command) + "\n")
        sink.flush()
        try:
            done = subprocess.run(  # noqa: S603 (no shell; the program comes from the PATH on purpose)
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise IndexingError(f"{PROGRAM} took longer than {timeout_s:g} s", where=log) from error
        except OSError as error:
            raise IndexingError(f"{PROGRAM} cannot be started: {error}", where=command[0]) from error
    if done.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        tail = " | ".join(lines[-LOG_TAIL_LINES:])
        raise IndexingError(f"{PROGRAM} failed with status {done.returncode}: {tail}", where=log)
