"""Peaks of an open run by any finder, in this process."""

import time

from peaknet_pipeline.infer.stream import Finder, as_found
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.steps.peak_tables import add_resolution, join_peaks
from peaknet_pipeline.steps.progress import Progress

BATCH_PIXELS = 32_000_000
"""Pixels read at once."""


def find_in_run(run: Run, find: Finder, *, progress: Progress | None = None) -> tuple[PeakTable, float]:
    """Find the peaks of all frames of a run.

    Parameters
    ----------
    run : Run
    find : callable
        Made for this run's detector and bad pixels, see :mod:`peaknet_pipeline.steps.finders`.
    progress : callable, optional

    Returns
    -------
    The peaks, with resolutions, and the seconds that it took.

    """
    geometry = geometry_of(run)
    parts: list[PeakTable] = []
    find(run.read(0, 1), 0)  # compiles on first use, which is no part of the speed
    start = time.perf_counter()
    for first, frames in run.batches(max(1, BATCH_PIXELS // run.bad_pixels.size)):
        parts.append(as_found(find(frames, first)).peaks)
        if progress is not None:
            progress(first + len(frames), run.n_frames)
    seconds = time.perf_counter() - start
    return add_resolution(join_peaks(parts), geometry, run.photon_energy_ev), seconds
