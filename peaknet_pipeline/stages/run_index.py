"""Lattices of a run's peaks, by either finder, with the false-index control and the predicted reflections."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.control import MAX_FALSE_RATE, ControlRecord
from peaknet_pipeline.indexing.integrate import IntegrateParams
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.predict import PredictParams
from peaknet_pipeline.plots.distributions import plot_cells
from peaknet_pipeline.provenance import Recipe, network_of, origin_of
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import CRYSTALS, INDEX, PEAKS, REFLECTIONS, IndexTable
from peaknet_pipeline.steps.index_run import index_with_control, index_with_crystfel, predict_run
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.store.asset import INFER, INGEST, MISSING, Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import (
    classical_index_path,
    control_path,
    crystals_path,
    index_path,
    peaknet_index_path,
    peaks_path,
    read_bad_pixels,
    reflections_path,
    statistics_path,
)
from peaknet_pipeline.store.run_files import cell_file, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import read_table, write_json, write_table
from peaknet_pipeline.types import IntArray, UnitCell


def classical_index(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Lattices of a run's classical peaks, their predicted and integrated reflections, and the false-index control."""
    return _index_stage(store, key, "classical", overrides)


CLASSICAL_INDEX_ASSET = Asset(
    classical_index,
    job=INGEST,
    output=classical_index_path,
    deps=("classical_peaks", "found_cell"),
    kinds=("parquet", "pytorch"),
    parameters=IndexParams,
    tables=("lattices", "reflections", "crystals"),
    checks=("false_index_rate",),
)


def peaknet_index(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Lattices of a run's neural peaks, their predicted and integrated reflections, and the false-index control."""
    return _index_stage(store, key, "peaknet", overrides)


PEAKNET_INDEX_ASSET = Asset(
    peaknet_index,
    job=INFER,
    output=peaknet_index_path,
    deps=("peaknet_peaks", "found_cell"),
    kinds=("parquet", "pytorch"),
    parameters=IndexParams,
    tables=("lattices", "reflections", "crystals"),
    checks=("false_index_rate",),
    automation=MISSING,
)


def _index_stage(store: Store, key: str, finder: str, overrides: Mapping[str, Any] | None) -> StageResult:
    context = read_context(store, key)
    params = context.experiment.parameters("index", IndexParams, overrides)
    prediction = context.experiment.parameters("prediction", PredictParams)
    integration = context.experiment.parameters("integration", IntegrateParams)
    min_peaks = context.experiment.min_peaks
    output, cell_path = index_path(store, key, finder), cell_file(context)

    def build(recipe: Recipe) -> StageResult:
        peaks = read_table(peaks_path(store, key, finder), PEAKS)
        origin = origin_of(recipe, run=key, **network_of(peaks_path(store, key, finder)))
        cell = read_cell(cell_path)
        with open_raw(context) as run, progress_bar(f"indexing {key} ({finder})") as progress:
            geometry = geometry_of(run)
            energy, bad = run.photon_energy_ev, read_bad_pixels(store, key)
            if context.experiment.engine == "indexamajig":
                cxi = store.file(f"{finder}_index/crystfel", key, ".cxi")
                found = index_with_crystfel(
                    run, peaks, cell_path, cxi, bad_pixels=bad, min_peaks=min_peaks, provenance=origin
                )
                table, control = found.lattices, found.control
            else:
                table, control = index_with_control(
                    peaks, geometry, energy, cell, params, min_peaks=min_peaks
                )
            reflections, crystals = predict_run(
                run, table, peaks, cell, prediction, integration, bad=bad, progress=progress
            )
            n_frames = run.n_frames
        write_table(table, output, INDEX, extra={**origin, "n_frames": str(n_frames)})
        write_table(reflections, reflections_path(store, key, finder), REFLECTIONS, extra=origin)
        write_table(crystals, crystals_path(store, key, finder), CRYSTALS, extra=origin)
        write_json(control_path(store, key, finder), dataclasses.asdict(control))
        hits = hit_frames(peaks, min_peaks=min_peaks)
        return _result(store, key, finder, table, control, n_frames=n_frames, cell=cell, hits=hits)

    inputs = [peaks_path(store, key, finder), statistics_path(store, key), *context.files]
    inputs += [cell_path, *context.settings_files]
    parameters = {"index": params.to_dict(), "prediction": prediction.to_dict(), "min_peaks": min_peaks}
    parameters |= {"integration": integration.to_dict()}
    return make_stage(f"{finder}_index", parameters=parameters, inputs=inputs, build=build)


def _result(
    store: Store,
    key: str,
    finder: str,
    table: IndexTable,
    control: ControlRecord,
    *,
    n_frames: int,
    cell: UnitCell,
    hits: IntArray,
) -> StageResult:
    indexed = table["frame"].nunique()
    figures: dict[str, Any] = {
        "frames": n_frames,
        "indexed": indexed,
        "hits": len(hits),
        "indexed_hits": int(np.isin(hits, table["frame"]).sum()),
        "lattices": len(table),
        "indexing_yield": indexed / max(n_frames, 1),
        "false_indexed": control.n_indexed,
        "scrambled": control.n_scrambled,
        "gate": control.min_significance,
        "median_residual": float(table["residual"].median()) if len(table) else 0.0,
    }
    told = f"{control.n_indexed} of {control.n_scrambled} scrambled hits index; at most {MAX_FALSE_RATE:.1%} wanted"
    check = Check("false_index_rate", control.rate <= MAX_FALSE_RATE, told)
    output = index_path(store, key, finder)
    tables = {"lattices": output, "reflections": reflections_path(store, key, finder)}
    tables |= {"crystals": crystals_path(store, key, finder)}
    plots = {"cell_parameters": plot_cells({finder: table}, cell, title=key)} if len(table) else {}
    return StageResult(output, figures, tables, plots, (check,))
