"""Indexing of peak tables with the false-index control, by either engine, and the prediction of reflections."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.resolve import gains
from peaknet_pipeline.hits import MIN_PEAKS, hit_frames
from peaknet_pipeline.indexing.control import (
    ControlRecord,
    calibrate_gate,
    false_index_control,
    scramble_peaks,
)
from peaknet_pipeline.indexing.crystals import describe_crystals
from peaknet_pipeline.indexing.indexamajig import IndexamajigParams, find_indexamajig, run_indexamajig
from peaknet_pipeline.indexing.integrate import IntegrateParams, integrate_reflections
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.predict import PredictParams, lattice_extents, predict_reflections
from peaknet_pipeline.runs.cxi import write_cxi_peaks
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.runs.sample import sample_frames
from peaknet_pipeline.schemas import REFLECTIONS, CrystalTable, IndexTable, PeakTable, ReflectionTable
from peaknet_pipeline.steps.progress import Progress
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline.types import BoolArray, Float64Array, Geometry, IntArray, UnitCell


def index_with_control(
    peaks: PeakTable,
    geometry: Geometry,
    photon_energy_ev: Float64Array,
    cell: UnitCell,
    params: IndexParams,
    *,
    min_peaks: int = MIN_PEAKS,
) -> tuple[IndexTable, ControlRecord]:
    """Index a run with a gate that its own azimuth-scrambled hits do not pass; return the lattices and the control.

    Frames with fewer than ``min_peaks`` peaks are no hits, and not part of the control's denominator.

    The gate is only ever raised above the given one; the control told is the one at the gate that was used.
    """
    control = false_index_control(
        peaks,
        geometry=geometry,
        photon_energy_ev=photon_energy_ev,
        cell=cell,
        params=params,
        min_peaks=min_peaks,
    )
    gate = calibrate_gate(params, control)
    table = index_peaks(peaks, geometry=geometry, photon_energy_ev=photon_energy_ev, cell=cell, params=gate)
    passed = sum(value >= gate.min_significance for value in control.significance)
    return table, ControlRecord(len(control.significance), passed, gate.min_significance)


@dataclass(frozen=True)
class CrystfelResult:
    """What indexamajig found: lattices, its false-index control, and the indexing method of each frame in its stream."""

    lattices: IndexTable
    control: ControlRecord
    indexed_by: Mapping[int, str]


def index_with_crystfel(
    run: Run,
    peaks: PeakTable,
    cell: Path,
    cxi: Path,
    params: IndexamajigParams | None = None,
    *,
    bad_pixels: BoolArray | None = None,
    min_peaks: int = MIN_PEAKS,
    provenance: Mapping[str, str] | None = None,
) -> CrystfelResult:
    """Index with CrystFEL's indexamajig from a CXI peak list written for it, and some hits once more with scrambled azimuths.

    Lists, streams and logs are kept: the control's in the folder ``control`` beside the others. Its gate isn't ours to
    raise, so that a false-index rate above the wanted one is only told. Frames without a photon energy or camera length are
    left out. The control is a sample of the hits, spread over the run (``control_share``, ``control_frames``), without retries
    and further lattices, so that it costs a fraction of the call itself. ``bad_pixels``, (n_panels, ss, fs), are all that were
    left out; the run's own by default.

    Raises
    ------
    IndexingError
        The program is missing or failed.

    """
    find_indexamajig()
    params = params or IndexamajigParams()
    known = np.flatnonzero(~run.without_resolution)
    call = partial(_call_crystfel, run, cell=cell, bad_pixels=bad_pixels, provenance=provenance)
    found = call(peaks, cxi=cxi, params=params, frames=known)
    hits = np.intersect1d(hit_frames(peaks, min_peaks=min_peaks), known)
    sample = hits[sample_frames(len(hits), params.n_control(len(hits)))]
    if not sample.size:
        return found
    scrambled = scramble_peaks(peaks[peaks["frame"].isin(sample)], geometry_of(run))
    cheap = replace(params, retry=False, multi=False)
    false = call(scrambled, cxi=_control_list(cxi), params=cheap, frames=sample).lattices
    return replace(found, control=ControlRecord(int(sample.size), int(false["frame"].nunique()), 0.0))


def files_of_crystfel(cxi: Path) -> list[Path]:
    """Return every file that :func:`index_with_crystfel` writes for this peak list, the control's included."""
    lists = (cxi, _control_list(cxi))
    return [
        one.with_suffix(suffix) for one in lists for suffix in (".cxi", ".geom", ".lst", ".log", ".stream")
    ]


def _control_list(cxi: Path) -> Path:
    return cxi.parent / "control" / cxi.name


def _call_crystfel(
    run: Run,
    peaks: PeakTable,
    *,
    cell: Path,
    cxi: Path,
    params: IndexamajigParams,
    bad_pixels: BoolArray | None,
    frames: IntArray,
    provenance: Mapping[str, str] | None = None,
) -> CrystfelResult:
    """Index some frames, (n,) ascending; the outcome has the run's frame numbers, where the stream has the list's."""
    cxi.parent.mkdir(parents=True, exist_ok=True)
    report = write_cxi_peaks(cxi, peaks, run, frames=frames, bad_pixels=bad_pixels, provenance=provenance)
    if report.geometry_path is None:
        raise RunError("no geometry", where=run.info.path, remedy="Give a CrystFEL geometry.")
    stream = run_indexamajig(
        cxi, geometry=report.geometry_path, cell=cell, stream=cxi.with_suffix(".stream"), params=params
    )
    listed = stream.lattices[
        stream.lattices["frame"] < len(frames)
    ]  # what the list doesn't hold is not of this call
    lattices = listed.assign(frame=frames[listed["frame"].to_numpy()].astype(np.int32))
    methods = {row: method for row, method in stream.indexed_by.items() if row < len(frames)}
    indexed_by = {int(frames[row]): method for row, method in methods.items()}
    return CrystfelResult(lattices, ControlRecord(0, 0, 0.0), indexed_by)


def predict_run(
    run: Run,
    lattices: IndexTable,
    peaks: PeakTable,
    cell: UnitCell,
    params: PredictParams,
    integration: IntegrateParams | None = None,
    *,
    bad: BoolArray,
    progress: Progress | None = None,
) -> tuple[ReflectionTable, CrystalTable]:
    """Predict the reflections of all lattices of a run and integrate them, reading only frames that have a lattice.

    Returns the reflections and what they tell of each crystal. The signal's own counting noise is part of their sigma, by the
    geometry's adu per photon.
    """
    geometry, energy = geometry_of(run), run.photon_energy_ev
    extents = lattice_extents(lattices, peaks, geometry=geometry, photon_energy_ev=energy, params=params)
    predicted = predict_reflections(
        lattices, cell=cell, geometry=geometry, photon_energy_ev=energy, params=params, extents=extents
    )
    parts: list[ReflectionTable] = []
    numbers = sorted(set(predicted["frame"]))
    for done, number in enumerate(numbers, start=1):
        rows = predicted[predicted["frame"] == number]
        frames = run.read(number, number + 1)
        parts.append(
            integrate_reflections(
                frames,
                rows,
                bad_pixels=bad,
                first_frame=number,
                adu_per_photon=gains(geometry),
                params=integration,
                usable=run.usable,
            )
        )
        if progress is not None:
            progress(done, len(numbers))
    reflections = pd.concat(parts, ignore_index=True) if parts else empty_table(REFLECTIONS)
    return reflections, describe_crystals(lattices, reflections, extents)
