"""A run's geometry, refined by itself from the run's peaks, and how it moved over the runs of an experiment."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.geometry_motion import detector_motion
from peaknet_pipeline.indexing.geometry_search import GeometrySearch, GeometrySearchParams, search_geometry
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.plots.geometry import plot_geometry_refinement, plot_geometry_trend
from peaknet_pipeline.provenance import Recipe, origin_of
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import GEOMETRY_TREND, PANEL_RESIDUALS, PEAKS
from peaknet_pipeline.steps.refine_run_geometry import search_figures
from peaknet_pipeline.store.asset import MISSING, Asset
from peaknet_pipeline.store.experiment import refined_runs
from peaknet_pipeline.store.keys import parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import (
    geometry_trend_path,
    panel_residuals_path,
    peaks_path,
    refined_geometry_path,
)
from peaknet_pipeline.store.run_files import RunContext, cell_file, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import empty_table, make_table, read_table, write_table
from peaknet_pipeline.types import Geometry

MOTION = ("shift_x_mm", "shift_y_mm", "shift_z_mm", "tilt_x_deg", "tilt_y_deg")


def refined_geometry(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Geometry refined from the run's peaks where held-out frames speak for it; geometry: auto uses it from the next run on."""
    context = read_context(store, key)
    params = context.experiment.parameters("refine_geometry", GeometrySearchParams, overrides)
    index = context.experiment.parameters("index", IndexParams)
    output, cell_path = refined_geometry_path(store, key), cell_file(context)
    if context.experiment.cell is None:  # the cell came from this very distance, and would agree with any
        params = replace(params, refine_distance=False, search_distance=0.0)

    def build(recipe: Recipe) -> StageResult:
        peaks = read_table(peaks_path(store, key, "classical"), PEAKS)
        with open_raw(context) as run:
            given, energy = geometry_of(run), run.photon_energy_ev
        found = search_geometry(
            peaks,
            geometry=given,
            photon_energy_ev=energy,
            cell=read_cell(cell_path),
            index=index,
            params=params,
        )
        write_geometry(found.geometry, output)
        origin = origin_of(recipe, run=key)
        residuals, trend = _residuals(found), _trend(context, given, found)
        write_table(residuals, panel_residuals_path(store, key), PANEL_RESIDUALS, extra=origin)
        write_table(trend, geometry_trend_path(store, key), GEOMETRY_TREND, extra=origin)
        tables = {
            "panel_residuals": panel_residuals_path(store, key),
            "geometry_trend": geometry_trend_path(store, key),
        }
        plots = {
            "panels": plot_geometry_refinement(residuals, title=key),
            "trend": plot_geometry_trend(read_trend(store, key), title=context.experiment.name),
        }
        return StageResult(output, search_figures(given, found), tables, plots, (proved(found),))

    inputs = [peaks_path(store, key, "classical"), *context.files, cell_path, *context.settings_files]
    parameters = {"refine_geometry": params.to_dict(), "index": index.to_dict()}
    return make_stage("refined_geometry", parameters=parameters, inputs=inputs, build=build)


REFINED_GEOMETRY_ASSET = Asset(
    refined_geometry,
    output=refined_geometry_path,
    deps=("classical_peaks", "found_cell"),
    kinds=("parquet", "python"),
    parameters=GeometrySearchParams,
    tables=("panel_residuals", "geometry_trend"),
    checks=("residual_not_higher",),
    automation=MISSING,
)


def proved(found: GeometrySearch) -> Check:
    """Check that held-out spots lie no further from their predicted rays than before, and that no fewer frames index."""
    before, after = found.held_out_px
    told = found.told
    if found.freed:
        told += f"; held-out spots lie {before:.3f} px from their rays before, {after:.3f} px after"
    holds = not found.freed or (after <= before and found.after >= found.before)
    return Check("residual_not_higher", holds, told)


def read_trend(store: Store, key: str) -> pd.DataFrame:
    """Return what was refined of the experiment's runs up to this one, a row each, in their order."""
    runs = [
        run for run in refined_runs(store, parse_key(key).experiment) if run.number <= parse_key(key).number
    ]
    paths = [path for path in (geometry_trend_path(store, str(run)) for run in runs) if path.is_file()]
    tables = [read_table(path, GEOMETRY_TREND) for path in paths]
    return pd.concat(tables, ignore_index=True) if tables else empty_table(GEOMETRY_TREND)


def _residuals(found: GeometrySearch) -> pd.DataFrame:
    if found.residuals is None:
        return empty_table(PANEL_RESIDUALS)
    return make_table(PANEL_RESIDUALS, {n: found.residuals.panels[n] for n in PANEL_RESIDUALS.column_names()})


def _trend(context: RunContext, given: Geometry, found: GeometrySearch) -> pd.DataFrame:
    """Return the run's row: where the detector is, as against the geometry that came with the experiment."""
    shift, turn, _ = detector_motion(given, found.geometry)
    moved = np.concatenate([1e3 * shift, np.degrees(turn[:2])]) + _moved_before(context)
    row: dict[str, object] = {
        "experiment": context.experiment.name,
        "run": str(context.key),
        "begun_with": context.experiment.geometry.name,
        "freed": ", ".join(found.freed),
        "frames_tried": found.tried,
        "indexed_before": found.before,
        "indexed_after": found.after,
        "held_out_before_px": found.held_out_px[0],
        "held_out_after_px": found.held_out_px[1],
        **dict(zip(MOTION, moved, strict=True)),
    }
    return make_table(GEOMETRY_TREND, {name: [value] for name, value in row.items()})


def _moved_before(context: RunContext) -> Any:
    """Return how the geometry that the run was given had moved already: refined from an earlier run, or not at all."""
    for run in refined_runs(context.store, context.experiment.name):
        path = geometry_trend_path(context.store, str(run))
        begun_with = refined_geometry_path(context.store, str(run))
        if begun_with == context.experiment.geometry and run != context.key and path.is_file():
            return read_table(path, GEOMETRY_TREND)[list(MOTION)].to_numpy(np.float64)[0]
    return np.zeros(len(MOTION))
