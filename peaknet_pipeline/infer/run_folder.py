"""Live frames from a folder in which run files appear."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from peaknet_pipeline.errors import PeaknetError, StreamError
from peaknet_pipeline.geometry.resolve import typical_value
from peaknet_pipeline.geometry.usable import flags_of
from peaknet_pipeline.infer.arrivals import (
    Arrival,
    FileFacts,
    Patience,
    Refuse,
    arrived_from_file,
    ignore,
    read_usable,
)
from peaknet_pipeline.infer.frame_numbers import FrameNumbers
from peaknet_pipeline.infer.live_parts import FileNumbers
from peaknet_pipeline.runs.listing import RunFile, list_runs
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.types import Geometry


def follow_folder(
    folder: Path,
    *,
    geometry: Geometry | None = None,
    batch_frames: int = 8,
    settle_s: float = 2.0,
    taken: FrameNumbers | None = None,
    files: FileNumbers | None = None,
    refuse: Refuse = ignore,
    patience: Patience | None = None,
    more_roots: Sequence[Path] = (),
) -> Iterator[Arrival]:
    """Yield the frames of every complete run file that appears in a folder, numbered through.

    A file that cannot be read, or a frame in it, is left out, and ``refuse`` told. A file is tried again once it has changed.
    ``files`` keeps the numbers of their frames, and frames in ``taken`` are not read. Links may lead into ``more_roots``, too.
    """
    patience = patience or Patience(poll_s=1.0)
    taken, files = taken or FrameNumbers(), files or FileNumbers()
    known: set[Path] = set()
    failed: dict[Path, tuple[int, float]] = {}
    news = time.monotonic()
    while True:
        for run in list_runs(folder, settle_s=settle_s, known=known, more_roots=more_roots):
            state = (run.size_bytes, run.modified_s)
            if run.state == "written" or failed.get(run.path) == state:
                continue
            try:
                for arrival in _frames_of(
                    run, folder, geometry, batch_frames, taken, files, refuse, more_roots
                ):
                    if patience.is_stopped:
                        return
                    yield arrival
                known.add(run.path)
            except Exception as error:
                failed[run.path] = state
                refuse(_left_out(run.path, error))
            news = time.monotonic()
        if not patience.wait(news):
            return


def _frames_of(
    listed: RunFile,
    folder: Path,
    geometry: Geometry | None,
    batch_frames: int,
    taken: FrameNumbers,
    files: FileNumbers,
    refuse: Refuse,
    more_roots: Sequence[Path],
) -> Iterator[Arrival]:
    if listed.state == "broken":
        raise StreamError(listed.reason)
    with open_run(listed.path, geometry, more_roots=more_roots) as run:
        flags = None if run.geometry is None else flags_of(run.geometry)
        energy, clen = typical_value(run.photon_energy_ev), typical_value(run.clen_m)
        facts = FileFacts(run.bad_pixels, energy, flags, clen)
        first = files.first_of(str(listed.path.relative_to(folder)), run.n_frames)
        for start, stop in taken.gaps(first, first + run.n_frames):
            for begin in range(start, stop, batch_frames):
                end = min(begin + batch_frames, stop)
                waiting = first + run.n_frames - end
                for number, frames in read_usable(run.read, begin, end, first, listed.path, refuse):
                    yield arrived_from_file(number, frames, facts, waiting)


def _left_out(path: Path, error: Exception) -> StreamError:
    """Say that a file is left out; an error of the package says more than its name."""
    why = error if isinstance(error, PeaknetError) else f"{type(error).__name__}: {error}"
    return StreamError("the file cannot be used", where=path, found=why)
