"""A geometry refined from a peak table and its lattices; see ``peaknet refine-geometry``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.geometry_refine import (
    GeometryRefinement,
    GeometryRefineParams,
    refine_geometry,
)
from peaknet_pipeline.plots.geometry import plot_geometry_refinement
from peaknet_pipeline.schemas import INDEX
from peaknet_pipeline.steps.peak_record import read_recorded_peaks
from peaknet_pipeline.tables import read_table


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
    recorded = read_recorded_peaks(peaks, geometry)
    found = refine_geometry(
        recorded.peaks,
        read_table(lattices, INDEX),
        geometry=recorded.geometry,
        photon_energy_ev=recorded.photon_energy_ev,
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
