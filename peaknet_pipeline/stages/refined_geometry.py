"""A run's geometry refined from its own lattices, as an asset and as ``peaknet refine-geometry``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.geometry_refine import (
    GeometryRefinement,
    GeometryRefineParams,
    refine_geometry,
)
from peaknet_pipeline.plots.geometry import plot_geometry_refinement
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import INDEX, PANEL_RESIDUALS, PEAKS
from peaknet_pipeline.stages.finding import peaks_path
from peaknet_pipeline.stages.index_command import energies_of
from peaknet_pipeline.stages.lattices import index_path
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.provenance import Recipe, origin_of
from peaknet_pipeline.store.run_files import cell_file, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import make_table, read_table, read_table_metadata, write_table


def refined_geometry_path(store: Store, key: str) -> Path:
    """Return where the geometry refined from a run lies."""
    return store.file("refined_geometry", key, ".geom")


def panel_residuals_path(store: Store, key: str) -> Path:
    """Return where the residuals of each panel before and after refinement lie."""
    return store.table("refined_geometry/panels", key)


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

    inputs = [peaks_path(store, key, "classical"), index_path(store, key, "classical"), context.path]
    inputs += [cell_path, *context.settings_files]
    return make_stage("refined_geometry", parameters=params.to_dict(), inputs=inputs, build=build)


def residual_lower(found: GeometryRefinement) -> Check:
    """Check that spots lie no further from their predicted rays than before."""
    told = f"rms distance {found.before_px:.3f} px before, {found.after_px:.3f} px after"
    return Check("residual_not_higher", found.after_px <= 1.02 * found.before_px, told)


def refinement_figures(found: GeometryRefinement) -> dict[str, Any]:
    """Return an outcome as plain figures."""
    shift = {
        f"shift_{xyz}_mm": round(1e3 * value, 4) for xyz, value in zip("xyz", found.shift_m, strict=True)
    }
    return {
        "before_px": round(found.before_px, 4),
        "after_px": round(found.after_px, 4),
        "spots": int(found.panels["n_spots"].sum()),
        **shift,
    }


def refine_geometry_command(
    peaks: Path,
    lattices: Path,
    *,
    geometry: Path,
    cell: Path,
    settings: Sequence[str],
    out: Path,
    plot: Path | None,
) -> dict[str, Any]:
    """Refine a geometry from a peak table and its lattices; see ``peaknet refine-geometry``.

    Raises
    ------
    TableError, GeometryError, CellError, ParameterError
        One of the inputs is unusable.
    RunError
        No photon energy is known.
    IndexingError
        Too few spots are explained.

    """
    params = GeometryRefineParams.from_settings(settings)
    table, metadata = read_table(peaks, PEAKS), read_table_metadata(peaks)
    detector = read_geometry(geometry)
    found = refine_geometry(
        table,
        read_table(lattices, INDEX),
        geometry=detector,
        photon_energy_ev=energies_of(metadata, detector, int(table["frame"].max()) + 1 if len(table) else 0),
        cell=read_cell(cell),
        params=params,
    )
    write_geometry(found.geometry, out, made_by="peaknet refine-geometry")
    if plot is not None:
        write_file(plot, plot_geometry_refinement(found.panels, title=peaks.stem))
    rows = [
        {name: _rounded(value) for name, value in row.items()}
        for row in found.panels.to_dict(orient="records")
    ]
    written = {"out": str(out)} | ({"plot": str(plot)} if plot is not None else {})
    return refinement_figures(found) | written | {"panels": rows}


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
