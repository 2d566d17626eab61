"""Indexing of a run's peaks, by whichever finder, with its false-index control and predicted reflections."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.control import calibrate_gate, false_index_control, scramble_peaks
from peaknet_pipeline.indexing.indexamajig import IndexamajigParams, find_indexamajig, run_indexamajig
from peaknet_pipeline.indexing.integrate import integrate_reflections
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.predict import PredictParams, predict_reflections
from peaknet_pipeline.plots.distributions import plot_cells
from peaknet_pipeline.runs.cxi import write_cxi_peaks
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.schemas import INDEX, PEAKS, REFLECTIONS, IndexTable, PeakTable, ReflectionTable
from peaknet_pipeline.stages.finding import peaks_path
from peaknet_pipeline.stages.ingest import read_bad_pixels, statistics_path
from peaknet_pipeline.steps.progress import Progress, progress_bar
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.provenance import Recipe, network_of, origin_of
from peaknet_pipeline.store.run_files import cell_file, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import empty_table, read_table, write_json, write_table
from peaknet_pipeline.types import BoolArray, Float64Array, Geometry, IntArray, UnitCell

LABEL_PREDICTION = {"profile_quantile": 0.97, "resolution_margin": 1.15}
"""Labels want every reflection that may be seen, so prediction reaches a little beyond the peaks found."""

MAX_FALSE_RATE = 0.005
"""False-index rate above which a run's indexing is flagged."""


@dataclass(frozen=True)
class ControlRecord:
    """The false-index control of one run and finder: hits with scrambled azimuths, and how many of them indexed."""

    n_scrambled: int
    n_indexed: int
    min_significance: float


MIN_CONTROL_PEAKS = 15
"""Frames with fewer peaks are no hits and not part of a control's denominator."""


def index_path(store: Store, key: str, finder: str) -> Path:
    """Return where a run's lattices lie; ``finder`` is classical or peaknet."""
    return store.table(f"{finder}_index", key)


def classical_index_path(store: Store, key: str) -> Path:
    """Return where the lattices of a run's classical peaks lie."""
    return index_path(store, key, "classical")


def peaknet_index_path(store: Store, key: str) -> Path:
    """Return where the lattices of a run's neural peaks lie."""
    return index_path(store, key, "peaknet")


def reflections_path(store: Store, key: str, finder: str) -> Path:
    """Return where the reflections predicted from a run's lattices lie."""
    return store.table(f"{finder}_index/reflections", key)


def control_path(store: Store, key: str, finder: str) -> Path:
    """Return where the false-index control of a run lies."""
    return store.file(f"{finder}_index/control", key, ".json")


def read_control(store: Store, key: str, finder: str) -> ControlRecord:
    """Read the false-index control that was made with the lattices."""
    path = control_path(store, key, finder)
    if not path.is_file():
        raise RunError(
            "no false-index control", where=path, remedy=f"Materialize {finder}_index for this run first."
        )
    values = json.loads(path.read_text(encoding="utf-8"))
    return ControlRecord(**values)


