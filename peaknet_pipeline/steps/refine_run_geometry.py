"""A geometry refined from a peak table, and its lattices where they are given; see ``peaknet refine-geometry``."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.errors import IndexingError
from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.geometry_motion import detector_motion
from peaknet_pipeline.indexing.geometry_refine import (
    GeometryRefinement,
    GeometryRefineParams,
    refine_geometry,
)
from peaknet_pipeline.indexing.geometry_search import GeometrySearch, GeometrySearchParams, search_geometry
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.plots.geometry import plot_geometry_refinement
from peaknet_pipeline.schemas import INDEX, IndexTable
from peaknet_pipeline.steps.peak_record import RecordedPeaks, read_recorded_peaks
from peaknet_pipeline.tables import read_table
from peaknet_pipeline.types import Geometry, UnitCell


def refinement_figures(found: GeometryRefinement) -> dict[str, Any]:
    """Return an outcome as plain figures."""
    shift = {
        f"shift_{xyz}_mm": round(1e3 * value, 4) for xyz, value in zip("xyz", found.shift_m, strict=True)
    }
    tilt = {
        f"tilt_{xy}_deg": round(math.degrees(value), 4)
        for xy, value in zip("xy", found.tilt_rad, strict=True)
    }
    return {
        "before_px": round(found.before_px, 4),
        "after_px": round(found.after_px, 4),
        "spots": int(found.panels["n_spots"].sum()),
        **shift,
        **tilt,
    }


def search_figures(given: Geometry, found: GeometrySearch) -> dict[str, Any]:
    """Return an outcome of the search from peaks alone as plain figures."""
    shift, turn, _ = detector_motion(given, found.geometry)
    before, after = found.held_out_px
    proved = {"held_out_before_px": round(before, 4), "held_out_after_px": round(after, 4)}
    return {
        "refined": ", ".join(found.freed) or "nothing",
        "frames_tried": found.tried,
        "indexed_before": found.before,
        "indexed_after": found.after,
        **(proved if found.freed else {}),
        **{f"shift_{xyz}_mm": round(1e3 * float(v), 4) for xyz, v in zip("xyz", shift, strict=True)},
        **{f"tilt_{xy}_deg": round(math.degrees(v), 4) for xy, v in zip("xy", turn[:2], strict=True)},
        "told": found.told,
    }


TOLD_SCALE = 2e-3
"""Relative change of the distance from which on the cell is asked about: one rounded to 0.1 Å of 50 Å is off by so much."""


def distance_doubt(found: GeometryRefinement, params: GeometryRefineParams) -> str:
    """Return what to say of a distance that moved: it and the cell's size tell the same spots apart; empty if it didn't.

    Spots fix the ratio of camera length and cell alone, so that a cell file whose lengths are rounded, or of another
    crystal of the kind, moves the detector.
    """
    shift = found.shift_m[2]
    clen = float(np.median([panel.clen_m for panel in found.geometry.panels]))
    if not params.refine_distance or abs(shift) < TOLD_SCALE * clen:
        return ""
    return (
        f"The distance moved by {1e3 * shift:+.2f} mm, {abs(shift) / clen:.2%} of it: a cell whose lengths are off by as much "
        "does the same. Are the lengths in the cell file exact? If not, keep the distance: --set refine_distance=false."
    )


def refine_geometry_command(
    peaks: Path,
    lattices: Path | None,
    *,
    geometry: Path,
    cell: Path,
    settings: Sequence[str],
    out: Path,
    plot: Path | None,
) -> dict[str, Any]:
    """Refine a geometry from a peak table; see ``peaknet refine-geometry``.

    Without lattices the peaks are indexed here, and only what held-out frames and the yield speak for is refined.

    Raises
    ------
    TableError, GeometryError, CellError, ParameterError
        One of the inputs is unusable.
    RunError
        No photon energy is known.
    IndexingError
        Too few spots are explained.

    """
    params = GeometrySearchParams.from_settings(settings)
    recorded = read_recorded_peaks(peaks, geometry)
    refined, table, told = (
        _from_peaks(recorded, read_cell(cell), params)
        if lattices is None
        else _from_lattices(recorded, read_table(lattices, INDEX), read_cell(cell), params)
    )
    write_geometry(refined, out, made_by="peaknet refine-geometry")
    if plot is not None:
        write_file(plot, plot_geometry_refinement(table, title=peaks.stem))
    rows = [{name: _rounded(value) for name, value in row.items()} for row in table.to_dict(orient="records")]
    written = {"out": str(out)} | ({"plot": str(plot)} if plot is not None else {})
    return told | written | {"panels": rows}


Refined = tuple[Geometry, pd.DataFrame, dict[str, Any]]
"""A geometry, the residuals of its panels, and figures."""


def _from_lattices(
    recorded: RecordedPeaks, lattices: IndexTable, cell: UnitCell, params: GeometrySearchParams
) -> Refined:
    found = refine_geometry(
        recorded.peaks,
        lattices,
        geometry=recorded.geometry,
        photon_energy_ev=recorded.photon_energy_ev,
        cell=cell,
        params=params,
    )
    doubt = distance_doubt(found, params)
    return found.geometry, found.panels, refinement_figures(found) | ({"doubts": [doubt]} if doubt else {})


def _from_peaks(recorded: RecordedPeaks, cell: UnitCell, params: GeometrySearchParams) -> Refined:
    found = search_geometry(
        recorded.peaks,
        geometry=recorded.geometry,
        photon_energy_ev=recorded.photon_energy_ev,
        cell=cell,
        index=IndexParams(),
        params=params,
    )
    if found.residuals is None:
        raise IndexingError(
            "no lattice to refine a geometry from",
            expected=f"≥ {params.min_indexed} indexed frames",
            found=found.told,
            remedy="Check the cell and the geometry; peaknet diagnose says more.",
        )
    return found.geometry, found.residuals.panels, search_figures(recorded.geometry, found)


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
