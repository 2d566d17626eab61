"""The cell of a peak table's frames; see ``peaknet cell``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.indexing.blind import BlindParams
from peaknet_pipeline.indexing.cell import cell_from_axes, write_cell
from peaknet_pipeline.indexing.consensus import CellConsensus, find_cell
from peaknet_pipeline.indexing.symmetry import primitive_matrix
from peaknet_pipeline.plots.cells import plot_reduced_cells
from peaknet_pipeline.steps.peak_record import read_recorded_peaks
from peaknet_pipeline.types import UnitCell


def consensus_figures(found: CellConsensus) -> dict[str, Any]:
    """Return a found cell and the vote for it as plain figures."""
    vote = {
        "frames_tried": found.n_tried,
        "frames_with_lattice": len(found.agreeing),
        "frames_agreeing": found.n_agreeing,
    }
    return cell_figures(found.cell) | vote | {"source": "found"}


def cell_command(
    peaks: Path, *, geometry: Path, settings: Sequence[str], out: Path, plot: Path | None
) -> dict[str, Any]:
    """Find the cell of a peak table's frames and write it; see ``peaknet cell``.

    Raises
    ------
    TableError, GeometryError, ParameterError
        One of the inputs is unusable.
    RunError
        No photon energy is known.
    IndexingError
        Too few frames agree on a cell.

    """
    params = BlindParams.from_settings(settings)
    recorded = read_recorded_peaks(peaks, geometry)
    found = find_cell(
        recorded.peaks,
        geometry=recorded.geometry,
        photon_energy_ev=recorded.photon_energy_ev,
        params=params,
    )
    write_cell(found.cell, out, made_by="peaknet cell")
    if plot is not None:
        write_file(plot, plot_agreement(found, peaks.stem))
    return consensus_figures(found) | {"out": str(out)} | ({"plot": str(plot)} if plot is not None else {})


def cell_figures(cell: UnitCell) -> dict[str, Any]:
    """Return a cell as plain figures: lattice, Å and degrees."""
    numbers = {
        name: round(float(getattr(cell, name)), 3) for name in ("a", "b", "c", "alpha", "beta", "gamma")
    }
    return {"lattice": f"{cell.lattice_type} {cell.centering}", **numbers}


def plot_agreement(found: CellConsensus, title: str) -> bytes:
    """Draw the reduced cells of the frames tried, those that agree apart from the others."""
    reference = cell_from_axes(primitive_matrix(found.cell))
    return plot_reduced_cells(found.reduced, np.array(found.agreeing), reference, title=title)
