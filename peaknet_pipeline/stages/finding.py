"""Classical peak finding over a run, and the ``peaknet find`` command for either finder."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.geometry.distance import knows_distance
from peaknet_pipeline.geometry.maps import peak_inv_d, pixel_radius
from peaknet_pipeline.params import Parameters
from peaknet_pipeline.peaks.droplet import DropletParams, find_droplets
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params
from peaknet_pipeline.plots.distributions import plot_peaks
from peaknet_pipeline.runs.rings import drop_ring_peaks
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.stages.ingest import read_bad_pixels, read_left_out_rings, statistics_path
from peaknet_pipeline.steps.progress import Progress, progress_bar
from peaknet_pipeline.store.experiment import Experiment
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.provenance import Recipe, origin_of
from peaknet_pipeline.store.run_files import open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import empty_table, make_table, write_table
from peaknet_pipeline.types import BoolArray, Float64Array, FrameArray, Geometry

BATCH_PIXELS = 32_000_000
"""Pixels read at once."""


def peaks_path(store: Store, key: str, finder: str) -> Path:
    """Return where a run's peaks lie; ``finder`` is classical or peaknet."""
    return store.table(f"{finder}_peaks", key)


def classical_path(store: Store, key: str) -> Path:
    """Return where a run's classical peaks lie."""
    return peaks_path(store, key, "classical")


FINDERS: Mapping[str, type[Parameters]] = {"peakfinder8": Peakfinder8Params, "droplet": DropletParams}
"""The classical finders and their parameters."""

SECTION_OF = {"peakfinder8": "finder", "droplet": "droplet"}
"""The section of ``experiment.yaml`` that tunes each classical finder."""


@dataclass(frozen=True)
class ClassicalParams(Peakfinder8Params, DropletParams):
    """What either classical finder takes; those of the finder that the experiment doesn't use are refused."""


def classical_parameters(experiment: Experiment, overrides: Mapping[str, Any] | None = None) -> Parameters:
    """Return the parameters of the experiment's classical finder.

    Raises
    ------
    ParameterError
        An override belongs to the other finder.

    """
    name = experiment.classical_finder
    cls, given = FINDERS[name], {k: v for k, v in (overrides or {}).items() if v is not None}
    if set(given) - set(cls.own(given)):
        raise ParameterError(
            f"parameters that {name} doesn't have", where=experiment.folder / "experiment.yaml",
            found=sorted(set(given) - set(cls.own(given))), remedy="See classical_finder there.",
        )  # fmt: skip
    return experiment.parameters(SECTION_OF[name], cls, given)


def classical_peaks(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Bragg peaks of a run by the experiment's classical finder: peakfinder8, or the LCLS droplet finder."""
    context = read_context(store, key)
    finder = context.experiment.classical_finder
    params = classical_parameters(context.experiment, overrides)
    output = peaks_path(store, key, "classical")

    def build(recipe: Recipe) -> StageResult:
        bad = read_bad_pixels(store, key)
        with open_raw(context) as run, progress_bar(f"{finder} {key}") as progress:
            peaks, seconds = find_in_run(run, params, bad_pixels=bad, progress=progress)
            peaks = drop_ring_peaks(peaks, read_left_out_rings(store, key))
            metadata = peak_metadata(run, finder=finder, parameters=params.to_dict())
            n_frames, geometry = run.n_frames, geometry_of(run)
        write_table(peaks, output, PEAKS, extra=metadata | origin_of(recipe, run=key))
        return peak_result(output, peaks, geometry, n_frames=n_frames, seconds=seconds, title=key)

    inputs = [statistics_path(store, key), context.path, *context.settings_files]
    parameters = {"classical_finder": finder, **params.to_dict()}
    return make_stage("classical_peaks", parameters=parameters, inputs=inputs, build=build)


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
    allowed = valid_range(geometry)
    if isinstance(params, Peakfinder8Params):
        finder = Peakfinder8(pixel_radius(geometry), bad_pixels, params, valid_range=allowed)
        return lambda frames, first: finder.find(frames, first_frame=first)
    if isinstance(params, DropletParams):
        droplet = params
        return lambda frames, first: find_droplets(
            frames, bad_pixels=bad_pixels, params=droplet, first_frame=first, valid_range=allowed
        )
    raise ParameterError("not a classical finder", expected=list(FINDERS), found=type(params).__name__)


def valid_range(geometry: Geometry) -> tuple[float, float]:
    """Return the lowest and highest value that the geometry's flags allow."""
    low, high = geometry.flag_less_than, geometry.flag_more_than
    return (-np.inf if low is None else low, np.inf if high is None else high)


def join_peaks(parts: Sequence[PeakTable]) -> PeakTable:
    """Join peak tables of successive frames."""
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else empty_table(PEAKS)


def add_resolution(peaks: PeakTable, geometry: Geometry, photon_energy_ev: Float64Array) -> PeakTable:
    """Return the peaks with 1/d from the camera length and photon energy of each frame; NaN where these are unknown."""
    frames = peaks["frame"].to_numpy(dtype=np.int64)
    inv_d = np.full(len(peaks), np.nan)
    if len(frames) and knows_distance(geometry):
        panel, fs, ss = (peaks[name].to_numpy() for name in ("panel", "fs", "ss"))
        inv_d = peak_inv_d(geometry, panel, fs, ss, photon_energy_ev[frames], frames)
    return make_table(PEAKS, {**{name: peaks[name] for name in PEAKS.column_names()}, "inv_d": inv_d})


def peak_metadata(run: Run, *, finder: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return what a peak table's file says about its origin; indexing reads the energies from there."""
    energy = run.photon_energy_ev
    same = bool(np.all(energy == energy[0])) if len(energy) else False
    return {
        "source": str(run.info.path),
        "n_frames": str(run.n_frames),
        "photon_energy_ev": json.dumps([float(energy[0])] if same else [round(float(e), 4) for e in energy]),
        "finder": finder,
        "parameters": json.dumps(dict(parameters), default=str),
    }


def peak_result(
    output: Path, peaks: PeakTable, geometry: Geometry, *, n_frames: int, seconds: float, title: str
) -> StageResult:
    """Return a finder's output with its figures, plot and checks."""
    counts = np.bincount(peaks["frame"].to_numpy(), minlength=n_frames)
    figures = {
        "frames": n_frames,
        "peaks": len(peaks),
        "mean_peaks_per_frame": float(counts.mean()),
        "frames_per_second": n_frames / max(seconds, 1e-9),
        "seconds": seconds,
    }
    checks = (inside_panels(peaks, geometry), finite_intensities(peaks))
    return StageResult(
        output,
        figures,
        {"peaks": output},
        {"peaks_per_frame": plot_peaks(peaks, n_frames, title=title)},
        checks,
    )


def inside_panels(peaks: PeakTable, geometry: Geometry) -> Check:
    """Check that every peak lies on a panel."""
    n_panels, n_ss, n_fs = geometry.stack_shape
    inside = peaks["panel"].between(0, n_panels - 1)
    inside &= peaks["ss"].between(-0.5, n_ss - 0.5) & peaks["fs"].between(-0.5, n_fs - 0.5)
    outside = int((~inside).sum())
    return Check("inside_panels", outside == 0, f"{outside} of {len(peaks)} peaks lie off their panel")


def finite_intensities(peaks: PeakTable) -> Check:
    """Check that every intensity is a number above zero."""
    bad = int((~(np.isfinite(peaks["intensity"]) & (peaks["intensity"] > 0))).sum())
    return Check("finite_intensities", bad == 0, f"{bad} of {len(peaks)} peaks without a positive intensity")
