"""Classical peak finding over an open run."""

import time
from collections.abc import Callable, Mapping

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.geometry.maps import pixel_radius
from peaknet_pipeline.geometry.usable import usable_values
from peaknet_pipeline.params import Parameters
from peaknet_pipeline.peaks.droplet import DropletParams, find_droplets
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.steps.peak_tables import add_resolution, join_peaks
from peaknet_pipeline.steps.progress import Progress
from peaknet_pipeline.types import BoolArray, FrameArray, Geometry

BATCH_PIXELS = 32_000_000
"""Pixels read at once."""

FINDERS: Mapping[str, type[Parameters]] = {"peakfinder8": Peakfinder8Params, "droplet": DropletParams}
"""The classical finders and their parameters."""

SECTION_OF = {"peakfinder8": "finder", "droplet": "droplet"}
"""The section of ``experiment.yaml`` that tunes each classical finder."""


def find_in_run(
    run: Run, params: Parameters, *, bad_pixels: BoolArray, progress: Progress | None = None
) -> tuple[PeakTable, float]:
    """Find the peaks of all frames with the classical finder that the parameters are of.

    Returns the peaks, with resolutions, and the seconds that it took.
    """
    geometry = geometry_of(run)
    find = classical_finder(geometry, params, bad_pixels)
    parts: list[PeakTable] = []
    find(run.read(0, 1), 0)  # compiles on first use, which is no part of the speed
    start = time.perf_counter()
    for first, frames in run.batches(max(1, BATCH_PIXELS // bad_pixels.size)):
        parts.append(find(frames, first))
        if progress is not None:
            progress(first + len(frames), run.n_frames)
    seconds = time.perf_counter() - start
    return add_resolution(join_peaks(parts), geometry, run.photon_energy_ev), seconds


def classical_finder(
    geometry: Geometry, params: Parameters, bad_pixels: BoolArray
) -> Callable[[FrameArray, int], PeakTable]:
    """Return a function that finds the peaks of frames (n, n_panels, ss, fs), given the number of the first.

    Raises
    ------
    ParameterError
        The parameters are of no classical finder.

    """
    usable = usable_values(geometry)
    if isinstance(params, Peakfinder8Params):
        finder = Peakfinder8(pixel_radius(geometry), bad_pixels, params, usable=usable)
        return lambda frames, first: finder.find(frames, first_frame=first)
    if isinstance(params, DropletParams):
        droplet = params
        return lambda frames, first: find_droplets(
            frames, bad_pixels=bad_pixels, params=droplet, first_frame=first, usable=usable
        )
    raise ParameterError("not a classical finder", expected=list(FINDERS), found=type(params).__name__)
