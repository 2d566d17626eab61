"""The check of label files that a run's peaks agree with its cell."""

from pathlib import Path

from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.examine import CellCheckParams, examine_cell
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.repeats import find_repeats
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import INDEX, PEAKS
from peaknet_pipeline.steps.judge_cell import judge_cell
from peaknet_pipeline.store.paths import index_path, peaks_path
from peaknet_pipeline.store.run_files import RunContext, cell_file, open_raw
from peaknet_pipeline.store.stage_result import Check
from peaknet_pipeline.tables import read_table
from peaknet_pipeline.types import UnitCell


def cell_holds(context: RunContext, finder: str, params: CellCheckParams) -> Check:
    """Check that the peaks of a run, by whichever finder, agree with the cell that it was indexed with."""
    store, key, cell_path = context.store, str(context.key), cell_file(context)
    index = context.experiment.parameters("index", IndexParams)
    peaks = read_table(peaks_path(store, key, finder), PEAKS)
    repeats = find_repeats(peaks, min_frames=index.repeat_frames, min_fraction=index.repeat_fraction)
    cell = read_cell(cell_path)
    with open_raw(context) as run:
        found = examine_cell(
            peaks[~repeats].reset_index(drop=True),
            read_table(index_path(store, key, finder), INDEX),
            geometry=geometry_of(run),
            photon_energy_ev=run.photon_energy_ev,
            cell=cell,
            params=params,
        )
    verdict = judge_cell(found, params)
    told = verdict.message if verdict.passed else f"{verdict.message}. {_remedy(key, cell, cell_path)}"
    return Check("cell_holds", verdict.passed, told)


def _remedy(key: str, cell: UnitCell, path: Path) -> str:
    return (
        f"The cell of {path.name}, {cell}, is likely not the crystal's: peaknet diagnose {key} looks for "
        "the one that is there"
    )
