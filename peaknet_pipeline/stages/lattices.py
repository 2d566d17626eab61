"""Indexing of a run's peaks, by whichever finder, with its false-index control and predicted reflections."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.control import false_index_control
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.predict import PredictParams
from peaknet_pipeline.stages.context import open_raw, read_context
from peaknet_pipeline.stages.finding import peaks_path
from peaknet_pipeline.stages.ingest import read_bad_pixels, statistics_path
from peaknet_pipeline.stages.making import make_stage
from peaknet_pipeline.stages.progress import progress_bar
from peaknet_pipeline.stages.provenance import Recipe
from peaknet_pipeline.stages.result import StageResult
from peaknet_pipeline.stages.store import Store
from peaknet_pipeline.tables import read_table, write_table
from peaknet_pipeline.types import (
    INDEX,
    PEAKS,
    REFLECTIONS,
)

MAX_FALSE_RATE = 0.005
"""False-index rate above which a run's indexing is flagged."""


@dataclass(frozen=True)
class ControlRecord:
    """The false-index control of one run and finder: hits with scrambled azimuths, and how many of them indexed."""

    n_scrambled: int
    n_indexed: int


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
    return ControlRecord(int(values["n_scrambled"]), int(values["n_indexed"]))


def classical_index(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Lattices of a run's classical peaks, their predicted and integrated reflections, and the false-index control."""
    return _index_stage(store, key, "classical", overrides)


def peaknet_index(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Lattices of a run's neural peaks, their predicted and integrated reflections, and the false-index control."""
    return _index_stage(store, key, "peaknet", overrides)


def _index_stage(store: Store, key: str, finder: str, overrides: Mapping[str, Any] | None) -> StageResult:
    context = read_context(store, key)
    params = context.experiment.parameters("index", IndexParams, overrides)
    prediction = context.experiment.parameters("prediction", PredictParams)
    output = index_path(store, key, finder)

    def build(recipe: Recipe) -> StageResult:
        peaks = read_table(peaks_path(store, key, finder), PEAKS)
        cell = read_cell(context.experiment.cell)
        with open_raw(context) as run, progress_bar(f"indexing {key} ({finder})") as progress:
            geometry = run.geometry or context.geometry
            energy = run.photon_energy_ev
            table = index_peaks(peaks, geometry=geometry, photon_energy_ev=energy, cell=cell, params=params)
            control = false_index_control(
                peaks, geometry=geometry, photon_energy_ev=energy, cell=cell, params=params
            )
            bad = read_bad_pixels(store, key)
            reflections = predict_run(run, table, peaks, cell, prediction, bad=bad, progress=progress)
            n_frames = run.n_frames
        write_table(
            table, output, INDEX, extra={"recipe": recipe.digest(), "run": key, "n_frames": str(n_frames)}
        )
        write_table(reflections, reflections_path(store, key, finder), REFLECTIONS)
        write_json(control_path(store, key, finder), dataclasses.asdict(control))
        return _result(store, key, finder, table, control, n_frames=n_frames, cell=cell)

    inputs = [peaks_path(store, key, finder), statistics_path(store, key), context.path]
    inputs += [context.experiment.cell, *context.settings_files]
    parameters = {"index": params.to_dict(), "prediction": prediction.to_dict()}
    return make_stage(f"{finder}_index", parameters=parameters, inputs=inputs, build=build)


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
        lattices, peaks=peaks, cell=cell, geometry=geometry, photon_energy_ev=run.photon_energy_ev, params=params
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


def index_command(
    peaks: Path,
    *,
    geometry: Path,
    cell: Path,
    engine: str,
    settings: Sequence[str],
    out: Path,
    stream: Path | None,
) -> dict[str, Any]:
    """Index a peak table and write its lattices; see ``peaknet index``."""
    table = read_table(peaks, PEAKS)
    metadata = read_table_metadata(peaks)
    detector, target = read_geometry(geometry), read_cell(cell)
    energy = energies_of(metadata, detector, len(set(table["frame"])) and int(table["frame"].max()) + 1)
    params = IndexParams.from_settings(settings)
    start = time.perf_counter()
    lattices = index_peaks(table, geometry=detector, photon_energy_ev=energy, cell=target, params=params)
    seconds = time.perf_counter() - start
    write_table(lattices, out, INDEX, extra={"peaks": str(peaks), "cell": str(cell)})
    n_frames = int(metadata.get("n_frames", len(energy)))
    control = false_index_control(table, geometry=detector, photon_energy_ev=energy, cell=target, params=params)
    indexed = lattices["frame"].nunique()
    return {
        "frames": n_frames,
        "frames_with_peaks": table["frame"].nunique(),
        "indexed": indexed,
        "lattices": len(lattices),
        "indexing_yield": round(indexed / max(n_frames, 1), 4),
        "false_indexed": control.n_indexed,
        "scrambled": control.n_scrambled,
        "frames_per_second": round(table["frame"].nunique() / max(seconds, 1e-9), 2),
        "out": str(out),
    }
