"""The cell of an experiment that brings none: found from its run's own frames."""

from collections.abc import Mapping
from typing import Any

from peaknet_pipeline.indexing.blind import BlindParams
from peaknet_pipeline.indexing.cell import read_cell, write_cell
from peaknet_pipeline.indexing.consensus import CellConsensus, find_cell
from peaknet_pipeline.provenance import Recipe
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.steps.cell_of_run import cell_figures, consensus_figures, plot_agreement
from peaknet_pipeline.store.asset import INGEST, Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import peaks_path
from peaknet_pipeline.store.run_files import found_cell_path, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import read_table

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
            return StageResult(output, cell_figures(cell) | {"source": "given"}, checks=(given,))
        peaks = read_table(peaks_path(store, key, "classical"), PEAKS)
        with open_raw(context) as run:
            found = find_cell(
                peaks, geometry=geometry_of(run), photon_energy_ev=run.photon_energy_ev, params=params
            )
        write_cell(found.cell, output)
        plots = {"reduced_cells": plot_agreement(found, key)}
        return StageResult(output, consensus_figures(found), plots=plots, checks=(frames_agree(found),))

    inputs = [peaks_path(store, key, "classical"), *context.files, *context.settings_files]
    inputs += [context.experiment.cell] if context.experiment.cell is not None else []
    return make_stage("found_cell", parameters=params.to_dict(), inputs=inputs, build=build)


FOUND_CELL_ASSET = Asset(
    found_cell,
    job=INGEST,
    output=found_cell_path,
    deps=("classical_peaks",),
    kinds=("python",),
    parameters=BlindParams,
    checks=("frames_agree",),
)


def frames_agree(found: CellConsensus) -> Check:
    """Check that a good part of the frames tried agree on the cell."""
    share = found.n_agreeing / max(found.n_tried, 1)
    told = f"{found.n_agreeing} of {found.n_tried} frames tried agree; at least {WANTED_AGREEMENT:.0%} wanted"
    return Check("frames_agree", share >= WANTED_AGREEMENT, told)
