"""The cell of an experiment that brings none: found from its run's own frames, as an asset and as ``peaknet cell``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.indexing.blind import BlindParams
from peaknet_pipeline.indexing.cell import cell_from_axes, read_cell, write_cell
from peaknet_pipeline.indexing.consensus import CellConsensus, find_cell
from peaknet_pipeline.indexing.symmetry import primitive_matrix
from peaknet_pipeline.plots.cells import plot_reduced_cells
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.stages.finding import peaks_path
from peaknet_pipeline.stages.index_command import energies_of
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.provenance import Recipe
from peaknet_pipeline.store.run_files import found_cell_path, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import read_table, read_table_metadata
from peaknet_pipeline.types import UnitCell

WANTED_AGREEMENT = 0.25
"""Share of the frames tried that should agree on a found cell; below it the cell is flagged."""


def found_cell(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Unit cell that the run is indexed with: the experiment's own ``.cell``, else what the run's frames agree on."""
    context = read_context(store, key)
    params = context.experiment.parameters("cell_search", BlindParams, overrides)
    output = found_cell_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        if context.experiment.cell is not None:
            cell = read_cell(context.experiment.cell)
            write_cell(cell, output)
            given = Check("frames_agree", True, f"given by {context.experiment.cell.name}")
            return StageResult(output, _figures(cell) | {"source": "given"}, checks=(given,))
        peaks = read_table(peaks_path(store, key, "classical"), PEAKS)
        with open_raw(context) as run:
            found = find_cell(
                peaks, geometry=geometry_of(run), photon_energy_ev=run.photon_energy_ev, params=params
            )
        write_cell(found.cell, output)
        plots = {"reduced_cells": _plot(found, key)}
        return StageResult(output, consensus_figures(found), plots=plots, checks=(frames_agree(found),))

    inputs = [peaks_path(store, key, "classical"), context.path, *context.settings_files]
    inputs += [context.experiment.cell] if context.experiment.cell is not None else []
    return make_stage("found_cell", parameters=params.to_dict(), inputs=inputs, build=build)


def frames_agree(found: CellConsensus) -> Check:
    """Check that a good part of the frames tried agree on the cell."""
    share = found.n_agreeing / max(found.n_tried, 1)
    told = f"{found.n_agreeing} of {found.n_tried} frames tried agree; at least {WANTED_AGREEMENT:.0%} wanted"
    return Check("frames_agree", share >= WANTED_AGREEMENT, told)


def consensus_figures(found: CellConsensus) -> dict[str, Any]:
    """Return a found cell and the vote for it as plain figures."""
    vote = {
        "frames_tried": found.n_tried,
        "frames_with_lattice": len(found.agreeing),
        "frames_agreeing": found.n_agreeing,
    }
    return _figures(found.cell) | vote | {"source": "found"}


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
    table, metadata = read_table(peaks, PEAKS), read_table_metadata(peaks)
    detector = read_geometry(geometry)
    energy = energies_of(metadata, detector, int(table["frame"].max()) + 1 if len(table) else 0)
    found = find_cell(table, geometry=detector, photon_energy_ev=energy, params=params)
    write_cell(found.cell, out, made_by="peaknet cell")
    if plot is not None:
        write_file(plot, _plot(found, peaks.stem))
    return consensus_figures(found) | {"out": str(out)} | ({"plot": str(plot)} if plot is not None else {})


def _figures(cell: UnitCell) -> dict[str, Any]:
    numbers = {
        name: round(float(getattr(cell, name)), 3) for name in ("a", "b", "c", "alpha", "beta", "gamma")
    }
    return {"lattice": f"{cell.lattice_type} {cell.centering}", **numbers}


def _plot(found: CellConsensus, title: str) -> bytes:
    reference = cell_from_axes(primitive_matrix(found.cell))
    return plot_reduced_cells(found.reduced, np.array(found.agreeing), reference, title=title)
