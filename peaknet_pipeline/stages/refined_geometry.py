"""A run's geometry refined from its own lattices."""

from collections.abc import Mapping
from typing import Any

from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.geometry_refine import (
    GeometryRefinement,
    GeometryRefineParams,
    refine_geometry,
)
from peaknet_pipeline.plots.geometry import plot_geometry_refinement
from peaknet_pipeline.provenance import Recipe, origin_of
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import INDEX, PANEL_RESIDUALS, PEAKS
from peaknet_pipeline.steps.refine_run_geometry import refinement_figures
from peaknet_pipeline.store.asset import Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import index_path, panel_residuals_path, peaks_path, refined_geometry_path
from peaknet_pipeline.store.run_files import cell_file, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import make_table, read_table, write_table


def refined_geometry(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Geometry refined from the run's lattices: distance, shift, panels; used where experiment.yaml says geometry: refined."""
    context = read_context(store, key)
    params = context.experiment.parameters("refine_geometry", GeometryRefineParams, overrides)
    output = refined_geometry_path(store, key)
    cell_path = cell_file(context)

    def build(recipe: Recipe) -> StageResult:
        peaks = read_table(peaks_path(store, key, "classical"), PEAKS)
        lattices = read_table(index_path(store, key, "classical"), INDEX)
        with open_raw(context) as run:
            found = refine_geometry(
                peaks,
                lattices,
                geometry=geometry_of(run),
                photon_energy_ev=run.photon_energy_ev,
                cell=read_cell(cell_path),
                params=params,
            )
        write_geometry(found.geometry, output)
        table = panel_residuals_path(store, key)
        residuals = make_table(PANEL_RESIDUALS, {n: found.panels[n] for n in PANEL_RESIDUALS.column_names()})
        write_table(residuals, table, PANEL_RESIDUALS, extra=origin_of(recipe, run=key))
        plots = {"panels": plot_geometry_refinement(residuals, title=key)}
        tables = {"panel_residuals": table}
        return StageResult(output, refinement_figures(found), tables, plots, (residual_lower(found),))

    inputs = [peaks_path(store, key, "classical"), index_path(store, key, "classical"), *context.files]
    inputs += [cell_path, *context.settings_files]
    return make_stage("refined_geometry", parameters=params.to_dict(), inputs=inputs, build=build)


REFINED_GEOMETRY_ASSET = Asset(
    refined_geometry,
    output=refined_geometry_path,
    deps=("classical_peaks", "classical_index"),
    kinds=("parquet", "python"),
    parameters=GeometryRefineParams,
    tables=("panel_residuals",),
    checks=("residual_not_higher",),
)


def residual_lower(found: GeometryRefinement) -> Check:
    """Check that spots lie no further from their predicted rays than before."""
    told = f"rms distance {found.before_px:.3f} px before, {found.after_px:.3f} px after"
    return Check("residual_not_higher", found.after_px <= 1.02 * found.before_px, told)