def classical_index(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Lattices of a run's classical peaks, their predicted and integrated reflections, and the false-index control."""
    return _index_stage(store, key, "classical", overrides)


def peaknet_index(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Lattices of a run's neural peaks, their predicted and integrated reflections, and the false-index control."""
    return _index_stage(store, key, "peaknet", overrides)


def _index_stage(store: Store, key: str, finder: str, overrides: Mapping[str, Any] | None) -> StageResult:
    context = read_context(store, key)
    params = context.experiment.parameters("index", IndexParams, overrides)
    prediction = context.experiment.parameters("prediction", PredictParams, defaults=LABEL_PREDICTION)
    output, cell_path = index_path(store, key, finder), cell_file(context)

    def build(recipe: Recipe) -> StageResult:
        peaks = read_table(peaks_path(store, key, finder), PEAKS)
        origin = origin_of(recipe, run=key, **network_of(peaks_path(store, key, finder)))
        cell = read_cell(cell_path)
        with open_raw(context) as run, progress_bar(f"indexing {key} ({finder})") as progress:
            geometry = geometry_of(run)
            energy = run.photon_energy_ev
            if context.experiment.engine == "indexamajig":
                cxi = store.file(f"{finder}_index/crystfel", key, ".cxi")
                table, control = index_with_crystfel(run, peaks, cell_path, cxi, provenance=origin)
            else:
                table, control = index_with_control(peaks, geometry, energy, cell, params)
            bad = read_bad_pixels(store, key)
            reflections = predict_run(run, table, peaks, cell, prediction, bad=bad, progress=progress)
            n_frames = run.n_frames
        write_table(table, output, INDEX, extra={**origin, "n_frames": str(n_frames)})
        write_table(reflections, reflections_path(store, key, finder), REFLECTIONS, extra=origin)
        write_json(control_path(store, key, finder), dataclasses.asdict(control))
        return _result(store, key, finder, table, control, n_frames=n_frames, cell=cell)

    inputs = [peaks_path(store, key, finder), statistics_path(store, key), context.path]
    inputs += [cell_path, *context.settings_files]
    parameters = {"index": params.to_dict(), "prediction": prediction.to_dict()}
    return make_stage(f"{finder}_index", parameters=parameters, inputs=inputs, build=build)


def index_with_control(
    peaks: PeakTable, geometry: Geometry, photon_energy_ev: Float64Array, cell: UnitCell, params: IndexParams
) -> tuple[IndexTable, ControlRecord]:
    """Index a run with a gate that its own azimuth-scrambled hits do not pass; return the lattices and the control.

    The gate is only ever raised above the given one; the control told is the one at the gate that was used.
    """
    control = false_index_control(
        peaks, geometry=geometry, photon_energy_ev=photon_energy_ev, cell=cell, params=params
    )
    gate = calibrate_gate(params, control, wanted_rate=MAX_FALSE_RATE)
    table = index_peaks(peaks, geometry=geometry, photon_energy_ev=photon_energy_ev, cell=cell, params=gate)
    passed = sum(value >= gate.min_significance for value in control.significance)
    return table, ControlRecord(len(control.significance), passed, gate.min_significance)


def index_with_crystfel(
    run: Run,
    peaks: PeakTable,
    cell: Path,
    cxi: Path,
    params: IndexamajigParams | None = None,
    *,
    provenance: Mapping[str, str] | None = None,
) -> tuple[IndexTable, ControlRecord]:
    """Index with CrystFEL's indexamajig from a CXI peak list written for it, and its hits once more with scrambled azimuths.

    Lists, streams and logs are kept: the control's in the folder ``control`` beside the others. Its gate isn't ours to
    raise, so that a false-index rate above the wanted one is only told.

    Raises
    ------
    IndexingError
        The program is missing or failed.

    """
    find_indexamajig()
    table = _call_crystfel(run, peaks, cell, cxi, params, provenance=provenance)
    counts = np.bincount(peaks["frame"].to_numpy(dtype=np.int64), minlength=run.n_frames)
    hits = np.flatnonzero(counts >= MIN_CONTROL_PEAKS)
    if not hits.size:
        return table, ControlRecord(0, 0, 0.0)
    scrambled = scramble_peaks(peaks[peaks["frame"].isin(hits)], geometry_of(run))
    false = _call_crystfel(
        run, scrambled, cell, _control_list(cxi), params, frames=hits, provenance=provenance
    )
    return table, ControlRecord(int(hits.size), int(false["frame"].nunique()), 0.0)


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
    cell: Path,
    cxi: Path,
    params: IndexamajigParams | None,
    *,
    frames: IntArray | None = None,
    provenance: Mapping[str, str] | None = None,
) -> IndexTable:
    cxi.parent.mkdir(parents=True, exist_ok=True)
    report = write_cxi_peaks(cxi, peaks, run, frames=frames, provenance=provenance)
    if report.geometry_path is None:
        raise RunError("no geometry", where=run.info.path, remedy="Give a CrystFEL geometry.")
    stream = run_indexamajig(
        cxi, geometry=report.geometry_path, cell=cell, stream=cxi.with_suffix(".stream"), params=params
    )
    return stream.lattices


def predict_run(
    run: Run,
    lattices: IndexTable,
    peaks: PeakTable,
    cell: UnitCell,
    params: PredictParams,
    *,
    bad: BoolArray,
    progress: Progress | None = None,
) -> ReflectionTable:
    """Predict the reflections of all lattices of a run and integrate them, reading only frames that have a lattice."""
    geometry = geometry_of(run)
    predicted = predict_reflections(
        lattices,
        peaks=peaks,
        cell=cell,
        geometry=geometry,
        photon_energy_ev=run.photon_energy_ev,
        params=params,
    )
    parts: list[ReflectionTable] = []
    numbers = sorted(set(predicted["frame"]))
    for done, number in enumerate(numbers, start=1):
        rows = predicted[predicted["frame"] == number]
        frames = run.read(number, number + 1)
        parts.append(integrate_reflections(frames, rows, bad_pixels=bad, first_frame=number))
        if progress is not None:
            progress(done, len(numbers))
    return pd.concat(parts, ignore_index=True) if parts else empty_table(REFLECTIONS)


def _result(
    store: Store,
    key: str,
    finder: str,
    table: IndexTable,
    control: ControlRecord,
    *,
    n_frames: int,
    cell: UnitCell,
) -> StageResult:
    indexed = table["frame"].nunique()
    rate = control.n_indexed / control.n_scrambled if control.n_scrambled else 0.0
    figures: dict[str, Any] = {
        "frames": n_frames,
        "indexed": indexed,
        "lattices": len(table),
        "indexing_yield": indexed / max(n_frames, 1),
        "false_indexed": control.n_indexed,
        "scrambled": control.n_scrambled,
        "gate": control.min_significance,
        "median_residual": float(table["residual"].median()) if len(table) else 0.0,
    }
    told = f"{control.n_indexed} of {control.n_scrambled} scrambled hits index; at most {MAX_FALSE_RATE:.1%} wanted"
    check = Check("false_index_rate", rate <= MAX_FALSE_RATE, told)
    output = index_path(store, key, finder)
    tables = {"lattices": output, "reflections": reflections_path(store, key, finder)}
    plots = {"cell_parameters": plot_cells({finder: table}, cell, title=key)} if len(table) else {}
    return StageResult(output, figures, tables, plots, (check,))
